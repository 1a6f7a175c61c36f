//! How many files participants may store at a replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use fedledger_federation::command::RoundKey;
use fedledger_ledger::{Digest, PublicKey};

/// Updates that one participant may store for one attempt at a round. It bounds what a member can write to a replica's disk
/// without contributing: an update is made once, and again if its file is damaged.
const UPLOADS_PER_ATTEMPT_MAX: usize = 4;

/// What participants have offered, by the attempt that waits for it.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<BTreeMap<RoundKey, Offered>>);

/// The files that each participant has offered for an attempt.
type Offered = BTreeMap<PublicKey, BTreeSet<Digest>>;

impl Uploads {
    /// Whether the participant may store this file: a few for each attempt that waits for one like it from this participant.
    /// Going on with a file, however often it was interrupted, counts once. What was offered for attempts that are not
    /// `open` any more is forgotten.
    pub fn admit(
        &self,
        participant: PublicKey,
        file: Digest,
        waiting: &[RoundKey],
        open: impl Fn(&RoundKey) -> bool,
    ) -> bool {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.retain(|attempt, _| open(attempt));
        let files_of = |attempt: &RoundKey| attempts.get(attempt).and_then(|offered| offered.get(&participant));
        if waiting.iter().filter_map(files_of).any(|files| files.contains(&file)) {
            return true;
        }
        let has_room =
            |attempt: &&RoundKey| files_of(attempt).is_none_or(|files| files.len() < UPLOADS_PER_ATTEMPT_MAX);
        let Some(attempt) = waiting.iter().find(has_room) else { return false };
        attempts.entry(*attempt).or_default().entry(participant).or_default().insert(file)
    }

    /// Whether a file was offered for an attempt that is `open`.
    pub fn cover(&self, file: &Digest, open: impl Fn(&RoundKey) -> bool) -> bool {
        let attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offered =
            attempts.iter().filter(|(attempt, _)| open(attempt)).flat_map(|(_, offered)| offered.values());
        offered.any(|files| files.contains(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(plan: u8, number: u64) -> RoundKey {
        RoundKey { plan: Digest::of(&[plan]), round: 1, attempt: number }
    }

    fn file(number: usize) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    fn participants() -> [PublicKey; 2] {
        [1, 2].map(|number| PublicKey::from_bytes([number; 32]))
    }

    #[test]
    fn a_participant_stores_a_few_files_for_an_attempt_and_each_as_often_as_it_must() {
        let (uploads, [first, second], one) = (Uploads::default(), participants(), [attempt(1, 1)]);
        let admit = |who, number| uploads.admit(who, file(number), &one, |_| true);
        for _ in 0..100 {
            assert!((0..UPLOADS_PER_ATTEMPT_MAX).all(|number| admit(first, number)));
        }
        assert!(!admit(first, UPLOADS_PER_ATTEMPT_MAX));
        assert!(admit(second, UPLOADS_PER_ATTEMPT_MAX));
        assert!(!uploads.admit(first, file(0), &[], |_| true), "nobody waits for it");
        assert!(uploads.cover(&file(0), |_| true) && !uploads.cover(&file(UPLOADS_PER_ATTEMPT_MAX + 1), |_| true));
        assert!(!uploads.cover(&file(0), |_| false), "it is over");
    }

    #[test]
    fn each_plan_has_room_of_its_own_and_another_attempt_gives_no_more_of_it() {
        let (uploads, [first, _]) = (Uploads::default(), participants());
        let plans: Vec<_> = (0..50).map(|plan| attempt(plan, 1)).collect();
        let all = plans.len() * UPLOADS_PER_ATTEMPT_MAX;
        assert!((0..all).all(|number| uploads.admit(first, file(number), &plans, |_| true)));
        assert!(!uploads.admit(first, file(all), &plans, |_| true));
        // An attempt of another plan is over, and the next one of it opens.
        let next = attempt(0, 2);
        let is_open = |key: &RoundKey| *key == next || plans[1..].contains(key);
        assert!(!uploads.admit(first, file(all), &plans[1..], is_open));
        assert!(uploads.admit(first, file(all), &[next], is_open));
        assert_eq!(uploads.0.lock().unwrap().len(), plans.len());
    }
}
