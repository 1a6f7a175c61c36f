//! The transport keys of the other replicas, as they change.

use std::{collections::BTreeMap, sync::Arc};

use fedledger_ledger::{PublicKey, consensus::ReplicaId};
use tokio::sync::watch;

/// The transport key of each replica that votes, and back. Clones see the same keys.
#[derive(Debug, Clone)]
pub struct Peers(Arc<watch::Sender<BTreeMap<ReplicaId, PublicKey>>>);

impl Peers {
    /// The replicas of a consortium.
    pub fn new(replicas: BTreeMap<ReplicaId, PublicKey>) -> Self {
        Self(Arc::new(watch::Sender::new(replicas)))
    }

    /// Replaces the keys; whoever watches them is told if one has changed.
    pub fn set(&self, replicas: BTreeMap<ReplicaId, PublicKey>) {
        self.0.send_if_modified(|known| {
            let changed = *known != replicas;
            *known = replicas;
            changed
        });
    }

    /// A replica's transport key; none if it is excluded.
    pub fn key(&self, id: ReplicaId) -> Option<PublicKey> {
        self.0.borrow().get(&id).copied()
    }

    /// The replica with this transport key.
    pub fn id(&self, key: &PublicKey) -> Option<ReplicaId> {
        self.0.borrow().iter().find(|(_, found)| *found == key).map(|(id, _)| *id)
    }

    /// Every replica.
    pub fn all(&self) -> BTreeMap<ReplicaId, PublicKey> {
        self.0.borrow().clone()
    }

    /// Changes with the keys.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<ReplicaId, PublicKey>> {
        self.0.subscribe()
    }
}
