//! Following the ledger of a running replica, entry by entry.

use fedledger_federation::{Federation, history::EntryView};
use fedledger_ledger::log::Log;
use fedledger_proto::api::{ApiClient, EntriesStream, Level};

use crate::error::{Exit, Failure};

/// The ledger as far as it has been received, every entry checked by applying it.
#[derive(Debug)]
pub(crate) struct Follower {
    log: Log<Federation>,
    entries: EntriesStream,
}

impl Follower {
    /// Begins with the genesis file.
    pub async fn start(client: &ApiClient) -> Result<Self, Failure> {
        Self::at(client, Level::Committed).await
    }

    /// Begins with the genesis file, and gets every entry once it has reached a level.
    pub async fn at(client: &ApiClient, level: Level) -> Result<Self, Failure> {
        let genesis = client.genesis().await?;
        let (log, _) = Log::genesis(&genesis)
            .map_err(|error| Failure::because(Exit::Mismatch, "the genesis file is not valid", error))?;
        Ok(Self { log, entries: client.entries_at(1, true, level) })
    }

    /// Begins, and reads what the replica has by now.
    pub async fn current(client: &ApiClient) -> Result<Self, Failure> {
        let size = client.status().await?.log_size;
        let mut follower = Self::start(client).await?;
        follower.until(size.saturating_sub(1)).await?;
        Ok(follower)
    }

    /// Goes on until the entry at `index` has been received.
    pub async fn until(&mut self, index: u64) -> Result<(), Failure> {
        while self.log.size() <= index {
            self.next().await?;
        }
        Ok(())
    }

    /// The next entry, as soon as there is one. If this is cancelled no entry is lost.
    pub async fn next(&mut self) -> Result<EntryView, Failure> {
        let entry = self.entries.next().await?.ok_or_else(|| {
            Failure::new(Exit::Failed, "the replica ended the stream of entries").next("run the command again")
        })?;
        let index = entry.index;
        let replayed = self.log.replay(&entry.bytes).map_err(|error| {
            Failure::because(Exit::Mismatch, format!("entry {index} is not in order"), error)
                .next("keep this replica's ledger as evidence, and ask another replica")
        })?;
        Ok(EntryView::of(self.log.machine(), &replayed))
    }

    /// Entries so far, the genesis file included: the next entry's index.
    pub const fn size(&self) -> u64 {
        self.log.size()
    }

    /// The state that the entries so far lead to.
    pub const fn state(&self) -> &Federation {
        self.log.machine()
    }
}
