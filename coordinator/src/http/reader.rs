//! Reading the storage: on threads that may wait for the disk, a few at a time.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use fedledger_ledger::{
    log::{read_leaf, read_node},
    storage::{LogStorage, StorageError},
    tiles::{Tile, hash_tile, push_entry},
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::limits::{CHUNK_SIZE_BYTES, READS_MAX};
use crate::api::ReadError;

/// Reads tiles and entries.
#[derive(Clone)]
pub(super) struct Reader {
    storage: Arc<dyn LogStorage>,
    permits: Arc<Semaphore>,
    /// Waits for reads whose clients have gone away.
    open: TaskTracker,
}

/// A part of an entry bundle.
pub(super) struct Chunk {
    /// Entries with their lengths.
    pub bytes: Bytes,
    /// Index of the next entry.
    pub next: u64,
}

impl Reader {
    pub fn new(storage: Arc<dyn LogStorage>, open: TaskTracker) -> Self {
        Self { storage, permits: Arc::new(Semaphore::new(READS_MAX)), open }
    }

    /// The bytes of a tile of hashes.
    pub async fn hashes(&self, tile: Tile) -> Result<Bytes, ReadError> {
        let read = move |storage: &dyn LogStorage| hash_tile(&tile, |node| read_node(storage, node));
        self.blocking(read).await.map(Bytes::from)
    }

    /// The entries of a range, as many as go into a chunk.
    pub async fn entries(&self, range: Range<u64>) -> Result<Chunk, ReadError> {
        self.blocking(move |storage| read_chunk(storage, range)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn LogStorage) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| ReadError::Stopping)?;
        let storage = Arc::clone(&self.storage);
        let reading = self.open.spawn_blocking(move || {
            // Given back when the read is done, whether or not anybody still waits for it.
            let _permit = permit;
            read(&*storage)
        });
        Ok(reading.await.map_err(|_| ReadError::Stopping)??)
    }
}

fn read_chunk(storage: &dyn LogStorage, range: Range<u64>) -> Result<Chunk, StorageError> {
    let (mut bytes, mut next) = (Vec::new(), range.start);
    for index in range {
        let leaf = read_leaf(storage, index)?;
        let too_large = |error| StorageError::Corrupt(format!("leaf {index}: {error}"));
        push_entry(&mut bytes, &leaf).map_err(too_large)?;
        next = index.saturating_add(1);
        if bytes.len() >= CHUNK_SIZE_BYTES {
            break;
        }
    }
    Ok(Chunk { bytes: bytes.into(), next })
}
