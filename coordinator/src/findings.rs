//! Keeping what co-signatures bring to light: evidence goes to the disk at once, and onto the ledger.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fedledger_ledger::{Digest, evidence::Evidence, finality::Finding, replica::Fault};
use tokio::sync::mpsc;

/// Evidence files that are kept: whoever signs two histories can sign many.
const EVIDENCE_FILES_MAX: usize = 256;

/// Evidence that may wait to be brought onto the ledger; it is on the disk already.
const EVIDENCE_WAITING_MAX: usize = 16;

/// Writes evidence into a folder.
#[derive(Debug, Clone)]
pub struct Findings {
    folder: PathBuf,
    found: mpsc::Sender<Evidence>,
}

impl Findings {
    /// Keeps evidence in `folder`, and hands it on to be recorded.
    pub fn new(folder: PathBuf) -> (Self, mpsc::Receiver<Evidence>) {
        let (found, evidence) = mpsc::channel(EVIDENCE_WAITING_MAX);
        (Self { folder, found }, evidence)
    }

    /// Says what was found, and keeps evidence.
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
                Finding::Equivocation(evidence) => self.evidence(*evidence),
            }
        }
    }

    /// Keeps evidence of two histories signed by the same key.
    pub fn evidence(&self, evidence: Evidence) {
        let bytes = evidence.to_bytes();
        let file = self.folder.join(format!("equivocation-{}.evidence", Digest::of(&bytes)));
        if file.exists() {
            return;
        }
        tracing::error!(file = %file.display(), "somebody has signed two histories: the evidence is kept");
        self.write(&file, &bytes);
        if self.found.try_send(evidence).is_err() {
            tracing::warn!("the evidence was not put onto the ledger: too much of it is waiting");
        }
    }

    /// Keeps what made the replica stop.
    pub fn fault(&self, fault: &Fault) {
        if let Fault::Fork { from, index, message, .. } = fault {
            self.write(&self.folder.join(format!("fork-{index}-by-replica-{}.raft", from.0)), message);
        }
    }

    fn write(&self, file: &Path, bytes: &[u8]) {
        if let Err(error) = self.try_write(file, bytes) {
            tracing::error!(%error, file = %file.display(), "evidence cannot be kept");
        }
    }

    fn try_write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        if std::fs::read_dir(&self.folder)?.count() >= EVIDENCE_FILES_MAX {
            return Err(io::Error::other(format!("the folder holds {EVIDENCE_FILES_MAX} files already")));
        }
        // Whole or not at all: half a file would be taken for evidence that is kept already.
        let unfinished = file.with_extension("unfinished");
        let mut written = std::fs::File::create(&unfinished)?;
        written.write_all(bytes)?;
        written.sync_all()?;
        std::fs::rename(unfinished, file)
    }
}
