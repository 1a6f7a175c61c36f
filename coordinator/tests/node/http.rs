//! The log of a running replica over HTTP.

use fedledger_coordinator::ReplicaNode;
use fedledger_ledger::{
    checkpoint::Checkpoint,
    merkle::leaf_hash,
    note::SignedNote,
    tiles::{Content, read_entry_bundle, read_hash_tile, root_from_tiles, tiles},
};
use fedledger_proto::kit::ReplicaKit;
use tokio::{net::TcpStream, time::timeout};

use super::{
    LONG,
    client::{body, get},
    cluster::Cluster,
    leaf_of,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_serves_the_log_up_to_its_checkpoint() {
    let mut cluster = Cluster::start(3).await;
    for number in 1..=3 {
        for _ in 0..100 {
            let envelope = cluster.envelope();
            cluster.node(number).handle().submit(envelope).await.unwrap();
        }
    }
    cluster.wait_for_size(301).await;
    for number in 1..=3 {
        let kit = ReplicaKit::load(&cluster.replica_directory(number)).unwrap();
        let address = kit.config.http.unwrap();
        let mut finalized = cluster.node(number).handle().finalized();
        timeout(LONG, finalized.wait_for(|finalized| finalized.final_size > 300)).await.unwrap().unwrap();
        let note = body(address, "/checkpoint").await;
        let note = SignedNote::parse(std::str::from_utf8(&note).unwrap()).unwrap();
        let head = Checkpoint::parse(note.text()).unwrap();
        let size = head.size();
        assert!(size > 300, "{size}");
        // In the name of the log by one replica, and co-signed by a majority.
        let signers = note.signatures().iter().filter(|line| line.name() == head.origin()).count();
        assert_eq!((signers, note.signatures().len() >= 3), (1, true));
        let mut served = std::collections::BTreeMap::new();
        for tile in tiles(size) {
            served.insert(tile, body(address, &format!("/{tile}")).await.to_vec());
        }
        let root = root_from_tiles(size, |tile| served.get(tile).cloned().ok_or("missing"));
        assert_eq!(root, Ok(*head.root()));
        for tile in Content::Entries.tiles(size) {
            let hashes = read_hash_tile(&tile.hashes(), &served[&tile.hashes()]).unwrap();
            let entries = read_entry_bundle(&tile, &served[&tile]).unwrap();
            for ((index, entry), hash) in tile.rows().zip(entries).zip(hashes) {
                assert_eq!((entry, leaf_hash(entry)), (leaf_of(cluster.node(number), index).as_slice(), hash));
            }
        }
        assert_eq!(body(address, "/readyz").await, "ok\n");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_a_majority_runs_but_is_not_ready() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let mut kit = ReplicaKit::load(&cluster.replica_directory(1)).unwrap();
    let address = kit.config.http.unwrap();
    for number in 1..=3 {
        cluster.kill(number).await;
    }
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
    cluster.restart(1).await;
    assert_eq!(body(address, "/healthz").await, "ok\n");
    let readiness = get(address, "/readyz").await;
    assert_eq!((readiness.status.as_u16(), readiness.header("cache-control")), (503, Some("no-store")));
    cluster.kill(1).await;

    // Nothing is served unless node.toml says where.
    kit.config.http = None;
    let silent = ReplicaNode::start_kit(kit).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "it listens without being told to");
    silent.shutdown().await.unwrap();
}
