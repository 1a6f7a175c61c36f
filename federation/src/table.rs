//! Tables of replicated state: typed maps whose every change is also recorded in the write set.

use std::collections::BTreeMap;

use fedledger_ledger::{codec, machine::WriteSet};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::RECORD_SIZE_BYTES_MAX;

/// Records by key. The tag tells the tables apart in the one key space of the storage.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    tag: u8,
    records: BTreeMap<K, V>,
    changes: u64,
}

/// Stored bytes that are no record of the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record of table {tag} is damaged: {error}")]
pub struct DamagedRecord {
    tag: u8,
    error: codec::CodecError,
}

impl<K, V> Table<K, V>
where
    K: Ord + Clone + Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// An empty table.
    pub const fn new(tag: u8) -> Self {
        Self { tag, records: BTreeMap::new(), changes: 0 }
    }

    /// The tag of the table's keys in the storage.
    pub const fn tag(&self) -> u8 {
        self.tag
    }

    /// The record of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.records.get(key)
    }

    /// Whether there is a record of the key.
    pub fn contains(&self, key: &K) -> bool {
        self.records.contains_key(key)
    }

    /// The records in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.records.iter()
    }

    /// The records from the first key (included) to the second (included), in order.
    pub fn range(&self, from: K, to: K) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.records.range(from..=to)
    }

    /// Changes to records since the table was made in this process: what was derived from it holds while this stays.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Sets a record.
    pub fn put(&mut self, key: K, value: V, writes: &mut WriteSet) {
        writes.put(self.storage_key(&key), &value);
        self.records.insert(key, value);
        self.changes = self.changes.wrapping_add(1);
    }

    /// Removes a record.
    pub fn remove(&mut self, key: &K, writes: &mut WriteSet) {
        if self.records.remove(key).is_some() {
            writes.remove(self.storage_key(key));
            self.changes = self.changes.wrapping_add(1);
        }
    }

    /// Changes a record in place, if there is one.
    pub fn update(&mut self, key: &K, writes: &mut WriteSet, change: impl FnOnce(&mut V)) {
        let storage_key = self.storage_key(key);
        if let Some(value) = self.records.get_mut(key) {
            change(value);
            writes.put(storage_key, value);
            self.changes = self.changes.wrapping_add(1);
        }
    }

    /// Takes a record back from the storage; the tag has been read already.
    ///
    /// # Errors
    ///
    /// [`DamagedRecord`].
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DamagedRecord> {
        let damaged = |error| DamagedRecord { tag: self.tag, error };
        let key = codec::decode(key, RECORD_SIZE_BYTES_MAX).map_err(damaged)?;
        let value = codec::decode(value, RECORD_SIZE_BYTES_MAX).map_err(damaged)?;
        self.records.insert(key, value);
        Ok(())
    }

    fn storage_key(&self, key: &K) -> Vec<u8> {
        let mut bytes = vec![self.tag];
        bytes.extend(codec::encode(key));
        bytes
    }
}
