//! Getting files that this replica lacks: from the participant that made them, or from any other replica.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use fedledger_federation::command::FileRef;
use fedledger_ledger::{Digest, PublicKey};
use fedledger_proto::{
    blobs::{BlobStore, Fetch},
    endpoint::{Endpoint, WantedBlob},
};
use tokio::{sync::Semaphore, time::timeout};

use crate::shared::SharedView;

#[cfg(test)]
mod tests;

/// Peers that are asked at the same time for files of one plan.
const FETCHES_PER_PLAN_MAX: usize = 8;

/// How long after a fruitless search of all peers they are asked again, unless the file arrives by itself.
const FETCH_RETRY: Duration = Duration::from_millis(100);

/// Searches of all peers for one file before the duty is given up for now; the conductor asks for it again.
const FETCH_ATTEMPTS: usize = 600;

/// How long a peer may take to show that it is there, at the first search; twice as long at each of the next ones. The
/// connection of one that was killed seems to be there for seconds.
const PATIENCE_FIRST: Duration = Duration::from_millis(500);

/// Searches after which the patience does not grow any more.
const PATIENCE_EXPONENT_MAX: usize = 4;

/// How long a peer may take to show that it is still there while a file comes from it: calls wait behind the file on slow
/// connections.
const PRESENCE_PATIENCE: Duration = Duration::from_secs(10);

/// Fetches files.
#[derive(Debug)]
pub struct Fetching {
    endpoint: Endpoint,
    blobs: BlobStore,
    /// By plan, as long as somebody fetches for it: however slow the transfers of one plan are, no other waits for them.
    permits: Mutex<BTreeMap<Digest, Weak<Semaphore>>>,
}

impl Fetching {
    /// Fetches with these means.
    pub fn new(endpoint: Endpoint, blobs: BlobStore) -> Self {
        Self { endpoint, blobs, permits: Mutex::default() }
    }

    /// Has the file, which is of this plan, here when this returns true. `sources` gives the peers to be asked, in their
    /// order at this turn.
    pub async fn fetch(&self, plan: &Digest, file: &FileRef, sources: impl Fn(usize) -> Vec<PublicKey>) -> bool {
        let permits = self.permits_of(plan);
        let wanted = WantedBlob { digest: file.digest, size_max: file.size, doubted: false };
        let mut fetch = Fetch::new(self.endpoint.clone(), self.blobs.clone(), wanted);
        let mut added = self.blobs.added();
        for turn in 0..FETCH_ATTEMPTS {
            added.mark_unchanged();
            fetch.until_idle().await;
            if fetch.is_done() || self.search(&mut fetch, &permits, sources(turn), patience(turn)).await {
                return true;
            }
            // A participant may be storing it here right now.
            let _ = timeout(FETCH_RETRY, added.changed()).await;
        }
        fetch.is_done()
    }

    fn permits_of(&self, plan: &Digest) -> Arc<Semaphore> {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = permits.get(plan).and_then(Weak::upgrade) {
            return shared;
        }
        permits.retain(|_, unused| unused.strong_count() > 0);
        let new = Arc::new(Semaphore::new(FETCHES_PER_PLAN_MAX));
        permits.insert(*plan, Arc::downgrade(&new));
        new
    }

    /// Asks each peer in turn. A permit is held for one peer at a time, so that a file which nobody has never keeps others
    /// waiting for long.
    async fn search(
        &self,
        fetch: &mut Fetch,
        permits: &Semaphore,
        sources: Vec<PublicKey>,
        patience: Duration,
    ) -> bool {
        for peer in sources {
            if !self.endpoint.is_there(peer, patience).await {
                tracing::debug!(%peer, "it does not answer and is not asked for files");
                continue;
            }
            let Ok(_permit) = permits.acquire().await else { return false };
            match self.endpoint.while_there(peer, PRESENCE_PATIENCE, fetch.from(peer)).await {
                Some(Ok(())) => return true,
                Some(Err(reason)) => tracing::trace!(%peer, %reason, "not fetched"),
                None => tracing::debug!(%peer, "it fell silent while a file was fetched"),
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
