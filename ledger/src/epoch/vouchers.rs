//! Who of an epoch vouches for a head of the log.

use std::collections::{BTreeMap, BTreeSet};

use super::{Epoch, cosigner_name, cosigner_node};
use crate::{
    digest::shortened,
    keys::PublicKey,
    note::{KeyId, NoteError, NoteSignature, SignatureType, SignedNote},
};

/// The nodes of an epoch that have signed a note, each with the key that it has in that epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vouchers {
    /// Replicas that have signed in the name of the log.
    pub logs: BTreeSet<String>,
    /// Replicas that have co-signed, and when, in seconds since the Unix epoch by their own clocks.
    pub replicas: BTreeMap<String, u64>,
    /// Witnesses that have co-signed, and when.
    pub witnesses: BTreeMap<String, u64>,
}

/// A note with a line that no honest node of the epoch has added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VouchError {
    /// A signature by a key of the epoch does not verify.
    #[error(transparent)]
    Signature(#[from] NoteError),
    /// A line by nobody's key.
    #[error("a line by {0:?} is of no key of the epoch's replicas and witnesses")]
    Stranger(String),
    /// Two lines by one key.
    #[error("{0} has signed twice")]
    Repeated(String),
}

/// Whose line it is, and with which key it is checked.
enum Signer<'a> {
    Log(&'a str, PublicKey),
    Replica(&'a str, PublicKey),
    Witness(&'a str, PublicKey),
}

impl Vouchers {
    /// Whether anybody has co-signed, rather than signed in the name of the log.
    pub fn is_cosigned(&self) -> bool {
        !self.replicas.is_empty() || !self.witnesses.is_empty()
    }

    /// Whether the replicas that have co-signed make a head of `epoch` final.
    pub fn is_final(&self, epoch: &Epoch) -> bool {
        // An epoch without a threshold would let nobody make everything final.
        self.replicas.len() as u64 >= epoch.threshold.max(1)
    }

    /// Whether every replica of `epoch` has co-signed.
    pub fn is_unanimous(&self, epoch: &Epoch) -> bool {
        self.is_final(epoch) && self.replicas.len() == epoch.replicas.len()
    }

    /// The trusted time of the head: the median of the replicas' times, the lower one of two, in seconds since the Unix
    /// epoch. It lies between two right clocks as long as fewer than half of those that co-signed are wrong.
    pub fn time_s(&self) -> Option<u64> {
        let mut times: Vec<u64> = self.replicas.values().copied().collect();
        times.sort_unstable();
        times.get(times.len().checked_sub(1)? / 2).copied()
    }
}

impl Epoch {
    /// Who of this epoch has signed the note. Lines by other keys are ignored, as C2SP signed-note demands.
    ///
    /// # Errors
    ///
    /// [`NoteError::BadSignature`] if a line by a key of the epoch does not verify: the note is not to be trusted then.
    pub fn vouchers(&self, origin: &str, note: &SignedNote) -> Result<Vouchers, NoteError> {
        let mut vouchers = Vouchers::default();
        for line in note.signatures() {
            if let Some(signer) = self.signer(origin, line) {
                signer.add(&mut vouchers, origin, note)?;
            }
        }
        Ok(vouchers)
    }

    /// [`Epoch::vouchers`] of a note in which every line must be by a key of the epoch, and no two by one key.
    ///
    /// # Errors
    ///
    /// [`VouchError`].
    pub fn vouchers_strict(&self, origin: &str, note: &SignedNote) -> Result<Vouchers, VouchError> {
        let mut seen = BTreeSet::new();
        for line in note.signatures() {
            if self.signer(origin, line).is_none() {
                return Err(VouchError::Stranger(shortened(line.name())));
            }
            if !seen.insert((line.name(), line.key_id())) {
                return Err(VouchError::Repeated(shortened(line.name())));
            }
        }
        Ok(self.vouchers(origin, note)?)
    }

    /// Whether nodes that have co-signed as replicas of `other` make a head final in this epoch, too: those count that have
    /// the same key in both.
    pub(crate) fn is_vouched_for_by<'a>(&self, other: &Self, nodes: impl IntoIterator<Item = &'a String>) -> bool {
        let same = |node: &&String| {
            let [own, others] = [self, other].map(|epoch| epoch.replicas.get(*node).map(|keys| keys.cosign));
            own.is_some() && own == others
        };
        nodes.into_iter().filter(same).count() as u64 >= self.threshold.max(1)
    }

    fn signer<'a>(&'a self, origin: &str, line: &'a NoteSignature) -> Option<Signer<'a>> {
        let id = line.key_id();
        if line.name() == origin {
            let is_its = |key: &PublicKey| KeyId::of(origin, SignatureType::Ed25519, key) == id;
            let (node, keys) = self.replicas.iter().find(|(_, keys)| is_its(&keys.log))?;
            return Some(Signer::Log(node, keys.log));
        }
        let node = cosigner_node(origin, line.name())?;
        let is_its = |key: &PublicKey| KeyId::of(line.name(), SignatureType::CosignatureV1, key) == id;
        let replica = self.replicas.get(node).map(|keys| keys.cosign).filter(is_its);
        let witness = self.witnesses.get(node).copied().filter(is_its);
        replica.map(|key| Signer::Replica(node, key)).or_else(|| witness.map(|key| Signer::Witness(node, key)))
    }
}

impl Signer<'_> {
    /// Verifies the line and takes note of who has signed.
    fn add(self, vouchers: &mut Vouchers, origin: &str, note: &SignedNote) -> Result<(), NoteError> {
        match self {
            Self::Log(node, key) => {
                note.verify(origin, &key)?;
                vouchers.logs.insert(node.to_owned());
            }
            Self::Replica(node, key) => {
                let time_s = note.verify_cosignature(&cosigner_name(origin, node), &key)?;
                vouchers.replicas.insert(node.to_owned(), time_s);
            }
            Self::Witness(node, key) => {
                let time_s = note.verify_cosignature(&cosigner_name(origin, node), &key)?;
                vouchers.witnesses.insert(node.to_owned(), time_s);
            }
        }
        Ok(())
    }
}
