//! Bounds in total and for each of many, such as connections per host.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Hands out permits, so many in total and so many per key.
pub(crate) struct Quota<K> {
    total_max: usize,
    per_key_max: usize,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    total: usize,
    by_key: HashMap<K, usize>,
}

/// One of the permits of a [`Quota`], given back when it is dropped.
pub(crate) struct Permit<K: Eq + Hash> {
    quota: Arc<Quota<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Quota<K> {
    /// At most `total_max` permits at once, and `per_key_max` for any key.
    pub fn new(total_max: usize, per_key_max: usize) -> Arc<Self> {
        let taken = Mutex::new(Taken { total: 0, by_key: HashMap::new() });
        Arc::new(Self { total_max, per_key_max, taken })
    }

    /// A permit, unless the quota of the key or the total is used up.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Permit<K>> {
        let mut taken = self.taken();
        let of_key = taken.by_key.get(&key).copied().unwrap_or(0);
        if taken.total >= self.total_max || of_key >= self.per_key_max {
            return None;
        }
        taken.total += 1;
        taken.by_key.insert(key.clone(), of_key + 1);
        Some(Permit { quota: self.clone(), key })
    }
}

impl<K> Quota<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        // The numbers are changed together and nothing in between can panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.quota.taken();
        taken.total = taken.total.saturating_sub(1);
        // Keys without permits are forgotten, so that the map stays as small as what it bounds.
        if let Some(of_key) = taken.by_key.get_mut(&self.key) {
            *of_key -= 1;
            if *of_key == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

impl<K: Eq + Hash> fmt::Debug for Permit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_cannot_take_the_share_of_another() {
        let quota = Quota::new(3, 2);
        let (first, _second) = (quota.take("a").unwrap(), quota.take("a").unwrap());
        assert!(quota.take("a").is_none());
        let _third = quota.take("b").unwrap();
        assert!(quota.take("b").is_none(), "the total is used up");
        drop(first);
        assert!(quota.take("b").is_some());
    }

    #[test]
    fn keys_without_permits_are_forgotten() {
        let quota = Quota::new(3, 2);
        drop([quota.take("a"), quota.take("a"), quota.take("b")]);
        let taken = quota.taken();
        assert_eq!((taken.total, taken.by_key.len()), (0, 0));
    }
}
