//! Rounds in progress: checking what is contributed, closing or giving up.

use std::collections::{BTreeMap, BTreeSet};

use super::{BLOB_LOST, Check, Conductor, Deadline, Duty, Look, TOO_MANY_EXCLUDED, UNCHECKED, View};
use crate::{
    Command,
    apply::rounds::{BASE_MOVED, BELOW_QUORUM},
    command::{AbandonRound, CloseRound, Contribute, RoundKey},
    limits::PAYLOAD_SIZE_BYTES_MAX,
    member::MemberId,
    quorum::Quorum,
    recipe::Update,
    records::{Participation, Phase, PlanRecord, PlanStatus, RoundRecord},
};

/// What has become of the cohort.
struct Collected<'a> {
    /// Members whose contribution is on record and was made in time, with what its check gave; none while it is not known.
    contributed: BTreeMap<&'a MemberId, Option<Result<(), String>>>,
    /// Members of whom nothing will come.
    out: BTreeSet<&'a MemberId>,
    /// Whether the round's time is over, so that nothing will come of anybody.
    past: bool,
    /// Ledger index of the newest of these contributions.
    through: u64,
    /// When the next check that failed is tried again, in milliseconds; never without one.
    again_at_ms: u64,
}

impl Collected<'_> {
    /// Whether nobody can change anything any more.
    fn is_complete(&self, round: &RoundRecord) -> bool {
        let awaited = !self.past && self.contributed.len() + self.out.len() < round.cohort.len();
        !awaited && self.contributed.values().all(Option::is_some)
    }

    /// Contributions that cannot be aggregated, with the code of the reason. Before the end nobody is to blame for what
    /// could not be looked at.
    fn excluded(&self, over: bool) -> BTreeMap<MemberId, String> {
        let excluded = self.contributed.iter().filter_map(|(member, verdict)| match verdict {
            Some(Ok(())) => None,
            Some(Err(code)) => Some(((*member).clone(), code.clone())),
            None => over.then(|| ((*member).clone(), UNCHECKED.to_owned())),
        });
        excluded.collect()
    }

    /// Whether somebody's contribution is lost to the round for good.
    fn lacks_any(&self) -> bool {
        self.past || !self.out.is_empty() || self.contributed.values().any(|verdict| matches!(verdict, Some(Err(_))))
    }

    /// Whether a member's contribution is there and can be aggregated.
    fn counts(&self, member: &MemberId) -> bool {
        matches!(self.contributed.get(member), Some(Some(Ok(()))))
    }

    /// Whether it still can be there in time.
    fn may_count(&self, member: &MemberId) -> bool {
        match self.contributed.get(member) {
            Some(verdict) => !matches!(verdict, Some(Err(_))),
            None => !self.past && !self.out.contains(&member),
        }
    }
}

impl Conductor {
    pub(super) fn conduct_round(
        &mut self,
        view: &View<'_>,
        record: &PlanRecord,
        key: &RoundKey,
        duties: &mut Vec<Duty>,
    ) {
        let Some(round) = view.state.rounds().get(key) else { return };
        let paused = record.status == PlanStatus::Paused;
        let look = Look { settled: view.state.settled(), checked: self.checked, leads: view.leads, paused };
        let base_moved = view.state.branches().get(&record.plan.branch) != Some(&round.base);
        // Most entries are no business of this round, or tell that somebody has joined.
        let is_known = self.looks.get(key).is_some_and(|(seen, until_ms)| *seen == look && view.now_ms < *until_ms);
        match &round.phase {
            Phase::Collecting if paused && is_known => {}
            Phase::Collecting if paused => {
                // What is contributed is checked, so that nothing has to be caught up with; time does not run.
                self.deadlines.remove(key);
                let collected = self.collected(view, key, duties);
                self.looks.insert(*key, (look, collected.again_at_ms));
            }
            Phase::Collecting | Phase::Closed { candidate: None, .. } if base_moved => {
                self.abandon(view, key, BASE_MOVED, duties);
            }
            Phase::Collecting if is_known => {}
            Phase::Collecting => match self.collect(view, record, key, round, duties) {
                Some(again_at_ms) => drop(self.looks.insert(*key, (look, again_at_ms))),
                None => drop(self.looks.remove(key)),
            },
            Phase::Closed { .. } => self.propose_version(view, key, duties),
            Phase::Completed { .. } | Phase::Abandoned { .. } => {}
        }
    }

    /// Closes the round when nothing more can come or its time is over; gives it up when its quorum is out of reach. Otherwise
    /// says until when nothing comes of looking again, in milliseconds, if nothing happens.
    fn collect(
        &mut self,
        view: &View<'_>,
        record: &PlanRecord,
        key: &RoundKey,
        round: &RoundRecord,
        duties: &mut Vec<Duty>,
    ) -> Option<u64> {
        if view.leads {
            let deadline = self.deadlines.entry(*key).or_insert_with(|| Deadline::of(round, view.now_ms));
            deadline.pass(view.state, key, view.now_ms);
        }
        let collected = self.collected(view, key, duties);
        let again_at_ms = collected.again_at_ms;
        let Some(deadline) = self.deadlines.get_mut(key).filter(|_| view.leads) else { return Some(again_at_ms) };
        let participation = &record.plan.participation;
        let met =
            |counts: &dyn Fn(&MemberId) -> bool| Quorum::of(view.state, participation, key, round, counts).is_met();
        let over = deadline.is_over(view.now_ms) || collected.is_complete(round);
        if over && met(&|member| collected.counts(member)) {
            // What comes before this is on the ledger has not been looked at, and is left out.
            let close = CloseRound { key: *key, through: collected.through, excluded: collected.excluded(over) };
            self.submit(view, fitting(key, Command::CloseRound(close)), duties);
            return None;
        }
        // As long as nobody is out, everybody may come.
        if over || (collected.lacks_any() && !met(&|member| collected.may_count(member))) {
            // Another contribution that comes before this is on the ledger may make up the quorum, so it is looked at.
            deadline.through = None;
            let (reason, excluded) = (BELOW_QUORUM.to_owned(), collected.excluded(over));
            let abandon = AbandonRound { key: *key, reason, excluded };
            self.submit(view, fitting(key, Command::AbandonRound(abandon)), duties);
            return None;
        }
        let ahead = deadline.times().into_iter().filter(|at_ms| *at_ms > view.now_ms);
        Some(ahead.fold(again_at_ms, u64::min))
    }

    /// Looks at what the cohort has done in time, and has new contributions checked.
    fn collected<'a>(&mut self, view: &View<'a>, key: &RoundKey, duties: &mut Vec<Duty>) -> Collected<'a> {
        let deadline = self.deadlines.get(key).filter(|deadline| deadline.through.is_some());
        let (through, past_ms) = (deadline.and_then(|deadline| deadline.through), deadline.map(Deadline::at_ms));
        let mut collected = Collected {
            contributed: BTreeMap::new(),
            out: BTreeSet::new(),
            past: through.is_some(),
            through: 0,
            again_at_ms: u64::MAX,
        };
        for (member, participation) in view.state.participations(key) {
            match participation {
                Participation::Joined { .. } => {}
                Participation::Declined { .. } | Participation::Revoked { .. } => drop(collected.out.insert(member)),
                Participation::Contributed { index, .. } if through.is_some_and(|through| *index > through) => {}
                Participation::Contributed { index, contribution, .. } => {
                    collected.through = collected.through.max(*index);
                    let verdict = self.check(view, key, (member, contribution), past_ms, duties);
                    collected.contributed.insert(member, verdict);
                }
            }
        }
        let retries = self.checks.get(key).into_iter().flat_map(BTreeMap::values).filter_map(Check::again_at_ms);
        collected.again_at_ms = retries.min().unwrap_or(u64::MAX);
        collected
    }

    /// What the check of a contribution gave, if that is known; begins it otherwise, and again where it failed. What nobody
    /// had since time was over, at `past_ms`, is lost.
    fn check(
        &mut self,
        view: &View<'_>,
        key: &RoundKey,
        (member, contribution): (&MemberId, &Contribute),
        past_ms: Option<u64>,
        duties: &mut Vec<Duty>,
    ) -> Option<Result<(), String>> {
        let checks = self.checks.entry(*key).or_default();
        match checks.get(member) {
            Some(Check::Done(verdict)) => return Some(verdict.clone()),
            Some(Check::Searching { at_ms }) if past_ms.is_some_and(|past_ms| *at_ms >= past_ms) => {
                return Some(Err(BLOB_LOST.to_owned()));
            }
            Some(Check::UnderWay | Check::Searching { .. }) => return None,
            Some(Check::Failed { .. }) if past_ms.is_some() => return Some(Err(BLOB_LOST.to_owned())),
            Some(failed) if failed.again_at_ms().is_some_and(|at_ms| view.now_ms < at_ms) => return None,
            Some(Check::Failed { .. }) | None => {}
        }
        checks.insert(member.clone(), Check::UnderWay);
        duties.push(Duty::Check { key: *key, update: Update::of(member, contribution) });
        None
    }
}

/// The command that ends a round's collection, if it fits into a transaction; with hundreds of contributions to leave out it
/// does not, and the attempt is given up without naming them, rather than asked for without end.
fn fitting(key: &RoundKey, command: Command) -> Command {
    if command.payload().len() <= PAYLOAD_SIZE_BYTES_MAX {
        return command;
    }
    let reason = TOO_MANY_EXCLUDED.to_owned();
    Command::AbandonRound(AbandonRound { key: *key, reason, excluded: BTreeMap::new() })
}
