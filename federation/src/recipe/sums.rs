//! The running sums of the rounds in progress, within a bound of memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::{
    aggregation::{Aggregation, RunningSum},
    command::RoundKey,
    plan::Plan,
};

/// Sums of rounds, by attempt. A round whose sum would exceed the bound has none; its version is computed from the files.
#[derive(Debug)]
pub struct RunningSums {
    size_bytes_max: u64,
    sums: Mutex<BTreeMap<RoundKey, Arc<RoundSum>>>,
}

/// The sum of one attempt, allocated when it is first asked for.
#[derive(Debug)]
pub struct RoundSum {
    aggregation: Aggregation,
    sum: OnceLock<Option<RunningSum>>,
}

impl RoundSum {
    /// The sum; none if there was not enough memory, or once nobody needs it any more. The first call may take long.
    pub fn get(&self) -> Option<&RunningSum> {
        self.sum.get_or_init(|| RunningSum::new(self.aggregation.clone()).ok()).as_ref()
    }

    /// Whoever asks for it only now gets none.
    fn retire(&self) {
        let _ = self.sum.set(None);
    }
}

impl RunningSums {
    /// No sums, and at most this many bytes of them later.
    pub const fn new(size_bytes_max: u64) -> Self {
        Self { size_bytes_max, sums: Mutex::new(BTreeMap::new()) }
    }

    /// The sum of an attempt, which begins with zeros if there is room for it.
    pub fn begin(&self, key: &RoundKey, plan: &Plan, cohort: usize) -> Option<Arc<RoundSum>> {
        let mut sums = self.lock();
        if let Some(sum) = sums.get(key) {
            return Some(Arc::clone(sum));
        }
        let aggregation = plan.arithmetic(cohort).ok()?;
        let taken: u64 = sums.values().map(|sum| RunningSum::size_bytes(&sum.aggregation)).sum();
        if taken.saturating_add(RunningSum::size_bytes(&aggregation)) > self.size_bytes_max {
            return None;
        }
        let sum = Arc::new(RoundSum { aggregation, sum: OnceLock::new() });
        sums.insert(*key, Arc::clone(&sum));
        Some(sum)
    }

    /// The sum of an attempt, if there is one.
    pub fn get(&self, key: &RoundKey) -> Option<Arc<RoundSum>> {
        self.lock().get(key).map(Arc::clone)
    }

    /// Takes out the sum of an attempt whose version has been computed. To give its memory back may take long, so the caller
    /// decides where.
    pub fn remove(&self, key: &RoundKey) -> Option<Arc<RoundSum>> {
        let removed = self.lock().remove(key);
        removed.inspect(|sum| sum.retire())
    }

    /// Takes out the sums of attempts that are not in progress any more.
    pub fn remove_others(&self, in_progress: impl Fn(&RoundKey) -> bool) -> Vec<Arc<RoundSum>> {
        let mut sums = self.lock();
        let removed = sums.extract_if(.., |key, _| !in_progress(key));
        removed.map(|(_, sum)| sum).inspect(|sum| sum.retire()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RoundKey, Arc<RoundSum>>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
