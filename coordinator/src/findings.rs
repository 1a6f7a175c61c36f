//! Keeping what co-signatures bring to light: evidence goes to the disk, from where it is brought onto the ledger.
//!
//! A thread of its own writes, one file after the other, so that the replica's task never waits for it. Whoever wants to say
//! that something is kept waits until it is.

mod folder;

use std::{io, path::PathBuf, sync::Arc};

use fedledger_ledger::{PublicKey, evidence::Evidence, finality::Finding, note::SignedNote, replica::Fault};
use tokio::sync::{mpsc, oneshot, watch};

use self::folder::Folder;
pub use self::folder::{EVIDENCE_PER_KEY_MAX, StoredEvidence, StoredNote};

/// What may wait to be written; what comes then is told in the log only.
const WAITING_MAX: usize = 256;

/// Keeps findings; clones share everything.
#[derive(Debug, Clone)]
pub struct Findings {
    jobs: mpsc::Sender<Job>,
    folder: Arc<Folder>,
    kept: Arc<watch::Sender<u64>>,
    uncounted: mpsc::Sender<SignedNote>,
}

/// What the thread is to do.
enum Job {
    /// Writes a file; tells whether it is there then.
    Keep { file: Kept, done: Option<oneshot::Sender<bool>> },
    /// Removes a file.
    Remove(String),
    /// Tells when everything before is done.
    Tell(oneshot::Sender<()>),
}

/// A file to keep.
enum Kept {
    Evidence { bytes: Vec<u8>, key: PublicKey },
    Contradiction { note: String, key: PublicKey },
    Fork { name: String, message: Vec<u8> },
}

impl Findings {
    /// Starts the thread that keeps findings in `folder`. It ends when the last clone is dropped, after what is waiting. Heads
    /// that are yet to be compared with the log come out of the receiver.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(folder: PathBuf) -> io::Result<(Self, mpsc::Receiver<SignedNote>)> {
        let (jobs, queue) = mpsc::channel(WAITING_MAX);
        let (folder, kept) = (Arc::new(Folder::new(folder)), Arc::new(watch::Sender::new(0)));
        let (shelf, count) = (Arc::clone(&folder), Arc::clone(&kept));
        std::thread::Builder::new().name("findings".into()).spawn(move || run(&shelf, queue, &count))?;
        let (uncounted, to_compare) = mpsc::channel(WAITING_MAX);
        Ok((Self { jobs, folder, kept, uncounted }, to_compare))
    }

    /// Says what was found, and has evidence kept; never waits.
    pub fn keep(&self, findings: Vec<Finding>) {
        for finding in findings {
            match finding {
                Finding::Final { size, time_s, .. } => tracing::debug!(size, time_s, "a head is final"),
                Finding::Unanimous { size, .. } => tracing::debug!(size, "every replica has co-signed a head"),
                Finding::EpochVouchedFor { number, .. } => {
                    tracing::info!(number, "the replicas have vouched for a new epoch");
                }
                Finding::Disagreement { size, signers } => {
                    tracing::error!(size, ?signers, "replicas have co-signed another root than this one has computed");
                }
                Finding::Diverged { size, own, theirs, signers } => {
                    tracing::error!(size, %own, %theirs, ?signers, "this replica has diverged from the others");
                }
                Finding::Uncounted(note) => self.uncounted(note),
                Finding::Equivocation { evidence, key } => {
                    self.hand_over(Kept::Evidence { bytes: evidence.to_bytes(), key });
                }
            }
        }
    }

    /// Keeps evidence of two histories signed with `key`. True once it is on the disk; false if it cannot be, or there is
    /// enough against this key.
    pub async fn evidence(&self, evidence: &Evidence, key: PublicKey) -> bool {
        self.wait(Kept::Evidence { bytes: evidence.to_bytes(), key }).await
    }

    /// Keeps a head that contradicts the log and is signed with `key`, against which there is nothing else yet. True once it
    /// is on the disk; false if it cannot be, or there are enough of this key.
    pub async fn contradiction(&self, note: &SignedNote, key: PublicKey) -> bool {
        self.wait(Kept::Contradiction { note: note.to_string(), key }).await
    }

    /// Removes a contradicting head of which evidence was made.
    pub async fn settle_contradiction(&self, note: &SignedNote, key: &PublicKey) {
        // Nobody is there to remove it only when the node stops.
        let _ = self.jobs.send(Job::Remove(folder::contradiction_name(&note.to_string(), key))).await;
    }

    /// Has kept what made the replica stop.
    pub fn fault(&self, fault: &Fault) {
        if let Fault::Fork { from, index, message, .. } = fault {
            let name = format!("fork-{index}-by-replica-{}.raft", from.0);
            self.hand_over(Kept::Fork { name, message: message.clone() });
        }
    }

    /// Waits until everything that was handed over before is on the disk, or cannot be.
    pub async fn written(&self) {
        let (done, told) = oneshot::channel();
        if self.jobs.send(Job::Tell(done)).await.is_ok() {
            let _ = told.await;
        }
    }

    /// Changes whenever evidence was kept.
    pub fn kept(&self) -> watch::Receiver<u64> {
        self.kept.subscribe()
    }

    /// The evidence on the disk, by file name.
    pub async fn stored_evidence(&self) -> Vec<StoredEvidence> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || folder.evidence()).await.unwrap_or_default()
    }

    /// The contradicting heads on the disk.
    pub async fn stored_contradictions(&self) -> Vec<StoredNote> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || folder.contradictions()).await.unwrap_or_default()
    }

    fn uncounted(&self, note: SignedNote) {
        if self.uncounted.try_send(note).is_err() {
            tracing::warn!("a co-signed head that counts for nothing is not compared: too many are waiting");
        }
    }

    fn hand_over(&self, file: Kept) {
        if self.jobs.try_send(Job::Keep { file, done: None }).is_err() {
            tracing::error!("a finding is not kept: too many are waiting to be written, or the node stops");
        }
    }

    async fn wait(&self, file: Kept) -> bool {
        let (done, kept) = oneshot::channel();
        match self.jobs.send(Job::Keep { file, done: Some(done) }).await {
            Ok(()) => kept.await.unwrap_or(false),
            Err(_) => false,
        }
    }
}

fn run(folder: &Folder, mut queue: mpsc::Receiver<Job>, kept: &watch::Sender<u64>) {
    while let Some(job) = queue.blocking_recv() {
        match job {
            Job::Keep { file, done } => {
                let is_there = keep(folder, &file, kept);
                if let Some(done) = done {
                    let _ = done.send(is_there);
                }
            }
            Job::Remove(name) => folder.remove(&name),
            Job::Tell(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Writes a file, and says so. Whether it is there now.
fn keep(folder: &Folder, file: &Kept, kept: &watch::Sender<u64>) -> bool {
    let written = match file {
        Kept::Evidence { bytes, key } => folder.keep_evidence(bytes, key),
        Kept::Contradiction { note, key } => folder.keep_contradiction(note, key),
        Kept::Fork { name, message } => folder.keep(name, message),
    };
    let path = match written {
        Ok(Some(path)) => path,
        Ok(None) => return true,
        Err(error) => {
            tracing::error!(%error, "a finding cannot be kept");
            return false;
        }
    };
    match file {
        Kept::Evidence { key, .. } => {
            tracing::error!(file = %path.display(), %key, "somebody has signed two histories: the evidence is kept");
            kept.send_modify(|count| *count = count.wrapping_add(1));
        }
        Kept::Contradiction { key, .. } => tracing::error!(
            file = %path.display(),
            %key,
            "somebody has signed a head that contradicts this log: it is kept, and becomes evidence once a head of this log \
             signed with the same key is here"
        ),
        Kept::Fork { .. } => tracing::error!(file = %path.display(), "the message that asks for a fork is kept"),
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fedledger_ledger::{
        Digest, SecretKey,
        checkpoint::Checkpoint,
        evidence::signed_by,
        note::{VerifierKey, sign_note},
    };

    use super::*;

    const ORIGIN: &str = "test.example/log";

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    fn note(what: u64, seed: u8) -> SignedNote {
        let head = Checkpoint::new(ORIGIN, 5, Digest::of(&what.to_be_bytes())).unwrap();
        sign_note(&head.to_note_text(), ORIGIN, &key(seed)).unwrap()
    }

    fn evidence(what: u64, seed: u8) -> Evidence {
        Evidence::new(note(what, seed), note(u64::MAX, seed), None).unwrap()
    }

    #[tokio::test]
    async fn nobody_takes_the_room_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (findings, _uncounted) = Findings::start(folder.path().join("evidence")).unwrap();
        for what in 0..100 {
            let kept = findings.evidence(&evidence(what, 1), key(1).public()).await;
            assert_eq!(kept, what < EVIDENCE_PER_KEY_MAX as u64, "{what}");
        }
        assert!(findings.evidence(&evidence(7, 2), key(2).public()).await, "another signer has room");
        assert_eq!(findings.stored_evidence().await.len(), EVIDENCE_PER_KEY_MAX + 1);
        assert!(findings.evidence(&evidence(0, 1), key(1).public()).await, "it is there already");
        assert_eq!(findings.stored_evidence().await.len(), EVIDENCE_PER_KEY_MAX + 1);
    }

    #[tokio::test]
    async fn evidence_is_counted_once_it_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (findings, _uncounted) = Findings::start(folder.path().to_owned()).unwrap();
        let mut kept = findings.kept();
        let found = evidence(1, 1);
        findings.keep(vec![Finding::Equivocation { evidence: Box::new(found.clone()), key: key(1).public() }]);
        tokio::time::timeout(Duration::from_secs(60), kept.wait_for(|count| *count == 1)).await.unwrap().unwrap();
        let stored = findings.stored_evidence().await;
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].evidence, found);
        let key = VerifierKey::ed25519(ORIGIN, key(1).public()).unwrap();
        assert!(signed_by(stored[0].evidence.first(), &key).is_some());
    }

    #[tokio::test]
    async fn contradictions_are_kept_until_they_are_settled() {
        let folder = tempfile::tempdir().unwrap();
        let (findings, _uncounted) = Findings::start(folder.path().to_owned()).unwrap();
        let (found, by) = (note(1, 1), key(1).public());
        assert!(findings.contradiction(&found, by).await);
        assert_eq!(findings.stored_contradictions().await.first().map(|stored| &stored.note), Some(&found));
        assert_eq!(*findings.kept().borrow(), 0, "it convicts nobody yet");
        findings.settle_contradiction(&found, &by).await;
        findings.written().await;
        assert!(findings.stored_contradictions().await.is_empty());
    }
}
