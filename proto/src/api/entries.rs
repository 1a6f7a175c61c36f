//! Following the log.

use std::time::Duration;

use bytes::Bytes;
use fedledger_ledger::leaf::Leaf;
use futures::{Stream, stream};
use tokio::time::sleep;

use super::{ApiClient, ApiError, Level, limits::READ_TIMEOUT, v1};

/// How often in a row a broken stream is opened again before its error is reported.
const REOPENED_MAX: u32 = 8;
/// First pause before a broken stream is opened again; it doubles each time.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before a broken stream is opened again.
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the log.
    pub index: u64,
    /// What the Merkle log hashes, as received.
    pub bytes: Bytes,
    /// What these bytes mean; `None` for entry 0, the genesis file.
    pub leaf: Option<Leaf>,
}

/// Entries of the log, each once, in order and without gaps.
#[derive(Debug)]
pub struct EntriesStream {
    client: ApiClient,
    /// Index of the entry that comes next.
    next: u64,
    follow: bool,
    /// What every entry has reached.
    level: Level,
    open: Option<tonic::Streaming<v1::Entry>>,
}

impl EntriesStream {
    pub(super) const fn new(client: ApiClient, from: u64, follow: bool, level: Level) -> Self {
        Self { client, next: from, follow, level, open: None }
    }

    /// The next entry; `None` at the end. A stream that follows the log has no end and waits for new entries.
    ///
    /// If this is cancelled no entry is lost. A broken connection is made anew a few times.
    ///
    /// # Errors
    ///
    /// [`ApiError`]. After a transient one the stream can be asked again and goes on where it was.
    pub async fn next(&mut self) -> Result<Option<LogEntry>, ApiError> {
        let mut pause = REOPEN_PAUSE;
        for _ in 0..REOPENED_MAX {
            match self.receive().await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, next = self.next, "opening the stream of entries again");
                    sleep(pause).await;
                    pause = (pause * 2).min(REOPEN_PAUSE_MAX);
                }
                result => return result,
            }
        }
        self.receive().await
    }

    /// The entries as a [`Stream`], which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<LogEntry, ApiError>> + Send {
        stream::try_unfold(self, |mut entries| async { Ok(entries.next().await?.map(|entry| (entry, entries))) })
    }

    async fn receive(&mut self) -> Result<Option<LogEntry>, ApiError> {
        let streaming = match &mut self.open {
            Some(streaming) => streaming,
            closed => closed.insert(self.client.open_entries(self.next, self.follow, self.level).await?),
        };
        let received = streaming.message().await.map_err(|status| self.client.failed(&status, READ_TIMEOUT));
        let result = match received {
            Ok(Some(entry)) => self.check(entry).map(Some),
            Ok(None) if self.follow => {
                let reason = "the stream of entries ended".to_owned();
                Err(ApiError::Unreachable { url: self.client.url().to_owned(), reason })
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match &result {
            Ok(Some(_)) => self.next += 1,
            Ok(None) | Err(_) => self.open = None,
        }
        result
    }

    fn check(&self, entry: v1::Entry) -> Result<LogEntry, ApiError> {
        if entry.index != self.next {
            return Err(self.client.invalid("the entries are out of order or have gaps"));
        }
        if entry.leaf.len() > Leaf::size_bytes_max(entry.index) {
            return Err(self.client.invalid("an entry is larger than any can be"));
        }
        let leaf = if entry.index == 0 {
            None
        } else {
            let leaf = Leaf::from_bytes(&entry.leaf).map_err(|_| self.client.invalid("a leaf is malformed"))?;
            if leaf.index != entry.index {
                return Err(self.client.invalid("a leaf names another index than its own"));
            }
            Some(leaf)
        };
        Ok(LogEntry { index: entry.index, bytes: entry.leaf, leaf })
    }
}
