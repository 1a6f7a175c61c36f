//! What a replica keeps beside the log: its Raft log and position, and what a snapshot describes.

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::{
    codec,
    consensus::{HardState, LogEntry, LogPosition, LogWrite, Recovered},
    digest::Digest,
    storage::{Batch, Column, LogStorage, StorageError, Write, scan_all},
};

/// What a snapshot describes: the log up to a Raft index. The leaves themselves are fetched from peers and applied anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotManifest {
    /// Entries in the log.
    pub size: u64,
    /// Merkle root over them.
    pub root: Digest,
}

impl SnapshotManifest {
    /// Decodes a snapshot's manifest.
    ///
    /// # Errors
    ///
    /// [`codec::CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, codec::CodecError> {
        codec::decode(bytes, 1024)
    }
}

pub(super) const META_HARD_STATE: &[u8] = b"hard_state";
pub(super) const META_APPLIED: &[u8] = b"applied";
pub(super) const META_COMPACTED: &[u8] = b"compacted";

/// Adds a write to the Raft log to `batch`. `last` is the last index on the disk, before and after.
pub(super) fn write_log(log: &LogWrite, last: &mut u64, batch: &mut Batch) {
    // What an earlier leader left behind from here on is replaced. Only then: RocksDB keeps every removed range until it
    // compacts, and thousands of overlapping ones would stall its flushes.
    if let Some(first) = log.entries.first().filter(|first| first.index <= *last) {
        let (from, to) = (first.index.to_be_bytes().to_vec(), (*last + 1).to_be_bytes().to_vec());
        batch.push(Write::DeleteRange(Column::Raft, from, to));
    }
    *last = log.entries.last().map_or(*last, |entry| entry.index);
    for entry in &log.entries {
        batch.put(Column::Raft, entry.index.to_be_bytes(), entry.to_bytes());
    }
    if let Some(hard_state) = log.hard_state {
        batch.put(Column::Meta, META_HARD_STATE, hard_state.to_bytes());
    }
}

pub(super) fn recover<S: LogStorage + ?Sized>(storage: &S, fresh: Recovered) -> Result<Recovered, Fault> {
    let meta = |key: &[u8]| {
        let missing = || StorageError::Corrupt(format!("{} is missing", String::from_utf8_lossy(key)));
        storage.get(Column::Meta, key)?.ok_or_else(missing)
    };
    let damaged = |what: &str| StorageError::Corrupt(format!("{what} is damaged"));
    let hard_state = HardState::from_bytes(&meta(META_HARD_STATE)?).map_err(|_| damaged("the hard state"))?;
    let applied = meta(META_APPLIED)?.try_into().map_err(|_| damaged("the applied index"))?;
    let compacted = position_from(&meta(META_COMPACTED)?).ok_or_else(|| damaged("the compacted position"))?;
    let mut entries = Vec::new();
    for record in scan_all(storage, Column::Raft, (compacted.index + 1).to_be_bytes().to_vec()) {
        let (key, value) = record?;
        let index = u64::from_be_bytes(key.try_into().map_err(|_| damaged("a Raft index"))?);
        entries.push(LogEntry::from_bytes(index, &value)?);
    }
    Ok(Recovered { hard_state, compacted, entries, applied: u64::from_be_bytes(applied), voters: fresh.voters })
}

pub(super) fn position_bytes(position: LogPosition) -> Vec<u8> {
    [position.index.to_be_bytes(), position.term.to_be_bytes()].concat()
}

pub(super) fn position_from(bytes: &[u8]) -> Option<LogPosition> {
    let (index, term) = bytes.split_at_checked(8)?;
    Some(LogPosition {
        index: u64::from_be_bytes(index.try_into().ok()?),
        term: u64::from_be_bytes(term.try_into().ok()?),
    })
}
