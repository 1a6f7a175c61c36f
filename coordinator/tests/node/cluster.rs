//! What the tests of nodes do with a cluster.

use std::collections::BTreeSet;

use fedledger_coordinator::blobs::BlobStore;
use fedledger_ledger::{Digest, PublicKey, SecretKey};
use fedledger_proto::{
    endpoint::{Endpoint, EndpointConfig, PeerAddress, Transports, WebSocketConfig},
    kit::ReplicaKit,
};
use tokio::time::timeout;

use super::{connected, leaf_of, transport_key};
pub use crate::shared::{Cluster, LONG};

impl Cluster {
    /// A transaction that is valid but of a kind that nobody knows.
    pub fn envelope(&mut self) -> Vec<u8> {
        self.transaction("Greet", vec![0xa0])
    }

    /// Waits until every replica that runs has this many entries.
    pub async fn wait_for_size(&self, size: u64) {
        for node in self.nodes.values() {
            let mut known = node.handle().log_size();
            timeout(LONG, known.wait_for(|known| *known >= size)).await.unwrap().unwrap();
        }
    }

    pub fn assert_logs_agree(&self, size: u64) {
        for index in 0..size {
            let leaves: BTreeSet<Vec<u8>> = self.nodes.values().map(|node| leaf_of(node, index)).collect();
            assert_eq!(leaves.len(), 1, "the replicas differ at {index}");
        }
    }

    /// Puts a file into a replica's blob folder, as if it had been uploaded.
    pub fn keep_blob(&self, number: u64, bytes: &[u8]) -> Digest {
        let elsewhere = tempfile::tempdir().unwrap();
        let store = BlobStore::open(elsewhere.path()).unwrap();
        let digest = store.put(bytes).unwrap();
        let place = fedledger_coordinator::blobs::path_in(&self.replica_directory(number).join("blobs"), &digest);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(store.path(&digest), place).unwrap();
        digest
    }

    /// An endpoint with the key of the first site's participant, connected to its replica.
    pub async fn participant(&self) -> (Endpoint, PublicKey) {
        let (endpoint, replica) = self.dial(transport_key(self)).await;
        connected(&endpoint).await;
        (endpoint, replica)
    }

    /// An endpoint with this key that dials the first replica.
    pub async fn dial(&self, key: SecretKey) -> (Endpoint, PublicKey) {
        let kit = ReplicaKit::load(&self.replica_directory(1)).unwrap();
        let replica = kit.transport_key.public();
        let config = EndpointConfig {
            transport_key: key,
            listen: Vec::new(),
            dial: vec![PeerAddress { key: replica, addresses: vec![kit.config.listen.into()] }],
            admitted: [replica].into(),
            transports: Transports::default(),
            websocket: WebSocketConfig::default(),
        };
        let (endpoint, _incoming) = Endpoint::start(config).unwrap();
        (endpoint, replica)
    }
}
