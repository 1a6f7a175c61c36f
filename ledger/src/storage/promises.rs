//! Transactions that a replica has promised to bring onto the ledger, in the storage until they are there or can no longer be.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Batch, Column, LogStorage, StorageError, scan_all};
use crate::{codec, digest::Digest, limits::ENVELOPE_SIZE_BYTES_MAX};

/// What the keys of promises begin with, among the single values; the digest of the envelope follows.
const META_PROMISE: &[u8] = b"promise/";

/// Largest record: an envelope and the name of a member.
const RECORD_SIZE_BYTES_MAX: usize = 2 * ENVELOPE_SIZE_BYTES_MAX;

/// A transaction that was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// Who submitted it, as the replica calls its members.
    pub member: String,
    /// The signed envelope.
    pub envelope: Vec<u8>,
}

impl Promised {
    /// SHA-256 of the envelope, as it stands in the promise.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.envelope)
    }
}

/// Keeps a transaction that is promised.
pub fn put_promise(batch: &mut Batch, promised: &Promised) {
    let record = Record(promised.member.clone(), ByteBuf::from(promised.envelope.clone()));
    batch.put(Column::Meta, key(&promised.digest()), codec::encode(&record));
}

/// Forgets a promise: it is kept, or nobody can keep it any more.
pub fn delete_promise(batch: &mut Batch, transaction: &Digest) {
    batch.delete(Column::Meta, key(transaction));
}

/// Every transaction that is promised, in the order of the digests.
///
/// # Errors
///
/// [`StorageError`]; [`StorageError::Corrupt`] for a record that is none.
pub fn read_promises<S: LogStorage + ?Sized>(storage: &S) -> Result<Vec<Promised>, StorageError> {
    let mut promises = Vec::new();
    for record in scan_all(storage, Column::Meta, META_PROMISE.to_vec()) {
        let (key, value) = record?;
        if !key.starts_with(META_PROMISE) {
            break;
        }
        let Record(member, envelope) = codec::decode(&value, RECORD_SIZE_BYTES_MAX)
            .map_err(|error| StorageError::Corrupt(format!("a promised transaction: {error}")))?;
        promises.push(Promised { member, envelope: envelope.into_vec() });
    }
    Ok(promises)
}

fn key(transaction: &Digest) -> Vec<u8> {
    [META_PROMISE, transaction.as_bytes()].concat()
}

/// Member and envelope.
#[derive(Serialize, Deserialize)]
struct Record(String, ByteBuf);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn promised(envelope: &[u8]) -> Promised {
        Promised { member: "north".into(), envelope: envelope.to_vec() }
    }

    #[test]
    fn what_is_promised_is_read_back_until_it_is_deleted() {
        let storage = MemoryStorage::default();
        let mut batch = Batch::default();
        batch.put(Column::Meta, b"position".as_slice(), b"before".as_slice());
        batch.put(Column::Meta, b"sealed".as_slice(), b"behind".as_slice());
        let largest = promised(&vec![7; ENVELOPE_SIZE_BYTES_MAX]);
        for promised in [&promised(b"one"), &largest, &promised(b"one")] {
            put_promise(&mut batch, promised);
        }
        storage.write(&batch, true).unwrap();
        let mut read = read_promises(&storage).unwrap();
        read.sort_by_key(|promised| promised.envelope.len());
        assert_eq!(read, [promised(b"one"), largest.clone()]);
        let mut batch = Batch::default();
        delete_promise(&mut batch, &Digest::of(b"one"));
        storage.write(&batch, true).unwrap();
        assert_eq!(read_promises(&storage).unwrap(), [largest]);
    }

    #[test]
    fn a_damaged_record_is_told() {
        let storage = MemoryStorage::default();
        let mut batch = Batch::default();
        batch.put(Column::Meta, key(&Digest::of(b"one")), b"no record".as_slice());
        storage.write(&batch, true).unwrap();
        assert!(matches!(read_promises(&storage), Err(StorageError::Corrupt(_))));
    }
}
