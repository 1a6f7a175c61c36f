//! Transactions that have been applied and could be submitted again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    codec,
    digest::Digest,
    keys::PublicKey,
    storage::{Batch, Column, LogStorage, StorageError, scan_all},
    transaction::{Nonce, Transaction},
};

/// Transactions whose expiry has not passed, so that submitting one again finds the first outcome.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    known: BTreeMap<(PublicKey, Nonce), Known>,
    /// Keys of `known` by the last index at which they can still be submitted.
    expiry: BTreeMap<u64, Vec<(PublicKey, Nonce)>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub index: u64,
    pub envelope: Digest,
}

/// Index, envelope digest, expiry.
#[derive(Serialize, Deserialize)]
struct KnownRecord(u64, Digest, u64);

impl Dedup {
    pub fn get(&self, author: &PublicKey, nonce: Nonce) -> Option<Known> {
        self.known.get(&(*author, nonce)).copied()
    }

    pub fn insert(&mut self, transaction: &Transaction, known: Known, batch: &mut Batch) {
        let key = (transaction.author, transaction.nonce);
        let record = KnownRecord(known.index, known.envelope, transaction.not_after_index);
        batch.put(Column::Dedup, dedup_key(&key), codec::encode(&record));
        self.known.insert(key, known);
        self.expiry.entry(transaction.not_after_index).or_default().push(key);
    }

    /// Forgets what can no longer be applied: the next leaf has index `size`.
    pub fn forget_expired(&mut self, size: u64, batch: &mut Batch) {
        while let Some(entry) = self.expiry.first_entry().filter(|entry| *entry.key() < size) {
            for key in entry.remove() {
                batch.delete(Column::Dedup, dedup_key(&key));
                self.known.remove(&key);
            }
        }
    }

    pub fn load<S: LogStorage + ?Sized>(storage: &S) -> Result<Self, StorageError> {
        let mut dedup = Self::default();
        for record in scan_all(storage, Column::Dedup, Vec::new()) {
            let (key, value) = record?;
            let damaged = || StorageError::Corrupt("a record of a nonce is damaged".to_owned());
            let (author, nonce) = key.split_at_checked(32).ok_or_else(damaged)?;
            let author = PublicKey::from_bytes(author.try_into().map_err(|_| damaged())?);
            let nonce = Nonce(nonce.try_into().map_err(|_| damaged())?);
            let KnownRecord(index, envelope, expiry) = codec::decode(&value, 128).map_err(|_| damaged())?;
            dedup.known.insert((author, nonce), Known { index, envelope });
            dedup.expiry.entry(expiry).or_default().push((author, nonce));
        }
        Ok(dedup)
    }
}

fn dedup_key((author, nonce): &(PublicKey, Nonce)) -> Vec<u8> {
    [author.as_bytes().as_slice(), &nonce.0].concat()
}
