//! Heads of the log, as others ask for them and hand them over: consistency proofs, and evidence where they contradict the
//! log.

use std::sync::Arc;

use fedledger_ledger::{
    Digest,
    checkpoint::{Checkpoint, CheckpointNoteError},
    finality::OfferError,
    log::read_node,
    merkle::{self, ProofError},
    note::SignedNote,
    storage::{StorageError, notes::read_note},
};

use crate::{
    contradictions::{Compared, Contradictions},
    replica::Handle,
};

/// Answers for the heads of the log; clones share everything.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    handle: Handle,
    contradictions: Contradictions,
}

/// The newest head, and how it follows from the one that the caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// The note.
    pub note: String,
    /// Proof that it extends the caller's head (RFC 6962, section 2.1.2); none where the caller has none, or knows more.
    pub consistency: Option<Vec<Digest>>,
}

/// A head that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFailure {
    /// It is no co-signed head of this log.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// It is about this log, but about another history.
    #[error("the checkpoint says that the first {size} entries have the root {theirs}, in this log they have {ours}")]
    Contradicts {
        /// Entries under it.
        size: u64,
        /// Root that it says.
        theirs: Digest,
        /// Root of this log at that size.
        ours: Digest,
    },
    /// Reading the log failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node stops.
    #[error("the replica is stopping")]
    Stopping,
}

impl Checkpoints {
    /// Answers from the replica behind `handle`.
    pub const fn new(handle: Handle, contradictions: Contradictions) -> Self {
        Self { handle, contradictions }
    }

    /// The newest head that this replica has signed, with every co-signature so far.
    pub async fn newest(&self) -> Option<String> {
        self.handle.query(|replica| replica.finality().newest_note()).await?
    }

    /// The head by which the replicas of an epoch are still to vouch for the next one.
    pub async fn unvouched(&self) -> Option<String> {
        self.handle.query(|replica| replica.finality().unvouched_note()).await?
    }

    /// The newest final head, or the newest signed one where none is final yet; and how it extends `known`.
    ///
    /// # Errors
    ///
    /// [`CheckpointFailure`]; where `known` contradicts the log, evidence is kept.
    pub async fn latest(&self, known: Option<&str>) -> Result<Option<Latest>, CheckpointFailure> {
        let recent =
            self.handle.query(|replica| replica.finality().final_note().ok_or(replica.checkpoint().to_owned()));
        let note = match recent.await.ok_or(CheckpointFailure::Stopping)? {
            Ok(note) => note,
            // The last final head may be older than this process.
            Err(head) => read_note(&**self.handle.storage(), "final")?.unwrap_or(head),
        };
        let (own, _) = parse(&note)?;
        let size = own.size();
        self.written(size).await?;
        let known = match known {
            Some(known) => Some(self.check(known, own.origin()).await?),
            None => None,
        };
        let consistency = match known {
            Some(known) => self.consistency(known, size)?,
            None => None,
        };
        Ok(Some(Latest { note, consistency }))
    }

    /// Takes a signed head that somebody hands over.
    ///
    /// # Errors
    ///
    /// [`CheckpointFailure`]; where it contradicts the log, evidence is kept, or the head until it is evidence.
    pub async fn offer(&self, note: String) -> Result<(), CheckpointFailure> {
        let offered = self.handle.offer(note.clone()).await.ok_or(CheckpointFailure::Stopping)?;
        let is_counted = match offered {
            Ok(_) => true,
            // It may be signed in the name of the log, or with a key of an earlier epoch.
            Err(OfferError::NoCosignature) => false,
            Err(error) => return Err(error.into()),
        };
        let (checkpoint, note) = parse(&note)?;
        let (compared, is_signed) = self.contradictions.take(&checkpoint, &note, is_counted).await?;
        match compared {
            _ if !is_counted && !is_signed => Err(OfferError::NoCosignature.into()),
            Compared::Contradicts(ours) => Err(contradiction(&checkpoint, ours)),
            Compared::Agrees | Compared::Ahead => Ok(()),
        }
    }

    /// Takes a head that came as an answer.
    pub async fn offered(&self, note: String) {
        if let Err(error) = self.offer(note).await {
            tracing::warn!(%error, "a replica has sent a head that is not taken");
        }
    }

    /// The size of a head that somebody knows, after comparing it with the log. Where it contradicts the log, whoever has
    /// signed it is convicted.
    async fn check(&self, known: &str, origin: &str) -> Result<u64, CheckpointFailure> {
        let (checkpoint, _) = parse(known)?;
        if checkpoint.origin() != origin {
            let (expected, found) = (origin.to_owned(), checkpoint.origin().to_owned());
            return Err(OfferError::from(CheckpointNoteError::Origin { expected, found }).into());
        }
        let Compared::Contradicts(ours) = self.contradictions.compare(checkpoint.size(), checkpoint.root())? else {
            return Ok(checkpoint.size());
        };
        match self.offer(known.to_owned()).await {
            // What it says is that it contradicts the log, which is known; or who signed it is not.
            Ok(()) | Err(CheckpointFailure::Contradicts { .. } | CheckpointFailure::Offer(_)) => {}
            Err(failure) => return Err(failure),
        }
        Err(contradiction(&checkpoint, ours))
    }

    /// The proof that the log of `new_size` entries begins with that of `old_size`; `None` where there is no such log yet, or
    /// it is the smaller one.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn consistency(&self, old_size: u64, new_size: u64) -> Result<Option<Vec<Digest>>, StorageError> {
        if new_size > *self.handle.log_size().borrow() {
            return Ok(None);
        }
        let storage = Arc::clone(self.handle.storage());
        match merkle::consistency_proof(old_size, new_size, |node| read_node(&*storage, node)) {
            Ok(proof) => Ok(Some(proof)),
            Err(ProofError::Fetch(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Waits until entries below `size` can be read.
    async fn written(&self, size: u64) -> Result<(), CheckpointFailure> {
        let mut written = self.handle.log_size();
        written.wait_for(|written| *written >= size).await.map_err(|_| CheckpointFailure::Stopping)?;
        Ok(())
    }
}

fn contradiction(checkpoint: &Checkpoint, ours: Digest) -> CheckpointFailure {
    CheckpointFailure::Contradicts { size: checkpoint.size(), theirs: *checkpoint.root(), ours }
}

/// The head that a note is about, and the note.
fn parse(text: &str) -> Result<(Checkpoint, SignedNote), OfferError> {
    let note = SignedNote::parse(text).map_err(CheckpointNoteError::from)?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(CheckpointNoteError::from)?;
    Ok((checkpoint, note))
}
