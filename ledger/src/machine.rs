//! The seam to the replicated state machine: what the ledger asks of whoever knows the meaning of transactions.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::{codec, digest::Digest, epoch::Epoch, keys::PublicKey};

/// A deterministic state machine driven by the committed transactions of a log.
///
/// `apply` is total: every committed transaction either takes effect or is rejected with a reason, and a rejection changes
/// nothing. It reads no clock, draws no randomness and does no IO, so that every replica and every auditor who applies the
/// same transactions reaches the same state.
pub trait StateMachine: Sized {
    /// What an accepted transaction brought about.
    type Event: fmt::Debug;
    /// Why a transaction was refused.
    type Rejection: RejectionCode;

    /// Applies one transaction at log position `index` and records its effects in `writes`.
    ///
    /// # Errors
    ///
    /// The machine's rejection; nothing was changed and `writes` is as empty as before.
    fn apply(
        &mut self,
        index: u64,
        author: &PublicKey,
        kind: &str,
        payload: &[u8],
        writes: &mut WriteSet,
    ) -> Result<Self::Event, Self::Rejection>;

    /// The newest epoch that the entries so far have made. It comes into force with the next seal.
    ///
    /// Its number rises with every change of it, and its index is that of the entry that made it.
    fn epoch(&self) -> &Epoch;

    /// The machine at the beginning of the chain, from the genesis file.
    ///
    /// # Errors
    ///
    /// A text that says what is wrong with the genesis file.
    fn genesis(bytes: &[u8], writes: &mut WriteSet) -> Result<Self, String>;

    /// The machine from its records, as the write sets so far left them.
    ///
    /// # Errors
    ///
    /// A text that names the record that cannot be understood: the storage is damaged or of another version.
    fn restore(records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, String>;
}

/// A refusal with a stable name. The code stands on the ledger; the text is for people and may be improved.
pub trait RejectionCode: fmt::Display + fmt::Debug {
    /// The stable name, in snake case.
    fn code(&self) -> &'static str;
}

/// The records that one transaction wrote (`Some`) or removed (`None`), by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl WriteSet {
    /// Records that `key` now holds `value`.
    pub fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        self.0.insert(key, Some(codec::encode(value)));
    }

    /// Records that `key` is gone.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.0.insert(key, None);
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The writes in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// SHA-256 over the DAG-CBOR list of `[key, value or null]`, by key. It stands in the leaf, so that a replica or auditor
    /// who applies the transaction differently notices at once, and where.
    pub fn digest(&self) -> Digest {
        let list: Vec<(ByteBuf, Option<ByteBuf>)> =
            self.0.iter().map(|(key, value)| (ByteBuf::from(key.clone()), value.clone().map(ByteBuf::from))).collect();
        Digest::of(&codec::encode(&list))
    }
}
