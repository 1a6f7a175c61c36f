//! The members as the ledger has them now: which keys this node and its peers go on with, and who is let in.

use fedledger_federation::{
    Federation,
    member::{Members, Node, NodeKind},
};
use fedledger_ledger::{SecretKey, consensus::ReplicaId};
use fedledger_proto::{
    endpoint::Endpoint,
    kit::{KitError, ReplicaKit},
};

use crate::{replica::Peers, shared::SharedView};

/// The replicas that vote in Raft, which are those of the genesis file, with the transport keys that they have now.
pub(crate) fn peers_of(kit: &ReplicaKit, now: Option<&Federation>) -> Peers {
    let replicas = kit.genesis.genesis.replicas();
    Peers::new(replicas.filter_map(|(_, node)| {
        let current = now.and_then(|state| node_of(state.members(), &node.name));
        Some((ReplicaId(node.replica_number()?), current.unwrap_or(node).transport_key))
    }))
}

/// The kit with the keys that the ledger has for its node, and whether they differ from those that it had.
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
    Ok((kit.for_node(node)?, true))
}

/// Admits the nodes of the members as these change, and says when this node must be started again.
pub(crate) async fn follow(kit: ReplicaKit, endpoint: Endpoint, view: SharedView) {
    let mut changes = view.membership();
    let peers: Vec<_> = {
        let view = view.read();
        let replicas = kit.genesis.genesis.replicas().filter(|(_, node)| node.name != kit.config.name);
        let now = replicas.filter_map(|(_, node)| node_of(&view.members, &node.name));
        now.map(|node| (node.name.clone(), node.transport_key)).collect()
    };
    while changes.changed().await.is_ok() {
        let (admitted, own, others) = {
            let view = view.read();
            let others: Vec<_> = peers
                .iter()
                .filter(|(name, key)| node_of(&view.members, name).is_some_and(|node| node.transport_key != *key))
                .map(|(name, _)| name.clone())
                .collect();
            let admitted = view.members.nodes().map(|(_, node)| node.transport_key).collect();
            (admitted, node_of(&view.members, &kit.config.name).cloned(), others)
        };
        if let Err(error) = endpoint.set_admitted(admitted).await {
            tracing::error!(%error, "the changed membership does not take effect on connections");
            return;
        }
        if !others.is_empty() {
            tracing::warn!(?others, "replicas have new transport keys: start this node again, so that it reaches them");
        }
        match own {
            Some(node) if has_keys_of(&kit, &node) => {}
            Some(_) => {
                tracing::warn!(
                    "the members have agreed on new keys of this node: start it again, so that it uses them"
                );
            }
            None => tracing::error!("the members have excluded this node"),
        }
    }
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
