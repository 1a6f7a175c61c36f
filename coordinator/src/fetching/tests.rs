//! Fetching from real peers on loopback.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fedledger_ledger::{Digest, SecretKey};
use fedledger_proto::{
    blobs::MemoryBlob,
    endpoint::{
        BlobGetResponder, EndpointConfig, InboundRequest, PeerAddress, RequestKind, Transports, WebSocketConfig,
    },
    wire::{CHUNK_BYTES, CheckpointResponse},
};
use tokio::task::JoinSet;

use super::*;

/// The plan that files are fetched for.
const PLAN: Digest = Digest::from_bytes([7; 32]);

/// Longest time that a condition may take; only a failing test waits that long.
const LONG: Duration = Duration::from_secs(60);

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

fn config(number: u8, admitted: BTreeSet<PublicKey>) -> EndpointConfig {
    EndpointConfig {
        transport_key: key(number),
        listen: Vec::new(),
        dial: Vec::new(),
        admitted,
        transports: Transports::TcpOnly,
        websocket: WebSocketConfig::default(),
    }
}

/// The file that a peer is asked for; it is also asked whether it is there.
async fn file_asked_for(request: InboundRequest) -> Option<BlobGetResponder> {
    match request.kind {
        RequestKind::BlobGet(get) => Some(get),
        RequestKind::Checkpoint(_, responder) => {
            responder.send(CheckpointResponse::Latest { note: None, consistency: None }).await.ok();
            None
        }
        other => panic!("{other:?}"),
    }
}

/// A peer that has these files, and counts what it is asked for.
fn peer(number: u8, files: Vec<MemoryBlob>) -> (Endpoint, Arc<AtomicUsize>) {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let config = EndpointConfig { listen, ..config(number, [key(9).public()].into()) };
    let (endpoint, mut incoming) = Endpoint::start(config).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(request) = incoming.requests.recv().await {
            let Some(get) = file_asked_for(request).await else { continue };
            count.fetch_add(1, Ordering::SeqCst);
            let found = files.iter().find(|file| file.digest() == get.digest()).cloned();
            tokio::spawn(async move {
                match found {
                    Some(blob) => drop(get.send(blob).await),
                    None => drop(get.not_found().await),
                }
            });
        }
    });
    (endpoint, asked)
}

/// A replica that is connected to these peers.
async fn fetching(folder: &std::path::Path, peers: &[&Endpoint]) -> Arc<Fetching> {
    let keys: BTreeSet<PublicKey> = peers.iter().map(|peer| peer.key()).collect();
    let dial = peers.iter().map(|peer| PeerAddress {
        key: peer.key(),
        addresses: peer.listen_addresses().iter().map(|address| (*address).into()).collect(),
    });
    let config = EndpointConfig { dial: dial.collect(), ..config(9, keys.clone()) };
    let (endpoint, _) = Endpoint::start(config).unwrap();
    timeout(LONG, endpoint.connected().wait_for(|connected| *connected == keys)).await.unwrap().unwrap();
    Arc::new(Fetching::new(endpoint, BlobStore::open(folder).unwrap()))
}

fn blob(size: usize, seed: u8) -> (MemoryBlob, FileRef) {
    let bytes: Vec<u8> = (0..size).map(|index| (index / 253) as u8 ^ seed).collect();
    let blob = MemoryBlob::new(bytes);
    let file = FileRef { digest: blob.digest(), size: size as u64 };
    (blob, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_nobody_has_keep_no_other_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (there, file) = blob(3 * CHUNK_BYTES, 1);
    let (server, asked) = peer(1, vec![there]);
    let fetching = fetching(folder.path(), &[&server]).await;
    let mut missing = JoinSet::new();
    for number in 0..3 * FETCHES_PER_PLAN_MAX as u64 {
        let (fetching, source) = (Arc::clone(&fetching), server.key());
        missing.spawn(async move {
            let lost = FileRef { digest: Digest::of(&number.to_be_bytes()), size: 100 };
            fetching.fetch(&PLAN, &lost, |_| vec![source]).await
        });
    }
    // Every one of them has been looked for, and is looked for again and again.
    let all_asked = async {
        while asked.load(Ordering::SeqCst) < 6 * FETCHES_PER_PLAN_MAX {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, all_asked).await.unwrap();
    assert!(timeout(LONG, fetching.fetch(&PLAN, &file, |_| vec![server.key()])).await.unwrap());
    assert!(missing.try_join_next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_transfers_are_slow_keeps_no_other_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (there, file) = blob(3 * CHUNK_BYTES, 3);
    let (server, _) = peer(1, vec![there]);
    let fetching = fetching(folder.path(), &[&server]).await;
    let permits = fetching.permits_of(&PLAN);
    let _taken = permits.acquire_many(FETCHES_PER_PLAN_MAX as u32).await.unwrap();
    let other = Digest::of(b"another plan");
    assert!(timeout(LONG, fetching.fetch(&other, &file, |_| vec![server.key()])).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_want_a_file_share_one_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let (there, file) = blob(40 * CHUNK_BYTES, 2);
    let (server, asked) = peer(1, vec![there]);
    let fetching = fetching(folder.path(), &[&server]).await;
    let mut fetches = JoinSet::new();
    for _ in 0..20 {
        let (fetching, source) = (Arc::clone(&fetching), server.key());
        fetches.spawn(async move { fetching.fetch(&PLAN, &file, |_| vec![source]).await });
    }
    assert!(timeout(LONG, fetches.join_all()).await.unwrap().into_iter().all(|fetched| fetched));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(server.traffic().sent_bytes, file.size + 40 * 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_and_a_peer_without_the_file_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (there, file) = blob(3 * CHUNK_BYTES + 17, 3);
    let (empty, _) = peer(1, Vec::new());
    let (lying, lied) = {
        // What it has is one byte longer than the ledger says.
        let (larger, _) = blob(3 * CHUNK_BYTES + 18, 3);
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let config = EndpointConfig { listen, ..config(2, [key(9).public()].into()) };
        let (endpoint, mut incoming) = Endpoint::start(config).unwrap();
        let lied = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lied);
        tokio::spawn(async move {
            while let Some(request) = incoming.requests.recv().await {
                let Some(get) = file_asked_for(request).await else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                // The asker has refused by then.
                get.send(larger.clone()).await.ok();
            }
        });
        (endpoint, lied)
    };
    let (honest, _) = peer(3, vec![there]);
    let fetching = fetching(folder.path(), &[&empty, &lying, &honest]).await;
    let order = |_| vec![empty.key(), lying.key(), honest.key()];
    assert!(timeout(LONG, fetching.fetch(&PLAN, &file, order)).await.unwrap());
    assert_eq!(lied.load(Ordering::SeqCst), 1);
    assert_eq!(std::fs::metadata(fetching.blobs.path(&file.digest)).unwrap().len(), file.size);
}

/// As one that was killed or suspended, whose connection is still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_answer_is_passed_over_soon() {
    let folder = tempfile::tempdir().unwrap();
    let (there, file) = blob(CHUNK_BYTES, 4);
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    // Nobody takes its requests.
    let (silent, _incoming) =
        Endpoint::start(EndpointConfig { listen, ..config(1, [key(9).public()].into()) }).unwrap();
    let (honest, _) = peer(2, vec![there]);
    let fetching = fetching(folder.path(), &[&silent, &honest]).await;
    let order = |_| vec![silent.key(), honest.key()];
    assert!(timeout(LONG / 4, fetching.fetch(&PLAN, &file, order)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_copy_was_damaged_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (good, file) = blob(3 * CHUNK_BYTES, 1);
    let (bad, _) = blob(3 * CHUNK_BYTES, 2);
    let config = config(1, [key(9).public()].into());
    let (server, mut incoming) =
        Endpoint::start(EndpointConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..config }).unwrap();
    tokio::spawn(async move {
        while let Some(request) = incoming.requests.recv().await {
            let Some(get) = file_asked_for(request).await else { continue };
            // As a node that looks at its copy only when somebody complains.
            let copy = if get.is_doubted() { good.clone() } else { bad.clone() };
            drop(get.send(copy).await);
        }
    });
    let fetching = fetching(folder.path(), &[&server]).await;
    assert!(timeout(LONG, fetching.fetch(&PLAN, &file, |_| vec![server.key()])).await.unwrap());
}
