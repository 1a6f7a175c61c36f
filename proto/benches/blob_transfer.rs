//! How fast a blob travels between two nodes on one machine: over TCP with Noise and Yamux and over QUIC, verified on
//! the way, beside the same bytes over a bare TCP connection, unverified, in the same run.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]

use std::{collections::BTreeSet, hint::black_box, io};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedledger_ledger::{Digest, SecretKey};
use fedledger_proto::{
    blobs::{BlobSink, MemoryBlob, Progress},
    endpoint::{Endpoint, EndpointConfig, PeerAddress, RequestKind, Transports, WantedBlob, WebSocketConfig},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

const BLOB_BYTES: usize = 64 * 1024 * 1024;

/// Bytes read at a time from the bare connection, as the endpoint does.
const CHUNK_BYTES: usize = 256 * 1024;

/// Verifies and forgets.
#[derive(Default)]
struct NoDisk(Progress);

impl BlobSink for NoDisk {
    fn progress(&mut self) -> &mut Progress {
        &mut self.0
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        black_box(chunk);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(seed: u8, admitted: &SecretKey, transports: Transports) -> EndpointConfig {
    EndpointConfig {
        transport_key: SecretKey::from_seed([seed; 32]),
        listen: Vec::new(),
        dial: Vec::new(),
        admitted: BTreeSet::from([admitted.public()]),
        transports,
        websocket: WebSocketConfig::default(),
    }
}

/// Two connected nodes; the first serves the blob to whoever asks.
async fn pair(transports: Transports, blob: &'static [u8]) -> (Endpoint, Endpoint) {
    let keys = [1, 2].map(|seed| SecretKey::from_seed([seed; 32]));
    let listen = vec!["127.0.0.1:0".parse().expect("an address")];
    let config_1 = EndpointConfig { listen, ..config(1, &keys[1], transports) };
    let (server, mut incoming) = Endpoint::start(config_1).expect("a free port");
    let addresses = server.listen_addresses().iter().map(|address| (*address).into()).collect();
    let dial = vec![PeerAddress { key: server.key(), addresses }];
    let (client, _) = Endpoint::start(EndpointConfig { dial, ..config(2, &keys[0], transports) }).expect("an endpoint");
    client.connected().wait_for(|peers| !peers.is_empty()).await.expect("a connection");
    let blob = MemoryBlob::new(blob);
    tokio::spawn(async move {
        while let Some(request) = incoming.requests.recv().await {
            let RequestKind::BlobGet(get) = request.kind else { continue };
            tokio::spawn(get.send(blob.clone()));
        }
    });
    (server, client)
}

/// The same bytes over a connection that neither encrypts nor verifies.
async fn bare_tcp(listener: &TcpListener, blob: &'static [u8]) -> usize {
    let address = listener.local_addr().expect("an address");
    let sending = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(blob).await.expect("a reader");
    });
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut received = 0;
    loop {
        let read = stream.read(&mut chunk).await.expect("a writer");
        if read == 0 {
            break;
        }
        received += black_box(&chunk[..read]).len();
    }
    sending.await.expect("the sender");
    received
}

fn blob_transfer(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let blob: &'static [u8] = Vec::leak((0..BLOB_BYTES).map(|index| (index / 7) as u8).collect());
    let digest = Digest::of(blob);

    let mut group = criterion.benchmark_group("blob_transfer");
    group.sample_size(10).throughput(Throughput::Bytes(BLOB_BYTES as u64));
    for (name, transports) in [("tcp_noise_yamux", Transports::TcpOnly), ("quic", Transports::QuicOnly)] {
        let (server, client) = runtime.block_on(pair(transports, blob));
        group.bench_function(BenchmarkId::new(name, BLOB_BYTES), |bencher| {
            bencher.iter(|| {
                let wanted = WantedBlob { digest, size_max: BLOB_BYTES as u64, doubted: false };
                let get = client.get_blob(server.key(), wanted, NoDisk::default());
                let mut fetched = runtime.block_on(get).expect("the blob");
                assert_eq!(fetched.progress().bytes(), BLOB_BYTES as u64);
            });
        });
        runtime.block_on(async {
            client.shutdown().await;
            server.shutdown().await;
        });
    }
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    group.bench_function(BenchmarkId::new("bare_tcp", BLOB_BYTES), |bencher| {
        bencher.iter(|| assert_eq!(runtime.block_on(bare_tcp(&listener, blob)), BLOB_BYTES));
    });
    group.bench_function(BenchmarkId::new("sha256", BLOB_BYTES), |bencher| {
        bencher.iter(|| Digest::of(black_box(blob)));
    });
    group.finish();
}

criterion_group!(benches, blob_transfer);
criterion_main!(benches);
