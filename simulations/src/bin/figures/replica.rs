//! A replica with a long history on its disk, and how long it takes to start.

use std::time::Instant;

use fedledger_coordinator::ReplicaNode;
use fedledger_federation::{Federation, member::Genesis};
use fedledger_ledger::{
    Digest,
    consensus::{Config, ReplicaId},
    log::read_leaf,
    replica::{Identity, Replica},
    storage::{LogStorage as _, rocks::RocksStorage},
};
use fedledger_proto::kit::{GenesisFile, ReplicaKit};

use crate::{
    cluster::Cluster,
    consortium::{Consortium, key},
    figure::Figure,
    load::median,
};

/// The replica whose disk is filled.
const NAME: &str = "basel/replica";

/// Leaves that are applied and written at once.
const LEAVES_AT_ONCE: usize = 1000;

/// Starts, of which the median counts. The system has read the files before the first.
const STARTS: usize = 3;

/// Time until a replica serves reads: its API listens, and its last entry can be read. It does not wait for the others.
pub async fn start(history: &Consortium) -> Vec<Figure> {
    // Address and certificate are those of a provisioned replica.
    let provisioned = Cluster::provision(1, 1);
    let kit = kit(&provisioned, history);
    fill(&kit, history);
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let node = ReplicaNode::start_kit(kit.clone()).await.unwrap();
        let size = node.handle().query(|replica| replica.log().size()).await.unwrap();
        assert_eq!(size, history.log.size());
        read_leaf(&**node.handle().storage(), size - 1).unwrap();
        times.push(started.elapsed().as_secs_f64());
        node.shutdown().await.unwrap();
    }
    let what = format!("a replica with {} entries, start to serving reads", history.log.size());
    vec![Figure::lower("start", what, median(&mut times), "s").target(3.0, 1.0)]
}

/// The kit of the first replica of the history's consortium.
fn kit(provisioned: &Cluster, history: &Consortium) -> ReplicaKit {
    let mut kit = ReplicaKit::load(&provisioned.replica_directory(1)).unwrap();
    let bytes = history.genesis.clone();
    kit.genesis = GenesisFile { genesis: Genesis::parse(&bytes).unwrap(), chain: Digest::of(&bytes), bytes };
    kit.config.name = NAME.to_owned();
    kit.config.peers.clear();
    kit.transaction_key = key(NAME);
    kit.transport_key = key(&format!("{NAME}/transport"));
    kit.log_key = key(&format!("{NAME}/log"));
    kit.cosign_key = key(&format!("{NAME}/cosign"));
    kit
}

/// Applies the history as a replica does that gets it from a peer.
fn fill(kit: &ReplicaKit, history: &Consortium) {
    eprintln!("figures: filling a replica's disk");
    let storage = RocksStorage::open(&kit.directory.join("ledger")).unwrap();
    let identity = Identity {
        name: kit.config.name.clone(),
        origin: format!("fedledger/{}", kit.genesis.genesis.consortium),
        log_key: kit.log_key.clone(),
        cosign_key: kit.cosign_key.clone(),
        transaction_key: kit.transaction_key.clone(),
    };
    let voters = kit.genesis.genesis.replicas().filter_map(|(_, node)| node.replica_number()).map(ReplicaId).collect();
    let config = Config::new(ReplicaId(kit.number), 1, 1);
    let mut replica = Replica::<Federation>::open(identity, config, voters, &kit.genesis.bytes, &storage).unwrap();
    for leaves in history.leaves.chunks(LEAVES_AT_ONCE) {
        let (step, outcome) = replica.catch_up(leaves);
        outcome.unwrap();
        storage.write(&step.write.unwrap().batch, true).unwrap();
    }
    assert_eq!(replica.log().size(), history.log.size());
}
