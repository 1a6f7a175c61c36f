//! The head of the log up to which everything is served.

use std::time::Instant;

use bytes::Bytes;
use fedledger_ledger::{checkpoint::Checkpoint, note::SignedNote, storage::StorageError};
use tokio::sync::Mutex;

use super::{backend::TileBackend, limits::HEAD_AGE_MAX};
use crate::api::ReadError;

/// A signed head of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The encoded note.
    pub note: Bytes,
    /// Entries that it covers.
    pub size: u64,
}

/// Remembers the head for a moment, so that the replica's task is asked seldom.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    head: Option<Head>,
    since: Instant,
}

impl Heads {
    /// The head, asked for again if it is no longer fresh. Whoever asks meanwhile waits for the same answer.
    pub async fn get<B: TileBackend>(&self, backend: &B) -> Result<Option<Head>, ReadError> {
        let mut known = self.0.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.since.elapsed() < HEAD_AGE_MAX) {
            return Ok(known.head.clone());
        }
        let head = backend.head().await?.map(Head::read).transpose()?;
        *known = Some(Known { head: head.clone(), since: Instant::now() });
        Ok(head)
    }
}

impl Head {
    fn read(note: String) -> Result<Self, ReadError> {
        let damaged = |error: String| StorageError::Corrupt(format!("the replica's own checkpoint: {error}"));
        let signed = SignedNote::parse(&note).map_err(|error| damaged(error.to_string()))?;
        let checkpoint = Checkpoint::parse(signed.text()).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { size: checkpoint.size(), note: note.into() })
    }
}
