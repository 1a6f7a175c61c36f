//! Rounds in progress: checking what is contributed, closing or giving up.

use std::collections::{BTreeMap, BTreeSet};

use super::{BASE_MOVED, BLOB_LOST, Check, Conductor, Duty, View};
use crate::{
    Command,
    apply::rounds::BELOW_QUORUM,
    command::{AbandonRound, CloseRound, RoundKey},
    member::MemberId,
    quorum::Quorum,
    recipe::Update,
    records::{Participation, Phase, PlanRecord, PlanStatus, RoundRecord},
};

/// What has become of the cohort.
#[derive(Default)]
struct Collected<'a> {
    /// Members whose contribution is on record, with what its check gave; none while it is not known.
    contributed: BTreeMap<&'a MemberId, Option<Result<(), String>>>,
    /// Members of whom nothing will come.
    out: BTreeSet<&'a MemberId>,
}

impl Collected<'_> {
    /// Whether nobody can change anything any more.
    fn is_complete(&self, round: &RoundRecord) -> bool {
        self.contributed.len() + self.out.len() >= round.cohort.len() && self.contributed.values().all(Option::is_some)
    }

    /// Contributions that cannot be aggregated, with the code of the reason. What could not be looked at by the end of the
    /// round's time is lost; before that, nobody is to blame for it.
    fn excluded(&self, over: bool) -> BTreeMap<MemberId, String> {
        let excluded = self.contributed.iter().filter_map(|(member, verdict)| match verdict {
            Some(Ok(())) => None,
            Some(Err(code)) => Some(((*member).clone(), code.clone())),
            None => over.then(|| ((*member).clone(), BLOB_LOST.to_owned())),
        });
        excluded.collect()
    }

    /// Whether somebody's contribution is lost to the round for good.
    fn lacks_any(&self) -> bool {
        !self.out.is_empty() || self.contributed.values().any(|verdict| matches!(verdict, Some(Err(_))))
    }

    /// Whether a member's contribution is there and can be aggregated.
    fn counts(&self, member: &MemberId) -> bool {
        matches!(self.contributed.get(member), Some(Some(Ok(()))))
    }

    /// Whether it still can be there in time.
    fn may_count(&self, member: &MemberId) -> bool {
        !self.out.contains(&member) && !matches!(self.contributed.get(member), Some(Some(Err(_))))
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
        let base_moved = view.state.branches().get(&record.plan.branch) != Some(&round.base);
        match &round.phase {
            Phase::Collecting if record.status == PlanStatus::Paused => {
                // What is contributed is checked, so that nothing has to be caught up with; time does not run.
                self.deadlines.remove(key);
                self.collected(view, key, duties);
            }
            Phase::Collecting | Phase::Closed { candidate: None, .. } if base_moved => {
                self.abandon(view, key, BASE_MOVED, duties);
            }
            Phase::Collecting => self.collect(view, record, key, round, duties),
            Phase::Closed { .. } => self.propose_version(view, key, duties),
            Phase::Completed { .. } | Phase::Abandoned { .. } => {}
        }
    }

    /// Closes the round when nothing more can come or its time is over; gives it up when its quorum is out of reach.
    fn collect(
        &mut self,
        view: &View<'_>,
        record: &PlanRecord,
        key: &RoundKey,
        round: &RoundRecord,
        duties: &mut Vec<Duty>,
    ) {
        let collected = self.collected(view, key, duties);
        if !view.leads {
            return;
        }
        let deadline = *self.deadlines.entry(*key).or_insert(view.now_ms + round.duration_ms);
        let participation = &record.plan.participation;
        let met =
            |counts: &dyn Fn(&MemberId) -> bool| Quorum::of(view.state, participation, key, round, counts).is_met();
        let over = view.now_ms >= deadline || collected.is_complete(round);
        if over && met(&|member| collected.counts(member)) {
            let close = CloseRound { key: *key, excluded: collected.excluded(over) };
            return self.submit(view, Command::CloseRound(close), duties);
        }
        // As long as nobody is out, everybody may come.
        if over || (collected.lacks_any() && !met(&|member| collected.may_count(member))) {
            let (reason, excluded) = (BELOW_QUORUM.to_owned(), collected.excluded(over));
            self.submit(view, Command::AbandonRound(AbandonRound { key: *key, reason, excluded }), duties);
        }
    }

    /// Looks at what the cohort has done, and has new contributions checked.
    fn collected<'a>(&mut self, view: &View<'a>, key: &RoundKey, duties: &mut Vec<Duty>) -> Collected<'a> {
        let mut collected = Collected::default();
        for (member, participation) in view.state.participations(key) {
            match participation {
                Participation::Joined { .. } => {}
                Participation::Declined { .. } | Participation::Revoked { .. } => drop(collected.out.insert(member)),
                Participation::Contributed { contribution, .. } => {
                    self.check(key, Update::of(member, contribution), duties);
                    let verdict = match self.checks.get(&(*key, member.clone())) {
                        Some(Check::Done(verdict)) => Some(verdict.clone()),
                        Some(Check::UnderWay) | None => None,
                    };
                    collected.contributed.insert(member, verdict);
                }
            }
        }
        collected
    }

    fn check(&mut self, key: &RoundKey, update: Update, duties: &mut Vec<Duty>) {
        let check = self.checks.entry((*key, update.member.clone()));
        if let std::collections::btree_map::Entry::Vacant(vacant) = check {
            vacant.insert(Check::UnderWay);
            duties.push(Duty::Check { key: *key, update });
        }
    }
}
