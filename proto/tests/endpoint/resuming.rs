//! Interrupted transfers go on where they ended, with whichever peer has the blob.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fedledger_ledger::Digest;
use fedledger_proto::{
    blobs::{BlobSink, BlobSource, BlobStore, Marks, MemoryBlob, MemorySink, Partial},
    endpoint::{BlobError, Endpoint, PutOutcome, RequestKind, Transports, WantedBlob},
    wire::CHUNK_BYTES,
};
use tokio::sync::Semaphore;

use crate::{
    blobs::{MIB, Odd, bytes, marks_of, next_put},
    node::{EACH_TRANSPORT, Node, address, config, connected, key, listener, pair, start, within},
};

const SIZE: usize = 4 * MIB + 99;
const CUT: usize = 9 * CHUNK_BYTES + 1000;

/// A blob of which every byte that is read is counted.
struct Counted {
    blob: MemoryBlob,
    read: Arc<AtomicU64>,
}

impl Counted {
    fn new(bytes: Vec<u8>) -> (Self, Arc<AtomicU64>) {
        let read = Arc::new(AtomicU64::new(0));
        (Self { blob: MemoryBlob::new(bytes), read: Arc::clone(&read) }, read)
    }
}

impl BlobSource for Counted {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn marks(&self) -> &Marks {
        self.blob.marks()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.blob.read_at(offset, buffer)
    }
}

fn begin(store: &BlobStore, digest: &Digest, size: usize) -> Partial {
    store.begin(digest, size as u64).unwrap().expect("nobody else receives it")
}

/// The sink in the store, from which a transfer of the blob starts or goes on.
async fn get(endpoint: &Endpoint, from: u8, store: &BlobStore, digest: Digest) -> Result<(), BlobError> {
    let wanted = WantedBlob { digest, size_max: SIZE as u64, doubted: false };
    let partial = within(endpoint.get_blob(key(from), wanted, begin(store, &digest, SIZE))).await?;
    store.finish(partial).map_err(BlobError::Local)
}

async fn serve_once(node: &mut Node, source: impl BlobSource) {
    let request = within(node.incoming.requests.recv()).await.unwrap();
    let RequestKind::BlobGet(get) = request.kind else { panic!("{request:?}") };
    // What comes of it is seen at the other end.
    get.send(source).await.ok();
}

fn cut(blob: &[u8]) -> Odd {
    Odd { bytes: blob[..CUT].to_vec(), size: blob.len() as u64, marks: marks_of(blob) }
}

/// Two nodes that have the same blobs, and one that is connected to both.
async fn triangle(transports: Transports) -> (Node, Node, Node) {
    let (first, second) = (listener(1, &[3], transports), listener(2, &[3], transports));
    let mut asker = config(3, &[1, 2], transports);
    asker.dial = vec![address(&first.endpoint), address(&second.endpoint)];
    let asker = start(asker);
    connected(&first.endpoint, &asker.endpoint).await;
    connected(&second.endpoint, &asker.endpoint).await;
    (first, second, asker)
}

fn store_in(folder: &Path) -> BlobStore {
    BlobStore::open(folder).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_get_goes_on_at_another_peer_even_after_a_restart() {
    let blob = bytes(SIZE, 1);
    let digest = Digest::of(&blob);
    for transports in EACH_TRANSPORT {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, mut second, asker) = triangle(transports).await;
        let store = store_in(folder.path());
        let (interrupted, ()) =
            tokio::join!(get(&asker.endpoint, 1, &store, digest), serve_once(&mut first, cut(&blob)));
        assert!(interrupted.is_err());
        // As after a crash: the store is opened anew, and knows only what lies on the disk.
        drop(store);
        let store = store_in(folder.path());
        let held = begin(&store, &digest, SIZE).bytes();
        assert_eq!(held, (CUT / CHUNK_BYTES * CHUNK_BYTES) as u64);

        let (source, read) = Counted::new(blob.clone());
        let (got, ()) = tokio::join!(get(&asker.endpoint, 2, &store, digest), serve_once(&mut second, source));
        got.unwrap();
        assert_eq!(read.load(Ordering::Relaxed), SIZE as u64 - held, "nothing was sent twice");
        assert!(std::fs::read(store.path(&digest)).unwrap() == blob);
        assert_eq!(asker.endpoint.traffic().resumed_transfers, 1);
        // The marks were kept on the way in: the file can be served from them, as it was received.
        let marks = store.source(&digest).await.unwrap().unwrap();
        assert_eq!(*marks.marks(), marks_of(&blob));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_put_goes_on_where_it_ended() {
    let blob = bytes(SIZE, 2);
    let digest = Digest::of(&blob);
    for transports in EACH_TRANSPORT {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(folder.path());
        let (mut server, client) = pair(transports).await;
        let endpoint = client.endpoint.clone();
        let source = cut(&blob);
        let putting = tokio::spawn(async move { endpoint.put_blob(key(1), digest, source).await });
        let received = next_put(&mut server).await.receive(begin(&store, &digest, SIZE)).await;
        assert!(received.is_err());
        assert!(within(putting).await.unwrap().is_err());
        let held = begin(&store, &digest, SIZE).bytes();
        assert_eq!(held, (CUT / CHUNK_BYTES * CHUNK_BYTES) as u64);

        let (source, read) = Counted::new(blob.clone());
        let endpoint = client.endpoint.clone();
        let putting = tokio::spawn(async move { endpoint.put_blob(key(1), digest, source).await });
        let put = next_put(&mut server).await;
        let (receipt, partial) = put.receive(begin(&store, &digest, SIZE)).await.unwrap();
        store.finish(partial).unwrap();
        receipt.stored().await.unwrap();
        assert_eq!(within(putting).await.unwrap().unwrap(), PutOutcome::Stored);
        assert_eq!(read.load(Ordering::Relaxed), SIZE as u64 - held, "nothing was sent twice");
        assert!(std::fs::read(store.path(&digest)).unwrap() == blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_costs_no_more_than_that_chunk() {
    let blob = bytes(SIZE, 3);
    let digest = Digest::of(&blob);
    let folder = tempfile::tempdir().unwrap();
    let (mut first, mut second, asker) = triangle(EACH_TRANSPORT[1]).await;
    // A replica whose disk has flipped a bit since it took the file in.
    let served = tempfile::tempdir().unwrap();
    let damaged = store_in(served.path());
    let mut partial = begin(&damaged, &digest, SIZE);
    for chunk in blob.chunks(CHUNK_BYTES) {
        partial.write(chunk).unwrap();
        let step = partial.progress().step(chunk);
        partial.progress().take(step);
    }
    damaged.finish(partial).unwrap();
    let mut stored = std::fs::read(damaged.path(&digest)).unwrap();
    stored[5 * CHUNK_BYTES + 7] ^= 1;
    std::fs::write(damaged.path(&digest), stored).unwrap();

    let store = store_in(folder.path());
    let source = damaged.source(&digest).await.unwrap().unwrap();
    let (wrong, ()) = tokio::join!(get(&asker.endpoint, 1, &store, digest), serve_once(&mut first, source));
    let Err(error @ BlobError::WrongChunk { offset, .. }) = &wrong else { panic!("{wrong:?}") };
    assert_eq!(*offset, 5 * CHUNK_BYTES as u64);
    assert!(error.blames_peer());

    let (source, read) = Counted::new(blob.clone());
    let (got, ()) = tokio::join!(get(&asker.endpoint, 2, &store, digest), serve_once(&mut second, source));
    got.unwrap();
    assert_eq!(read.load(Ordering::Relaxed), SIZE as u64 - offset);
    assert!(std::fs::read(store.path(&digest)).unwrap() == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_file_is_found_out_and_leaves_nothing() {
    let blob = bytes(SIZE, 4);
    let digest = Digest::of(&blob);
    let folder = tempfile::tempdir().unwrap();
    let (mut first, mut second, asker) = triangle(EACH_TRANSPORT[1]).await;
    let store = store_in(folder.path());
    // Every chunk is what the liar says of it, but they are another file's.
    let (wrong, ()) =
        tokio::join!(get(&asker.endpoint, 1, &store, digest), serve_once(&mut first, MemoryBlob::new(bytes(SIZE, 5))));
    assert!(matches!(wrong, Err(BlobError::WrongContent { .. })), "{wrong:?}");
    assert_eq!(begin(&store, &digest, SIZE).bytes(), 0);

    // One that stops before the end leaves a beginning; the next peer says that its file begins otherwise.
    let (stopped, ()) =
        tokio::join!(get(&asker.endpoint, 1, &store, digest), serve_once(&mut first, cut(&bytes(SIZE, 5))));
    assert!(stopped.is_err());
    let honest = || MemoryBlob::new(blob.clone());
    let (differs, ()) = tokio::join!(get(&asker.endpoint, 2, &store, digest), serve_once(&mut second, honest()));
    assert!(matches!(differs, Err(BlobError::Differs(_))), "{differs:?}");
    begin(&store, &digest, SIZE).exchange().unwrap();
    let (got, ()) = tokio::join!(get(&asker.endpoint, 2, &store, digest), serve_once(&mut second, honest()));
    got.unwrap();
    assert!(std::fs::read(store.path(&digest)).unwrap() == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_began_does_not_stop_the_owner() {
    let blob = bytes(SIZE, 6);
    let digest = Digest::of(&blob);
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    let (mut server, client) = pair(EACH_TRANSPORT[1]).await;
    let mut poisoned = begin(&store, &digest, SIZE);
    let chunk = bytes(CHUNK_BYTES, 7);
    poisoned.write(&chunk).unwrap();
    let step = poisoned.progress().step(&chunk);
    poisoned.progress().take(step);
    drop(poisoned);

    let endpoint = client.endpoint.clone();
    let source = MemoryBlob::new(blob.clone());
    let putting = tokio::spawn(async move { endpoint.put_blob(key(1), digest, source).await });
    let partial = begin(&store, &digest, SIZE);
    assert_eq!(partial.bytes(), CHUNK_BYTES as u64);
    let (receipt, partial) = next_put(&mut server).await.receive(partial).await.unwrap();
    store.finish(partial).unwrap();
    receipt.stored().await.unwrap();
    assert_eq!(within(putting).await.unwrap().unwrap(), PutOutcome::Stored);
    assert!(std::fs::read(store.path(&digest)).unwrap() == blob);
}

/// A source that gives a chunk for every permit.
struct Gated {
    blob: MemoryBlob,
    gate: Arc<Semaphore>,
}

impl BlobSource for Gated {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn marks(&self) -> &Marks {
        self.blob.marks()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let permit = tokio::runtime::Handle::current().block_on(Arc::clone(&self.gate).acquire_owned());
        permit.map_err(io::Error::other)?.forget();
        self.blob.read_at(offset, buffer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_in_the_middle_leaves_a_beginning() {
    let blob = bytes(SIZE, 8);
    let digest = Digest::of(&blob);
    for transports in EACH_TRANSPORT {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(folder.path());
        let (mut first, mut second, asker) = triangle(transports).await;
        let gate = Arc::new(Semaphore::new(6));
        let source = Gated { blob: MemoryBlob::new(blob.clone()), gate: Arc::clone(&gate) };
        let vanishing = async {
            let request = within(first.incoming.requests.recv()).await.unwrap();
            let RequestKind::BlobGet(get) = request.kind else { panic!("{request:?}") };
            let sending = tokio::spawn(get.send(source));
            // Five chunks have arrived and are written when the connection is closed.
            let path = store.path(&digest);
            let partial = path.ancestors().nth(2).unwrap().join(format!("incoming/{digest}.part"));
            within(async {
                while std::fs::metadata(&partial).map_or(0, |file| file.len()) < 5 * CHUNK_BYTES as u64 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            first.endpoint.close().await;
            gate.close();
            sending.await.unwrap().unwrap_err();
        };
        let (lost, ()) = tokio::join!(get(&asker.endpoint, 1, &store, digest), vanishing);
        assert!(lost.is_err());
        let held = begin(&store, &digest, SIZE).bytes();
        assert!(held >= 5 * CHUNK_BYTES as u64);
        let (source, read) = Counted::new(blob.clone());
        let (got, ()) = tokio::join!(get(&asker.endpoint, 2, &store, digest), serve_once(&mut second, source));
        got.unwrap();
        assert_eq!(read.load(Ordering::Relaxed), SIZE as u64 - held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_on_bandwidth_holds_and_changes_nothing_else() {
    let blob = bytes(2 * CHUNK_BYTES + 5, 9);
    let (digest, size) = (Digest::of(&blob), blob.len() as u64);
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let limits = fedledger_proto::endpoint::BandwidthLimits {
            upload_max: None,
            download_max: std::num::NonZeroU64::new(2 * size),
        };
        client.endpoint.limit_bandwidth(limits);
        let begun = tokio::time::Instant::now();
        let wanted = WantedBlob { digest, size_max: size, doubted: false };
        let (got, ()) = tokio::join!(
            within(client.endpoint.get_blob(key(1), wanted, MemorySink::default())),
            serve_once(&mut server, MemoryBlob::new(blob.clone()))
        );
        assert!(got.unwrap().into_bytes() == blob);
        // Half a second's worth, of which a quarter of a second is free.
        assert!(begun.elapsed() >= std::time::Duration::from_millis(240), "{:?}", begun.elapsed());
        assert_eq!(client.endpoint.traffic().received_bytes, size + 3 * 32);
    }
}
