//! Storage in memory that models durability: a crash forgets every batch after the last durable one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Batch, Column, LogStorage, Record, StorageError, Write};

type Columns = BTreeMap<(Column, Vec<u8>), Vec<u8>>;

/// Storage in memory; see the module's documentation.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What reads see.
    current: Columns,
    /// Batches since the last durable one; `durable` does not contain them.
    pending: Vec<Batch>,
    /// What a crash leaves behind.
    durable: Columns,
}

impl MemoryStorage {
    /// Forgets every batch that was not yet durable, as a power failure does.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.pending.clear();
        state.current = state.durable.clone();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStorage for MemoryStorage {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.lock().current.get(&(column, key.to_vec())).cloned())
    }

    fn scan(&self, column: Column, from: &[u8], limit: usize) -> Result<Vec<Record>, StorageError> {
        let state = self.lock();
        let records = state.current.range((column, from.to_vec())..).take_while(|((found, _), _)| *found == column);
        Ok(records.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, batch: &Batch, durable: bool) -> Result<(), StorageError> {
        let mut state = self.lock();
        apply(&mut state.current, batch);
        state.pending.push(batch.clone());
        if durable {
            let pending = std::mem::take(&mut state.pending);
            for batch in &pending {
                apply(&mut state.durable, batch);
            }
        }
        Ok(())
    }
}

fn apply(columns: &mut Columns, batch: &Batch) {
    for write in batch.writes() {
        match write {
            Write::Put(column, key, value) => {
                columns.insert((*column, key.clone()), value.clone());
            }
            Write::Delete(column, key) => {
                columns.remove(&(*column, key.clone()));
            }
            Write::DeleteRange(column, from, to) => {
                let doomed: Vec<_> =
                    columns.range((*column, from.clone())..(*column, to.clone())).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    columns.remove(&key);
                }
            }
        }
    }
}
