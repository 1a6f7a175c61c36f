//! Blobs: whole, verified, or not at all.

use fedledger_ledger::Digest;
use fedledger_proto::{
    endpoint::{BlobError, BlobPutResponder, CallError, PutOutcome, RequestKind},
    wire::{Refusal, RefusalCode, SubmitRequest, SubmitResponse},
};
use tokio::{io::AsyncReadExt as _, task::JoinSet};

use crate::{
    node::{EACH_TRANSPORT, Node, TIMEOUT, key, pair, within},
    running::{Blobs, serve},
};

const MIB: usize = 1024 * 1024;

/// Bytes that do not repeat, so that a chunk in the wrong place shows.
fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        // Numerical Recipes' 64-bit linear congruential generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

async fn next_put(node: &mut Node) -> BlobPutResponder {
    let request = within(node.incoming.requests.recv()).await.unwrap();
    match request.kind {
        RequestKind::BlobPut(put) => put,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_goes_both_ways_whole_on_each_transport() {
    let blob = bytes(32 * MIB + 12_345, 1);
    let digest = Digest::of(&blob);
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        let (at_server, at_client) = (Blobs::default(), Blobs::default());
        serve(server.incoming.requests, at_server.clone());
        serve(client.incoming.requests, at_client.clone());

        let size = blob.len() as u64;
        let mut reader = blob.as_slice();
        let put = within(client.endpoint.put_blob(key(1), digest, size, &mut reader)).await;
        assert_eq!(put.unwrap(), PutOutcome::Stored);
        assert_eq!(at_server.get(&digest).as_deref(), Some(blob.as_slice()));
        let again = within(client.endpoint.put_blob(key(1), digest, size, &mut tokio::io::empty())).await;
        assert_eq!(again.unwrap(), PutOutcome::AlreadyThere);

        let mut fetched = Vec::new();
        let got = within(client.endpoint.get_blob(key(1), digest, size, &mut fetched)).await;
        assert_eq!(got.unwrap(), size);
        assert!(fetched == blob);

        // The node that was dialed opens a transfer towards the one that dialed.
        at_client.insert(digest, blob.clone());
        let mut fetched = Vec::new();
        within(server.endpoint.get_blob(key(2), digest, u64::MAX, &mut fetched)).await.unwrap();
        assert!(fetched == blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_and_tiny_blobs_are_blobs() {
    let (server, client) = pair(EACH_TRANSPORT[0]).await;
    let blobs = Blobs::default();
    serve(server.incoming.requests, blobs.clone());
    for size in [0, 1, 256 * 1024, 256 * 1024 + 1] {
        let blob = bytes(size, 2);
        let digest = Digest::of(&blob);
        let outcome = client.endpoint.put_blob(key(1), digest, size as u64, &mut blob.as_slice()).await.unwrap();
        assert_eq!(outcome, PutOutcome::Stored);
        let mut fetched = Vec::new();
        client.endpoint.get_blob(key(1), digest, size as u64, &mut fetched).await.unwrap();
        assert!(fetched == blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transfers_in_both_directions_do_not_block_each_other() {
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        let blobs = Blobs::default();
        serve(server.incoming.requests, blobs.clone());
        serve(client.incoming.requests, blobs.clone());
        let mut transfers = JoinSet::new();
        for number in 0..16 {
            let (from, to) = if number % 2 == 0 { (&client.endpoint, key(1)) } else { (&server.endpoint, key(2)) };
            let endpoint = from.clone();
            let shared = blobs.clone();
            transfers.spawn(async move {
                let blob = bytes(4 * MIB, number);
                let digest = Digest::of(&blob);
                if number % 4 < 2 {
                    endpoint.put_blob(to, digest, blob.len() as u64, &mut blob.as_slice()).await.unwrap();
                } else {
                    shared.insert(digest, blob.clone());
                    let mut fetched = Vec::new();
                    endpoint.get_blob(to, digest, u64::MAX, &mut fetched).await.unwrap();
                    assert!(fetched == blob);
                }
            });
        }
        within(transfers.join_all()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetched_blob_is_refused_unless_it_is_the_one() {
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        let blob = bytes(3 * MIB, 3);
        let (digest, size) = (Digest::of(&blob), blob.len() as u64);
        let blobs = Blobs::default();
        serve(server.incoming.requests, blobs.clone());
        let endpoint = &client.endpoint;
        let mut sink = tokio::io::sink();

        let absent = endpoint.get_blob(key(1), digest, size, &mut sink).await;
        assert!(matches!(absent, Err(BlobError::NotFound(named)) if named == digest), "{absent:?}");

        blobs.insert(digest, blob);
        let too_large = endpoint.get_blob(key(1), digest, size - 1, &mut sink).await;
        let Err(BlobError::TooLarge { size: announced, limit, .. }) = too_large else { panic!("{too_large:?}") };
        assert_eq!((announced, limit), (size, size - 1));

        let forged = Digest::of(b"something else");
        blobs.insert(forged, bytes(3 * MIB, 4));
        let wrong = endpoint.get_blob(key(1), forged, size, &mut sink).await;
        assert!(matches!(wrong, Err(BlobError::WrongContent { expected, .. }) if expected == forged), "{wrong:?}");

        assert_eq!(endpoint.get_blob(key(1), digest, size, &mut sink).await.unwrap(), size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_ends_early_is_no_blob() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let blob = bytes(2 * MIB, 5);
        let (digest, size) = (Digest::of(&blob), blob.len() as u64);

        let endpoint = client.endpoint.clone();
        let getting =
            tokio::spawn(async move { endpoint.get_blob(key(1), digest, size, &mut tokio::io::sink()).await });
        let request = within(server.incoming.requests.recv()).await.unwrap();
        let RequestKind::BlobGet(get) = request.kind else { panic!("{request:?}") };
        let sent = get.send(size, &mut &blob[..MIB]).await;
        assert!(matches!(sent, Err(BlobError::SourceTooShort { read, .. }) if read == MIB as u64), "{sent:?}");
        let got = within(getting).await.unwrap();
        assert!(matches!(got, Err(BlobError::Truncated { .. } | BlobError::Call(CallError::Frame(_)))), "{got:?}");

        let endpoint = client.endpoint.clone();
        let putting = tokio::spawn(async move { endpoint.put_blob(key(1), digest, size, &mut &blob[..MIB]).await });
        let received = next_put(&mut server).await.receive(&mut tokio::io::sink()).await;
        assert!(
            matches!(received, Err(BlobError::Truncated { .. } | BlobError::Call(CallError::Frame(_)))),
            "{received:?}"
        );
        let put = within(putting).await.unwrap();
        assert!(matches!(put, Err(BlobError::SourceTooShort { .. })), "{put:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offered_blob_is_refused_unless_it_is_wanted_and_right() {
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        let blobs = Blobs::default();
        serve(server.incoming.requests, blobs.clone());
        let endpoint = &client.endpoint;
        let digest = Digest::of(b"something else");
        let refused = |result: Result<PutOutcome, BlobError>| match result {
            Err(BlobError::Call(CallError::Refused(refusal))) => refusal.code,
            other => panic!("{other:?}"),
        };
        // Nothing of it is read: the reader would never give a byte.
        let (mut silent, _other_end) = tokio::io::duplex(1);
        let oversized = within(endpoint.put_blob(key(1), digest, u64::MAX, &mut silent)).await;
        assert_eq!(refused(oversized), RefusalCode::TooLarge);

        let blob = bytes(3 * MIB, 6);
        let wrong = within(endpoint.put_blob(key(1), digest, blob.len() as u64, &mut blob.as_slice())).await;
        assert_eq!(refused(wrong), RefusalCode::WrongContent);
        assert_eq!(blobs.get(&digest), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_on_the_way_is_reported_as_such() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let blob = bytes(16 * MIB, 7);
        let (digest, size) = (Digest::of(&blob), blob.len() as u64);
        let put_blob = |endpoint: fedledger_proto::endpoint::Endpoint, blob: Vec<u8>| {
            tokio::spawn(async move { endpoint.put_blob(key(1), digest, size, &mut blob.as_slice()).await })
        };

        let putting = put_blob(client.endpoint.clone(), blob.clone());
        let (mut disk, mut other_end) = tokio::io::duplex(MIB);
        let failing = tokio::spawn(async move {
            other_end.read_exact(&mut [0; 1000]).await.unwrap();
        });
        let received = next_put(&mut server).await.receive(&mut disk).await;
        assert!(matches!(received, Err(BlobError::Local(_))), "{received:?}");
        failing.await.unwrap();
        let put = within(putting).await.unwrap();
        let Err(BlobError::Call(CallError::Refused(refusal))) = put else { panic!("{put:?}") };
        assert_eq!(refusal.code, RefusalCode::Storage);

        // Or only at the very end, when it is to be made durable.
        let putting = put_blob(client.endpoint.clone(), blob);
        let receipt = next_put(&mut server).await.receive(&mut tokio::io::sink()).await.unwrap();
        receipt.refuse(Refusal::new(RefusalCode::Storage, "no space left")).await.unwrap();
        let put = within(putting).await.unwrap();
        assert!(matches!(put, Err(BlobError::Call(CallError::Refused(_)))), "{put:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_to_a_stuck_disk_do_not_hold_up_other_streams() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let mut stuck = JoinSet::new();
        let mut disks = Vec::new();
        for number in 0..4 {
            let endpoint = client.endpoint.clone();
            stuck.spawn(async move {
                let blob = bytes(16 * MIB, number);
                endpoint.put_blob(key(1), Digest::of(&blob), blob.len() as u64, &mut blob.as_slice()).await.map(|_| ())
            });
            let put = next_put(&mut server).await;
            let (mut disk, other_end) = tokio::io::duplex(1);
            disks.push(other_end);
            stuck.spawn(async move { put.receive(&mut disk).await.map(|_| ()) });
        }
        let mut requests = server.incoming.requests;
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let RequestKind::Submit(_, responder) = request.kind else { panic!("{request:?}") };
                responder.send(SubmitResponse::Redirect { leader: None }).await.unwrap();
            }
        });
        for _ in 0..50 {
            let request = SubmitRequest { envelope: vec![0; 50_000] };
            client.endpoint.call(key(1), &request, TIMEOUT).await.unwrap();
        }
        assert!(stuck.try_join_next().is_none(), "a transfer ended that should be stuck");
        drop(disks);
        stuck.abort_all();
    }
}
