//! The members as the ledger has them now: which keys this node and its peers go on with, and who is let in.

use std::collections::BTreeMap;

use fedledger_federation::{
    Federation,
    member::{Members, Node, NodeKind},
};
use fedledger_ledger::{PublicKey, SecretKey, consensus::ReplicaId};
use fedledger_proto::{
    endpoint::{Endpoint, PeerAddress},
    kit::{KitError, ReplicaKit},
};

use crate::{
    peers::Peers,
    shared::{SharedView, TransportKeys},
};

/// The numbers of the replicas that vote in Raft, which are those of the genesis file.
pub(crate) fn voters(kit: &ReplicaKit) -> Vec<ReplicaId> {
    kit.genesis.genesis.replicas().filter_map(|(_, node)| Some(ReplicaId(node.replica_number()?))).collect()
}

/// These replicas with their transport keys; those that the members have excluded have none.
pub(crate) fn replicas(kit: &ReplicaKit, keys: &TransportKeys) -> BTreeMap<ReplicaId, PublicKey> {
    let replicas = kit.genesis.genesis.replicas();
    replicas.filter_map(|(_, node)| Some((ReplicaId(node.replica_number()?), *keys.get(&node.name)?))).collect()
}

/// The peers that this node dials: those of which it has the address, with their transport keys.
pub(crate) fn dialed(kit: &ReplicaKit, keys: &TransportKeys) -> Vec<PeerAddress> {
    let others = kit.config.peers.iter().filter(|peer| peer.name != kit.config.name);
    others
        .filter_map(|peer| Some(PeerAddress { key: *keys.get(&peer.name)?, addresses: peer.addresses.clone() }))
        .collect()
}

/// The kit with the keys that the ledger has for its node, and whether they differ from those that it had.
///
/// A kit whose keys are newer than this node's copy of the ledger keeps them: they were taken from another replica's copy
/// (`fedledger identity adopt`), because nobody talks any more to the node under its old keys.
///
/// # Errors
///
/// [`KitError`]: a key that the members have agreed on is not in the node's directory.
pub(crate) fn current(kit: ReplicaKit, state: &Federation) -> Result<(ReplicaKit, bool), KitError> {
    let Some(node) = node_of(state.members(), &kit.config.name) else {
        tracing::error!(node = kit.config.name, "the members have excluded this node: nobody will listen to it");
        return Ok((kit, false));
    };
    if has_keys_of(&kit, node) {
        return Ok((kit, false));
    }
    match kit.clone().for_node(node) {
        Ok(current) => Ok((current, true)),
        Err(KitError::ForeignKey { .. }) if !has_revoked_keys(&kit, state) => {
            tracing::info!(node = kit.config.name, "this node's keys are newer than its ledger, which is to catch up");
            Ok((kit, false))
        }
        Err(error) => Err(error),
    }
}

/// Lets connections follow the ledger: admits the nodes that there are, with the transport keys in force, dials the
/// replicas among them, and says when this node itself must be started again.
pub(crate) fn follow(
    kit: ReplicaKit,
    endpoint: Endpoint,
    view: SharedView,
    peers: Peers,
) -> impl Future<Output = ()> + Send {
    // Before anything is applied, so that no change is missed.
    let mut changes = view.membership();
    async move {
        let has_own_keys = |own: Option<&Node>| own.is_some_and(|node| has_keys_of(&kit, node));
        // Keys that are newer than the ledger here are no reason to start again.
        let mut is_current = has_own_keys(node_of(&view.read().members, &kit.config.name));
        while changes.changed().await.is_ok() {
            let (keys, own) = {
                let view = view.read();
                (view.transport_keys().clone(), node_of(&view.members, &kit.config.name).cloned())
            };
            peers.set(replicas(&kit, &keys));
            let followed = match endpoint.set_dial(dialed(&kit, &keys)).await {
                Ok(()) => endpoint.set_admitted(keys.values().copied().collect()).await,
                stopped => stopped,
            };
            if let Err(error) = followed {
                tracing::error!(%error, "the changed membership does not take effect on connections");
                return;
            }
            if own.is_none() {
                tracing::error!("the members have excluded this node: stop it, nobody listens to it any more");
            } else if has_own_keys(own.as_ref()) {
                is_current = true;
            } else if is_current {
                tracing::warn!(
                    "the members have agreed on new keys of this node: start it again, so that it uses them"
                );
            }
        }
    }
}

/// Whether the ledger has revoked a key that the kit holds for its node.
fn has_revoked_keys(kit: &ReplicaKit, state: &Federation) -> bool {
    let keys = [&kit.transaction_key, &kit.transport_key, &kit.log_key, &kit.cosign_key];
    keys.into_iter().any(|key| state.revoked_keys().contains(&key.public()))
}

/// Whether the kit holds the keys that the ledger has for the node.
fn has_keys_of(kit: &ReplicaKit, node: &Node) -> bool {
    let own = [&kit.transaction_key, &kit.transport_key].map(SecretKey::public);
    let signing = [&kit.log_key, &kit.cosign_key].map(SecretKey::public);
    let NodeKind::Replica { log_key, cosign_key, .. } = node.kind else { return false };
    own == [node.transaction_key, node.transport_key] && signing == [log_key, cosign_key]
}

fn node_of<'a>(members: &'a Members, name: &str) -> Option<&'a Node> {
    members.nodes().find(|(_, node)| node.name == name).map(|(_, node)| node)
}
