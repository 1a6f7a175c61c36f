//! What each command does: check everything, then change.

mod branches;
pub(crate) mod certificate;
mod evidence;
mod governance;
mod membership;
pub(crate) mod plans;
mod retention;
pub(crate) mod rounds;
pub(crate) mod versions;

use fedledger_ledger::{PublicKey, machine::WriteSet};

use crate::{
    Command, Event, Federation, Rejection,
    command::Metrics,
    limits::{METRICS_MAX, NAME_LENGTH_MAX, TEXT_LENGTH_MAX},
    member::{Author, Capacity, MemberId, Role, is_name},
};

/// One, in the fixed-point numbers of metrics.
const MILLIONTHS: i64 = 1_000_000;

/// What a command's handler needs beside the state.
struct Context<'a> {
    index: u64,
    author: &'a Author,
    kind: &'static str,
    writes: &'a mut WriteSet,
}

/// Applies one transaction; see [`StateMachine`](fedledger_ledger::machine::StateMachine).
pub(crate) fn apply(
    state: &mut Federation,
    index: u64,
    author: &PublicKey,
    kind: &str,
    payload: &[u8],
    writes: &mut WriteSet,
) -> Result<Event, Rejection> {
    let author = find_author(state, author)?;
    let command = Command::decode(kind, payload)?;
    let context = Context { index, author: &author, kind: command.kind(), writes };
    match command {
        Command::ProposePlan(plan) => plans::propose(state, context, plan),
        Command::ApprovePlan(command) => plans::approve(state, context, &command),
        Command::WithdrawConsent(command) => plans::withdraw(state, context, &command),
        Command::StartPlan(command) => plans::start(state, context, &command),
        Command::StopPlan(command) => plans::stop(state, context, &command),
        Command::PausePlan(command) => plans::pause(state, context, command),
        Command::ResumePlan(command) => plans::resume(state, context, command),
        Command::CancelPlan(command) => plans::cancel(state, context, command),
        Command::StopEarly(command) => plans::stop_early(state, context, &command),
        Command::OpenRound(command) => rounds::open(state, context, &command),
        Command::JoinRound(command) => rounds::join(state, context, &command),
        Command::DeclineRound(command) => rounds::decline(state, context, command),
        Command::Contribute(command) => rounds::contribute(state, context, command),
        Command::CloseRound(command) => rounds::close(state, context, command),
        Command::AbandonRound(command) => rounds::abandon(state, context, command),
        Command::CommitVersion(command) => versions::commit(state, context, &command),
        Command::AttestVersion(command) => versions::attest(state, context, &command),
        Command::Evaluate(command) => versions::evaluate(state, context, command),
        Command::MoveBranch(command) => branches::move_branch(state, context, command),
        Command::Tag(command) => branches::tag(state, context, command),
        Command::RevokeVersion(command) => branches::revoke(state, context, command),
        Command::PinVersion(command) => retention::pin(state, context, command),
        Command::PruneVersion(command) => retention::prune_version(state, context, &command),
        Command::PruneRound(command) => retention::prune_round(state, context, &command),
        Command::Propose(content) => governance::propose(state, context, content),
        Command::Vote(command) => governance::vote(state, context, &command),
        Command::RecordEvidence(command) => evidence::record(state, context, &command),
    }
}

fn find_author(state: &Federation, key: &PublicKey) -> Result<Author, Rejection> {
    if let Some(author) = state.members.author(key) {
        return Ok(author.clone());
    }
    match state.revoked_keys.get(key) {
        Some(revoked) => Err(Rejection::RevokedKey { key: *key, owner: revoked.owner.clone(), index: revoked.index }),
        None => Err(Rejection::UnknownAuthor(*key)),
    }
}

impl Context<'_> {
    /// Refuses authors other than an organisation with the role, signing with its own key.
    fn require_organisation(&self, state: &Federation, role: Role, needed: &'static str) -> Result<(), Rejection> {
        let permitted =
            self.author.capacity == Capacity::Organisation && state.members.has_role(&self.author.member, role);
        if permitted { Ok(()) } else { Err(Rejection::NotPermitted { kind: self.kind, needed }) }
    }

    fn require_operator(&self, state: &Federation) -> Result<(), Rejection> {
        self.require_organisation(state, Role::Operator, "the organisation key of an operator")
    }

    /// The replica that signed, by node name.
    fn require_replica(&self) -> Result<&str, Rejection> {
        match &self.author.capacity {
            Capacity::Replica(node) => Ok(node),
            Capacity::Organisation | Capacity::Participant(_) => {
                Err(Rejection::NotPermitted { kind: self.kind, needed: "a replica's key" })
            }
        }
    }

    /// The member whose participant signed.
    fn require_participant(&self) -> Result<&MemberId, Rejection> {
        match &self.author.capacity {
            Capacity::Participant(_) => Ok(&self.author.member),
            Capacity::Organisation | Capacity::Replica(_) => {
                Err(Rejection::NotPermitted { kind: self.kind, needed: "a participant's key" })
            }
        }
    }

    /// The member whose participant, or whose people with the participant role, signed.
    fn require_hospital(&self, state: &Federation) -> Result<&MemberId, Rejection> {
        let replica = matches!(self.author.capacity, Capacity::Replica(_));
        if !replica && state.members.has_role(&self.author.member, Role::Participant) {
            return Ok(&self.author.member);
        }
        Err(Rejection::NotPermitted { kind: self.kind, needed: "a participant's key or its organisation's key" })
    }
}

fn check_text(text: &str) -> Result<(), Rejection> {
    if text.len() > TEXT_LENGTH_MAX { Err(Rejection::TextTooLong(text.len())) } else { Ok(()) }
}

fn check_name(name: &str) -> Result<(), Rejection> {
    if is_name(name) { Ok(()) } else { Err(Rejection::InvalidName(name.chars().take(NAME_LENGTH_MAX).collect())) }
}

/// Codes are names with underscores.
fn check_code(code: &str) -> Result<(), Rejection> {
    check_name(&code.replace('_', "-"))
}

/// Refuses metrics with other than valid names, and values that a metric of a known name cannot have: means are made of them.
///
/// # Errors
///
/// [`Rejection::InvalidMetrics`] or [`Rejection::ImpossibleMetric`].
pub fn check_metrics(metrics: &Metrics) -> Result<(), Rejection> {
    let names_valid = metrics.keys().all(|name| check_code(name).is_ok());
    if metrics.len() > METRICS_MAX || !names_valid {
        return Err(Rejection::InvalidMetrics(metrics.len()));
    }
    let impossible = metrics.iter().find(|(name, value)| match name.as_str() {
        "accuracy" | "auc" => !(0..=MILLIONTHS).contains(*value),
        "loss" => **value < 0,
        _ => false,
    });
    match impossible {
        Some((name, millionths)) => Err(Rejection::ImpossibleMetric { name: name.clone(), millionths: *millionths }),
        None => Ok(()),
    }
}
