//! Connections follow the ledger: replaced transport keys, and members that are excluded, while everybody else runs on.

use fedledger_federation::{
    Command,
    governance::{Action, NodeKeys, Propose, RotateKeys, Vote},
};
use fedledger_ledger::{
    Digest, PublicKey, SecretKey,
    leaf::Leaf,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::{
    api::Level,
    endpoint::Endpoint,
    kit::{Identity, InstalledSite, KeyPurpose, KitError, NodeRole, ParticipantKit, ReplicaKit},
};
use tokio::time::timeout;

use super::{
    cluster::{Cluster, LONG},
    connected,
};

/// Brings a command of a site's people onto the ledger, which accepts it.
pub async fn accept(cluster: &Cluster, site: u64, command: Command) -> u64 {
    let identity = Identity::load(&cluster.directory().join(format!("site-{site}/identity"))).unwrap();
    let handle = cluster.node(1).handle();
    let payload = command.payload();
    let digest = Digest::of_parts(&[&site.to_be_bytes(), command.kind().as_bytes(), &payload]);
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&digest.as_bytes()[..16]);
    let transaction = Transaction {
        chain: cluster.chain(),
        author: identity.organisation_key.public(),
        nonce: Nonce(nonce),
        not_after_index: *handle.log_size().borrow() + 1000,
        kind: command.kind().to_owned(),
        payload,
    };
    let envelope = transaction.sign(&identity.organisation_key).to_bytes();
    let submitted = timeout(LONG, handle.submit(envelope)).await.unwrap().unwrap();
    let leaf = Leaf::from_bytes(&submitted.leaf).unwrap();
    assert!(leaf.outcome.is_accepted(), "{:?}: {:?}", leaf.outcome, submitted.reason);
    submitted.index
}

/// Has three of the four sites carry an action out, and returns the index of the deciding vote.
pub async fn decide(cluster: &Cluster, action: Action) -> u64 {
    let asked = action.clone();
    let against = cluster.node(1).handle().query(move |replica| asked.target(replica.log().machine()));
    let against = against.await.unwrap();
    let content = Propose { action, against, expires_index: 1000, reason: "because".to_owned() };
    let proposal = content.id(&"site-1".to_owned());
    accept(cluster, 1, Command::Propose(content)).await;
    accept(cluster, 2, Command::Vote(Vote { proposal, approve: true })).await;
    accept(cluster, 3, Command::Vote(Vote { proposal, approve: true })).await
}

/// Draws a new transport key of a site's replica, beside the old one, and has the members agree on it.
async fn rotate(cluster: &Cluster, site: u64) -> u64 {
    rotate_key(cluster, site, KeyPurpose::Transport).await
}

/// The same with another key of the replica.
async fn rotate_key(cluster: &Cluster, site: u64, purpose: KeyPurpose) -> u64 {
    let directory = cluster.directory().join(format!("site-{site}"));
    let mut drawn = [site.try_into().unwrap(); 32];
    let mut randomness = || {
        drawn[0] += 1;
        drawn
    };
    let installed = InstalledSite::open(&directory).unwrap();
    let request = installed.rotate(Some(NodeRole::Replica), &[purpose], None, &mut randomness).unwrap();
    assert_eq!(request.keys.len(), 1);
    let key = &request.keys[0];
    let mut keys = NodeKeys { name: format!("site-{site}/replica"), ..NodeKeys::default() };
    if matches!(purpose, KeyPurpose::Transport) {
        keys.transport_key = Some(key.new);
    } else {
        assert!(matches!(purpose, KeyPurpose::Cosign), "{purpose:?} is not replaced here");
        keys.cosign_key = Some(key.new);
    }
    let action = Action::RotateKeys(RotateKeys {
        member: format!("site-{site}"),
        organisation_key: None,
        api_key: None,
        node: Some(keys),
    });
    decide(cluster, action).await
}

async fn disconnected(endpoint: &Endpoint) {
    let mut peers = endpoint.connected();
    timeout(LONG, peers.wait_for(|peers| peers.is_empty())).await.unwrap().unwrap();
}

/// The key with which a replica is known to its peers.
fn transport_key(cluster: &Cluster, number: u64) -> SecretKey {
    ReplicaKit::load(&cluster.replica_directory(number)).unwrap().transport_key
}

/// The transport key that the ledger has for a site's replica.
async fn on_ledger(cluster: &Cluster, at: u64, site: u64) -> PublicKey {
    let name = format!("site-{site}/replica");
    let key = cluster.node(at).handle().query(move |replica| {
        let members = replica.log().machine().members();
        members.nodes().find(|(_, node)| node.name == name).map(|(_, node)| node.transport_key)
    });
    key.await.unwrap().unwrap()
}

/// An entry becomes final with these replicas, which are as few as that needs.
async fn finalize(cluster: &mut Cluster, through: u64) {
    let envelope = cluster.envelope();
    let handle = cluster.node(through).handle().clone();
    let index = timeout(LONG, handle.submit(envelope)).await.unwrap().unwrap().index;
    assert!(handle.reach(index, Level::Final).await, "entry {index} did not become final");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_goes_on_with_a_new_transport_key_and_only_it_is_started_again() {
    let mut cluster = Cluster::start(4).await;
    let old = transport_key(&cluster, 4).public();
    let index = rotate(&cluster, 4).await;
    cluster.wait_for_size(index + 1).await;
    let new = on_ledger(&cluster, 4, 4).await;
    assert_ne!(new, old);
    cluster.kill(4).await;
    cluster.restart(4).await;
    // Three of four are needed, to commit and to co-sign: the one with the new key is among them.
    cluster.kill(3).await;
    finalize(&mut cluster, 1).await;
    finalize(&mut cluster, 4).await;
    // So it is when another one starts that has only read of the new key, ...
    cluster.kill(2).await;
    cluster.restart(2).await;
    finalize(&mut cluster, 2).await;
    // ... and when the key that follows has become the key.
    let site = cluster.directory().join("site-4");
    let member = cluster.node(1).handle().query(|replica| replica.log().machine().members().get("site-4").cloned());
    let adopted = InstalledSite::open(&site).unwrap().adopt(member.await.unwrap().unwrap(), None).unwrap();
    assert_eq!(adopted.len(), 1);
    cluster.kill(4).await;
    assert_eq!(transport_key(&cluster, 4).public(), new);
    cluster.restart(4).await;
    finalize(&mut cluster, 4).await;
    cluster.stop().await;
}

/// Its own copy of the ledger does not tell it, and nobody talks to it any more; its people take the new keys from
/// somebody else's copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_while_its_transport_key_was_replaced_comes_back_with_the_new_one() {
    let mut cluster = Cluster::start(4).await;
    finalize(&mut cluster, 4).await;
    cluster.kill(4).await;
    let (with_old_key, _) = cluster.dial(transport_key(&cluster, 4)).await;
    connected(&with_old_key).await;
    rotate(&cluster, 4).await;
    disconnected(&with_old_key).await;
    let member = cluster.node(1).handle().query(|replica| replica.log().machine().members().get("site-4").cloned());
    let site = InstalledSite::open(&cluster.directory().join("site-4")).unwrap();
    site.adopt(member.await.unwrap().unwrap(), None).unwrap();
    cluster.restart(4).await;
    cluster.kill(3).await;
    finalize(&mut cluster, 1).await;
    finalize(&mut cluster, 4).await;
    assert_eq!(on_ledger(&cluster, 4, 4).await, transport_key(&cluster, 4).public());
    assert!(with_old_key.connected().borrow().is_empty(), "the old key was let in again");
    with_old_key.shutdown().await;
    cluster.stop().await;
}

/// The replicas of the epoch before vouch for the next one, and those of the keys that they had then: for one that comes
/// back, too few of these are left to do so again.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_while_co_signing_keys_were_replaced_learns_what_is_final() {
    let mut cluster = Cluster::start(4).await;
    finalize(&mut cluster, 4).await;
    cluster.kill(4).await;
    for site in [2, 3] {
        rotate_key(&cluster, site, KeyPurpose::Cosign).await;
        finalize(&mut cluster, 1).await;
        cluster.kill(site).await;
        cluster.restart(site).await;
        finalize(&mut cluster, 1).await;
    }
    cluster.restart(4).await;
    finalize(&mut cluster, 4).await;
    // It knows so from its own disk from now on.
    cluster.kill(4).await;
    cluster.restart(4).await;
    finalize(&mut cluster, 4).await;
    cluster.stop().await;
}

/// A key that is neither the ledger's nor one that it does not know yet is a mistake, and is said to be one.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_does_not_start_with_a_key_that_was_replaced() {
    let mut cluster = Cluster::start(4).await;
    let index = rotate(&cluster, 4).await;
    cluster.wait_for_size(index + 1).await;
    cluster.kill(4).await;
    let directory = cluster.replica_directory(4);
    std::fs::remove_file(directory.join("keys/transport.key.next")).unwrap();
    let error = fedledger_coordinator::ReplicaNode::start(&directory).await.unwrap_err();
    let fedledger_coordinator::NodeError::Kit(KitError::ForeignKey { .. }) = error else { panic!("{error}") };
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_members_nodes_are_disconnected() {
    let mut cluster = Cluster::start(4).await;
    let kit = ParticipantKit::load(&cluster.directory().join("site-4/participant")).unwrap();
    cluster.kill(4).await;
    let (participant, _) = cluster.dial(kit.transport_key).await;
    let (replica, _) = cluster.dial(transport_key(&cluster, 4)).await;
    connected(&participant).await;
    connected(&replica).await;
    decide(&cluster, Action::RevokeMember { member: "site-4".to_owned() }).await;
    disconnected(&participant).await;
    disconnected(&replica).await;
    // The consortium goes on without it.
    finalize(&mut cluster, 2).await;
    participant.shutdown().await;
    replica.shutdown().await;
    cluster.stop().await;
}
