//! The conductor: what a replica has to do for the rounds, decided from ledger state alone.
//!
//! Every replica runs one. The leader's conductor opens, closes and abandons rounds and proposes versions; everybody's checks
//! updates, recomputes versions and attests them. It does no IO: duties come out, reports go in, and time is an argument. A
//! new leader needs nothing from the old one. Plans are looked at one by one and share nothing here, so that one that is stuck
//! holds no other up.

mod collect;
mod compute;
mod deadline;
mod duty;
mod observe;
mod obtain;
mod open;
mod retain;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fedledger_ledger::Digest;

use crate::{
    Command, Federation,
    command::{AbandonRound, OutputFiles, RoundKey},
    member::MemberId,
    progress::Standing,
    records::PlanRecord,
};

pub(crate) use compute::candidate_of;
use deadline::Deadline;
pub use duty::{Duty, Report};
use obtain::Obtaining;
use open::WaitFor;
pub(crate) use open::{awaits_reports, initial_key, patience_ms};
use retain::Retaining;

/// Wait before a duty that failed is tried again, in milliseconds.
const RETRY_MS: u64 = 500;

/// Computed rounds that are remembered per plan: the current one and those still to be attested.
const COMPUTED_MAX: usize = 64;

/// The code under which a contribution is excluded whose update no live replica could obtain.
pub const BLOB_LOST: &str = "blob_lost";

/// The code under which a contribution is excluded whose update was still being fetched or checked when its time was over.
pub const UNCHECKED: &str = "unchecked";

/// The code under which an attempt is given up of which more contributions would be left out than a transaction can name.
const TOO_MANY_EXCLUDED: &str = "too_many_excluded";

/// See the module's documentation.
#[derive(Debug)]
pub struct Conductor {
    /// Name of the replica's node.
    node: String,
    /// When the collection of each round in progress ends, while this replica leads.
    deadlines: BTreeMap<RoundKey, Deadline>,
    /// Until when this replica, while it leads, waits before it opens a round or gives one up, in milliseconds.
    waits: BTreeMap<WaitFor, u64>,
    /// Where each plan that is carried out stands, and since when, in milliseconds.
    standings: BTreeMap<Digest, (Standing, u64)>,
    /// Updates checked or being checked.
    checks: BTreeMap<RoundKey, BTreeMap<MemberId, Check>>,
    /// What rounds were found to stand at, and until when nothing comes of looking again, in milliseconds.
    looks: BTreeMap<RoundKey, (Look, u64)>,
    /// Checks that have come to an end.
    checked: u64,
    computations: BTreeMap<RoundKey, Computation>,
    /// Those computations in the order in which they were begun.
    begun: VecDeque<RoundKey>,
    /// When each computation that has not succeeded failed for the first time, in milliseconds.
    failing_since: BTreeMap<RoundKey, u64>,
    /// Commands submitted whose fate is open, or that failed and wait for another try until the time beside them.
    submissions: BTreeMap<Digest, Option<u64>>,
    /// When [`Self::step`] was last called, in milliseconds.
    stepped_ms: u64,
    obtaining: Obtaining,
    retaining: Retaining,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Check {
    UnderWay,
    /// It is under way, but nobody had the file when it was last looked for.
    Searching {
        at_ms: u64,
    },
    /// It could not be carried out, such as for want of the file.
    Failed {
        at_ms: u64,
    },
    Done(Result<(), String>),
}

impl Check {
    /// When it is tried again, in milliseconds, if it failed.
    const fn again_at_ms(&self) -> Option<u64> {
        match self {
            Self::Failed { at_ms } => Some(at_ms.saturating_add(RETRY_MS)),
            Self::UnderWay | Self::Searching { .. } | Self::Done(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Computation {
    UnderWay,
    Done(OutputFiles),
    Failed { permanent: Option<String>, at_ms: u64, since_ms: u64 },
}

/// What is known of a round in progress: as long as this stays, nothing new comes of looking at everybody in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    /// Declines, contributions and exclusions on the ledger.
    settled: u64,
    checked: u64,
    leads: bool,
    paused: bool,
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
            waits: BTreeMap::new(),
            standings: BTreeMap::new(),
            checks: BTreeMap::new(),
            looks: BTreeMap::new(),
            checked: 0,
            computations: BTreeMap::new(),
            begun: VecDeque::new(),
            failing_since: BTreeMap::new(),
            submissions: BTreeMap::new(),
            stepped_ms: 0,
            obtaining: Obtaining::default(),
            retaining: Retaining::default(),
        }
    }

    /// What is to be done now. Call it after every applied entry, report and change of leadership, and at
    /// [`Self::wake_at`].
    pub fn step(&mut self, state: &Federation, leads: bool, now_ms: u64) -> Vec<Duty> {
        let view = View { state, leads, now_ms };
        self.stepped_ms = now_ms;
        if !leads {
            self.deadlines.clear();
            self.waits.clear();
        }
        let mut duties = Vec::new();
        let active = |record: &PlanRecord| record.open.is_some() || record.status.is_active();
        for (id, record) in state.plans().iter().filter(|(_, record)| active(record)) {
            match record.open {
                Some(key) => self.conduct_round(&view, record, &key, &mut duties),
                None => self.conduct_plan(&view, id, record, &mut duties),
            }
        }
        self.attest(&view, &mut duties);
        self.obtain(&view, &mut duties);
        self.prune(&view, &mut duties);
        self.discard(&view, &mut duties);
        self.forget_old(state, now_ms);
        self.take_bearings(state, now_ms);
        duties
    }

    /// Takes note of what became of a duty.
    pub fn report(&mut self, report: Report, now_ms: u64) {
        match report {
            Report::Checked { key, member, verdict } => {
                self.checked = self.checked.wrapping_add(1);
                self.checks.entry(key).or_default().insert(member, Check::Done(verdict));
            }
            Report::CheckFailed { key, member } => {
                self.checked = self.checked.wrapping_add(1);
                self.checks.entry(key).or_default().insert(member, Check::Failed { at_ms: now_ms });
            }
            Report::NotFound { key, member } => {
                let check = self.checks.get_mut(&key).and_then(|checks| checks.get_mut(&member));
                if let Some(check @ (Check::UnderWay | Check::Searching { .. })) = check {
                    self.checked = self.checked.wrapping_add(1);
                    *check = Check::Searching { at_ms: now_ms };
                }
            }
            Report::Computed { key, outputs } => {
                self.remember(key, Computation::Done(outputs));
            }
            Report::ComputeFailed { key, permanent } => {
                let since_ms = *self.failing_since.entry(key).or_insert(now_ms);
                self.remember(key, Computation::Failed { permanent, at_ms: now_ms, since_ms });
            }
            Report::Obtained { number, complete } => self.obtaining.report(number, complete, now_ms),
            Report::Discarded { last_index, complete } => self.retaining.report(last_index, complete, now_ms),
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
        let unchecked = self.checks.values().flat_map(BTreeMap::values).filter_map(Check::again_at_ms);
        let deadlines = self.deadlines.values().flat_map(Deadline::times);
        let files = self.obtaining.wake_at().into_iter().chain(self.retaining.wake_at());
        let times =
            deadlines.chain(self.waits.values().copied()).chain(unchecked).chain(retries).chain(failed).chain(files);
        // What has passed has been acted on, or waits for something else that will be noticed.
        times.filter(|at_ms| *at_ms > self.stepped_ms).min()
    }

    fn abandon(&mut self, view: &View<'_>, key: &RoundKey, reason: &str, duties: &mut Vec<Duty>) {
        if view.leads {
            let command = AbandonRound { key: *key, reason: reason.to_owned(), excluded: BTreeMap::new() };
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

    /// Takes note of how far a computation is.
    fn remember(&mut self, key: RoundKey, computation: Computation) {
        if self.computations.insert(key, computation).is_none() {
            self.begun.push_back(key);
        }
    }

    fn forget_old(&mut self, state: &Federation, now_ms: u64) {
        let open: BTreeSet<RoundKey> = state.plans().iter().filter_map(|(_, record)| record.open).collect();
        self.checks.retain(|key, _| open.contains(key));
        self.deadlines.retain(|key, _| open.contains(key));
        self.waits.retain(|wait, _| wait.is_pending(state));
        self.looks.retain(|key, _| open.contains(key));
        while self.computations.len() > COMPUTED_MAX {
            let is_over = |key: &RoundKey| {
                !open.contains(key) && !matches!(self.computations.get(key), Some(Computation::UnderWay))
            };
            let Some(oldest) = self.begun.iter().copied().find(is_over) else { break };
            self.computations.remove(&oldest);
            self.begun.retain(|key| *key != oldest);
        }
        // What failed and nothing asks for any more would otherwise wake the shell for ever.
        self.submissions.retain(|_, retry_at| retry_at.is_none_or(|at_ms| at_ms > now_ms));
        self.computations.retain(|key, computation| {
            let failed = matches!(computation, Computation::Failed { permanent: None, .. });
            !failed || open.contains(key) || (key.round == 0 && candidate_of(state, key).is_none())
        });
        self.begun.retain(|key| self.computations.contains_key(key));
        self.failing_since.retain(|key, _| {
            matches!(self.computations.get(key), Some(Computation::Failed { .. } | Computation::UnderWay))
        });
    }
}

fn submission_id(command: &Command) -> Digest {
    Digest::of_parts(&[command.kind().as_bytes(), &command.payload()])
}
