//! Sweeping a store whose files some records name.

use std::sync::{Mutex, atomic::AtomicBool};

use fedledger_ledger::PublicKey;
use fedledger_proto::{blobs::INCOMING_FOLDER, wire::CHUNK_BYTES};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Longest time that a condition may take; only a failing test waits that long.
const LONG: Duration = Duration::from_secs(60);

/// Names some files, if anybody leads.
#[derive(Debug, Default)]
struct Named {
    files: Mutex<BTreeSet<Digest>>,
    is_leaderless: AtomicBool,
}

impl Named {
    fn name(&self, file: Digest) {
        self.files.lock().unwrap().insert(file);
    }

    fn forget(&self, file: &Digest) {
        self.files.lock().unwrap().remove(file);
    }
}

impl Records for Arc<Named> {
    async fn unnamed(&self, mut files: Vec<Digest>) -> Option<Vec<Digest>> {
        let named = self.files.lock().unwrap();
        files.retain(|file| !named.contains(file));
        (!self.is_leaderless.load(std::sync::atomic::Ordering::Relaxed)).then_some(files)
    }
}

/// A replica's files, and what is said of them.
struct Place {
    folder: TempDir,
    blobs: BlobStore,
    view: SharedView,
    uploads: Arc<Uploads>,
    named: Arc<Named>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let view = SharedView::of_attempts([]);
        Self { folder, blobs, view, uploads: Arc::default(), named: Arc::default() }
    }

    fn sweeper(&self) -> Sweeper<Arc<Named>> {
        let swept = (self.blobs.clone(), self.view.clone(), Arc::clone(&self.uploads));
        Sweeper::new(Arc::clone(&self.named), swept, Tasks::default())
    }

    /// As when a participant uploads a file for an attempt.
    fn upload(&self, attempt: RoundKey, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        assert!(self.uploads.admit(PublicKey::from_bytes([1; 32]), digest, &[attempt], |_| true));
        self.blobs.put(bytes).unwrap()
    }
}

fn attempt(number: u64) -> RoundKey {
    RoundKey { plan: Digest::of(b"plan"), round: 1, attempt: number }
}

#[tokio::test]
async fn what_the_ledger_names_stays_and_nothing_is_deleted_while_nobody_leads() {
    let place = Place::new();
    let [named, other] = [b"named", b"other"].map(|bytes| place.blobs.put(bytes).unwrap());
    place.named.name(named);
    place.named.is_leaderless.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut sweeper = place.sweeper();
    assert!(!sweeper.sweep().await.unwrap());
    assert!(place.blobs.has(&other));
    place.named.is_leaderless.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(sweeper.sweep().await.unwrap());
    assert!(place.blobs.has(&named) && !place.blobs.has(&other));
}

#[tokio::test]
async fn an_update_that_came_too_late_or_was_refused_goes_once_its_attempt_has_collected() {
    let place = Place::new();
    place.view.set_attempts([(attempt(1), 7, true, Vec::new())]);
    let [late, counted] = [b"late...", b"counted"].map(|bytes| place.upload(attempt(1), bytes));
    let mut sweeper = place.sweeper();
    sweeper.sweep().await.unwrap();
    assert!(place.blobs.has(&late) && place.blobs.has(&counted), "their contributions may be on their way");
    // The round is closed with one of them, and the other's contribution is refused.
    place.named.name(counted);
    place.view.set_attempts([(attempt(1), 7, false, vec![counted])]);
    sweeper.sweep().await.unwrap();
    assert!(!place.blobs.has(&late) && place.blobs.has(&counted));
    // A member that is excluded takes its contribution along.
    place.named.forget(&counted);
    place.view.set_attempts([]);
    sweeper.sweep().await.unwrap();
    assert!(!place.blobs.has(&counted));
}

#[tokio::test]
async fn weights_of_a_candidate_stay_until_its_attempt_is_over_and_go_if_it_was_rejected() {
    let place = Place::new();
    place.view.set_attempts([(attempt(1), 7, false, Vec::new())]);
    let digest = Digest::of(b"weights");
    place.view.expect_computed(&attempt(1), [digest]);
    place.blobs.put(b"weights").unwrap();
    let mut sweeper = place.sweeper();
    sweeper.sweep().await.unwrap();
    // It is proposed, and a majority of the others contradicts.
    place.named.name(digest);
    sweeper.sweep().await.unwrap();
    place.named.forget(&digest);
    sweeper.sweep().await.unwrap();
    assert!(place.blobs.has(&digest), "it may be proposed again");
    place.view.set_attempts([(attempt(2), 7, true, Vec::new())]);
    sweeper.sweep().await.unwrap();
    assert!(!place.blobs.has(&digest));
}

/// A removal takes long where there are many, and a version may need its file again meanwhile.
#[tokio::test]
async fn a_file_that_is_needed_again_is_not_deleted() {
    let place = Place::new();
    place.view.set_attempts([(attempt(1), 7, false, Vec::new())]);
    let digest = place.blobs.put(b"weights").unwrap();
    let sweeper = place.sweeper();
    let useless = sweeper.useless(&[digest]).await.unwrap();
    assert_eq!(useless, [digest]);
    place.view.expect_computed(&attempt(1), [digest]);
    assert_eq!(sweeper.delete(useless).await.unwrap(), 0);
    assert!(place.blobs.has(&digest));
}

/// What participants had offered to the process before is not known any more.
#[tokio::test]
async fn what_was_uploaded_before_a_restart_stays_while_its_attempt_may_want_it() {
    let place = Place::new();
    let [update, other] = [&b"update."[..], b"another size"].map(|bytes| place.blobs.put(bytes).unwrap());
    let incoming = place.folder.path().join(INCOMING_FOLDER);
    let beginning = incoming.join(format!("{}.part", Digest::of(b"begun")));
    std::fs::write(&beginning, vec![7; CHUNK_BYTES]).unwrap();
    place.view.set_attempts([(attempt(1), 7, true, Vec::new())]);
    let mut sweeper = place.sweeper();
    sweeper.sweep().await.unwrap();
    assert!(place.blobs.has(&update) && beginning.exists() && !place.blobs.has(&other));
    place.view.set_attempts([(attempt(2), 7, true, Vec::new())]);
    sweeper.sweep().await.unwrap();
    assert!(!place.blobs.has(&update) && !beginning.exists());
}

#[tokio::test]
async fn files_are_swept_when_an_attempt_ends_and_when_one_is_added() {
    let place = Place::new();
    place.view.set_attempts([(attempt(1), 7, true, Vec::new())]);
    let update = place.upload(attempt(1), b"update.");
    let sweeping = tokio::spawn(place.sweeper().run());
    let gone = async |file: Digest| {
        while place.blobs.has(&file) {
            tokio::task::yield_now().await;
        }
    };
    place.view.set_attempts([]);
    timeout(LONG, gone(update)).await.unwrap();
    // As when a transfer ends after what it was for.
    let late = place.blobs.put(b"late").unwrap();
    timeout(LONG, gone(late)).await.unwrap();
    sweeping.abort();
}
