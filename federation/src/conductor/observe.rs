//! What a replica has seen of the plans' progress: how long each stands where it stands, and what is missing here.

use super::{Check, Computation, Conductor, WaitFor};
use crate::{
    Federation,
    progress::{Computing, Observed, PlanProgress, Standing, progress},
    records::PlanRecord,
};

impl Conductor {
    /// Where every plan that is carried out stands, what it waits for, and whether it is stuck, as this replica sees it.
    pub fn progress(&self, state: &Federation, now_ms: u64) -> Vec<PlanProgress> {
        progress(state, &self.observed(now_ms))
    }

    /// Notes since when plans stand where they stand.
    pub(super) fn take_bearings(&mut self, state: &Federation, now_ms: u64) {
        let active = |record: &PlanRecord| record.open.is_some() || record.status.is_active();
        self.standings.retain(|plan, _| state.plans().get(plan).is_some_and(active));
        for (id, record) in state.plans().iter().filter(|(_, record)| active(record)) {
            let standing = Standing::of(state, id, record);
            let known = self.standings.entry(*id).or_insert((standing, now_ms));
            if known.0 != standing {
                *known = (standing, now_ms);
            }
        }
    }

    fn observed(&self, now_ms: u64) -> Observed {
        let mut observed = Observed::default();
        for (plan, (standing, since_ms)) in &self.standings {
            observed.lasting_ms.insert(*plan, (*standing, now_ms.saturating_sub(*since_ms)));
        }
        let deadlines = self.deadlines.iter().map(|(key, deadline)| (key.plan, deadline.next(now_ms)));
        let waits = self.waits.iter().map(|(wait, until)| (*WaitFor::plan(wait), *until));
        observed.left_ms.extend(deadlines.chain(waits).map(|(plan, until)| (plan, until.saturating_sub(now_ms))));
        for (key, checks) in &self.checks {
            let unchecked = checks.iter().filter(|(_, check)| !matches!(check, Check::Done(_)));
            observed.unchecked.insert(*key, unchecked.map(|(member, _)| member.clone()).collect());
        }
        observed.computing.extend(self.computations.iter().map(|(key, computation)| {
            let computing = match computation {
                Computation::UnderWay if self.failing_since.contains_key(key) => Computing::Failing,
                Computation::UnderWay => Computing::UnderWay,
                Computation::Done(_) => Computing::Done,
                Computation::Failed { .. } => Computing::Failing,
            };
            (*key, computing)
        }));
        observed
    }
}
