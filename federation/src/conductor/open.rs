//! Between rounds: the initial version, stopping early, waiting before another attempt, and opening the next round.

use fedledger_ledger::Digest;

use super::{Conductor, Duty, View, compute::candidate_of};
use crate::{
    Command, Federation, VersionId,
    apply::rounds::failed_attempts,
    cohort,
    command::{OpenRound, RoundKey, StopEarly},
    early_stopping,
    records::{PlanRecord, PlanStatus},
};

/// Wait before a round is attempted a second time, in milliseconds; doubled with every further attempt, up to the time that a
/// round may take. What made an attempt fail in a second is seldom gone in another, and attempts are counted.
const PATIENCE_MS: u64 = 1_000;

/// Doublings after which [`PATIENCE_MS`] is longer than any round may take.
const DOUBLINGS_MAX: u64 = 32;

/// What a leader waits for before it opens a round, or gives one up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WaitFor {
    /// That time passes before another attempt.
    Attempt(RoundKey),
    /// Reports about the head of a plan's branch.
    Reports(Digest, VersionId),
    /// That time passes before the initial version is proposed again, which was rejected so many times.
    Initial(Digest, u64),
    /// That a majority of replicas computes what a round led to.
    Majority(RoundKey),
}

impl WaitFor {
    /// The plan that waits.
    pub(super) const fn plan(&self) -> &Digest {
        match self {
            Self::Attempt(RoundKey { plan, .. }) | Self::Majority(RoundKey { plan, .. }) => plan,
            Self::Reports(plan, _) | Self::Initial(plan, _) => plan,
        }
    }

    /// Whether it is still waited for. While a plan is paused nothing is, so the wait begins anew when it is resumed.
    pub(super) fn is_pending(&self, state: &Federation) -> bool {
        let Some(record) = state.plans().get(self.plan()) else { return false };
        let pending = match self {
            Self::Majority(key) => {
                return record.open == Some(*key) && candidate_of(state, key).is_some() && record.status.is_active();
            }
            Self::Attempt(key) => Federation::next_key(key.plan, record) == *key,
            Self::Reports(_, version) => state.branches().get(&record.plan.branch) == Some(version),
            Self::Initial(_, rejections) => record.initial_rejections == *rejections && record.initial.is_none(),
        };
        pending && record.status == PlanStatus::Running && record.open.is_none()
    }
}

impl Conductor {
    /// A plan without a round in progress: make the initial version, or go on.
    pub(super) fn conduct_plan(&mut self, view: &View<'_>, id: &Digest, record: &PlanRecord, duties: &mut Vec<Duty>) {
        if record.status != PlanStatus::Running {
            return;
        }
        match view.state.head(&record.plan.branch) {
            None => self.propose_version(view, &initial_key(*id), duties),
            Some((head, _)) if view.leads => self.go_on(view, id, record, head, duties),
            Some(_) => {}
        }
    }

    /// Finishes a plan early or opens its next round, as soon as what that depends on is known.
    fn go_on(&mut self, view: &View<'_>, id: &Digest, record: &PlanRecord, head: &VersionId, duties: &mut Vec<Duty>) {
        let duration_ms = record.plan.participation.round_duration_ms;
        if awaits_reports(view.state, id, record) && !self.waited(view, WaitFor::Reports(*id, *head), duration_ms) {
            return;
        }
        if let Some(stop) = early_stopping::verdict(view.state, id) {
            let stop = StopEarly { plan: *id, version: stop.version };
            return self.submit(view, Command::StopEarly(stop), duties);
        }
        let key = Federation::next_key(*id, record);
        let patience_ms = patience_ms(view.state, &key, record);
        if patience_ms > 0 && !self.waited(view, WaitFor::Attempt(key), patience_ms) {
            return;
        }
        let Some((_, base)) = view.state.head(&record.plan.branch) else { return };
        let cohort = view.state.next_cohort(&key, record, base);
        let participation = &record.plan.participation;
        let enough = cohort.len() as u64 >= participation.minimum_participants
            && participation.required_members.iter().all(|member| cohort.contains(member));
        if enough {
            let cohort = cohort::digest(&cohort);
            self.submit(view, Command::OpenRound(OpenRound { key, base: *head, cohort, duration_ms }), duties);
        }
    }

    /// Whether enough time has passed since a plan's initial version was rejected for the last time.
    pub(super) fn waited_for_initial(&mut self, view: &View<'_>, plan: &Digest) -> bool {
        let Some(record) = view.state.plans().get(plan) else { return false };
        let (rejections, patience_ms) =
            (record.initial_rejections, patience_after(record.initial_rejections.max(1), record));
        self.waited(view, WaitFor::Initial(*plan, rejections), patience_ms)
    }

    /// Whether the time for something is over, which begins when this is first asked.
    pub(super) fn waited(&mut self, view: &View<'_>, what: WaitFor, wait_ms: u64) -> bool {
        view.now_ms >= *self.waits.entry(what).or_insert(view.now_ms + wait_ms)
    }
}

/// The attempt under which a plan's initial version is made.
pub(crate) const fn initial_key(plan: Digest) -> RoundKey {
    RoundKey { plan, round: 0, attempt: 0 }
}

/// Whether a plan with a condition for stopping early waits for reports of its head: once, before the next round's first
/// attempt.
pub(crate) fn awaits_reports(state: &Federation, id: &Digest, record: &PlanRecord) -> bool {
    record.next_attempt == 1 && !early_stopping::awaited(state, id).is_empty()
}

/// How long is waited before an attempt, in milliseconds: the longer, the more attempts at the round have failed since
/// somebody last started or resumed the plan.
pub(crate) fn patience_ms(state: &Federation, key: &RoundKey, record: &PlanRecord) -> u64 {
    patience_after(failed_attempts(state, record, key), record)
}

/// How long is waited after so many failures, in milliseconds.
fn patience_after(failed: u64, record: &PlanRecord) -> u64 {
    let longest_ms = record.plan.participation.round_duration_ms;
    match failed.checked_sub(1).map(|doublings| doublings.min(DOUBLINGS_MAX)) {
        None => 0,
        Some(doublings) => (PATIENCE_MS << doublings).min(longest_ms),
    }
}
