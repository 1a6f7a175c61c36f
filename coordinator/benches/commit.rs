//! Committed transactions per second, and the latency of one, of three replicas on loopback with synced disks.
//!
//! Every transaction has a payload of 256 bytes, is signed, and its signature is verified by every replica. The payload asks
//! for nothing that the federation knows, so each becomes a leaf with a rejection: the whole path but for the state change.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fedledger_coordinator::{ReplicaNode, replica::Handle};
use fedledger_federation::member::Role;
use fedledger_ledger::{
    Digest, SecretKey,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::kit::{
    ConsortiumDescription, Identity, MemberDescription, ReplicaDescription, provision, write_kits,
};
use futures::{StreamExt as _, stream};
use tokio::runtime::Runtime;

/// Bytes of payload per transaction.
const PAYLOAD_BYTES: usize = 256;

/// Clients that submit at the same time.
const CLIENTS: usize = 100;

/// Transactions per measurement of the throughput.
const TRANSACTIONS: u64 = 2_000;

struct Cluster {
    nodes: Vec<ReplicaNode>,
    handles: Vec<Handle>,
    chain: Digest,
    key: SecretKey,
    next: u64,
}

impl Cluster {
    async fn start(directory: &Path) -> Self {
        let members = (1..=3).map(|number| MemberDescription {
            id: format!("site-{number}"),
            name: None,
            roles: [Role::Replica].into(),
            replica: Some(ReplicaDescription {
                listen: Some(free_port()),
                api: Some(free_port()),
                http: Some(free_port()),
                ..ReplicaDescription::default()
            }),
            participant: None,
        });
        let description =
            ConsortiumDescription { name: "bench".into(), finality_threshold: None, members: members.collect() };
        let mut seed = 0u64;
        let mut randomness = || {
            seed += 1;
            *Digest::of(&seed.to_be_bytes()).as_bytes()
        };
        let provisioned = provision(&description, &mut randomness).unwrap();
        write_kits(&provisioned, directory, false).unwrap();
        let mut nodes = Vec::new();
        for number in 1..=3 {
            nodes.push(ReplicaNode::start(&directory.join(format!("site-{number}/replica"))).await.unwrap());
        }
        let mut status = nodes[0].handle().status();
        status.wait_for(|status| status.leader.is_some()).await.unwrap();
        let handles = nodes.iter().map(|node| node.handle().clone()).collect();
        let identity = Identity::load(&directory.join("site-1/identity")).unwrap();
        Self { nodes, handles, chain: identity.genesis.chain, key: identity.organisation_key, next: 0 }
    }

    fn envelope(&mut self) -> Vec<u8> {
        self.next += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next.to_be_bytes());
        let transaction = Transaction {
            chain: self.chain,
            author: self.key.public(),
            nonce: Nonce(nonce),
            not_after_index: *self.handles[0].log_size().borrow() + 90_000,
            kind: "Benchmark".into(),
            payload: vec![0x40; PAYLOAD_BYTES],
        };
        transaction.sign(&self.key).to_bytes()
    }
}

fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Submits at the replica that leads now: leadership may move while criterion keeps the processors busy.
async fn submit(handles: &[Handle], envelope: Vec<u8>) {
    let leads = |handle: &&Handle| {
        let status = handle.status();
        let status = status.borrow();
        status.leader == Some(status.id)
    };
    handles.iter().find(leads).unwrap_or(&handles[0]).submit(envelope).await.unwrap();
}

fn commit(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = runtime.block_on(Cluster::start(&directory.path().join("kits")));

    let mut group = criterion.benchmark_group("commit");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(1));
    group.bench_function("one client", |bencher| {
        bencher.iter_custom(|iterations| {
            let envelopes: Vec<_> = (0..iterations).map(|_| cluster.envelope()).collect();
            let handles = cluster.handles.clone();
            runtime.block_on(async {
                let started = Instant::now();
                for envelope in envelopes {
                    submit(&handles, envelope).await;
                }
                started.elapsed()
            })
        });
    });
    group.throughput(Throughput::Elements(TRANSACTIONS));
    group.bench_function("100 clients", |bencher| {
        bencher.iter_custom(|iterations| {
            let envelopes: Vec<_> = (0..iterations * TRANSACTIONS).map(|_| cluster.envelope()).collect();
            let handles = cluster.handles.clone();
            runtime.block_on(async {
                let started = Instant::now();
                stream::iter(envelopes).for_each_concurrent(CLIENTS, |envelope| submit(&handles, envelope)).await;
                started.elapsed()
            })
        });
    });
    group.finish();
    runtime.block_on(async {
        for node in cluster.nodes {
            node.shutdown().await.unwrap();
        }
    });
}

criterion_group!(benches, commit);
criterion_main!(benches);
