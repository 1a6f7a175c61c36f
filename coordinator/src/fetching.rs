//! Getting files that this replica lacks: from the participant that made them, or from any other replica.

use std::time::Duration;

use fedledger_federation::command::FileRef;
use fedledger_ledger::PublicKey;
use fedledger_proto::{
    blobs::{BlobStore, Fetch},
    endpoint::{CallError, Endpoint, WantedBlob},
    wire::CheckpointRequest,
};
use tokio::{sync::Semaphore, time::timeout};

use crate::shared::SharedView;

#[cfg(test)]
mod tests;

/// Peers that are asked for files at the same time.
const FETCHES_MAX: usize = 8;

/// How long after a fruitless search of all peers they are asked again, unless the file arrives by itself.
const FETCH_RETRY: Duration = Duration::from_millis(100);

/// Searches of all peers for one file before the duty is given up for now; the conductor asks for it again.
const FETCH_ATTEMPTS: usize = 600;

/// How long a peer may take to show that it is there, at the first search; twice as long at each of the next ones. The
/// connection of one that was killed seems to be there for seconds.
const PATIENCE_FIRST: Duration = Duration::from_millis(500);

/// Searches after which the patience does not grow any more.
const PATIENCE_EXPONENT_MAX: usize = 4;

/// Fetches files.
#[derive(Debug)]
pub struct Fetching {
    endpoint: Endpoint,
    blobs: BlobStore,
    /// Held for one peer at a time, so that a file which nobody has never keeps others waiting for long.
    permits: Semaphore,
}

impl Fetching {
    /// Fetches with these means.
    pub fn new(endpoint: Endpoint, blobs: BlobStore) -> Self {
        Self { endpoint, blobs, permits: Semaphore::new(FETCHES_MAX) }
    }

    /// Has the file here when this returns true. `sources` gives the peers to be asked, in their order at this turn.
    pub async fn fetch(&self, file: &FileRef, sources: impl Fn(usize) -> Vec<PublicKey>) -> bool {
        let wanted = WantedBlob { digest: file.digest, size_max: file.size };
        let mut fetch = Fetch::new(self.endpoint.clone(), self.blobs.clone(), wanted);
        let mut added = self.blobs.added();
        for turn in 0..FETCH_ATTEMPTS {
            added.mark_unchanged();
            fetch.until_idle().await;
            if fetch.is_done() || self.search(&mut fetch, sources(turn), patience(turn)).await {
                return true;
            }
            // A participant may be storing it here right now.
            let _ = timeout(FETCH_RETRY, added.changed()).await;
        }
        fetch.is_done()
    }

    /// Whether a peer answers at all. Files may take long, so this cannot be told from their transfer.
    async fn is_there(&self, peer: PublicKey, patience: Duration) -> bool {
        // Participants refuse this, which is an answer as well.
        let answered = self.endpoint.call(peer, &CheckpointRequest::Latest { known: None }, patience).await;
        !matches!(answered, Err(CallError::TimedOut))
    }

    async fn search(&self, fetch: &mut Fetch, sources: Vec<PublicKey>, patience: Duration) -> bool {
        for peer in sources {
            let Ok(_permit) = self.permits.acquire().await else { return false };
            if !self.is_there(peer, patience).await {
                tracing::debug!(%peer, "it does not answer and is not asked for files");
                continue;
            }
            match fetch.from(peer).await {
                Ok(()) => return true,
                Err(reason) => tracing::trace!(%peer, %reason, "not fetched"),
            }
        }
        if let Err(error) = fetch.reconsider().await {
            tracing::warn!(%error, "what was received of a file cannot be removed");
        }
        false
    }
}

/// How long a peer may take to show that it is there, after so many searches in vain.
fn patience(turn: usize) -> Duration {
    PATIENCE_FIRST * (1 << turn.min(PATIENCE_EXPONENT_MAX))
}

/// Connected nodes that may have a file: at the first turn the one of the participant that made it comes before the other
/// replicas, later each comes first in its turn.
pub fn sources(endpoint: &Endpoint, view: &SharedView, member: Option<&String>, turn: usize) -> Vec<PublicKey> {
    let connected = endpoint.connected().borrow().clone();
    let view = view.read();
    let candidates = view
        .members
        .nodes()
        .filter(|(_, node)| connected.contains(&node.transport_key))
        .filter(|(owner, node)| node.replica_number().is_some() || Some(&owner.id) == member);
    let mut sources: Vec<(bool, PublicKey)> =
        candidates.map(|(owner, node)| (Some(&owner.id) != member, node.transport_key)).collect();
    sources.sort_by_key(|(other, _)| *other);
    let first = turn.checked_rem(sources.len()).unwrap_or(0);
    sources.rotate_left(first);
    sources.into_iter().map(|(_, key)| key).collect()
}
