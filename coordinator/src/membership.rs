//! The members as the ledger has them now: which keys this node and its peers go on with, and who is let in.

use fedledger_federation::{
    Federation,
    member::{Members, Node},
};
use fedledger_ledger::consensus::ReplicaId;
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
    let before =
        [kit.transaction_key.public(), kit.transport_key.public(), kit.log_key.public(), kit.cosign_key.public()];
    let kit = kit.for_node(node)?;
    let after =
        [kit.transaction_key.public(), kit.transport_key.public(), kit.log_key.public(), kit.cosign_key.public()];
    Ok((kit, before != after))
}

/// Admits the nodes of the members as these change, and says when this node must be started again.
pub(crate) async fn follow(kit: ReplicaKit, endpoint: Endpoint, view: SharedView) {
    let mut changes = view.membership();
    while changes.changed().await.is_ok() {
        let (admitted, own) = {
            let view = view.read();
            let admitted = view.members.nodes().map(|(_, node)| node.transport_key).collect();
            (admitted, node_of(&view.members, &kit.config.name).cloned())
        };
        if let Err(error) = endpoint.set_admitted(admitted).await {
            tracing::error!(%error, "the changed membership does not take effect on connections");
            return;
        }
        match own.map(|node| kit.clone().for_node(&node)) {
            Some(Ok(now)) if now.transaction_key.public() != kit.transaction_key.public() => {
                tracing::warn!(
                    "the members have agreed on new keys of this node: start it again, so that it uses them"
                );
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the members have agreed on a key that this node does not have")
            }
            None => tracing::error!("the members have excluded this node"),
        }
    }
}

fn node_of<'a>(members: &'a Members, name: &str) -> Option<&'a Node> {
    members.nodes().find(|(_, node)| node.name == name).map(|(_, node)| node)
}
