//! The conductor: what a replica has to do for the rounds, decided from ledger state alone.
//!
//! Every replica runs one. The leader's conductor opens, closes and abandons rounds and proposes versions; everybody's checks
//! updates, recomputes versions and attests them. It does no IO: duties come out, reports go in, and time is an argument. A
//! new leader needs nothing from the old one.

mod duty;

use std::collections::{BTreeMap, BTreeSet};

use fedledger_ledger::Digest;

use crate::{
    Command, Federation, VersionId,
    command::{AbandonRound, AttestVersion, CloseRound, CommitVersion, FileRef, OpenRound, OutputFiles, RoundKey},
    member::MemberId,
    recipe::{Recipe, Update},
    records::{Participation, Phase, PlanRecord, PlanStatus, RoundRecord, VersionRecord, VersionStatus},
};

pub use duty::{Duty, Report};

/// Wait before a duty that failed is tried again, in milliseconds.
const RETRY_MS: u64 = 500;

/// Wait before files that nobody had are looked for again, in milliseconds.
const OBTAIN_RETRY_MS: u64 = 10_000;

/// Computed rounds that are remembered per plan: the current one and those still to be attested.
const COMPUTED_MAX: usize = 64;

/// The code under which a contribution is excluded whose update no live replica could obtain.
pub const BLOB_LOST: &str = "blob_lost";

/// See the module's documentation.
#[derive(Debug)]
pub struct Conductor {
    /// Name of the replica's node.
    node: String,
    /// Until when each round in progress is collected, while this replica leads, in milliseconds.
    deadlines: BTreeMap<RoundKey, u64>,
    /// Updates checked or being checked.
    checks: BTreeMap<(RoundKey, MemberId), Check>,
    computations: BTreeMap<RoundKey, Computation>,
    /// When each computation that has not succeeded failed for the first time, in milliseconds.
    failing_since: BTreeMap<RoundKey, u64>,
    /// Commands submitted whose fate is open, or that failed and wait for another try until the time beside them.
    submissions: BTreeMap<Digest, Option<u64>>,
    /// When [`Self::step`] was last called, in milliseconds.
    stepped_ms: u64,
    /// Versions below this number have all their files here.
    obtained: u64,
    obtaining: Obtaining,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obtaining {
    Idle,
    UnderWay,
    /// Some file could not be had; it is looked for again from this time on, in milliseconds.
    RetryAt(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Check {
    UnderWay,
    Done(Result<(), String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Computation {
    UnderWay,
    Done(OutputFiles),
    Failed { permanent: Option<String>, at_ms: u64, since_ms: u64 },
}

/// What the conductor looks at in one step.
struct View<'a> {
    state: &'a Federation,
    leads: bool,
    now_ms: u64,
}

impl Conductor {
    /// The conductor of the replica with this node name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            deadlines: BTreeMap::new(),
            checks: BTreeMap::new(),
            computations: BTreeMap::new(),
            failing_since: BTreeMap::new(),
            submissions: BTreeMap::new(),
            stepped_ms: 0,
            obtained: 0,
            obtaining: Obtaining::Idle,
        }
    }

    /// What is to be done now. Call it after every applied entry, report and change of leadership, and at
    /// [`Self::wake_at`].
    pub fn step(&mut self, state: &Federation, leads: bool, now_ms: u64) -> Vec<Duty> {
        let view = View { state, leads, now_ms };
        self.stepped_ms = now_ms;
        if !leads {
            self.deadlines.clear();
        }
        let mut duties = Vec::new();
        let active = |record: &PlanRecord| {
            record.open.is_some() || matches!(record.status, PlanStatus::Running | PlanStatus::Draining)
        };
        for (id, record) in state.plans().iter().filter(|(_, record)| active(record)) {
            match record.open {
                Some(key) => self.conduct_round(&view, record, &key, &mut duties),
                None => self.conduct_plan(&view, id, record, &mut duties),
            }
        }
        self.attest(&view, &mut duties);
        self.obtain(&view, &mut duties);
        self.forget_old(state, now_ms);
        duties
    }

    /// Takes note of what became of a duty.
    pub fn report(&mut self, report: Report, now_ms: u64) {
        match report {
            Report::Checked { key, member, verdict } => {
                self.checks.insert((key, member), Check::Done(verdict));
            }
            Report::CheckFailed { key, member } => {
                self.checks.remove(&(key, member));
            }
            Report::Computed { key, outputs } => {
                self.computations.insert(key, Computation::Done(outputs));
            }
            Report::ComputeFailed { key, permanent } => {
                let since_ms = *self.failing_since.entry(key).or_insert(now_ms);
                self.computations.insert(key, Computation::Failed { permanent, at_ms: now_ms, since_ms });
            }
            Report::Obtained { number, complete: true } => {
                self.obtained = self.obtained.max(number + 1);
                self.obtaining = Obtaining::Idle;
            }
            Report::Obtained { complete: false, .. } => {
                self.obtaining = Obtaining::RetryAt(now_ms + OBTAIN_RETRY_MS);
            }
            Report::Submitted { command, accepted: true } => {
                self.submissions.remove(&submission_id(&command));
            }
            Report::Submitted { command, accepted: false } => {
                self.submissions.insert(submission_id(&command), Some(now_ms + RETRY_MS));
            }
        }
    }

    /// When [`Self::step`] must be called again even if nothing happens, in milliseconds.
    pub fn wake_at(&self) -> Option<u64> {
        let retries = self.submissions.values().flatten().copied();
        let failed = self.computations.values().filter_map(|computation| match computation {
            Computation::Failed { permanent: None, at_ms, .. } => Some(at_ms + RETRY_MS),
            _ => None,
        });
        let obtaining = match self.obtaining {
            Obtaining::RetryAt(at_ms) => Some(at_ms),
            Obtaining::Idle | Obtaining::UnderWay => None,
        };
        // A deadline that has passed has been acted on.
        let deadlines = self.deadlines.values().copied().filter(|deadline| *deadline > self.stepped_ms);
        deadlines.chain(retries).chain(failed).chain(obtaining).min()
    }

    /// A plan without a round in progress: make the initial version, or open the next round.
    fn conduct_plan(&mut self, view: &View<'_>, id: &Digest, record: &PlanRecord, duties: &mut Vec<Duty>) {
        if record.status != PlanStatus::Running {
            return;
        }
        let Some((base_id, base)) = view.state.head(&record.plan.branch) else {
            let key = RoundKey { plan: *id, round: 0, attempt: 0 };
            self.propose_version(view, &key, duties);
            return;
        };
        if !view.leads {
            return;
        }
        let key = Federation::next_key(*id, record);
        let cohort = view.state.next_cohort(&key, record, base);
        let participation = &record.plan.participation;
        let enough = cohort.len() as u64 >= participation.minimum_participants
            && participation.required_members.iter().all(|member| cohort.contains(member));
        if enough {
            let duration_ms = participation.round_duration_ms;
            self.submit(view, Command::OpenRound(OpenRound { key, base: *base_id, cohort, duration_ms }), duties);
        }
    }

    fn conduct_round(&mut self, view: &View<'_>, record: &PlanRecord, key: &RoundKey, duties: &mut Vec<Duty>) {
        let Some(round) = view.state.rounds().get(key) else { return };
        let base_moved = view.state.branches().get(&record.plan.branch) != Some(&round.base);
        match &round.phase {
            Phase::Collecting | Phase::Closed { candidate: None, .. } if base_moved => {
                self.abandon(view, key, "base_moved", duties);
            }
            Phase::Collecting => self.collect(view, record, key, round, duties),
            Phase::Closed { .. } => self.propose_version(view, key, duties),
            Phase::Completed { .. } | Phase::Abandoned { .. } => {}
        }
    }

    fn collect(
        &mut self,
        view: &View<'_>,
        record: &PlanRecord,
        key: &RoundKey,
        round: &RoundRecord,
        duties: &mut Vec<Duty>,
    ) {
        let mut contributed = BTreeSet::new();
        let mut settled = 0;
        for (member, participation) in view.state.participations(key) {
            match participation {
                Participation::Joined => {}
                Participation::Declined { .. } | Participation::Revoked => settled += 1,
                Participation::Contributed { contribution, .. } => {
                    settled += 1;
                    contributed.insert(member.clone());
                    self.check(key, Update::of(member, contribution), duties);
                }
            }
        }
        if !view.leads {
            return;
        }
        let deadline = *self.deadlines.entry(*key).or_insert(view.now_ms + round.duration_ms);
        let due = view.now_ms >= deadline;
        let verdict = |member: &MemberId| match self.checks.get(&(*key, member.clone())) {
            Some(Check::Done(verdict)) => Some(verdict.clone()),
            Some(Check::UnderWay) | None => None,
        };
        let all_checked = contributed.iter().all(|member| verdict(member).is_some());
        if !due && (settled < round.cohort.len() || !all_checked) {
            return;
        }
        let excluded: BTreeMap<MemberId, String> = contributed
            .iter()
            .filter_map(|member| match verdict(member) {
                Some(Ok(())) => None,
                Some(Err(code)) => Some((member.clone(), code)),
                None => Some((member.clone(), BLOB_LOST.to_owned())),
            })
            .collect();
        let participation = &record.plan.participation;
        let usable = |member: &MemberId| contributed.contains(member) && !excluded.contains_key(member);
        let enough = (contributed.len() - excluded.len()) as u64 >= participation.minimum_participants
            && participation.required_members.iter().all(usable);
        if enough {
            self.submit(view, Command::CloseRound(CloseRound { key: *key, excluded }), duties);
        } else {
            self.abandon(view, key, "below_quorum", duties);
        }
    }

    /// A version is to be computed by everybody and proposed by the leader.
    fn propose_version(&mut self, view: &View<'_>, key: &RoundKey, duties: &mut Vec<Duty>) {
        self.compute(view, key, duties);
        if !view.leads || candidate_of(view.state, key).is_some() {
            return;
        }
        match self.computations.get(key) {
            Some(Computation::Done(outputs)) => {
                let outputs = *outputs;
                let Ok(recipe) = Recipe::of(view.state, key) else { return };
                let Ok((_, version)) = recipe.manifest(view.state, &outputs) else { return };
                if let Some(record) = view.state.versions().get(&version) {
                    // Training is deterministic: after a rollback it may lead to the version that was revoked.
                    if record.revoked.is_some() {
                        return self.abandon(view, key, "version_revoked", duties);
                    }
                    // The others have contradicted these files; to propose them again would not end.
                    if record.status == VersionStatus::Rejected && key.round > 0 {
                        return self.abandon(view, key, "version_rejected", duties);
                    }
                }
                self.submit(view, Command::CommitVersion(CommitVersion { key: *key, version, outputs }), duties);
            }
            Some(Computation::Failed { permanent: Some(code), .. }) if key.round > 0 => {
                let code = code.clone();
                self.abandon(view, key, &code, duties);
            }
            // A file that could not be had for as long as a round may take is lost.
            Some(Computation::Failed { permanent: None, since_ms, .. }) if key.round > 0 => {
                let round = view.state.rounds().get(key);
                if round.is_some_and(|round| view.now_ms >= since_ms + round.duration_ms) {
                    self.abandon(view, key, BLOB_LOST, duties);
                }
            }
            _ => {}
        }
    }

    /// Confirms or contradicts every version whose files this replica has computed and not yet spoken about.
    fn attest(&mut self, view: &View<'_>, duties: &mut Vec<Duty>) {
        let computed: Vec<(RoundKey, OutputFiles)> = self
            .computations
            .iter()
            .filter_map(|(key, computation)| match computation {
                Computation::Done(outputs) => Some((*key, *outputs)),
                Computation::UnderWay | Computation::Failed { .. } => None,
            })
            .collect();
        for (key, outputs) in computed {
            let Some(version) = candidate_of(view.state, &key) else { continue };
            let spoken = |node: &String| *node == self.node;
            let record = view.state.versions().get(&version);
            if record.is_some_and(|record| !record.attestations.keys().any(spoken)) {
                self.submit(view, Command::AttestVersion(AttestVersion { version, outputs }), duties);
            }
        }
    }

    /// One version after the other, every replica comes to hold what auditors need. Versions that it computed itself are
    /// complete; their files were needed for that.
    fn obtain(&mut self, view: &View<'_>, duties: &mut Vec<Duty>) {
        match self.obtaining {
            Obtaining::UnderWay => return,
            Obtaining::RetryAt(at_ms) if view.now_ms < at_ms => return,
            Obtaining::Idle | Obtaining::RetryAt(_) => {}
        }
        while let Some(id) = view.state.numbers().get(&self.obtained) {
            let Some(record) = view.state.versions().get(id) else { return };
            match self.computations.get(&record.key) {
                Some(Computation::Done(_)) => self.obtained += 1,
                // It is being computed, which obtains the files as well.
                Some(Computation::UnderWay) => return,
                Some(Computation::Failed { .. }) | None => {
                    self.obtaining = Obtaining::UnderWay;
                    duties.push(Duty::Obtain { number: self.obtained, files: files_of(record) });
                    return;
                }
            }
        }
    }

    fn check(&mut self, key: &RoundKey, update: Update, duties: &mut Vec<Duty>) {
        let check = self.checks.entry((*key, update.member.clone()));
        if let std::collections::btree_map::Entry::Vacant(vacant) = check {
            vacant.insert(Check::UnderWay);
            duties.push(Duty::Check { key: *key, update });
        }
    }

    fn compute(&mut self, view: &View<'_>, key: &RoundKey, duties: &mut Vec<Duty>) {
        let again = match self.computations.get(key) {
            None => true,
            Some(Computation::Failed { permanent: None, at_ms, .. }) => view.now_ms >= at_ms + RETRY_MS,
            Some(_) => false,
        };
        if again && let Ok(recipe) = Recipe::of(view.state, key) {
            self.computations.insert(*key, Computation::UnderWay);
            duties.push(Duty::Compute(Box::new(recipe)));
        }
    }

    fn abandon(&mut self, view: &View<'_>, key: &RoundKey, reason: &str, duties: &mut Vec<Duty>) {
        if view.leads {
            let command = AbandonRound { key: *key, reason: reason.to_owned() };
            self.submit(view, Command::AbandonRound(command), duties);
        }
    }

    fn submit(&mut self, view: &View<'_>, command: Command, duties: &mut Vec<Duty>) {
        let id = submission_id(&command);
        let due = match self.submissions.get(&id) {
            None => true,
            Some(Some(retry_at)) => view.now_ms >= *retry_at,
            Some(None) => false,
        };
        if due {
            self.submissions.insert(id, None);
            duties.push(Duty::Submit(command));
        }
    }

    fn forget_old(&mut self, state: &Federation, now_ms: u64) {
        let open: BTreeSet<RoundKey> = state.plans().iter().filter_map(|(_, record)| record.open).collect();
        self.checks.retain(|(key, _), _| open.contains(key));
        self.deadlines.retain(|key, _| open.contains(key));
        while self.computations.len() > COMPUTED_MAX {
            let oldest = self.computations.keys().find(|key| !open.contains(*key)).copied();
            match oldest {
                Some(key) => self.computations.remove(&key),
                None => break,
            };
        }
        // What failed and nothing asks for any more would otherwise wake the shell for ever.
        self.submissions.retain(|_, retry_at| retry_at.is_none_or(|at_ms| at_ms > now_ms));
        self.computations.retain(|key, computation| {
            let failed = matches!(computation, Computation::Failed { permanent: None, .. });
            !failed || open.contains(key) || (key.round == 0 && candidate_of(state, key).is_none())
        });
        self.failing_since.retain(|key, _| {
            matches!(self.computations.get(key), Some(Computation::Failed { .. } | Computation::UnderWay))
        });
    }
}

/// Everything that a version was made of and that came out.
fn files_of(record: &VersionRecord) -> Vec<(FileRef, Option<MemberId>)> {
    let manifest = &record.manifest;
    let outputs = [manifest.weights(), manifest.optimizer_state()].into_iter().flatten().map(|file| (file, None));
    let updates = manifest.contributions.iter().map(|contribution| {
        let file = FileRef { digest: *contribution.update.digest(), size: contribution.size };
        (file, Some(contribution.member.clone()))
    });
    outputs.chain(updates).collect()
}

/// The version that stands for an attempt, unless it was rejected.
fn candidate_of(state: &Federation, key: &RoundKey) -> Option<VersionId> {
    if key.round > 0 {
        return match state.rounds().get(key)?.phase {
            Phase::Closed { candidate, .. } => candidate,
            Phase::Completed { version, .. } => Some(version),
            Phase::Collecting | Phase::Abandoned { .. } => None,
        };
    }
    let mut initial = state.versions().iter().filter(|(_, record)| record.key == *key);
    initial.find(|(_, record)| record.status != VersionStatus::Rejected).map(|(id, _)| *id)
}

fn submission_id(command: &Command) -> Digest {
    Digest::of_parts(&[command.kind().as_bytes(), &command.payload()])
}
