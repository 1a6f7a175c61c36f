//! Getting files that this replica lacks: from the participant that made them, from any other replica, or, if they belong to
//! a version, from any participant that still has them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use fedledger_federation::{command::FileRef, member::Node};
use fedledger_ledger::{Digest, PublicKey};
use fedledger_proto::{
    blobs::{BlobStore, Fetch, FetchError},
    endpoint::{BlobError, Endpoint, Slots, Turn, WantedBlob},
};
use tokio::{sync::watch, time::timeout};

use crate::shared::SharedView;

#[cfg(test)]
mod tests;

/// Files of one plan that come from fast peers at the same time. A peer that is slow, or says to wait, keeps none of the
/// others waiting.
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

/// How long a peer may take to begin to send a file, at the first search; twice as long at each of the next ones. It may have
/// others to serve first, or may want to hold this one up.
const TURN_PATIENCE_FIRST: Duration = Duration::from_secs(5);

/// Searches after which that patience does not grow any more: five minutes.
const TURN_EXPONENT_MAX: usize = 6;

/// How fast a file must come for its peer not to be left for the next one, in bytes per second, at the first search; half as
/// fast at each of the next ones. What has come by then stays, so that nothing is lost if the others do not have the file.
const RATE_FIRST: u64 = 1024 * 1024;

/// How long a peer is not left whatever the size of the file, at the first search.
const STAY_FIRST: Duration = Duration::from_secs(30);

/// How long a peer may take to show that it is still there while a file comes from it: calls wait behind the file on slow
/// connections.
const PRESENCE_PATIENCE: Duration = Duration::from_secs(10);

/// Participants that are asked for a version's file at each turn.
const PARTICIPANTS_ASKED: usize = 4;

/// Fetches files.
#[derive(Debug)]
pub struct Fetching {
    endpoint: Endpoint,
    blobs: BlobStore,
    /// By plan, as long as somebody fetches for it: however slow the transfers of one plan are, no other waits for them.
    slots: Mutex<BTreeMap<Digest, Weak<Slots>>>,
}

impl Fetching {
    /// Fetches with these means.
    pub fn new(endpoint: Endpoint, blobs: BlobStore) -> Self {
        Self { endpoint, blobs, slots: Mutex::default() }
    }

    /// Has the file, which is of this plan, here when this returns true. `sources` gives the peers to be asked, in their
    /// order at this turn.
    pub async fn fetch(&self, plan: &Digest, file: &FileRef, sources: impl Fn(usize) -> Vec<PublicKey>) -> bool {
        let mut search = self.begin(plan, file);
        while let Some(found) = search.next(&sources).await {
            if found == Found::Here {
                return true;
            }
        }
        false
    }

    /// Begins to look for a file of a plan.
    pub fn begin(&self, plan: &Digest, file: &FileRef) -> Search<'_> {
        let wanted = WantedBlob { digest: file.digest, size_max: file.size, doubted: false };
        let fetch = Fetch::new(self.endpoint.clone(), self.blobs.clone(), wanted);
        let (slots, added) = (self.slots_of(plan), self.blobs.added());
        Search { fetching: self, size: file.size, fetch, slots, added, turn: 0 }
    }

    fn slots_of(&self, plan: &Digest) -> Arc<Slots> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = slots.get(plan).and_then(Weak::upgrade) {
            return shared;
        }
        slots.retain(|_, unused| unused.strong_count() > 0);
        let new = Arc::new(Slots::new(FETCHES_PER_PLAN_MAX));
        slots.insert(*plan, Arc::downgrade(&new));
        new
    }
}

/// What a search has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The file is here.
    Here,
    /// Somebody may have it, but it could not be had now.
    Elsewhere,
    /// Nobody who is there has it.
    Nowhere,
}

/// One file that is looked for.
#[derive(Debug)]
pub struct Search<'a> {
    fetching: &'a Fetching,
    /// Of the file, in bytes.
    size: u64,
    fetch: Fetch,
    slots: Arc<Slots>,
    added: watch::Receiver<u64>,
    /// Searches so far.
    turn: usize,
}

impl Search<'_> {
    /// Asks every peer once, after a rest if it is not the first time; none once it has been done often enough.
    pub async fn next(&mut self, sources: impl Fn(usize) -> Vec<PublicKey>) -> Option<Found> {
        if self.turn > 0 {
            // A participant may be storing it here right now.
            let _ = timeout(FETCH_RETRY, self.added.changed()).await;
        }
        self.added.mark_unchanged();
        self.fetch.until_idle().await;
        if self.fetch.is_done() {
            return Some(Found::Here);
        }
        let turn = self.turn;
        if turn >= FETCH_ATTEMPTS {
            return None;
        }
        self.turn += 1;
        Some(self.ask_all(sources(turn), &Patience::of(turn, self.size)).await)
    }

    /// Asks each peer in turn. A slot is held for one peer at a time, so that a file which nobody has never keeps others
    /// waiting for long.
    async fn ask_all(&mut self, sources: Vec<PublicKey>, patience: &Patience) -> Found {
        let endpoint = &self.fetching.endpoint;
        let mut found = Found::Nowhere;
        for peer in sources {
            if !endpoint.is_there(peer, patience.presence).await {
                tracing::debug!(%peer, "it does not answer and is not asked for files");
                continue;
            }
            let turn = Turn { slot: self.slots.acquire().await, patience: patience.turn };
            let fetching = timeout(patience.stay, self.fetch.from_in_turn(peer, turn));
            match endpoint.while_there(peer, PRESENCE_PATIENCE, fetching).await {
                Some(Ok(Ok(()))) => return Found::Here,
                Some(Ok(Err(FetchError::Transfer(BlobError::NotFound(_))))) => {}
                Some(Ok(Err(reason))) => {
                    tracing::trace!(%peer, %reason, "not fetched");
                    found = Found::Elsewhere;
                }
                Some(Err(_)) => {
                    tracing::debug!(%peer, "it is slow: another one is asked for the rest of the file");
                    found = Found::Elsewhere;
                }
                None => tracing::debug!(%peer, "it fell silent while a file was fetched"),
            }
        }
        if let Err(error) = self.fetch.reconsider().await {
            tracing::warn!(%error, "what was received of a file cannot be removed");
        }
        found
    }
}

/// How long a peer may take at one search: the longer, the more searches were in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    /// To show that it is there.
    presence: Duration,
    /// To begin to send.
    turn: Duration,
    /// Altogether.
    stay: Duration,
}

impl Patience {
    /// After so many searches in vain for a file of this size, in bytes.
    fn of(turn: usize, size: u64) -> Self {
        let turn_patience = TURN_PATIENCE_FIRST * (1 << turn.min(TURN_EXPONENT_MAX));
        let due = STAY_FIRST.saturating_add(Duration::from_secs(size / RATE_FIRST));
        let stay = turn_patience.saturating_add(due.saturating_mul(1 << turn.min(TURN_EXPONENT_MAX)));
        Self { presence: PATIENCE_FIRST * (1 << turn.min(PATIENCE_EXPONENT_MAX)), turn: turn_patience, stay }
    }
}

/// Connected nodes that may have a file: at the first turn the one of the participant that made it comes before the
/// replicas, later each comes first in its turn. Participants may also have a version that no replica has any more, since
/// they have trained on it; of them a few are asked at each turn, after the replicas.
pub fn sources(endpoint: &Endpoint, view: &SharedView, member: Option<&String>, turn: usize) -> Vec<PublicKey> {
    let connected = endpoint.connected().borrow().clone();
    let view = view.read();
    let nodes = || view.members.nodes().filter(|(_, node)| connected.contains(&node.transport_key));
    let is_replica = |node: &Node| node.replica_number().is_some();
    let makers_and_replicas = nodes().filter(|(owner, node)| is_replica(node) || Some(&owner.id) == member);
    let mut sources: Vec<(bool, PublicKey)> =
        makers_and_replicas.map(|(owner, node)| (Some(&owner.id) != member, node.transport_key)).collect();
    sources.sort_by_key(|(other, _)| *other);
    let first = turn.checked_rem(sources.len()).unwrap_or(0);
    sources.rotate_left(first);
    let mut sources: Vec<PublicKey> = sources.into_iter().map(|(_, key)| key).collect();
    if member.is_none() {
        let participants: Vec<PublicKey> =
            nodes().filter(|(_, node)| !is_replica(node)).map(|(_, node)| node.transport_key).collect();
        let count = participants.len().min(PARTICIPANTS_ASKED);
        let first = turn.wrapping_mul(PARTICIPANTS_ASKED).checked_rem(participants.len()).unwrap_or(0);
        sources.extend(participants.into_iter().cycle().skip(first).take(count));
    }
    sources
}
