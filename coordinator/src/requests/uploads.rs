//! How many files participants may store at a replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use fedledger_ledger::{Digest, PublicKey};

/// Updates that one participant may store after a round was opened and before the next one is. It bounds what a member can
/// write to a replica's disk without contributing.
const UPLOADS_PER_ROUND_MAX: usize = 4;

/// What participants have offered.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<BTreeMap<PublicKey, Offered>>);

/// What one participant has offered.
#[derive(Debug, Default)]
struct Offered {
    /// Attempts at rounds that had been opened then.
    rounds_opened: u64,
    /// The files that it has offered since.
    files: BTreeSet<Digest>,
}

impl Uploads {
    /// Whether the participant may store this file: a few per round, for repeated attempts. Going on with one, however
    /// often it was interrupted, counts once.
    pub fn admit(&self, participant: PublicKey, file: Digest, rounds_opened: u64) -> bool {
        let mut participants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = participants.entry(participant).or_default();
        if offered.rounds_opened != rounds_opened {
            *offered = Offered { rounds_opened, files: BTreeSet::new() };
        }
        if offered.files.len() < UPLOADS_PER_ROUND_MAX {
            offered.files.insert(file);
        }
        offered.files.contains(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_stores_a_few_files_a_round_and_each_as_often_as_it_must() {
        let uploads = Uploads::default();
        let [first, second] = [1, 2].map(|number| PublicKey::from_bytes([number; 32]));
        let file = |number: usize| Digest::of(&number.to_be_bytes());
        for _ in 0..100 {
            assert!((0..UPLOADS_PER_ROUND_MAX).all(|number| uploads.admit(first, file(number), 1)));
        }
        assert!(!uploads.admit(first, file(UPLOADS_PER_ROUND_MAX), 1));
        assert!(uploads.admit(second, file(UPLOADS_PER_ROUND_MAX), 1));
        assert!(uploads.admit(first, file(UPLOADS_PER_ROUND_MAX), 2));
    }
}
