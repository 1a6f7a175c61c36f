//! The processors that trainers are bound to.
//!
//! How many a trainer may use, the site says; which ones, is decided when it starts: those that are least in use by others
//! that are bound, so that several participants on one machine do not meet on the same ones.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// What stands before the processors that a process may use.
const ALLOWED_FIELD: &str = "Cpus_allowed_list:";

/// Processors in the order in which trainers of this node use them. It is decided anew once none runs any more; until then all
/// have the same one, so that together they use no more than the one with the most.
#[derive(Debug, Default)]
pub struct Processors {
    order: Mutex<Weak<Vec<usize>>>,
}

impl Processors {
    /// The order, which is kept as long as somebody holds it.
    pub fn order(&self) -> Arc<Vec<usize>> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.upgrade().unwrap_or_else(|| {
            let new = Arc::new(least_used_first());
            *order = Arc::downgrade(&new);
            new
        })
    }
}

/// Binds a process, and what it will start, to the first `count` processors of an order.
pub fn bind(process: Option<u32>, order: &[usize], count: u32) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let process = process.and_then(|process| Pid::from_raw(process.try_into().ok()?));
    if process.is_none() || order.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    order.iter().take(count).for_each(|processor| set.set(*processor));
    if let Err(error) = sched_setaffinity(process, &set) {
        tracing::debug!(%error, "a trainer could not be bound to its processors");
    }
}

/// The processors that this node may use.
fn least_used_first() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let own: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect();
    let lists = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix(ALLOWED_FIELD))?;
        Some(processors_in(list))
    });
    by_use(&own, lists)
}

/// Those of `own` first that the fewest of the others use. Who may use as many as this node, is bound to none.
fn by_use(own: &[usize], others: impl Iterator<Item = Vec<usize>>) -> Vec<usize> {
    let mut uses: BTreeMap<usize, u64> = BTreeMap::new();
    for processor in others.filter(|other| other.len() < own.len()).flatten() {
        *uses.entry(processor).or_default() += 1;
    }
    let mut order = own.to_vec();
    order.sort_by_key(|processor| uses.get(processor).copied().unwrap_or_default());
    order
}

/// The numbers in a list such as `0-3,8`.
fn processors_in(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        Some(first.parse().ok()?..=last.parse::<usize>().ok()?.min(CpuSet::MAX_CPU))
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_nobody_is_bound_to_come_first() {
        let bound = [vec![0], vec![0, 2], vec![9], vec![0, 1, 2, 3], vec![0, 1, 2, 3, 4]];
        assert_eq!(by_use(&[0, 1, 2, 3], bound.into_iter()), [1, 3, 2, 0]);
        assert_eq!(processors_in("\t0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(processors_in("x,1-,-,7"), [7]);
        assert!(processors_in("0-99999999999").len() <= CpuSet::MAX_CPU + 1);
    }

    #[test]
    fn trainers_of_one_node_share_their_processors() {
        let processors = Processors::default();
        let order = processors.order();
        assert!(!order.is_empty() && Arc::ptr_eq(&order, &processors.order()));
    }
}
