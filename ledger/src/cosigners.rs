//! Who of an epoch has co-signed a note: for everybody who has the epoch's keys and a note, and no log.
//!
//! [`finality`](crate::finality) finds out for a replica which heads are final; this does it for clients and readers of
//! files. Neither compares a note's root with a log.

use std::collections::BTreeMap;

use crate::{
    epoch::{Epoch, cosigner_name},
    note::{NoteError, SignedNote},
};

/// The replicas that have co-signed a note.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cosigners {
    /// When each did, in seconds since the Unix epoch by its own clock, by node name.
    pub times_s: BTreeMap<String, u64>,
}

impl Cosigners {
    /// The replicas of `epoch` that have co-signed `note`. Lines by other keys are ignored, as the format demands.
    ///
    /// # Errors
    ///
    /// [`NoteError`] if a line claims to be a replica's and does not verify: the note as a whole is not to be trusted.
    pub fn of(note: &SignedNote, origin: &str, epoch: &Epoch) -> Result<Self, NoteError> {
        let mut times_s = BTreeMap::new();
        for (node, keys) in &epoch.replicas {
            match note.verify_cosignature(&cosigner_name(origin, node), &keys.cosign) {
                Ok(time_s) => drop(times_s.insert(node.clone(), time_s)),
                Err(NoteError::NotSigned { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { times_s })
    }

    /// Whether they are enough to make a head of `epoch` final.
    pub fn suffice(&self, epoch: &Epoch) -> bool {
        self.times_s.len() as u64 >= epoch.threshold
    }

    /// The trusted time of the head: the median of the times, the lower one of two, in seconds since the Unix epoch.
    pub fn time_s(&self) -> Option<u64> {
        let mut times: Vec<u64> = self.times_s.values().copied().collect();
        times.sort_unstable();
        times.get(times.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SecretKey, checkpoint::Checkpoint, digest::Digest, epoch::ReplicaKeys, note::NoteSignature};

    const ORIGIN: &str = "fedledger/heart";

    fn key(purpose: u8, replica: u8) -> SecretKey {
        SecretKey::from_seed([purpose * 16 + replica; 32])
    }

    fn epoch() -> Epoch {
        let keys = |replica| ReplicaKeys {
            author: key(1, replica).public(),
            log: key(2, replica).public(),
            cosign: key(3, replica).public(),
        };
        let replicas = (1..=4).map(|replica| (format!("site-{replica}/replica"), keys(replica))).collect();
        Epoch { number: 0, index: 0, threshold: 3, replicas, witnesses: BTreeMap::new() }
    }

    /// A head that these replicas have co-signed, each at a hundred times its number of seconds.
    fn note(replicas: &[u8]) -> SignedNote {
        let text = Checkpoint::new(ORIGIN, 7, Digest::of(b"root")).unwrap().to_note_text();
        let mut note =
            SignedNote::from_parts(text.as_str(), vec![NoteSignature::sign(&text, ORIGIN, &key(2, 1)).unwrap()])
                .unwrap();
        for &replica in replicas {
            let name = cosigner_name(ORIGIN, &format!("site-{replica}/replica"));
            let time_s = u64::from(replica) * 100;
            note.add(NoteSignature::cosign(&text, &name, &key(3, replica), time_s).unwrap()).unwrap();
        }
        note
    }

    #[test]
    fn as_many_as_the_threshold_suffice() {
        for (replicas, suffice, time_s) in [
            (&[][..], false, None),
            (&[1], false, Some(100)),
            (&[1, 4], false, Some(100)),
            (&[2, 3, 4], true, Some(300)),
        ] {
            let cosigners = Cosigners::of(&note(replicas), ORIGIN, &epoch()).unwrap();
            assert_eq!((cosigners.suffice(&epoch()), cosigners.time_s()), (suffice, time_s), "{replicas:?}");
        }
    }

    #[test]
    fn neither_strangers_nor_forgers_count() {
        let mut other = epoch();
        for (replica, keys) in other.replicas.values_mut().enumerate() {
            keys.cosign = key(4, u8::try_from(replica).unwrap()).public();
        }
        let cosigners = Cosigners::of(&note(&[1, 2, 3, 4]), ORIGIN, &other).unwrap();
        assert_eq!(cosigners, Cosigners::default());
        // The right key and name under another text.
        let forged = note(&[1, 2, 3]).to_string().replace("\n7\n", "\n8\n");
        let forged = SignedNote::parse(&forged).unwrap();
        assert!(matches!(Cosigners::of(&forged, ORIGIN, &epoch()), Err(NoteError::BadSignature { .. })));
    }
}
