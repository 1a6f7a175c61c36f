//! Progress: where each plan stands, what it waits for, and whether it is stuck.
//!
//! Everything but the times follows from ledger state, so it can be asked of a ledger on disk, too. What one replica has
//! seen beside it ([`Observed`]) says for how long, until when, and which files are missing there.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_ledger::Digest;
use serde::Serialize;

use crate::{
    Federation, VersionId,
    command::RoundKey,
    conductor::{awaits_reports, candidate_of, initial_key, patience_ms},
    early_stopping,
    limits::PROGRESS_NAMES_MAX,
    member::MemberId,
    plan::Participation as Wanted,
    records::{Participation, Phase, PlanRecord, PlanStatus, VersionRecord},
};

/// Where a plan that is carried out stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanProgress {
    /// The plan.
    pub plan: Digest,
    /// Its name.
    pub name: String,
    /// The round in progress, or the one that is next; 0 for the initial version.
    pub round: u64,
    /// The attempt at it.
    pub attempt: u64,
    /// What is being done.
    pub step: Step,
    /// What is waited for, in words.
    pub waiting_for: String,
    /// The members or replicas of whom it is waited for, by name; the first of them where they are many.
    pub names: Vec<String>,
    /// How many they are.
    pub name_count: u64,
    /// How long it has lasted, on the clock of the replica that was asked, in milliseconds.
    pub lasting_ms: Option<u64>,
    /// Time until the leader goes on without it, in milliseconds; only the leader knows.
    pub left_ms: Option<u64>,
    /// Whether it has lasted longer than it should.
    pub stuck: bool,
    /// Why it is stuck, and what to do, in words.
    pub cause: Option<String>,
}

/// What is being done for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Too few consent for a round, or not those that the plan requires.
    Enrolling,
    /// The replicas compute and attest the initial version.
    InitialVersion,
    /// Hospitals report metrics of the last version, on which it depends whether another round follows.
    Evaluating,
    /// Some time passes before the round is attempted again.
    BetweenAttempts,
    /// The leader opens the next round.
    Opening,
    /// Hospitals train and contribute.
    Collecting,
    /// The replicas compute the round's version.
    Computing,
    /// The replicas attest the round's version.
    Attesting,
    /// The operator lets it wait.
    Paused,
}

impl Step {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enrolling => "enrolling",
            Self::InitialVersion => "initial_version",
            Self::Evaluating => "evaluating",
            Self::BetweenAttempts => "between_attempts",
            Self::Opening => "opening",
            Self::Collecting => "collecting",
            Self::Computing => "computing",
            Self::Attesting => "attesting",
            Self::Paused => "paused",
        }
    }

    /// Every step.
    pub const ALL: [Self; 9] = [
        Self::Enrolling,
        Self::InitialVersion,
        Self::Evaluating,
        Self::BetweenAttempts,
        Self::Opening,
        Self::Collecting,
        Self::Computing,
        Self::Attesting,
        Self::Paused,
    ];

    /// How long it may last before the plan counts as stuck, in milliseconds: the time that a round may take where nothing
    /// else ends it, and twice that where a leader ends it after that time, since a new leader begins it again. None for
    /// what may last for ever.
    const fn allowed_ms(self, duration_ms: u64) -> Option<u64> {
        match self {
            Self::Enrolling => Some(0),
            Self::InitialVersion | Self::Opening | Self::Computing | Self::Attesting => Some(duration_ms),
            Self::Evaluating | Self::BetweenAttempts | Self::Collecting => Some(duration_ms.saturating_mul(2)),
            Self::Paused => None,
        }
    }
}

/// Where a plan stands, as far as it makes a difference for how long it has stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The attempt in progress, or the next one.
    key: RoundKey,
    step: Step,
    candidate: Option<VersionId>,
}

impl Standing {
    /// Where a plan stands that is carried out or has a round in progress.
    pub(crate) fn of(state: &Federation, id: &Digest, record: &PlanRecord) -> Self {
        let paused = record.status == PlanStatus::Paused;
        let Some(key) = record.open else {
            if state.head(&record.plan.branch).is_none() {
                let key = initial_key(*id);
                let step = if paused { Step::Paused } else { Step::InitialVersion };
                // Another candidate is no progress, since the one before was rejected.
                return Self { key, step, candidate: None };
            }
            let key = Federation::next_key(*id, record);
            let step = if paused { Step::Paused } else { step_between_rounds(state, id, record, &key) };
            return Self { key, step, candidate: None };
        };
        let (step, candidate) = match state.rounds().get(&key).map(|round| &round.phase) {
            Some(Phase::Collecting) if paused => (Step::Paused, None),
            Some(Phase::Closed { candidate: Some(candidate), .. }) => (Step::Attesting, Some(*candidate)),
            Some(Phase::Closed { candidate: None, .. }) => (Step::Computing, None),
            _ => (Step::Collecting, None),
        };
        Self { key, step, candidate }
    }
}

fn step_between_rounds(state: &Federation, id: &Digest, record: &PlanRecord, key: &RoundKey) -> Step {
    if awaits_reports(state, id, record) {
        Step::Evaluating
    } else if !Enrolment::of(state, record, key).is_enough(&record.plan.participation) {
        Step::Enrolling
    } else if patience_ms(state, key, record) > 0 {
        Step::BetweenAttempts
    } else {
        Step::Opening
    }
}

/// What one replica has seen beside the ledger; nothing where a ledger is read from disk.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// For how long each plan has stood where it stands, in milliseconds.
    pub lasting_ms: BTreeMap<Digest, (Standing, u64)>,
    /// How much longer the leader waits, in milliseconds.
    pub left_ms: BTreeMap<Digest, u64>,
    /// Members whose updates are not here or not checked yet.
    pub unchecked: BTreeMap<RoundKey, BTreeSet<MemberId>>,
    /// How far versions are computed here.
    pub computing: BTreeMap<RoundKey, Computing>,
}

/// How far the computation of a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Computing {
    /// It goes on.
    UnderWay,
    /// It failed and is tried again, such as for want of a file.
    Failing,
    /// It is done.
    Done,
}

/// Where every plan stands that is carried out, in the order in which they were proposed.
pub fn progress(state: &Federation, observed: &Observed) -> Vec<PlanProgress> {
    let active = |record: &PlanRecord| record.open.is_some() || record.status.is_active();
    let mut plans: Vec<_> = state.plans().iter().filter(|(_, record)| active(record)).collect();
    plans.sort_by_key(|(_, record)| record.proposed_index);
    plans.into_iter().map(|(id, record)| plan_progress(state, observed, id, record)).collect()
}

fn plan_progress(state: &Federation, observed: &Observed, id: &Digest, record: &PlanRecord) -> PlanProgress {
    let standing = Standing::of(state, id, record);
    let Standing { key, step, .. } = standing;
    let Waiting { what, names, cause } = Waiting::of(state, observed, record, &standing);
    let lasting = observed.lasting_ms.get(id).filter(|(seen, _)| *seen == standing);
    let lasting_ms = lasting.map(|(_, lasting_ms)| *lasting_ms);
    let allowed_ms = step.allowed_ms(record.plan.participation.round_duration_ms);
    // That a plan cannot open a round shows without a clock.
    let stuck = step == Step::Enrolling
        || lasting_ms.is_some_and(|lasting_ms| allowed_ms.is_some_and(|allowed_ms| lasting_ms > allowed_ms));
    PlanProgress {
        plan: *id,
        name: record.plan.name.clone(),
        round: key.round,
        attempt: key.attempt,
        step,
        waiting_for: what,
        name_count: names.len() as u64,
        names: names.into_iter().take(PROGRESS_NAMES_MAX).collect(),
        lasting_ms,
        left_ms: observed.left_ms.get(id).copied(),
        stuck,
        cause: stuck.then_some(cause),
    }
}

/// What is waited for, of whom, and why it may not come.
struct Waiting {
    what: String,
    names: Vec<String>,
    cause: String,
}

impl Waiting {
    fn of(state: &Federation, observed: &Observed, record: &PlanRecord, standing: &Standing) -> Self {
        let key = &standing.key;
        let candidate = standing.candidate.or_else(|| candidate_of(state, key));
        match standing.step {
            Step::Enrolling => Self::enrolling(state, record, key),
            Step::InitialVersion | Step::Attesting if candidate.is_some() => Self::attesting(state, candidate),
            Step::InitialVersion if record.initial_rejections > 0 => Self::rejected(record),
            Step::InitialVersion | Step::Computing | Step::Attesting => Self::computing(observed, key),
            Step::Evaluating => Self::evaluating(state, record, key),
            Step::BetweenAttempts => Self::leader(format!("time to pass before attempt {}", key.attempt)),
            Step::Opening => Self::leader(format!("the leader to open round {}", key.round)),
            Step::Collecting => Self::collecting(state, observed, record, key),
            Step::Paused => {
                let reason = record.status_reason.as_deref().unwrap_or("no reason given");
                let what = format!("the operator to resume the plan, who paused it: {reason}");
                Self { what, names: Vec::new(), cause: String::new() }
            }
        }
    }

    /// Something that only a leader does.
    fn leader(what: String) -> Self {
        let cause = "no leader goes on with it: see which replicas run and reach each other".to_owned();
        Self { what, names: Vec::new(), cause }
    }

    fn enrolling(state: &Federation, record: &PlanRecord, key: &RoundKey) -> Self {
        let Enrolment { found, required_missing } = Enrolment::of(state, record, key);
        let needed = record.plan.participation.minimum_participants;
        let what = format!("consents: {found} of the {needed} that a round needs");
        let cause = if required_missing.is_empty() {
            format!("a round needs {needed} participants, {found} consent: others must approve the plan")
        } else {
            "the plan requires members that were not selected or do not consent: they must approve the plan".to_owned()
        };
        Self { what, names: required_missing, cause }
    }

    /// An initial version that the replicas contradict.
    fn rejected(record: &PlanRecord) -> Self {
        let (rejections, attempts) = (record.initial_rejections, record.plan.participation.attempts);
        let what = format!("another initial version: {rejections} of {attempts} were rejected");
        let cause = "the replicas compute different initial versions: see `fedledger log` for which of them differ, and \
                     whether all run the same software";
        Self { what, names: Vec::new(), cause: cause.to_owned() }
    }

    fn attesting(state: &Federation, candidate: Option<VersionId>) -> Self {
        let record = candidate.and_then(|candidate| state.versions().get(&candidate));
        let spoken = |node: &String| record.is_some_and(|record| record.attestations.contains_key(node));
        let silent: Vec<String> = state.epoch().replicas.keys().filter(|node| !spoken(node)).cloned().collect();
        let agreeing = record.map_or(0, agreeing);
        let what = format!("attestations: {agreeing} of the {} needed", state.attestation_quorum());
        let cause = "too few replicas confirm the version: see which of those named run".to_owned();
        Self { what, names: silent, cause }
    }

    fn computing(observed: &Observed, key: &RoundKey) -> Self {
        let (what, cause) = match observed.computing.get(key) {
            Some(Computing::Failing) => (
                "the version, which cannot be computed here yet",
                "a file that the version is made of is at no live node, or damaged: start the nodes that have it",
            ),
            Some(Computing::Done) => (
                "the leader to propose the version",
                "no leader goes on with it: see which replicas run and reach each other",
            ),
            Some(Computing::UnderWay) | None => (
                "the replicas to compute the version",
                "the computation takes longer than a round may: see the log of the leader",
            ),
        };
        Self { what: what.to_owned(), names: Vec::new(), cause: cause.to_owned() }
    }

    fn evaluating(state: &Federation, record: &PlanRecord, key: &RoundKey) -> Self {
        let metric = record.plan.early_stopping.as_ref().map_or("", |condition| condition.metric.as_str());
        let names = early_stopping::awaited(state, &key.plan);
        let what = format!("reports of {metric}, on which it depends whether round {} follows", key.round);
        Self { names, ..Self::leader(what) }
    }

    fn collecting(state: &Federation, observed: &Observed, record: &PlanRecord, key: &RoundKey) -> Self {
        let done: BTreeMap<&MemberId, bool> = state
            .participations(key)
            .filter(|(_, participation)| !matches!(participation, Participation::Joined { .. }))
            .map(|(member, done)| (member, matches!(done, Participation::Contributed { .. })))
            .collect();
        let cohort = state.rounds().get(key).map_or(&[][..], |round| &round.cohort);
        let open: Vec<String> = cohort.iter().filter(|member| !done.contains_key(member)).cloned().collect();
        let contributed = done.values().filter(|contributed| **contributed).count();
        if open.is_empty() {
            let unchecked = observed.unchecked.get(key).cloned().unwrap_or_default();
            let names: Vec<String> = unchecked.into_iter().collect();
            let what = if names.is_empty() { "the leader to close the round" } else { "updates that are not here yet" };
            return Self { names, ..Self::leader(what.to_owned()) };
        }
        let needed = record.plan.participation.minimum_participants;
        let what = format!("contributions: {contributed} of {} are there, {needed} are needed", cohort.len());
        Self { names: open, ..Self::leader(what) }
    }
}

fn agreeing(record: &VersionRecord) -> usize {
    let claimed = record.manifest.outputs();
    record.attestations.values().filter(|outputs| claimed.as_ref() == Some(*outputs)).count()
}

/// Who would take part in the next round.
struct Enrolment {
    found: u64,
    required_missing: Vec<MemberId>,
}

impl Enrolment {
    fn of(state: &Federation, record: &PlanRecord, key: &RoundKey) -> Self {
        let cohort = match state.head(&record.plan.branch) {
            Some((_, base)) => state.next_cohort(key, record, base),
            None => state.enrolled(record),
        };
        let required = record.plan.participation.required_members.iter();
        let required_missing = required.filter(|member| !cohort.contains(member)).cloned().collect();
        Self { found: cohort.len() as u64, required_missing }
    }

    fn is_enough(&self, wanted: &Wanted) -> bool {
        self.found >= wanted.minimum_participants && self.required_missing.is_empty()
    }
}
