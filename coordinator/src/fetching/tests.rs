//! Fetching from real peers on loopback.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fedledger_ledger::{Digest, SecretKey};
use fedledger_proto::{
    blobs::{BlobSource, Marks, MemoryBlob},
    endpoint::{
        BlobGetResponder, EndpointConfig, InboundRequest, PeerAddress, RequestKind, Transports, WebSocketConfig,
    },
    wire::{CHUNK_BYTES, CheckpointResponse},
};
use futures::FutureExt as _;
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
    let slots = fetching.slots_of(&PLAN);
    let _taken = futures::future::join_all((0..FETCHES_PER_PLAN_MAX).map(|_| slots.acquire())).await;
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

/// A file of which nothing can be read before the test says so.
struct Stuck(MemoryBlob, std::sync::mpsc::Receiver<()>);

impl BlobSource for Stuck {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn marks(&self) -> &Marks {
        self.0.marks()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.1.recv().map_err(io::Error::other)?;
        self.0.read_at(offset, buffer)
    }
}

/// A peer that has every one of these files, and says to wait for all of them. It does so until what it gives is dropped.
fn holding_up(number: u8, files: Vec<MemoryBlob>) -> (Endpoint, Vec<std::sync::mpsc::Sender<()>>) {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let config = EndpointConfig { listen, ..config(number, [key(9).public()].into()) };
    let (endpoint, mut incoming) = Endpoint::start(config).unwrap();
    let (releases, mut stuck): (Vec<_>, Vec<_>) = files.iter().map(|_| std::sync::mpsc::channel()).unzip();
    tokio::spawn(async move {
        while let Some(request) = incoming.requests.recv().await {
            let Some(get) = file_asked_for(request).await else { continue };
            let blob = files.iter().find(|file| file.digest() == get.digest()).cloned().unwrap();
            let Some(stuck) = stuck.pop() else { continue };
            tokio::spawn(async move { drop(get.send(Stuck(blob, stuck)).await) });
        }
    });
    (endpoint, releases)
}

/// As one that would stop a plan: everything that is asked of it begins, but never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_holds_its_files_back_keeps_no_other_file_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let held_back: Vec<_> = (10..10 + 2 * FETCHES_PER_PLAN_MAX as u8).map(|seed| blob(3 * CHUNK_BYTES, seed)).collect();
    let (hostile, releases) = holding_up(1, held_back.iter().map(|(blob, _)| blob.clone()).collect());
    let (there, file) = blob(3 * CHUNK_BYTES, 3);
    let (honest, _) = peer(2, vec![there]);
    let fetching = fetching(folder.path(), &[&hostile, &honest]).await;
    let mut fetches = JoinSet::new();
    for (_, held_back) in held_back {
        let (fetching, source) = (Arc::clone(&fetching), hostile.key());
        fetches.spawn(async move { fetching.fetch(&PLAN, &held_back, |_| vec![source]).await });
    }
    // All slots were taken once, or there would be nothing to see.
    let slots = fetching.slots_of(&PLAN);
    let has_free = || slots.acquire().now_or_never().is_some();
    timeout(LONG, async {
        while has_free() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    // Long before any of the others is given up.
    assert!(timeout(STAY_FIRST / 2, fetching.fetch(&PLAN, &file, |_| vec![honest.key()])).await.unwrap());
    assert!(fetches.try_join_next().is_none(), "they are still held back");
    fetches.abort_all();
    drop(releases);
}

#[test]
fn the_more_searches_were_in_vain_the_longer_a_peer_may_take() {
    const GIB: u64 = 1 << 30;
    let first = Patience::of(0, GIB);
    assert_eq!((first.presence, first.turn), (PATIENCE_FIRST, TURN_PATIENCE_FIRST));
    assert_eq!(first.stay, TURN_PATIENCE_FIRST + STAY_FIRST + Duration::from_secs(1024));
    assert!(Patience::of(0, 0).stay >= STAY_FIRST);
    let patience: Vec<_> = (0..FETCH_ATTEMPTS).map(|turn| Patience::of(turn, GIB)).collect();
    assert!(patience.is_sorted_by_key(|patience| (patience.presence, patience.turn, patience.stay)));
    // A gigabyte comes over a line of 16 KiB/s at one go, and what has come stays before.
    assert!(patience.last().unwrap().stay >= Duration::from_secs(GIB / (16 * 1024)));
    assert!(Patience::of(usize::MAX, u64::MAX).stay > Duration::ZERO);
}
