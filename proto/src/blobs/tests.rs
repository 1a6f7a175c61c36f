//! Files of the store, whole and partial.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    time::{Duration, SystemTime},
};

use fedledger_ledger::{Digest, PublicKey};

use super::*;
use crate::wire::CHUNK_BYTES;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index / 251) as u8 ^ index as u8).collect()
}

fn receive(partial: &mut Partial, blob: &[u8]) {
    for chunk in blob.chunks(CHUNK_BYTES) {
        partial.write(chunk).unwrap();
        let step = partial.progress().step(chunk);
        partial.progress().take(step);
    }
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let digest = Digest::of(b"weights");
    let (incoming, mut file) = store.incoming().unwrap();
    file.write_all(b"weights").unwrap();
    assert!(!store.has(&digest) && store.open_file(&digest).unwrap().is_none());
    store.keep(incoming, &digest).unwrap();
    assert_eq!(fs::read(store.path(&digest)).unwrap(), b"weights");
    assert_eq!(*store.added().borrow(), 1);
}

#[test]
fn what_this_process_was_writing_is_swept_away_and_what_it_was_receiving_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let (incoming, _file) = store.incoming().unwrap();
    std::mem::forget(incoming);
    let blob = bytes(3 * CHUNK_BYTES);
    let digest = Digest::of(&blob);
    let mut partial = store.begin(&digest, blob.len() as u64).unwrap().unwrap();
    receive(&mut partial, &blob[..2 * CHUNK_BYTES]);
    // Half a chunk more, as a crash may leave it.
    partial.write(&blob[2 * CHUNK_BYTES..][..1000]).unwrap();
    std::mem::forget(partial);

    let store = BlobStore::open(folder.path()).unwrap();
    let names: Vec<_> = fs::read_dir(folder.path().join(INCOMING_FOLDER)).unwrap().map(Result::unwrap).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let mut partial = store.begin(&digest, blob.len() as u64).unwrap().unwrap();
    assert_eq!(partial.bytes(), 2 * CHUNK_BYTES as u64);
    receive(&mut partial, &blob[2 * CHUNK_BYTES..]);
    store.finish(partial).unwrap();
    assert!(fs::read(store.path(&digest)).unwrap() == blob);
    assert_eq!(fs::read_dir(folder.path().join(INCOMING_FOLDER)).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_not_complete_gets_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let blob = bytes(3 * CHUNK_BYTES);
    let digest = Digest::of(&blob);
    let mut partial = store.begin(&digest, blob.len() as u64).unwrap().unwrap();
    receive(&mut partial, &blob[..CHUNK_BYTES]);
    assert_eq!(store.finish(partial).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(!store.has(&digest));
    assert_eq!(store.begin(&digest, blob.len() as u64).unwrap().unwrap().bytes(), CHUNK_BYTES as u64);
    // The last chunk is always received anew, so that the end is the same for every transfer.
    assert_eq!(store.begin(&digest, CHUNK_BYTES as u64).unwrap().unwrap().bytes(), 0);
}

#[test]
fn the_empty_file_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let digest = Digest::of(b"");
    store.finish(store.begin(&digest, 0).unwrap().unwrap()).unwrap();
    assert_eq!(fs::read(store.path(&digest)).unwrap(), b"");
}

#[tokio::test]
async fn one_transfer_at_a_time_receives_a_file_and_a_peers_newest_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let blob = bytes(3 * CHUNK_BYTES);
    let (digest, size) = (Digest::of(&blob), blob.len() as u64);
    let [peer, other] = [1, 2].map(|number| PublicKey::from_bytes([number; 32]));
    let mut first = store.take_over(peer, &digest, size).await.unwrap().unwrap();
    assert!(store.begin(&digest, size).unwrap().is_none());
    assert!(store.take_over(other, &digest, size).await.unwrap().is_none(), "it is not theirs to end");
    receive(&mut first, &blob[..CHUNK_BYTES]);
    let interrupted = first.interrupted();
    assert!(!interrupted.is_cancelled());
    let (taken, ()) = tokio::join!(store.take_over(peer, &digest, size), async {
        interrupted.cancelled().await;
        drop(first);
    });
    let mut second = taken.unwrap().unwrap();
    assert_eq!(second.bytes(), CHUNK_BYTES as u64);
    receive(&mut second, &blob[CHUNK_BYTES..]);
    store.finish(second).unwrap();
    assert!(store.take_over(peer, &digest, size).await.unwrap().is_none(), "the file is there");
}

#[tokio::test]
async fn a_file_that_a_peer_sends_too_slowly_is_looked_for_elsewhere() {
    const PATIENCE: Duration = Duration::from_millis(1);
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let digest = Digest::of(b"slow");
    let offered = store.take_over(PublicKey::from_bytes([1; 32]), &digest, 4).await.unwrap().unwrap();
    let interrupted = offered.interrupted();
    let (reserved, ()) = tokio::join!(store.until_idle_within(&digest, PATIENCE), async {
        interrupted.cancelled().await;
        drop(offered);
    });
    assert!(reserved.is_some());
    drop(reserved);
    // What this node fetches itself is waited for however long it takes.
    let fetched = store.begin(&digest, 4).unwrap().unwrap();
    let interrupted = fetched.interrupted();
    let waiting = tokio::time::timeout(10 * PATIENCE, store.until_idle_within(&digest, PATIENCE));
    assert!(waiting.await.is_err() && !interrupted.is_cancelled());
    drop(fetched);
    assert!(store.until_idle(&digest).await.is_none(), "nobody had to be interrupted");
}

#[tokio::test]
async fn a_peer_that_was_interrupted_cannot_begin_again_before_this_node_has_looked_elsewhere() {
    const PATIENCE: Duration = Duration::from_millis(1);
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let digest = Digest::of(b"slow");
    let [peer, other] = [1, 2].map(|number| PublicKey::from_bytes([number; 32]));
    let offered = store.take_over(peer, &digest, 4).await.unwrap().unwrap();
    let interrupted = offered.interrupted();
    let (reserved, again) = tokio::join!(store.until_idle_within(&digest, PATIENCE), async {
        interrupted.cancelled().await;
        drop(offered);
        // Sooner than anybody else, and over another connection.
        store.take_over(peer, &digest, 4).await.unwrap()
    });
    assert!(again.is_none() && store.take_over(other, &digest, 4).await.unwrap().is_none());
    drop(store.begin(&digest, 4).unwrap().unwrap());
    drop(reserved);
    assert!(store.take_over(peer, &digest, 4).await.unwrap().is_some(), "the search is over");
}

#[test]
fn files_are_listed_and_go_unless_somebody_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let large = bytes(2 * CHUNK_BYTES);
    let mut partial = store.begin(&Digest::of(&large), large.len() as u64).unwrap().unwrap();
    receive(&mut partial, &large);
    store.finish(partial).unwrap();
    let small = store.put(b"small").unwrap();
    let mut partial = store.begin(&Digest::of(b"begun"), large.len() as u64).unwrap().unwrap();
    receive(&mut partial, &large[..CHUNK_BYTES]);
    assert!(store.beginnings().unwrap().is_empty(), "it is being written");
    drop(partial);
    assert_eq!(store.beginnings().unwrap(), [Digest::of(b"begun")].into());

    let listed: std::collections::BTreeMap<_, _> = store.files().unwrap().into_iter().collect();
    assert_eq!(listed, [(Digest::of(&large), large.len() as u64), (small, 5)].into());
    assert!(!store.discard_unless(&small, || true).unwrap() && store.has(&small));
    assert!(store.discard_unless(&small, || false).unwrap() && !store.has(&small));
    assert!(!store.discard_unless(&small, || false).unwrap(), "it is gone");
    assert!(store.discard_unless(&Digest::of(&large), || false).unwrap());
    assert!(store.files().unwrap().is_empty());
    store.keep_beginnings(|_| false).unwrap();
    assert!(store.beginnings().unwrap().is_empty() && beginnings_in(folder.path()) == 0);
}

/// The beginnings in a folder.
fn beginnings_in(folder: &Path) -> usize {
    fs::read_dir(folder.join(INCOMING_FOLDER)).unwrap().count()
}

#[test]
fn what_an_earlier_process_left_stays_unless_it_is_old() {
    const LEFT: u32 = 3 * PARTIALS_PER_PEER_MAX as u32;
    let folder = tempfile::tempdir().unwrap();
    drop(BlobStore::open(folder.path()).unwrap());
    let place = |number: u32, age: Duration| {
        let digest = Digest::of(&number.to_be_bytes());
        let path = folder.path().join(INCOMING_FOLDER).join(format!("{digest}.part"));
        fs::File::create(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    };
    (0..LEFT).for_each(|number| place(number, Duration::from_secs(number.into())));
    place(LEFT, PARTIAL_AGE_MAX + Duration::from_secs(60));
    let store = BlobStore::open(folder.path()).unwrap();
    assert_eq!(beginnings_in(folder.path()), LEFT as usize);
    let mut partial = store.begin(&Digest::of(b"new"), 2 * CHUNK_BYTES as u64).unwrap().unwrap();
    partial.write(&bytes(CHUNK_BYTES)).unwrap();
    assert_eq!(beginnings_in(folder.path()), LEFT as usize + 1);
}

#[tokio::test]
async fn a_peer_with_many_beginnings_pushes_out_only_its_own_and_the_shortest_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let [victim, hostile] = [1, 2].map(|number| PublicKey::from_bytes([number; 32]));
    let leave = async |peer: PublicKey, name: Digest, chunks: usize| {
        let mut partial = store.take_over(peer, &name, 9 * CHUNK_BYTES as u64).await.unwrap().unwrap();
        assert_eq!(partial.bytes(), 0);
        receive(&mut partial, &bytes(chunks * CHUNK_BYTES));
    };
    let name = |number: usize| Digest::of(&number.to_be_bytes());
    leave(victim, Digest::of(b"the victim's"), 1).await;
    leave(hostile, Digest::of(b"far"), 2).await;
    for number in 0..PARTIALS_PER_PEER_MAX + 3 {
        leave(hostile, name(number), 1).await;
    }
    assert_eq!(beginnings_in(folder.path()), PARTIALS_PER_PEER_MAX + 1);
    let held = |digest: &Digest| store.begin(digest, 9 * CHUNK_BYTES as u64).unwrap().unwrap().bytes();
    assert_eq!(held(&Digest::of(b"the victim's")), CHUNK_BYTES as u64);
    assert_eq!(held(&Digest::of(b"far")), 2 * CHUNK_BYTES as u64);
}

#[test]
fn two_beginnings_of_a_file_are_kept_until_one_of_them_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let blob = bytes(3 * CHUNK_BYTES);
    let (digest, size) = (Digest::of(&blob), blob.len() as u64);
    let begin = || store.begin(&digest, size).unwrap().unwrap();
    let exchange = || begin().exchange().unwrap();
    exchange();
    receive(&mut begin(), &blob[..2 * CHUNK_BYTES]);
    // A liar says that the file begins otherwise, and how.
    exchange();
    assert_eq!(begin().bytes(), 0);
    receive(&mut begin(), &vec![7; CHUNK_BYTES]);
    // Who has the file cannot go on with that.
    exchange();
    let mut partial = begin();
    assert_eq!(partial.bytes(), 2 * CHUNK_BYTES as u64);
    assert_eq!(beginnings_in(folder.path()), 2);
    receive(&mut partial, &blob[2 * CHUNK_BYTES..]);
    store.finish(partial).unwrap();
    assert!(fs::read(store.path(&digest)).unwrap() == blob);
    assert_eq!(beginnings_in(folder.path()), 0);
    // What is given up goes as well.
    let other = Digest::of(b"other");
    receive(&mut store.begin(&other, size).unwrap().unwrap(), &blob[..CHUNK_BYTES]);
    store.begin(&other, size).unwrap().unwrap().exchange().unwrap();
    store.keep_only(|_| false).unwrap();
    assert_eq!(beginnings_in(folder.path()), 0);
}

#[tokio::test]
async fn marks_are_made_again_where_they_are_missing_or_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let blob = bytes(2 * CHUNK_BYTES + 1);
    let digest = store.put(&blob).unwrap();
    let marks = store.path(&digest).with_extension("marks");
    assert!(!marks.exists());
    let expected = Marks::of(blob.as_slice()).unwrap().0;
    assert_eq!(expected.len(), 3);
    for _ in 0..2 {
        let source = store.source(&digest).await.unwrap().unwrap();
        assert_eq!((source.size(), source.marks()), (blob.len() as u64, &expected));
        assert_eq!(fs::read(&marks).unwrap(), expected.to_bytes());
        fs::write(&marks, b"not marks").unwrap();
    }
    store.discard(&digest).unwrap();
    assert!(!marks.exists() && store.source(&digest).await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_is_found_damaged_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let digest = store.put(&bytes(2 * CHUNK_BYTES)).unwrap();
    fs::write(store.path(&digest), bytes(2 * CHUNK_BYTES - 1)).unwrap();
    assert!(store.source(&digest).await.unwrap().is_none());
    assert!(!store.has(&digest));
}

#[tokio::test]
async fn a_file_that_is_doubted_is_read_again_and_its_marks_are_made_right() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let blob = bytes(2 * CHUNK_BYTES + 1);
    let digest = store.put(&blob).unwrap();
    let expected = Marks::of(blob.as_slice()).unwrap().0;
    store.source(&digest).await.unwrap().unwrap();
    let marks = store.path(&digest).with_extension("marks");
    let mut flipped = expected.to_bytes();
    flipped[0] ^= 1;
    fs::write(&marks, flipped).unwrap();
    assert!(store.source(&digest).await.unwrap().unwrap().marks() != &expected, "nobody else can find this");
    assert!(store.verify(&digest).await.unwrap());
    assert_eq!(fs::read(&marks).unwrap(), expected.to_bytes());

    let mut damaged = blob.clone();
    damaged[CHUNK_BYTES] ^= 1;
    fs::write(store.path(&digest), damaged).unwrap();
    assert!(store.verify(&digest).await.unwrap(), "it was read a moment ago");
    let store = BlobStore::open(folder.path()).unwrap();
    assert!(!store.verify(&digest).await.unwrap());
    assert!(!store.has(&digest) && !marks.exists());
    assert!(!store.verify(&digest).await.unwrap());
}

#[test]
fn a_good_copy_takes_the_place_of_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let digest = store.put(b"weights").unwrap();
    fs::write(store.path(&digest), b"weighty").unwrap();
    let (incoming, mut file) = store.incoming().unwrap();
    file.write_all(b"weights").unwrap();
    store.keep(incoming, &digest).unwrap();
    assert_eq!(fs::read(store.path(&digest)).unwrap(), b"weights");
}

#[tokio::test]
async fn what_is_not_to_be_kept_goes_with_its_marks() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).unwrap();
    let [kept, dropped] = [2, 3].map(|chunks| store.put(&bytes(chunks * CHUNK_BYTES)).unwrap());
    for digest in [kept, dropped] {
        store.source(&digest).await.unwrap().unwrap();
    }
    let [begun, running] = [b"begun", b"still"].map(|name| Digest::of(name));
    let chunk = bytes(CHUNK_BYTES);
    receive(&mut store.begin(&begun, 3 * CHUNK_BYTES as u64).unwrap().unwrap(), &chunk);
    let mut partial = store.begin(&running, 3 * CHUNK_BYTES as u64).unwrap().unwrap();
    receive(&mut partial, &chunk);
    let stray = store.path(&kept).with_extension("partial");
    fs::write(&stray, b"half written").unwrap();
    store.keep_only(|digest| *digest == kept).unwrap();
    assert!(store.has(&kept) && store.path(&kept).with_extension("marks").exists());
    assert!(!store.has(&dropped) && !store.path(&dropped).with_extension("marks").exists() && !stray.exists());
    assert_eq!(store.begin(&begun, 3 * CHUNK_BYTES as u64).unwrap().unwrap().bytes(), 0);
    drop(partial);
    assert_eq!(store.begin(&running, 3 * CHUNK_BYTES as u64).unwrap().unwrap().bytes(), CHUNK_BYTES as u64);
}
