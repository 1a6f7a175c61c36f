//! Heads of the log, as others ask for them and hand them over: consistency proofs, and evidence where they contradict the
//! log.

use std::sync::Arc;

use fedledger_ledger::{
    Digest,
    checkpoint::{Checkpoint, CheckpointNoteError},
    epoch::EpochLink,
    finality::OfferError,
    log::{EpochInForce, read_epoch_after, read_leaf, read_node},
    merkle::{self, ProofError, verify_consistency},
    note::SignedNote,
    receipt::Receipt,
    storage::{
        StorageError,
        notes::{epoch_note, read_note},
    },
};
use fedledger_proto::api::{HeadAnswer, HeadId, NewerHead};

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
        let (note, own) = self.newest_final().await?;
        let size = own.size();
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

    /// The newest final head, or the newest signed one where none is final yet, once the entries under it can be read.
    async fn newest_final(&self) -> Result<(String, Checkpoint), CheckpointFailure> {
        let recent =
            self.handle.query(|replica| replica.finality().final_note().ok_or(replica.checkpoint().to_owned()));
        let note = match recent.await.ok_or(CheckpointFailure::Stopping)? {
            Ok(note) => note,
            // The last final head may be older than this process.
            Err(head) => read_note(&**self.handle.storage(), "final")?.unwrap_or(head),
        };
        let (own, _) = parse(&note)?;
        self.written(own.size()).await?;
        Ok((note, own))
    }

    /// Compares a head that somebody knows with the log, if the log is that long. Without signatures there is nobody to
    /// convict.
    ///
    /// # Errors
    ///
    /// [`CheckpointFailure::Contradicts`].
    pub fn holds(&self, known: &HeadId) -> Result<(), CheckpointFailure> {
        let HeadId { size, root: theirs } = *known;
        if size > *self.handle.log_size().borrow() {
            return Ok(());
        }
        let ours = self.contradictions.root_at(size)?;
        if ours == theirs { Ok(()) } else { Err(CheckpointFailure::Contradicts { size, theirs, ours }) }
    }

    /// The newest final head, and how it extends the one that somebody knows, where it is of more entries. Where nothing has
    /// changed there is nothing to read.
    ///
    /// # Errors
    ///
    /// [`CheckpointFailure`].
    pub async fn since(&self, known: &HeadId) -> Result<HeadAnswer, CheckpointFailure> {
        self.holds(known)?;
        let final_size = self.handle.finalized().borrow().final_size;
        if final_size <= known.size {
            let head = HeadId { size: final_size, root: self.contradictions.root_at(final_size)? };
            return Ok(HeadAnswer { head, newer: None });
        }
        let (note, own) = self.newest_final().await?;
        let consistency = self.consistency(known.size, own.size())?.unwrap_or_default();
        Ok(HeadAnswer { head: HeadId::from(&own), newer: Some(NewerHead { note, consistency }) })
    }

    /// The link of the chain of epochs that follows the epoch with this number, if the replicas of that one have vouched for
    /// the next.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn epoch_link(&self, after: u64) -> Result<Option<(u64, EpochLink)>, StorageError> {
        let storage = &**self.handle.storage();
        let Some(EpochInForce { epoch, size }) = read_epoch_after(storage, after)? else { return Ok(None) };
        let Some(note) = read_note(storage, &epoch_note(epoch.number))? else { return Ok(None) };
        let corrupt = |error: &dyn std::error::Error| StorageError::Corrupt(format!("the note of an epoch: {error}"));
        let note = SignedNote::parse(&note).map_err(|error| corrupt(&error))?;
        let head = Checkpoint::parse(note.text()).map_err(|error| corrupt(&error))?;
        let seal = size.saturating_sub(1);
        // The note may be here before the entries under it.
        if head.size() > *self.handle.log_size().borrow() {
            return Ok(None);
        }
        let proof = match merkle::inclusion_proof(seal, head.size(), |node| read_node(storage, node)) {
            Ok(proof) => proof,
            Err(ProofError::Fetch(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let receipt = Receipt::new(seal, None, proof, note).map_err(|error| corrupt(&error))?;
        let link = EpochLink { epoch: epoch.to_bytes(), leaf: read_leaf(storage, seal)?, receipt };
        Ok(Some((epoch.number, link)))
    }

    /// Takes a signed head that somebody hands over.
    ///
    /// # Errors
    ///
    /// [`CheckpointFailure`]; where it contradicts the log, evidence is kept, or the head until it is evidence.
    pub async fn offer(&self, note: String) -> Result<(), CheckpointFailure> {
        let offered = self.handle.offer(note.clone()).await.ok_or(CheckpointFailure::Stopping)?;
        let is_counted = match offered {
            Ok(None) => true,
            // Nobody has counted it: no recent head lies there.
            Ok(Some(_)) => false,
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

    /// Takes a co-signed head that a peer hands over. The answer is the newest one that this replica has signed, where that is
    /// of more entries, with the proof that it extends the peer's; or where the peer has told nothing new, and so may have
    /// missed something. What is new is told to every peer in any case.
    ///
    /// # Errors
    ///
    /// As [`Checkpoints::offer`].
    pub async fn take(&self, note: String) -> Result<(Option<String>, Option<Vec<Digest>>), CheckpointFailure> {
        let (offered, parsed) = parse(&note)?;
        let before = self.handle.query(move |replica| {
            let finality = replica.finality();
            (finality.has(&parsed), finality.newest_size())
        });
        let (is_known, newest_size) = before.await.ok_or(CheckpointFailure::Stopping)?;
        self.offer(note).await?;
        if !is_known && newest_size <= offered.size() {
            return Ok((None, None));
        }
        let Some(newest) = self.newest().await else { return Ok((None, None)) };
        let size = parse(&newest)?.0.size();
        if size <= offered.size() {
            return Ok((Some(newest), None));
        }
        self.written(size).await?;
        let consistency = self.consistency(offered.size(), size)?;
        Ok((Some(newest), consistency))
    }

    /// Takes a head that came as the answer to one that this replica has offered. Heads of entries that are here are compared
    /// with the log; of others the answer must prove that they extend the offered one.
    pub async fn answered(&self, offered: &str, note: String, consistency: Option<&[Digest]>) -> Result<(), String> {
        let words = |error: OfferError| error.to_string();
        let ((ours, _), (theirs, _)) = (parse(offered).map_err(words)?, parse(&note).map_err(words)?);
        let is_here = theirs.size() <= *self.handle.log_size().borrow();
        // It is taken in any case: if it contradicts the log, its signatures are evidence once the entries are here.
        self.offered(note).await;
        if is_here { Ok(()) } else { extends(&ours, &theirs, consistency) }
    }

    /// Number of the first epoch that is not known to be vouched for.
    pub async fn unvouched_epoch(&self) -> Option<u64> {
        self.handle.query(|replica| replica.finality().unvouched_epoch()).await?
    }

    /// The note by which an epoch was vouched for, if this replica has it.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn vouched(&self, epoch: u64) -> Result<Option<String>, StorageError> {
        read_note(&**self.handle.storage(), &epoch_note(epoch))
    }

    /// Takes the note by which an epoch was vouched for while this replica was away.
    ///
    /// # Errors
    ///
    /// [`CheckpointFailure`]; nothing was taken from it.
    pub async fn vouch(&self, note: String) -> Result<(), CheckpointFailure> {
        let (head, _) = parse(&note)?;
        if head.size() > *self.handle.log_size().borrow() {
            // The entries come first; the peer is asked again.
            return Ok(());
        }
        let root = self.contradictions.root_at(head.size())?;
        Ok(self.handle.vouched(note, root).await.ok_or(CheckpointFailure::Stopping)??)
    }

    /// Takes a head that came as an answer.
    async fn offered(&self, note: String) {
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

/// Whether the proof shows that a head extends another one, as one of more entries must.
fn extends(offered: &Checkpoint, answer: &Checkpoint, proof: Option<&[Digest]>) -> Result<(), String> {
    let (old, new) = (offered.size(), answer.size());
    if new <= old {
        return Ok(());
    }
    let proof = proof.ok_or_else(|| format!("its {new} entries are not proven to begin with the {old} offered"))?;
    verify_consistency(old, offered.root(), new, answer.root(), proof)
        .map_err(|error| format!("its {new} entries do not begin with the {old} offered: {error}"))
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::merkle::{Frontier, leaf_hash};

    use super::*;

    #[test]
    fn the_answer_to_an_offered_head_must_be_proven_to_extend_it() {
        let mut frontier = Frontier::new();
        let [one, two] = [b"1", b"2"].map(|entry| {
            frontier.append(leaf_hash(entry));
            Checkpoint::new("log", frontier.size(), frontier.root()).unwrap()
        });
        assert_eq!(extends(&one, &two, Some(&[leaf_hash(b"2")])), Ok(()));
        assert_eq!(extends(&two, &one, None), Ok(()), "a peer may lag");
        assert!(extends(&one, &two, None).unwrap_err().contains("not proven"));
        assert!(extends(&one, &two, Some(&[leaf_hash(b"3")])).unwrap_err().contains("do not begin"));
    }
}
