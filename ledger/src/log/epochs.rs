//! The epochs that have come into force, one after the other.

use serde::{Deserialize, Serialize};

use super::corrupt;
use crate::{
    codec,
    epoch::Epoch,
    storage::{Batch, Column, LogStorage, StorageError, scan_all},
};

/// What the keys of epochs begin with, among the single values; the number follows, big-endian.
const META_EPOCH: &[u8] = b"epoch/";

/// Largest record of an epoch, in bytes. An epoch comes from the genesis file, which has the same bound, or from a
/// transaction.
const EPOCH_SIZE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An epoch, and where it came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochInForce {
    /// The epoch.
    pub epoch: Epoch,
    /// Entries up to and including the seal that put it into force; 0 for the epoch of the genesis file.
    pub size: u64,
}

/// Keeps the epoch that is in force from `size` on.
pub(super) fn put_epoch(batch: &mut Batch, epoch: &Epoch, size: u64) {
    let key = [META_EPOCH, &epoch.number.to_be_bytes()].concat();
    batch.put(Column::Meta, key, codec::encode(&EpochInForce { epoch: epoch.clone(), size }));
}

/// Every epoch that has come into force, the oldest first.
///
/// # Errors
///
/// [`StorageError`]; [`StorageError::Corrupt`] for a record that cannot be understood.
pub fn read_epochs<S: LogStorage + ?Sized>(storage: &S) -> Result<Vec<EpochInForce>, StorageError> {
    let mut epochs = Vec::new();
    for record in scan_all(storage, Column::Meta, META_EPOCH.to_vec()) {
        let (key, value) = record?;
        if !key.starts_with(META_EPOCH) {
            break;
        }
        epochs.push(codec::decode(&value, EPOCH_SIZE_BYTES_MAX).map_err(|error| corrupt("an epoch", &error))?);
    }
    Ok(epochs)
}

/// The epoch that came into force next after the one with this number, if one has.
///
/// # Errors
///
/// As [`read_epochs`].
pub fn read_epoch_after<S: LogStorage + ?Sized>(
    storage: &S,
    number: u64,
) -> Result<Option<EpochInForce>, StorageError> {
    let Some(next) = number.checked_add(1) else { return Ok(None) };
    let from = [META_EPOCH, &next.to_be_bytes()].concat();
    let Some((key, value)) = storage.scan(Column::Meta, &from, 1)?.pop() else { return Ok(None) };
    if !key.starts_with(META_EPOCH) {
        return Ok(None);
    }
    codec::decode(&value, EPOCH_SIZE_BYTES_MAX).map(Some).map_err(|error| corrupt("an epoch", &error))
}
