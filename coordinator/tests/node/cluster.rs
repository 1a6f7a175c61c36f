//! A cluster of replicas on loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use fedledger_coordinator::{ReplicaNode, blobs::BlobStore};
use fedledger_federation::member::Role;
use fedledger_ledger::{
    Digest, PublicKey, SecretKey,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::{
    endpoint::{Endpoint, EndpointConfig, PeerAddress, Transports},
    kit::{ConsortiumDescription, Identity, MemberDescription, ReplicaDescription, ReplicaKit, provision, write_kits},
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{LONG, connected, leaf_of, transport_key};

/// Replicas by number, in a directory that is removed afterwards.
pub struct Cluster {
    directory: TempDir,
    nodes: BTreeMap<u64, ReplicaNode>,
    nonce: u64,
}

impl Cluster {
    /// Keys and directories of `count` members with a replica and a participant each, drawn from `seed`.
    pub fn provision(count: u64, seed: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let members = (1..=count).map(|number| MemberDescription {
            id: format!("site-{number}"),
            name: None,
            roles: [Role::Replica, Role::Participant].into(),
            replica: Some(ReplicaDescription {
                listen: Some(free_port()),
                api: Some(free_port()),
                http: Some(free_port()),
                ..ReplicaDescription::default()
            }),
            participant: None,
        });
        let description =
            ConsortiumDescription { name: "cluster".into(), finality_threshold: None, members: members.collect() };
        let mut drawn = 0u64;
        let mut randomness = || {
            drawn += 1;
            *Digest::of_parts(&[&[seed], &drawn.to_be_bytes()]).as_bytes()
        };
        write_kits(&provision(&description, &mut randomness).unwrap(), directory.path(), false).unwrap();
        Self { directory, nodes: BTreeMap::new(), nonce: 0 }
    }

    /// A running cluster.
    pub async fn start(count: u64) -> Self {
        let mut cluster = Self::provision(count, 1);
        for number in 1..=count {
            cluster.restart(number).await;
        }
        cluster
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn replica_directory(&self, number: u64) -> PathBuf {
        self.directory().join(format!("site-{number}/replica"))
    }

    pub fn node(&self, number: u64) -> &ReplicaNode {
        &self.nodes[&number]
    }

    pub fn chain(&self) -> Digest {
        self.identity().genesis.chain
    }

    pub async fn restart(&mut self, number: u64) {
        let node = ReplicaNode::start(&self.replica_directory(number)).await.unwrap();
        self.nodes.insert(number, node);
    }

    pub async fn kill(&mut self, number: u64) {
        self.nodes.remove(&number).unwrap().kill().await.shutdown().await;
    }

    pub async fn stop(self) {
        for node in self.nodes.into_values() {
            node.shutdown().await.unwrap();
        }
    }

    /// The number of the replica that leads.
    pub async fn leader(&self) -> u64 {
        let mut status = self.nodes.values().next().unwrap().handle().status();
        let known = timeout(LONG, status.wait_for(|status| status.leader.is_some())).await.unwrap();
        known.unwrap().leader.unwrap().0
    }

    /// A transaction that is valid but of a kind that nobody knows.
    pub fn envelope(&mut self) -> Vec<u8> {
        self.nonce += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonce.to_be_bytes());
        let identity = self.identity();
        let transaction = Transaction {
            chain: identity.genesis.chain,
            author: identity.organisation_key.public(),
            nonce: Nonce(nonce),
            not_after_index: 100_000,
            kind: "Greet".into(),
            payload: vec![0xa0],
        };
        transaction.sign(&identity.organisation_key).to_bytes()
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
        };
        let (endpoint, _incoming) = Endpoint::start(config).unwrap();
        (endpoint, replica)
    }

    fn identity(&self) -> Identity {
        Identity::load(&self.directory().join("site-1/identity")).unwrap()
    }
}

/// A port that is free for TCP and UDP, given out once. It lies below those that the system gives to outgoing connections,
/// which could take it before the node does.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(97);
    loop {
        let number = offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + u16::try_from(number % 20_000).unwrap()));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
