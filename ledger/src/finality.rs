//! Which heads of the log are final: collecting co-signatures.
//!
//! Every replica gives [`Finality`] the heads that it sealed itself and the notes that others send it. A head is final once
//! replicas of its epoch, as many as the epoch's threshold says, have co-signed the very root that this replica has computed,
//! and the epoch itself is vouched for by the one before. Whether a replica may be believed is not asked: of n replicas with
//! a threshold of ceil((n + f + 1) / 2), any two sets that make a head final have an honest replica in common.

mod head;
mod vouching;

use std::{
    collections::{BTreeMap, VecDeque, btree_map},
    sync::Arc,
};

pub use self::head::Cosignature;
use self::head::Head;
use crate::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointNoteError},
    digest::Digest,
    epoch::Epoch,
    evidence::Evidence,
    keys::PublicKey,
    note::{NoteError, NoteSignature, SignedNote},
};

/// Recent heads for which co-signatures are taken: some seconds of them at full speed.
const HEADS_KEPT: usize = 256;

/// Notes about heads that this replica has not reached yet, for each signer.
const EARLY_NOTES_KEPT: usize = 32;

/// An Ed25519 signature.
const LOG_SIGNATURE_BYTES: usize = 64;

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
    /// Somebody has co-signed a head that counts for nothing here, at a size without a seal or with a key that is not in force
    /// there. Whether the root is that of the log is yet to be compared.
    Uncounted(SignedNote),
    /// Somebody has signed two heads that contradict each other.
    Equivocation {
        /// What convicts the signer.
        evidence: Box<Evidence>,
        /// The key by which both heads are signed.
        key: PublicKey,
    },
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
    /// It is no head of this log, or a signature by a known key does not verify.
    #[error(transparent)]
    Head(#[from] CheckpointNoteError),
    /// No replica and no witness of the epoch has co-signed it. It may still be signed in the name of the log, or with a key of
    /// an earlier epoch, which makes nothing final but can convict: see [`Signers`](crate::evidence::Signers).
    #[error("no replica and no witness of the consortium has signed the checkpoint")]
    NoCosignature,
    /// It does not show that an epoch follows from the one before.
    #[error("too few replicas of the epoch before have co-signed the checkpoint for it to vouch for epoch {epoch}")]
    NotVouched {
        /// Number of the epoch.
        epoch: u64,
    },
}

impl From<NoteError> for OfferError {
    fn from(error: NoteError) -> Self {
        Self::Head(error.into())
    }
}

/// Collects co-signatures. See the module's documentation.
#[derive(Debug)]
pub struct Finality {
    origin: String,
    /// The epoch in force after the newest head.
    newest_epoch: Arc<Epoch>,
    heads: BTreeMap<u64, Head>,
    /// Notes about heads to come, by signer and size.
    early: BTreeMap<String, BTreeMap<u64, Early>>,
    /// Epochs that the one before has not vouched for yet, oldest first.
    unvouched: VecDeque<Transition>,
    /// Size of the largest head that each node has co-signed.
    cosigned: BTreeMap<String, u64>,
    final_size: u64,
    unanimous_size: u64,
}

/// What a node has co-signed before this replica has got there.
#[derive(Debug)]
struct Early {
    /// With this node's co-signature only, and the lines in the name of the log.
    note: SignedNote,
    /// As it was verified, with the key of the epoch in force then.
    cosignature: Cosignature,
}

/// A change of epoch that is not vouched for yet.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The epoch whose replicas are to vouch for the next one.
    pub from: Arc<Epoch>,
    /// Number of the next epoch.
    pub to: u64,
    /// Entries under the head of the seal that puts the next epoch into force.
    pub size: u64,
}

impl Finality {
    /// Begins with the heads known to be final; `epoch` is the one in force, and `unvouched` are the changes of epoch,
    /// the oldest first, for which nobody has vouched yet: no head of a later epoch is final before.
    pub fn new(
        origin: String,
        epoch: Arc<Epoch>,
        unvouched: Vec<Transition>,
        final_size: u64,
        unanimous_size: u64,
    ) -> Self {
        Self {
            origin,
            newest_epoch: epoch,
            heads: BTreeMap::new(),
            early: BTreeMap::new(),
            unvouched: unvouched.into(),
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
            let vouches = |size: &u64| self.unvouched.iter().any(|transition| transition.size == *size);
            let Some(oldest) = self.heads.keys().find(|size| !vouches(size)).copied() else { break };
            self.heads.remove(&oldest);
        }
        let (mut due, mut findings) = (Vec::new(), Vec::new());
        for notes in self.early.values_mut() {
            let later = notes.split_off(&sealed.size.saturating_add(1));
            let mut reached = std::mem::replace(notes, later);
            due.extend(reached.remove(&sealed.size));
            findings.extend(reached.into_values().map(|early| Finding::Uncounted(early.note)));
        }
        for Early { note, cosignature } in due {
            let Ok(root) = Checkpoint::parse(note.text()).map(|early| *early.root()) else { continue };
            let is_replica = sealed.epoch.replicas.contains_key(&cosignature.node);
            let key = head::key_of(&sealed.epoch, &cosignature.node);
            findings.extend(if (is_replica, key) == (cosignature.is_replica, Some(cosignature.key)) {
                self.count(sealed.size, root, &note, vec![cosignature])
            } else {
                // It may be signed with a key that was replaced since, and convict all the same.
                let counted = self.add(sealed.size, root, &note).unwrap_or_default();
                counted.into_iter().chain([Finding::Uncounted(note)]).collect()
            });
        }
        Ok(findings)
    }

    /// Goes on, after a restart, with the newest head: what others say about it now is taken as it was before.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if the log's origin is no origin.
    pub fn resume(&mut self, size: u64, root: Digest, epoch: Arc<Epoch>) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint::new(self.origin.clone(), size, root)?;
        self.heads.insert(size, Head::new(&checkpoint, epoch));
        Ok(())
    }

    /// Adds this replica's own signatures of a head, made after they could no longer be forgotten.
    pub fn signed(&mut self, size: u64, log: NoteSignature, cosignature: Cosignature) -> Vec<Finding> {
        let Some(head) = self.heads.get_mut(&size) else { return Vec::new() };
        head.log = Some(log);
        count(&mut self.cosigned, &cosignature, size);
        let mut findings = Vec::from_iter(head.insert(cosignature));
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
        let checkpoint = Checkpoint::of_note(&note, &self.origin)?;
        let size = checkpoint.size();
        if self.heads.contains_key(&size) {
            return self.add(size, *checkpoint.root(), &note).map(Offered::Taken);
        }
        if self.heads.last_key_value().is_some_and(|(newest, _)| size < *newest) {
            let cosignatures = head::verified(&self.origin, &self.newest_epoch, &note, |_| false)?;
            if cosignatures.is_empty() {
                return Err(OfferError::NoCosignature);
            }
            return Ok(Offered::Elsewhere(checkpoint, cosignatures));
        }
        self.keep_early(size, &note).map(Offered::Taken)
    }

    /// Keeps what a note says about a head to come, apart for each signer: nobody can push out what others have signed.
    fn keep_early(&mut self, size: u64, note: &SignedNote) -> Result<Vec<Finding>, OfferError> {
        let early_of = |node: &str| self.early.get(node).and_then(|notes| notes.get(&size));
        let known = |node: &str| early_of(node).is_some_and(|early| early.note.text() == note.text());
        let is_known = head::cosigners(&self.origin, note).any(known);
        let cosignatures = head::verified(&self.origin, &self.newest_epoch, note, known)?;
        if cosignatures.is_empty() && !is_known {
            return Err(OfferError::NoCosignature);
        }
        let is_log =
            |line: &&NoteSignature| line.name() == self.origin && line.signature().len() == LOG_SIGNATURE_BYTES;
        let log = note.signatures().iter().find(is_log);
        let mut findings = Vec::new();
        for cosignature in cosignatures {
            let key = cosignature.key;
            let lines = log.cloned().into_iter().chain([cosignature.line.clone()]).collect();
            let early = self.early.entry(cosignature.node.clone()).or_default();
            match early.entry(size) {
                btree_map::Entry::Vacant(vacant) => {
                    vacant.insert(Early { note: SignedNote::from_parts(note.text(), lines)?, cosignature });
                }
                // Two heads of one size: an honest node signs one only.
                btree_map::Entry::Occupied(first) => {
                    let first = first.get();
                    let one = head::note_of(first.note.text(), &first.cosignature);
                    let other = head::note_of(note.text(), &cosignature);
                    let evidence = one.zip(other).and_then(|(one, other)| Evidence::new(one, other, None).ok());
                    let is_convicting = first.cosignature.key == key;
                    findings.extend(
                        evidence
                            .filter(|_| is_convicting)
                            .map(|evidence| Finding::Equivocation { evidence: Box::new(evidence), key }),
                    );
                }
            }
            while early.len() > EARLY_NOTES_KEPT {
                findings.extend(early.pop_first().map(|(_, oldest)| Finding::Uncounted(oldest.note)));
            }
        }
        Ok(findings)
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

    /// The newest head that a replica is known to have signed in the name of the log, with every co-signature so far.
    pub fn newest_note(&self) -> Option<String> {
        self.heads.values().rev().find_map(Head::note)
    }

    /// Entries under the head of [`Self::newest_note`].
    pub fn newest_size(&self) -> u64 {
        let newest = self.heads.iter().rev().find(|(_, head)| head.log.is_some());
        newest.map(|(size, _)| *size).unwrap_or_default()
    }

    /// Whether a note is of a recent head and names no node whose co-signature is not known. Its own lines are not verified.
    pub fn has(&self, note: &SignedNote) -> bool {
        let head = Checkpoint::parse(note.text()).ok().and_then(|checkpoint| self.heads.get(&checkpoint.size()));
        head.is_some_and(|head| {
            head.text == note.text() && head::cosigners(&self.origin, note).all(|node| head.cosignature(node).is_some())
        })
    }

    /// The newest head that is final, with every co-signature so far, as far as it is recent.
    pub fn final_note(&self) -> Option<String> {
        self.heads.get(&self.final_size)?.note()
    }

    /// The head by which the replicas of an epoch are to vouch for the next one, while they have not: it must reach everybody,
    /// also after newer heads.
    pub fn unvouched_note(&self) -> Option<String> {
        self.heads.get(&self.unvouched.front()?.size)?.note()
    }

    /// The newest head that a node has co-signed, with its co-signature only.
    pub fn note_by(&self, node: &str) -> Option<SignedNote> {
        let head = self.heads.get(self.cosigned.get(node)?)?;
        SignedNote::from_parts(head.text.clone(), vec![head.cosignature(node)?.line.clone()]).ok()
    }

    /// The smallest recent head of at least `size` entries that a node has co-signed, with its co-signature only.
    pub fn note_from(&self, node: &str, size: u64) -> Option<SignedNote> {
        let mut heads = self.heads.range(size..).map(|(_, head)| head);
        let (text, line) = heads.find_map(|head| Some((head.text.clone(), head.cosignature(node)?.line.clone())))?;
        SignedNote::from_parts(text, vec![line]).ok()
    }

    /// Adds what a note says about a head that is there.
    fn add(&mut self, size: u64, root: Digest, note: &SignedNote) -> Result<Vec<Finding>, OfferError> {
        let Some(head) = self.heads.get(&size) else { return Ok(Vec::new()) };
        let cosignatures = head.verify_new(&self.origin, &root, note)?;
        Ok(self.count(size, root, note, cosignatures))
    }

    /// Counts verified co-signatures of `root` at the size of a head that is there.
    fn count(&mut self, size: u64, root: Digest, note: &SignedNote, cosignatures: Vec<Cosignature>) -> Vec<Finding> {
        let Some(head) = self.heads.get_mut(&size) else { return Vec::new() };
        let mut findings = Vec::new();
        if root == head.root {
            head.adopt_log_signature(&self.origin, note);
            for cosignature in cosignatures {
                count(&mut self.cosigned, &cosignature, size);
                findings.extend(head.insert(cosignature));
            }
            findings.extend(self.settle(size));
        } else if !cosignatures.is_empty() {
            for cosignature in cosignatures {
                findings.extend(head.insert_other(root, note.text(), cosignature));
            }
            findings.extend(head.disagreement(size, &root));
        }
        findings
    }

    /// What the co-signatures of a head amount to now.
    fn settle(&mut self, size: u64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(head) = self.heads.get(&size) else { return findings };
        while let Some(first) = self.unvouched.front()
            && size >= first.size
            && head.satisfies(&first.from)
            && let Some(note) = head.note()
        {
            findings.push(Finding::EpochVouchedFor { number: first.to, note });
            self.unvouched.pop_front();
        }
        // Heads of an epoch that nobody had vouched for may have waited for just that.
        let last = if findings.is_empty() { size } else { u64::MAX };
        let due: Vec<u64> = self.heads.range(size..=last).map(|(size, _)| *size).collect();
        for size in due {
            self.conclude(size, &mut findings);
        }
        findings
    }

    /// Whether a head is final and unanimous now.
    fn conclude(&mut self, size: u64, findings: &mut Vec<Finding>) {
        let Some(head) = self.heads.get(&size) else { return };
        let is_vouched_for = self.unvouched.front().is_none_or(|first| head.epoch.number < first.to);
        let is_unanimous = head.replicas.len() == head.epoch.replicas.len();
        if (size <= self.final_size && !is_unanimous) || !is_vouched_for || !head.satisfies(&head.epoch) {
            return;
        }
        let Some(note) = head.note() else { return };
        if size > self.final_size {
            self.final_size = size;
            findings.push(Finding::Final { size, note: note.clone(), time_s: head.time_s().unwrap_or_default() });
        }
        if size > self.unanimous_size && is_unanimous {
            self.unanimous_size = size;
            findings.push(Finding::Unanimous { size, note });
        }
    }
}

fn count(cosigned: &mut BTreeMap<String, u64>, cosignature: &Cosignature, size: u64) {
    let largest = cosigned.entry(cosignature.node.clone()).or_default();
    *largest = size.max(*largest);
}

#[cfg(test)]
mod tests;
