//! Blobs: whole, verified, or not at all.

use std::{io, sync::mpsc};

use fedledger_ledger::Digest;
use fedledger_proto::{
    blobs::{BlobSink, BlobSource, Marks, MemoryBlob, MemorySink, Progress},
    endpoint::{
        BlobError, BlobGetResponder, BlobPutResponder, CallError, Endpoint, PutOutcome, RequestKind, WantedBlob,
    },
    wire::{CHUNK_BYTES, Refusal, RefusalCode, SubmitRequest, SubmitResponse},
};
use tokio::task::JoinSet;

use crate::{
    node::{EACH_TRANSPORT, Node, TIMEOUT, key, pair, within},
    running::{Blobs, serve},
};

pub const MIB: usize = 1024 * 1024;

/// Bytes that do not repeat, so that a chunk in the wrong place shows.
pub fn bytes(size: usize, seed: u64) -> Vec<u8> {
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

/// Fetches a blob from the first node into memory.
pub async fn fetch(endpoint: &Endpoint, digest: Digest, size_max: u64) -> Result<Vec<u8>, BlobError> {
    let wanted = WantedBlob { digest, size_max, doubted: false };
    let sink = within(endpoint.get_blob(key(1), wanted, MemorySink::default())).await?;
    Ok(sink.into_bytes())
}

/// A source that says of itself whatever a test wants.
pub struct Odd {
    pub bytes: Vec<u8>,
    pub size: u64,
    pub marks: Marks,
}

impl BlobSource for Odd {
    fn size(&self) -> u64 {
        self.size
    }

    fn marks(&self) -> &Marks {
        &self.marks
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let part = rest.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

pub fn marks_of(bytes: &[u8]) -> Marks {
    Marks::of(bytes).unwrap().0
}

/// A blob that ends before it should.
fn cut(blob: &[u8], at: usize) -> Odd {
    Odd { bytes: blob[..at].to_vec(), size: blob.len() as u64, marks: marks_of(blob) }
}

pub async fn next_get(node: &mut Node) -> BlobGetResponder {
    let request = within(node.incoming.requests.recv()).await.unwrap();
    match request.kind {
        RequestKind::BlobGet(get) => get,
        other => panic!("{other:?}"),
    }
}

pub async fn next_put(node: &mut Node) -> BlobPutResponder {
    let request = within(node.incoming.requests.recv()).await.unwrap();
    match request.kind {
        RequestKind::BlobPut(put) => put,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_goes_both_ways_whole_on_each_transport() {
    let blob = bytes(32 * MIB + 12_345, 1);
    let (digest, size) = (Digest::of(&blob), blob.len() as u64);
    let source = MemoryBlob::new(blob.clone());
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        let (at_server, at_client) = (Blobs::default(), Blobs::default());
        serve(server.incoming.requests, at_server.clone());
        serve(client.incoming.requests, at_client.clone());

        let put = within(client.endpoint.put_blob(key(1), digest, source.clone())).await;
        assert_eq!(put.unwrap(), PutOutcome::Stored);
        assert_eq!(at_server.get(&digest).as_deref(), Some(blob.as_slice()));
        let again = within(client.endpoint.put_blob(key(1), digest, source.clone())).await;
        assert_eq!(again.unwrap(), PutOutcome::AlreadyThere);
        assert!(fetch(&client.endpoint, digest, size).await.unwrap() == blob);

        // The node that was dialed opens a transfer towards the one that dialed.
        at_client.insert(digest, blob.clone());
        let wanted = WantedBlob { digest, size_max: u64::MAX, doubted: false };
        let fetched = within(server.endpoint.get_blob(key(2), wanted, MemorySink::default())).await.unwrap();
        assert!(fetched.into_bytes() == blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_every_size_around_a_chunk_are_blobs() {
    let (server, client) = pair(EACH_TRANSPORT[0]).await;
    let blobs = Blobs::default();
    serve(server.incoming.requests, blobs.clone());
    for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
        let blob = bytes(size, 2);
        let digest = Digest::of(&blob);
        let outcome = client.endpoint.put_blob(key(1), digest, MemoryBlob::new(blob.clone())).await.unwrap();
        assert_eq!(outcome, PutOutcome::Stored);
        assert!(fetch(&client.endpoint, digest, size as u64).await.unwrap() == blob);
    }
    // Nothing is not the beginning of something.
    let something = Digest::of(b"something");
    let nothing = within(client.endpoint.put_blob(key(1), something, MemoryBlob::new(Vec::new()))).await;
    assert_eq!(refused(nothing), RefusalCode::WrongContent);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transfers_in_both_directions_do_not_block_each_other() {
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        let blobs = Blobs::default();
        serve(server.incoming.requests, blobs.clone());
        serve(client.incoming.requests, blobs.clone());
        let mut transfers = JoinSet::new();
        for number in 0..32 {
            let (from, to) = if number % 2 == 0 { (&client.endpoint, key(1)) } else { (&server.endpoint, key(2)) };
            let endpoint = from.clone();
            let shared = blobs.clone();
            transfers.spawn(async move {
                let blob = bytes(4 * MIB, number);
                let digest = Digest::of(&blob);
                if number % 4 < 2 {
                    endpoint.put_blob(to, digest, MemoryBlob::new(blob)).await.unwrap();
                } else {
                    shared.insert(digest, blob.clone());
                    let wanted = WantedBlob { digest, size_max: u64::MAX, doubted: false };
                    let fetched = endpoint.get_blob(to, wanted, MemorySink::default()).await.unwrap();
                    assert!(fetched.into_bytes() == blob);
                }
            });
        }
        within(transfers.join_all()).await;
        assert_eq!(client.endpoint.traffic().sent_bytes, server.endpoint.traffic().received_bytes);
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

        let absent = fetch(endpoint, digest, size).await;
        assert!(matches!(absent, Err(BlobError::NotFound(named)) if named == digest), "{absent:?}");

        blobs.insert(digest, blob);
        let too_large = fetch(endpoint, digest, size - 1).await;
        let Err(BlobError::TooLarge { size: announced, limit, .. }) = too_large else { panic!("{too_large:?}") };
        assert_eq!((announced, limit), (size, size - 1));

        let forged = Digest::of(b"something else");
        blobs.insert(forged, bytes(3 * MIB, 4));
        let wrong = fetch(endpoint, forged, size).await;
        assert!(matches!(wrong, Err(BlobError::WrongContent { expected, .. }) if expected == forged), "{wrong:?}");

        assert_eq!(fetch(endpoint, digest, size).await.unwrap().len() as u64, size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_ends_early_is_no_blob() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let blob = bytes(2 * MIB, 5);
        let (digest, size) = (Digest::of(&blob), blob.len() as u64);

        let endpoint = client.endpoint.clone();
        let getting = tokio::spawn(async move { fetch(&endpoint, digest, size).await });
        let request = within(server.incoming.requests.recv()).await.unwrap();
        let RequestKind::BlobGet(get) = request.kind else { panic!("{request:?}") };
        let sent = get.send(cut(&blob, MIB)).await;
        assert!(matches!(sent, Err(BlobError::SourceTooShort { read, .. }) if read == MIB as u64), "{sent:?}");
        let got = within(getting).await.unwrap();
        assert!(matches!(got, Err(BlobError::Truncated { .. } | BlobError::Call(CallError::Frame(_)))), "{got:?}");

        let endpoint = client.endpoint.clone();
        let source = cut(&blob, MIB);
        let putting = tokio::spawn(async move { endpoint.put_blob(key(1), digest, source).await });
        let received = next_put(&mut server).await.receive(MemorySink::default()).await.map(|_| ());
        assert!(
            matches!(received, Err(BlobError::Truncated { .. } | BlobError::Call(CallError::Frame(_)))),
            "{received:?}"
        );
        let put = within(putting).await.unwrap();
        assert!(matches!(put, Err(BlobError::SourceTooShort { .. })), "{put:?}");
    }
}

fn refused(result: Result<PutOutcome, BlobError>) -> RefusalCode {
    match result {
        Err(BlobError::Call(CallError::Refused(refusal))) => refusal.code,
        other => panic!("{other:?}"),
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
        // Nothing of it is read: there is nothing to be read.
        let huge = Odd { bytes: Vec::new(), size: u64::MAX, marks: Marks::default() };
        assert_eq!(refused(within(endpoint.put_blob(key(1), digest, huge)).await), RefusalCode::TooLarge);

        let blob = bytes(3 * MIB, 6);
        let wrong = within(endpoint.put_blob(key(1), digest, MemoryBlob::new(blob))).await;
        assert_eq!(refused(wrong), RefusalCode::WrongContent);
        assert_eq!(blobs.get(&digest), None);
    }
}

/// A disk that takes some chunks and then does what a test wants.
pub struct Disk<F> {
    progress: Progress,
    chunks: usize,
    then: F,
}

impl<F: FnMut() -> io::Result<()> + Send + 'static> Disk<F> {
    /// What it does with this chunk, counted from one.
    pub fn new(chunk: usize, then: F) -> Self {
        Self { progress: Progress::default(), chunks: chunk, then }
    }
}

impl<F: FnMut() -> io::Result<()> + Send + 'static> BlobSink for Disk<F> {
    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        self.chunks = self.chunks.saturating_sub(1);
        if self.chunks == 0 { (self.then)() } else { Ok(()) }
    }

    fn clear(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_on_the_way_is_reported_as_such() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let source = MemoryBlob::new(bytes(16 * MIB, 7));
        let put_blob = |endpoint: Endpoint, source: MemoryBlob| {
            tokio::spawn(async move { endpoint.put_blob(key(1), source.digest(), source).await })
        };

        let putting = put_blob(client.endpoint.clone(), source.clone());
        let full = Disk::new(3, || Err(io::ErrorKind::StorageFull.into()));
        let received = next_put(&mut server).await.receive(full).await.map(|_| ());
        assert!(matches!(received, Err(BlobError::Local(_))), "{received:?}");
        assert_eq!(refused(within(putting).await.unwrap()), RefusalCode::Storage);

        // Or only at the very end, when it is to be made durable.
        let putting = put_blob(client.endpoint.clone(), source.clone());
        let (receipt, _) = next_put(&mut server).await.receive(MemorySink::default()).await.unwrap();
        receipt.refuse(Refusal::new(RefusalCode::Storage, "no space left")).await.unwrap();
        assert_eq!(refused(within(putting).await.unwrap()), RefusalCode::Storage);
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
                let blob = MemoryBlob::new(bytes(16 * MIB, number));
                endpoint.put_blob(key(1), blob.digest(), blob).await.map(|_| ())
            });
            let put = next_put(&mut server).await;
            // Writing waits until the test lets go of the other end.
            let (release, held) = mpsc::channel::<()>();
            disks.push(release);
            let then = move || held.recv().map_err(io::Error::other);
            stuck.spawn(async move { put.receive(Disk::new(2, then)).await.map(|_| ()) });
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
