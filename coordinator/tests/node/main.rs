//! Replicas as nodes: real sockets on loopback, real RocksDB, hostile peers, crashes.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

mod certificates;
#[path = "../http/client.rs"]
mod client;
mod cluster;
mod evidence;
mod finality;
mod http;
mod levels;
mod rotation;
#[path = "../shared/cluster.rs"]
#[expect(dead_code, reason = "benchmarks use the rest of it")]
mod shared;
mod uploads;

use std::{collections::BTreeSet, time::Duration};

use cluster::{Cluster, LONG};
use fedledger_coordinator::{NodeError, ReplicaNode, replica::SubmitFailure};
use fedledger_ledger::{Digest, SecretKey, leaf::Leaf, log::read_leaf, replica::Fault, storage::StorageError};
use fedledger_proto::{
    blobs::{MemoryBlob, MemorySink},
    endpoint::{BlobError, CallError, Endpoint, WantedBlob},
    kit::{KitError, ParticipantKit, ReplicaKit},
    wire::{CheckpointRequest, CheckpointResponse, EventsRequest, RefusalCode, SubmitRequest, SubmitResponse},
};
use futures::{StreamExt as _, stream};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn transactions_come_through_any_replica_and_all_logs_agree() {
    let mut cluster = Cluster::start(3).await;
    for number in 1..=3 {
        let envelope = cluster.envelope();
        let handle = cluster.node(number).handle().clone();
        let first = handle.submit(envelope.clone()).await.unwrap();
        let again = cluster.node(number % 3 + 1).handle().submit(envelope).await.unwrap();
        assert_eq!(first.index, again.index);
        assert_eq!(first.leaf, again.leaf);
        // The federation knows no such kind: a rejection on record.
        assert_eq!(Leaf::from_bytes(&first.leaf).unwrap().outcome.code(), "unknown_kind");
        assert!(handle.read_barrier().await);
    }
    cluster.wait_for_size(4).await;
    cluster.assert_logs_agree(4);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_leader_decides_is_not_passed_on_to_another_one() {
    let mut cluster = Cluster::start(3).await;
    loop {
        let leader = cluster.leader().await;
        let mut took = BTreeSet::new();
        for number in 1..=3 {
            let envelope = cluster.envelope();
            let handle = cluster.node(number).handle();
            match timeout(LONG, handle.submit_as_leader(envelope)).await.unwrap() {
                Ok(_) => drop(took.insert(number)),
                Err(error) => assert!(matches!(error, SubmitFailure::NotLeader), "{error}"),
            }
        }
        // Another one may have begun to lead meanwhile.
        if cluster.leader().await == leader {
            assert_eq!(took, BTreeSet::from([leader]));
            break;
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_death_loses_nothing_and_it_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let before = cluster.envelope();
    let index = cluster.node(2).handle().submit(before.clone()).await.unwrap().index;
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    let survivor = leader % 3 + 1;
    let after = cluster.envelope();
    let handle = cluster.node(survivor).handle().clone();
    let submitted = timeout(LONG, handle.submit(after)).await.unwrap().unwrap();
    assert!(submitted.index > index);
    assert_eq!(handle.submit(before).await.unwrap().index, index);
    drop(handle);
    cluster.restart(leader).await;
    cluster.wait_for_size(submitted.index + 1).await;
    cluster.assert_logs_agree(submitted.index + 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_writes_are_refused_and_later_go_on() {
    let mut cluster = Cluster::start(3).await;
    let envelope = cluster.envelope();
    cluster.node(1).handle().submit(envelope).await.unwrap();
    cluster.kill(2).await;
    cluster.kill(3).await;
    let handle = cluster.node(1).handle().clone();
    assert!(!timeout(LONG, handle.read_barrier()).await.unwrap(), "a read was confirmed without a majority");
    let envelope = cluster.envelope();
    let waiting = tokio::spawn({
        let (handle, envelope) = (handle.clone(), envelope.clone());
        async move { handle.submit(envelope).await }
    });
    cluster.restart(2).await;
    // What was submitted while nobody could take it is committed once, whoever asked.
    let second = timeout(LONG, handle.submit(envelope)).await.unwrap().unwrap();
    if let Ok(first) = waiting.await.unwrap() {
        assert_eq!(first.index, second.index);
    }
    drop(handle);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_gets_what_it_may_have_and_no_more() {
    let mut cluster = Cluster::start(3).await;
    let (endpoint, replica) = cluster.participant().await;
    // Its transactions, checkpoints and the events of the ledger.
    let envelope = cluster.envelope();
    let response = endpoint.call(replica, &SubmitRequest { envelope }, LONG).await.unwrap();
    let SubmitResponse::Outcome { index, leaf } = response else { panic!("{response:?}") };
    let (_, mut events) = endpoint.subscribe(replica, &EventsRequest { from: 0 }).await.unwrap();
    let genesis = events.next().await.unwrap().unwrap();
    assert_eq!((genesis.index, Digest::of(&genesis.leaf)), (0, cluster.chain()));
    // Seals stand between them.
    let mut next = events.next().await.unwrap().unwrap();
    while next.index < index {
        next = events.next().await.unwrap().unwrap();
    }
    assert_eq!((next.index, next.leaf), (index, leaf));
    let response = endpoint.call(replica, &CheckpointRequest::Latest { known: None }, LONG).await.unwrap();
    assert!(matches!(response, CheckpointResponse::Latest { note: Some(_), .. }));
    // Not a file that may be another hospital's update.
    let secret = b"another hospital's update";
    let digest = cluster.keep_blob(1, secret);
    let wanted = WantedBlob { digest, size_max: 1024, doubted: false };
    let refused = endpoint.get_blob(replica, wanted, MemorySink::default()).await.unwrap_err();
    assert!(is_not_permitted(&refused), "{refused}");
    // Nothing is stored that no round waits for.
    let unwanted = MemoryBlob::new(vec![7; 4096]);
    let put = endpoint.put_blob(replica, unwanted.digest(), unwanted).await;
    assert!(is_not_permitted(&put.unwrap_err()));
    // Garbage is refused in words, and the connection goes on.
    let garbage = SubmitRequest { envelope: b"garbage".to_vec() };
    let response = endpoint.call(replica, &garbage, LONG).await.unwrap();
    assert!(matches!(&response, SubmitResponse::Refused { code, .. } if code == "refused"), "{response:?}");
    let envelope = cluster.envelope();
    assert!(endpoint.call(replica, &SubmitRequest { envelope }, LONG).await.is_ok());
    endpoint.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_and_nobody_else_disturbed() {
    let mut cluster = Cluster::start(3).await;
    let (stranger, replica) = cluster.dial(SecretKey::from_seed([0xee; 32])).await;
    let refused = stranger.call(replica, &CheckpointRequest::Latest { known: None }, Duration::from_secs(5)).await;
    assert!(refused.is_err());
    assert_eq!(*stranger.connected().borrow(), BTreeSet::new());
    let envelope = cluster.envelope();
    cluster.node(2).handle().submit(envelope).await.unwrap();
    stranger.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_says_why() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.replica_directory(1);
    // The same directory a second time.
    let error = ReplicaNode::start(&first).await.unwrap_err();
    assert!(matches!(error, NodeError::Storage(StorageError::InUse { .. })), "{error}");
    // Another node's port.
    let mut kit = ReplicaKit::load(&cluster.replica_directory(2)).unwrap();
    let taken = kit.config.api;
    cluster.kill(3).await;
    kit = ReplicaKit::load(&cluster.replica_directory(3)).unwrap();
    kit.config.api = taken;
    let error = ReplicaNode::start_kit(kit.clone()).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    // Another consortium's genesis over this ledger.
    let other = Cluster::provision(3, 0xaa);
    kit.genesis = ReplicaKit::load(&other.replica_directory(3)).unwrap().genesis;
    let error = ReplicaNode::start_kit(kit).await.unwrap_err();
    assert!(matches!(error, NodeError::Fault(Fault::OtherChain { .. })), "{error}");
    // A key file that is gone, and a directory of another kind.
    std::fs::remove_file(cluster.replica_directory(3).join("keys/log.key")).unwrap();
    let error = ReplicaNode::start(&cluster.replica_directory(3)).await.unwrap_err();
    assert!(error.to_string().contains("log.key"), "{error}");
    let error = ReplicaNode::start(&cluster.directory().join("site-1/participant")).await.unwrap_err();
    assert!(matches!(error, NodeError::Kit(KitError::WrongRole { .. })), "{error}");
    cluster.stop().await;
}

fn is_not_permitted(error: &BlobError) -> bool {
    matches!(error, BlobError::Call(CallError::Refused(refusal)) if refusal.code == RefusalCode::NotPermitted)
}

/// The endpoint of the first site's participant.
fn transport_key(cluster: &Cluster) -> SecretKey {
    ParticipantKit::load(&cluster.directory().join("site-1/participant")).unwrap().transport_key
}

/// The leaf of a node at an index.
fn leaf_of(node: &ReplicaNode, index: u64) -> Vec<u8> {
    read_leaf(&**node.handle().storage(), index).unwrap()
}

/// Waits until an endpoint is connected to somebody.
async fn connected(endpoint: &Endpoint) {
    let mut connected = endpoint.connected();
    timeout(LONG, connected.wait_for(|peers| !peers.is_empty())).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_are_all_answered() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for number in [leader, leader % 3 + 1] {
        let envelopes: Vec<_> = (0..2000).map(|_| cluster.envelope()).collect();
        let handle = cluster.node(number).handle().clone();
        let outcomes = stream::iter(envelopes).map(|envelope| handle.submit(envelope)).buffer_unordered(100);
        let failures: Vec<String> =
            outcomes.filter_map(|outcome| async { outcome.err().map(|error| error.to_string()) }).collect().await;
        assert_eq!(failures, Vec::<String>::new());
    }
    cluster.wait_for_size(4001).await;
    cluster.stop().await;
}
