//! A cluster of replicas on loopback, with real sockets and synced disks. Tests and benchmarks share it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use fedledger_coordinator::{ReplicaNode, replica::Handle};
use fedledger_federation::member::Role;
use fedledger_ledger::{
    Digest,
    replica::SealPace,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::kit::{
    ConsortiumDescription, Identity, MemberDescription, ReplicaDescription, ReplicaKit, provision, write_kits,
};
use tempfile::TempDir;
use tokio::time::timeout;

/// Generous: a condition that does not come true in this time is a failure.
pub const LONG: Duration = Duration::from_secs(60);

/// Entries for which transactions are valid.
const VALIDITY_ENTRIES: u64 = 90_000;

/// Replicas by number, in a directory that is removed afterwards.
pub struct Cluster {
    pub nodes: BTreeMap<u64, ReplicaNode>,
    directory: TempDir,
    /// The first site's people.
    identity: Identity,
    pace: SealPace,
    nonce: u64,
}

impl Cluster {
    /// Keys and directories of `count` members with a replica, a participant and an operator each, drawn from `seed`.
    pub fn provision(count: u64, seed: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let members = (1..=count).map(|number| MemberDescription {
            id: format!("site-{number}"),
            name: None,
            roles: [Role::Replica, Role::Participant, Role::Operator].into(),
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
        let identity = Identity::load(&directory.path().join("site-1/identity")).unwrap();
        Self { nodes: BTreeMap::new(), directory, identity, pace: SealPace::default(), nonce: 0 }
    }

    /// A running cluster.
    pub async fn start(count: u64) -> Self {
        Self::start_paced(count, SealPace::default()).await
    }

    /// A running cluster that seals at another pace than consortia do.
    pub async fn start_paced(count: u64, pace: SealPace) -> Self {
        let mut cluster = Self { pace, ..Self::provision(count, 1) };
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
        self.identity.genesis.chain
    }

    pub async fn restart(&mut self, number: u64) {
        let kit = ReplicaKit::load(&self.replica_directory(number)).unwrap();
        let node = ReplicaNode::start_paced(kit, self.pace).await.unwrap();
        self.nodes.insert(number, node);
    }

    pub async fn kill(&mut self, number: u64) {
        self.nodes.remove(&number).unwrap().kill().await.shutdown().await;
    }

    /// Stops every replica; what they have written stays until the cluster is dropped.
    pub async fn stop(&mut self) {
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.shutdown().await.unwrap();
        }
    }

    /// The number of the replica that leads.
    pub async fn leader(&self) -> u64 {
        let mut status = self.nodes.values().next().unwrap().handle().status();
        let known = timeout(LONG, status.wait_for(|status| status.leader.is_some())).await.unwrap();
        known.unwrap().leader.unwrap().0
    }

    /// To the replica that leads now: leadership may move while the processors are busy.
    pub fn leading(&self) -> &Handle {
        let leads = |handle: &&Handle| {
            let status = handle.status();
            let status = status.borrow();
            status.leader == Some(status.id)
        };
        let mut handles = self.nodes.values().map(ReplicaNode::handle);
        handles.find(leads).unwrap_or_else(|| self.nodes.values().next().unwrap().handle())
    }

    /// A transaction by the first site's people.
    pub fn transaction(&mut self, kind: &str, payload: Vec<u8>) -> Vec<u8> {
        self.nonce += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonce.to_be_bytes());
        let size = self.nodes.values().map(|node| *node.handle().log_size().borrow()).max();
        let transaction = Transaction {
            chain: self.identity.genesis.chain,
            author: self.identity.organisation_key.public(),
            nonce: Nonce(nonce),
            not_after_index: size.unwrap_or_default() + VALIDITY_ENTRIES,
            kind: kind.into(),
            payload,
        };
        transaction.sign(&self.identity.organisation_key).to_bytes()
    }
}

/// A port that is free for TCP and UDP, given out once. It lies below those that the system gives to outgoing connections,
/// which could take it before the node does.
pub fn free_port() -> SocketAddr {
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
