//! Which heads of the log are final: collecting co-signatures.
//!
//! Every replica gives [`Finality`] the heads that it sealed itself and the notes that others send it. A head is final once
//! replicas of its epoch, as many as the epoch's threshold says, have co-signed the very root that this replica has computed,
//! and the epoch itself is vouched for by the one before. Whether a replica may be believed is not asked: of n replicas with
//! a threshold of ceil((n + f + 1) / 2), any two sets that make a head final have an honest replica in common.

mod head;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

pub use self::head::Cosignature;
use self::head::Head;
use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    digest::Digest,
    epoch::Epoch,
    evidence::Evidence,
    note::{NoteError, NoteSignature, SignedNote},
};

/// Recent heads for which co-signatures are taken: some seconds of them at full speed.
const HEADS_KEPT: usize = 256;

/// Notes about heads that this replica has not reached yet, for each signer.
const EARLY_NOTES_KEPT: usize = 32;

/// A head that this replica has sealed.
#[derive(Debug, Clone)]
pub struct SealedHead {
    /// Entries under it.
    pub size: u64,
    /// Root of the Merkle tree over them.
    pub root: Digest,
    /// The epoch whose replicas make it final.
    pub epoch: Arc<Epoch>,
    /// The epoch that is in force after it.
    pub next_epoch: Arc<Epoch>,
}

/// Something that a co-signature brought to light.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A head is final, and so is everything under it.
    Final {
        /// Entries under the head.
        size: u64,
        /// The note with every co-signature so far.
        note: String,
        /// Median of the co-signatures' times, in seconds since the Unix epoch: the trusted time of the head.
        time_s: u64,
    },
    /// Every replica of the epoch has co-signed a head.
    Unanimous {
        /// Entries under the head.
        size: u64,
        /// The note with every co-signature so far.
        note: String,
    },
    /// The replicas of one epoch have vouched for the next one.
    EpochVouchedFor {
        /// Number of the epoch that they vouch for.
        number: u64,
        /// The note by which they do.
        note: String,
    },
    /// Replicas enough to make it final have co-signed another root of the same size: this replica is wrong.
    Diverged {
        /// Entries under the head.
        size: u64,
        /// Root that this replica has computed.
        own: Digest,
        /// Root that the others have computed.
        theirs: Digest,
        /// Who they are.
        signers: Vec<String>,
    },
    /// A replica has co-signed another root than this one has computed. Whether it is wrong or this one is not known.
    Disagreement {
        /// Entries under the head.
        size: u64,
        /// Who has signed it.
        signers: Vec<String>,
    },
    /// Somebody has signed two heads that contradict each other.
    Equivocation(Box<Evidence>),
}

/// What became of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It is about a recent head, or one that this replica will reach.
    Taken(Vec<Finding>),
    /// It is about a size at which no recent head lies; compare its root with the log's own at that size.
    Elsewhere(Checkpoint, Vec<Cosignature>),
}

/// A note that is no head of this log co-signed by one of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The note cannot be read, or a signature by a known key does not verify.
    #[error("the note is not acceptable: {0}")]
    Note(#[from] NoteError),
    /// Its text is no checkpoint.
    #[error("the checkpoint is malformed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// It is about another log.
    #[error("the checkpoint is of the log {found:?}, expected {expected:?}")]
    Origin {
        /// This log.
        expected: String,
        /// The log that it names.
        found: String,
    },
    /// No replica and no witness of the epoch has co-signed it.
    #[error("no replica and no witness of the consortium has co-signed the checkpoint")]
    NoCosignature,
}

/// Collects co-signatures. See the module's documentation.
#[derive(Debug)]
pub struct Finality {
    origin: String,
    /// The epoch in force after the newest head.
    newest_epoch: Arc<Epoch>,
    heads: BTreeMap<u64, Head>,
    /// Notes about heads to come, by signer and size.
    early: BTreeMap<String, BTreeMap<u64, SignedNote>>,
    /// Epochs that the one before has not vouched for yet, oldest first.
    unvouched: VecDeque<Transition>,
    /// Size of the largest head that each node has co-signed.
    cosigned: BTreeMap<String, u64>,
    final_size: u64,
    unanimous_size: u64,
}

/// A change of epoch that is not vouched for yet.
#[derive(Debug)]
struct Transition {
    from: Arc<Epoch>,
    to: u64,
    /// Entries under the head of the seal that puts the new epoch into force.
    size: u64,
}

impl Finality {
    /// Begins with the heads known to be final; `epoch` is the one in force.
    pub const fn new(origin: String, epoch: Arc<Epoch>, final_size: u64, unanimous_size: u64) -> Self {
        Self {
            origin,
            newest_epoch: epoch,
            heads: BTreeMap::new(),
            early: BTreeMap::new(),
            unvouched: VecDeque::new(),
            cosigned: BTreeMap::new(),
            final_size,
            unanimous_size,
        }
    }

    /// Takes note of a head that this replica has sealed; what others said about it before is looked at now.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if the log's origin is no origin.
    pub fn sealed(&mut self, sealed: &SealedHead) -> Result<Vec<Finding>, CheckpointError> {
        let checkpoint = Checkpoint::new(self.origin.clone(), sealed.size, sealed.root)?;
        if sealed.next_epoch.number != sealed.epoch.number {
            let (from, to) = (Arc::clone(&sealed.epoch), sealed.next_epoch.number);
            self.unvouched.push_back(Transition { from, to, size: sealed.size });
        }
        self.newest_epoch = Arc::clone(&sealed.next_epoch);
        self.heads.insert(sealed.size, Head::new(&checkpoint, Arc::clone(&sealed.epoch)));
        while self.heads.len() > HEADS_KEPT {
            self.heads.pop_first();
        }
        let mut due = Vec::new();
        for notes in self.early.values_mut() {
            let later = notes.split_off(&(sealed.size + 1));
            due.extend(std::mem::replace(notes, later).remove(&sealed.size));
        }
        let mut findings = Vec::new();
        for note in due {
            // What does not verify under the head's epoch is dropped.
            findings.extend(self.add(sealed.size, *checkpoint.root(), &note).unwrap_or_default());
        }
        Ok(findings)
    }

    /// Adds this replica's own signatures of a head, made after they could no longer be forgotten.
    pub fn signed(&mut self, size: u64, log: NoteSignature, cosignature: Cosignature) -> Vec<Finding> {
        let Some(head) = self.heads.get_mut(&size) else { return Vec::new() };
        head.log = Some(log);
        head.insert(cosignature.clone());
        let mut findings = head.contradictions_of(&cosignature);
        self.count(&cosignature, size);
        findings.extend(self.settle(size));
        findings
    }

    /// Takes a note that somebody sent.
    ///
    /// # Errors
    ///
    /// [`OfferError`]; nothing was taken from it.
    pub fn offer(&mut self, text: &str) -> Result<Offered, OfferError> {
        let note = SignedNote::parse(text)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin() != self.origin {
            let (expected, found) = (self.origin.clone(), checkpoint.origin().to_owned());
            return Err(OfferError::Origin { expected, found });
        }
        let size = checkpoint.size();
        if self.heads.contains_key(&size) {
            return self.add(size, *checkpoint.root(), &note).map(Offered::Taken);
        }
        let cosignatures = head::verified(&self.origin, &self.newest_epoch, &note)?;
        let Some(first) = cosignatures.first() else { return Err(OfferError::NoCosignature) };
        if self.heads.last_key_value().is_some_and(|(newest, _)| size < *newest) {
            return Ok(Offered::Elsewhere(checkpoint, cosignatures));
        }
        let early = self.early.entry(first.node.clone()).or_default();
        early.insert(size, note);
        while early.len() > EARLY_NOTES_KEPT {
            early.pop_first();
        }
        Ok(Offered::Taken(Vec::new()))
    }

    /// Entries that are final.
    pub const fn final_size(&self) -> u64 {
        self.final_size
    }

    /// Entries under a head that every replica has co-signed.
    pub const fn unanimous_size(&self) -> u64 {
        self.unanimous_size
    }

    /// Size of the largest head that a node is known to have co-signed.
    pub fn cosigned_size(&self, node: &str) -> Option<u64> {
        self.cosigned.get(node).copied()
    }

    /// Names of the replicas that have co-signed the newest head.
    pub fn cosigners(&self) -> Vec<String> {
        let newest = self.heads.last_key_value();
        newest.map(|(_, head)| head.replicas.keys().cloned().collect()).unwrap_or_default()
    }

    /// The newest head that this replica has signed, with every co-signature so far.
    pub fn newest_note(&self) -> Option<String> {
        self.heads.values().rev().find_map(Head::note)
    }

    /// The newest head that is final, with every co-signature so far, as far as it is recent.
    pub fn final_note(&self) -> Option<String> {
        self.heads.get(&self.final_size)?.note()
    }

    /// The newest head that a node has co-signed, with its co-signature only.
    pub fn note_by(&self, node: &str) -> Option<SignedNote> {
        let head = self.heads.get(self.cosigned.get(node)?)?;
        SignedNote::from_parts(head.text.clone(), vec![head.cosignature(node)?.line.clone()]).ok()
    }

    /// Adds what a note says about a head that is there.
    fn add(&mut self, size: u64, root: Digest, note: &SignedNote) -> Result<Vec<Finding>, OfferError> {
        let Some(head) = self.heads.get_mut(&size) else { return Ok(Vec::new()) };
        let cosignatures = head.verify_new(&self.origin, &root, note)?;
        let mut findings = Vec::new();
        for cosignature in cosignatures {
            if root == head.root {
                head.insert(cosignature.clone());
                findings.extend(head.contradictions_of(&cosignature));
            } else {
                findings.extend(head.insert_other(root, note.text(), cosignature.clone()));
            }
            let largest = self.cosigned.entry(cosignature.node).or_default();
            *largest = size.max(*largest);
        }
        if root == head.root {
            findings.extend(self.settle(size));
        } else {
            findings.extend(head.disagreement(size, &root));
        }
        Ok(findings)
    }

    fn count(&mut self, cosignature: &Cosignature, size: u64) {
        let largest = self.cosigned.entry(cosignature.node.clone()).or_default();
        *largest = size.max(*largest);
    }

    /// What the co-signatures of a head amount to now.
    fn settle(&mut self, size: u64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(head) = self.heads.get(&size) else { return findings };
        let Some(note) = head.note() else { return findings };
        while let Some(first) = self.unvouched.front()
            && size >= first.size
            && head.satisfies(&first.from)
        {
            findings.push(Finding::EpochVouchedFor { number: first.to, note: note.clone() });
            self.unvouched.pop_front();
        }
        let vouched = self.unvouched.front().is_none_or(|first| head.epoch.number < first.to);
        if !vouched || !head.satisfies(&head.epoch) {
            return findings;
        }
        if size > self.final_size {
            self.final_size = size;
            findings.push(Finding::Final { size, note: note.clone(), time_s: head.time_s().unwrap_or_default() });
        }
        if size > self.unanimous_size && head.replicas.len() == head.epoch.replicas.len() {
            self.unanimous_size = size;
            findings.push(Finding::Unanimous { size, note });
        }
        findings
    }
}

#[cfg(test)]
mod tests;
