//! How many streams may be open at once, per peer and in total, for each protocol.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use fedledger_ledger::PublicKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wire::Protocol;

/// Number of (peer, protocol) pairs above which those without an open stream are forgotten.
const PAIRS_KEPT_MAX: usize = 1024;

/// Streams of one protocol that one peer may have open to us.
///
/// Their receive windows must fit into a connection's window together (see [`super::transport`]), or streams that
/// nobody reads could stop those that somebody does.
const fn inbound_per_peer_max(protocol: Protocol) -> usize {
    match protocol {
        // One, and its successor while the first is being abandoned.
        Protocol::Raft | Protocol::Heads => 2,
        Protocol::Transaction => 32,
        Protocol::Checkpoint => 8,
        Protocol::Events => 4,
        Protocol::Blob => 8,
    }
}

/// Streams of one protocol that all peers together may have open to us.
const fn inbound_total_max(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Raft | Protocol::Heads => 64,
        Protocol::Transaction => 1024,
        Protocol::Checkpoint => 256,
        Protocol::Events => 512,
        Protocol::Blob => 128,
    }
}

/// Streams of one protocol that we keep open to one peer; further ones wait for their turn.
///
/// Half of what the peer accepts: it notices the end of a stream later than we do.
const fn outbound_per_peer_max(protocol: Protocol) -> usize {
    inbound_per_peer_max(protocol).div_ceil(2)
}

/// The right to have one stream open, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _peer: OwnedSemaphorePermit,
    _total: Option<OwnedSemaphorePermit>,
}

/// Counts open streams of one direction.
pub(super) struct Limits {
    per_peer_max: fn(Protocol) -> usize,
    totals: BTreeMap<Protocol, Arc<Semaphore>>,
    peers: Mutex<HashMap<(PublicKey, Protocol), Arc<Semaphore>>>,
}

impl Limits {
    /// Limits of the streams that peers open.
    pub fn inbound() -> Self {
        let total = |protocol| (protocol, Arc::new(Semaphore::new(inbound_total_max(protocol))));
        Self {
            per_peer_max: inbound_per_peer_max,
            totals: Protocol::ALL.into_iter().map(total).collect(),
            peers: Mutex::default(),
        }
    }

    /// Limits of the streams that this node opens.
    pub fn outbound() -> Self {
        Self { per_peer_max: outbound_per_peer_max, totals: BTreeMap::new(), peers: Mutex::default() }
    }

    /// A permit, if one is free.
    pub fn try_acquire(&self, peer: PublicKey, protocol: Protocol) -> Option<Permit> {
        let per_peer = self.of_peer(peer, protocol).try_acquire_owned().ok()?;
        let total = match self.totals.get(&protocol) {
            Some(total) => Some(Arc::clone(total).try_acquire_owned().ok()?),
            None => None,
        };
        Some(Permit { _peer: per_peer, _total: total })
    }

    /// A permit of this peer, as soon as one is free; none only if the semaphore were closed, which never happens.
    pub async fn acquire(&self, peer: PublicKey, protocol: Protocol) -> Option<Permit> {
        let per_peer = self.of_peer(peer, protocol).acquire_owned().await.ok()?;
        Some(Permit { _peer: per_peer, _total: None })
    }

    fn of_peer(&self, peer: PublicKey, protocol: Protocol) -> Arc<Semaphore> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PAIRS_KEPT_MAX {
            // A permit holds a reference, and so does everybody who waits for one.
            peers.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let semaphore =
            peers.entry((peer, protocol)).or_insert_with(|| Arc::new(Semaphore::new((self.per_peer_max)(protocol))));
        Arc::clone(semaphore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    #[test]
    fn one_peer_cannot_take_the_share_of_another() {
        let limits = Limits::inbound();
        let held: Vec<_> = std::iter::from_fn(|| limits.try_acquire(peer(1), Protocol::Blob)).collect();
        assert_eq!(held.len(), inbound_per_peer_max(Protocol::Blob));
        assert!(limits.try_acquire(peer(2), Protocol::Blob).is_some());
        assert!(limits.try_acquire(peer(1), Protocol::Transaction).is_some());
        drop(held);
        assert!(limits.try_acquire(peer(1), Protocol::Blob).is_some());
    }

    #[test]
    fn all_peers_together_are_bounded() {
        let limits = Limits::inbound();
        let held: Vec<_> = (0..1000).filter_map(|number| limits.try_acquire(peer(number), Protocol::Raft)).collect();
        assert_eq!(held.len(), inbound_total_max(Protocol::Raft));
    }

    #[test]
    fn peers_without_streams_are_forgotten() {
        let limits = Limits::outbound();
        let held = limits.try_acquire(peer(0), Protocol::Raft);
        for number in 1..10_000 {
            assert!(limits.try_acquire(peer(number), Protocol::Raft).is_some());
        }
        assert!(limits.peers.lock().unwrap().len() <= PAIRS_KEPT_MAX);
        assert!(held.is_some() && limits.try_acquire(peer(0), Protocol::Raft).is_none());
    }
}
