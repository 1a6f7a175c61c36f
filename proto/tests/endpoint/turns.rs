//! Many transfers at once: what they hold in memory does not grow with their number.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use fedledger_ledger::Digest;
use fedledger_proto::{
    blobs::{MemoryBlob, MemorySink},
    endpoint::{BlobError, CallError, Endpoint, Slot, Slots, Turn, WantedBlob},
    wire::{
        Answer, BlobPut, BlobRequest, CHUNK_BYTES, Protocol, PutDecision,
        frame::{read_message, write_message},
    },
};
use libp2p::Stream;
use tokio::task::JoinSet;

use crate::{
    blobs::{Disk, bytes, next_get, next_put},
    node::{EACH_TRANSPORT, Node, connected, dialer, key, listener, within},
    raw_peer::RawPeer,
};

/// Transfers of files of a class that a node serves at a time, and how many each of the peers asks for here.
const SLOTS: usize = 4;
const PER_PEER: usize = 2;

/// Fills every slot for files of this size with a transfer to a disk that waits until the test drops the other end.
async fn fill_slots(
    server: &mut Node,
    clients: &[Endpoint],
    transfers: &mut JoinSet<()>,
    size: usize,
) -> Vec<mpsc::Sender<()>> {
    let mut disks = Vec::new();
    for number in 0..SLOTS {
        let endpoint = clients[number / PER_PEER].clone();
        transfers.spawn(async move {
            let blob = MemoryBlob::new(bytes(size, number as u64));
            drop(endpoint.put_blob(key(1), blob.digest(), blob).await);
        });
        let put = next_put(server).await;
        let (release, held) = mpsc::channel::<()>();
        let (arrived, arrival) = tokio::sync::oneshot::channel();
        let mut arrived = Some(arrived);
        disks.push(release);
        let then = move || {
            arrived.take().map(|arrived| arrived.send(()));
            held.recv().map_err(std::io::Error::other)
        };
        transfers.spawn(async move { drop(put.receive(Disk::new(1, then)).await) });
        within(arrival).await.unwrap();
    }
    disks
}

async fn offer(raw: &mut RawPeer, size: usize) -> Stream {
    let mut stream = within(raw.open(Protocol::Blob)).await.unwrap();
    let put = BlobRequest::Put(BlobPut { digest: Digest::of(&size.to_be_bytes()), size: size as u64 });
    write_message(&mut stream, &put, 1024).await.unwrap();
    stream
}

async fn decision(stream: &mut Stream) -> PutDecision {
    match within(read_message(stream, 1024)).await.unwrap() {
        Some(Answer::Granted(decision)) => decision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_of_fast_peers_take_turns_and_small_ones_need_none() {
    for transports in EACH_TRANSPORT {
        let mut server = listener(1, &[2, 3, 4], transports);
        let clients = [2, 3].map(|seed| dialer(seed, &server.endpoint, transports));
        for client in &clients {
            connected(&client.endpoint, &server.endpoint).await;
        }
        let endpoints = clients.each_ref().map(|client| client.endpoint.clone());
        let mut transfers = JoinSet::new();
        let mut disks = fill_slots(&mut server, &endpoints, &mut transfers, 4 * CHUNK_BYTES).await;

        let mut raw = RawPeer::dial(4, &server.endpoint, transports);
        within(raw.connected()).await;
        let mut large = offer(&mut raw, CHUNK_BYTES + 1).await;
        let put = next_put(&mut server).await;
        transfers.spawn(async move { drop(put.receive(MemorySink::default()).await) });
        assert_eq!(decision(&mut large).await, PutDecision::Wait);

        let mut small = offer(&mut raw, CHUNK_BYTES).await;
        let put = next_put(&mut server).await;
        transfers.spawn(async move { drop(put.receive(MemorySink::default()).await) });
        assert_eq!(decision(&mut small).await, PutDecision::Send { held: None });

        disks.pop();
        let mut last = decision(&mut large).await;
        while last == PutDecision::Wait {
            last = decision(&mut large).await;
        }
        assert_eq!(last, PutDecision::Send { held: None });
        drop(disks);
        transfers.abort_all();
    }
}

/// A small file's size, and one of the next class.
const SIZES: [usize; 2] = [4 * CHUNK_BYTES, (16 << 20) + CHUNK_BYTES];

/// As with the updates of a small model behind those of a large one.
#[tokio::test(flavor = "multi_thread")]
async fn small_files_do_not_wait_for_large_ones() {
    for transports in EACH_TRANSPORT {
        let mut server = listener(1, &[2, 3, 4], transports);
        let clients = [2, 3].map(|seed| dialer(seed, &server.endpoint, transports));
        for client in &clients {
            connected(&client.endpoint, &server.endpoint).await;
        }
        let endpoints = clients.each_ref().map(|client| client.endpoint.clone());
        let mut transfers = JoinSet::new();
        let disks = fill_slots(&mut server, &endpoints, &mut transfers, SIZES[1]).await;

        let mut raw = RawPeer::dial(4, &server.endpoint, transports);
        within(raw.connected()).await;
        for (size, expected) in SIZES.into_iter().zip([PutDecision::Send { held: None }, PutDecision::Wait]) {
            let mut stream = offer(&mut raw, size).await;
            let put = next_put(&mut server).await;
            transfers.spawn(async move { drop(put.receive(MemorySink::default()).await) });
            assert_eq!(decision(&mut stream).await, expected, "{size}");
        }
        drop(disks);
        transfers.abort_all();
    }
}

/// As a node does that would keep others from what they want: its answers never end.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_to_wait_is_left_in_time_and_holds_no_slot_meanwhile() {
    const PATIENCE: Duration = Duration::from_secs(5);
    for transports in EACH_TRANSPORT {
        let mut server = listener(1, &[2, 3, 4], transports);
        let clients = [2, 3, 4].map(|seed| dialer(seed, &server.endpoint, transports));
        for client in &clients {
            connected(&client.endpoint, &server.endpoint).await;
        }
        let endpoints = clients.each_ref().map(|client| client.endpoint.clone());
        let mut transfers = JoinSet::new();
        let disks = fill_slots(&mut server, &endpoints[..2], &mut transfers, SIZES[0]).await;

        let slots = Slots::new(1);
        let blob = MemoryBlob::new(bytes(SIZES[0], 9));
        let wanted = WantedBlob { digest: blob.digest(), size_max: SIZES[0] as u64, doubted: false };
        let turn = Turn { slot: slots.acquire().await, patience: PATIENCE };
        let endpoint = endpoints[2].clone();
        let is_left = AtomicBool::new(false);
        let getting = async {
            let got = endpoint.get_blob_in_turn(key(1), wanted, MemorySink::default(), turn).await.map(drop);
            is_left.store(true, Ordering::Relaxed);
            got
        };
        let serving = async {
            // It says to wait until its peer is gone.
            assert!(next_get(&mut server).await.send(blob).await.is_err());
        };
        let others = async {
            let _next: Slot = slots.acquire().await;
            assert!(!is_left.load(Ordering::Relaxed), "others had to wait as well");
        };
        let (got, (), ()) = within(async { tokio::join!(getting, serving, others) }).await;
        assert!(matches!(got, Err(BlobError::Call(CallError::TimedOut))), "{got:?}");
        drop(disks);
        transfers.abort_all();
    }
}

/// As with a leader whose participants all come at once.
#[tokio::test(flavor = "multi_thread")]
async fn more_transfers_than_turns_all_arrive() {
    for transports in EACH_TRANSPORT {
        let seeds: Vec<u8> = (2..10).collect();
        let mut server = listener(1, &seeds, transports);
        let (mut clients, mut putting) = (Vec::new(), JoinSet::new());
        for seed in seeds {
            let client = dialer(seed, &server.endpoint, transports);
            connected(&client.endpoint, &server.endpoint).await;
            for number in 0..PER_PEER {
                let (endpoint, blob) =
                    (client.endpoint.clone(), bytes(4 * CHUNK_BYTES, u64::from(seed) * 10 + number as u64));
                putting.spawn(async move {
                    let blob = MemoryBlob::new(blob);
                    endpoint.put_blob(key(1), blob.digest(), blob).await.map(|_| ())
                });
            }
            clients.push(client);
        }
        let expected = putting.len();
        let taking = tokio::spawn(async move {
            for _ in 0..expected {
                let put = next_put(&mut server).await;
                tokio::spawn(async move {
                    let (receipt, _) = put.receive(MemorySink::default()).await.unwrap();
                    receipt.stored().await.unwrap();
                });
            }
            server
        });
        while let Some(put) = within(putting.join_next()).await {
            put.unwrap().unwrap();
        }
        drop(within(taking).await.unwrap());
    }
}
