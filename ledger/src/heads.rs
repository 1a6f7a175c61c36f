//! Heads of a replayed log, and what signed notes say about them: which entries are final, and under whose keys.
//!
//! Whoever replays a log with [`Log::replay`] shows every entry to [`Heads::visit`]. Afterwards [`Heads::judge`] holds a note
//! against the log as it was at the note's size: the root, the epoch whose replicas and witnesses may sign there, and, if
//! replicas or witnesses have co-signed, that there is a seal, since they co-sign nothing else. [`Heads::conclude`] draws the
//! sum: a head is final if replicas of its epoch, as many as the epoch's threshold says, have co-signed it, and every change
//! of epoch up to it is vouched for by the epoch before.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    digest::{Digest, shortened},
    epoch::{Epoch, EpochChain, EpochChainError, EpochLink, VouchError, Vouchers},
    leaf::Leaf,
    log::Log,
    machine::StateMachine,
    merkle::LeafHashes,
    note::SignedNote,
    receipt::{Receipt, ReceiptError},
};

/// What a log looked like at the sizes that notes are about, and how its epochs followed each other.
#[derive(Debug, Clone)]
pub struct Heads {
    origin: String,
    /// By size; nothing as long as the log has not come there.
    noted: BTreeMap<u64, Option<Head>>,
    /// The epoch in force.
    epoch: Arc<Epoch>,
    changes: Vec<EpochChange>,
    seals: u64,
    size: u64,
}

/// The log at one size.
#[derive(Debug, Clone)]
struct Head {
    root: Digest,
    /// Whether its last entry is a seal that took effect.
    is_sealed: bool,
    /// The epoch whose nodes may sign it.
    epoch: Arc<Epoch>,
}

/// A change of epoch.
#[derive(Debug, Clone)]
pub struct EpochChange {
    /// The epoch whose replicas are to vouch for the next one.
    pub from: Arc<Epoch>,
    /// The next epoch.
    pub to: Arc<Epoch>,
    /// Index of the seal that puts it into force.
    pub seal: u64,
    /// The seal's leaf.
    pub leaf: Vec<u8>,
}

/// A note about a head of the log, all of whose lines are by nodes that may sign there.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Entries under the head.
    pub size: u64,
    /// The epoch to which the head belongs.
    pub epoch: Arc<Epoch>,
    /// Who has signed it.
    pub vouchers: Vouchers,
}

/// A note that says something else than the log, or is signed by somebody who may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The text is no checkpoint.
    #[error("the checkpoint is malformed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// It is about another log.
    #[error("a checkpoint is of the log {found:?}, this one is {expected:?}")]
    Origin {
        /// This log.
        expected: String,
        /// The log that it names.
        found: String,
    },
    /// It is about no entries, or more than there are.
    #[error("a checkpoint is about {size} entries, there are {entries}: entries are missing")]
    Size {
        /// Entries under the head.
        size: u64,
        /// Entries there are.
        entries: u64,
    },
    /// A line that no honest node of the head's epoch has added.
    #[error("a checkpoint of {size} entries is not signed as it should be: {error}")]
    Signature {
        /// Entries under the head.
        size: u64,
        /// What is wrong with it.
        error: VouchError,
    },
    /// The log has another root at this size.
    #[error("a checkpoint signed by {} has the root {noted} of {size} entries, which is {found}", signers.join(", "))]
    Root {
        /// Entries under the head.
        size: u64,
        /// Root in the note.
        noted: Digest,
        /// Root of the log.
        found: Digest,
        /// Who has signed it.
        signers: Vec<String>,
        /// Whether these are enough to make it final: then this log is not the one of the consortium.
        is_final: bool,
    },
    /// Somebody has co-signed where there is no seal.
    #[error("a checkpoint of {size} entries is co-signed, but entry {} is no seal", size.saturating_sub(1))]
    NotASeal {
        /// Entries under the head.
        size: u64,
    },
}

impl HeadError {
    /// Entries under the head, if it is one.
    pub const fn size(&self) -> Option<u64> {
        match self {
            Self::Checkpoint(_) | Self::Origin { .. } => None,
            Self::Size { size, .. }
            | Self::Signature { size, .. }
            | Self::Root { size, .. }
            | Self::NotASeal { size } => Some(*size),
        }
    }
}

/// What notes amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conclusion {
    /// Entries for which anybody at all has signed.
    pub covered: u64,
    /// The note, by its position, of the largest head that is final.
    pub final_note: Option<usize>,
    /// The note, by its position, of the largest head that every replica of its epoch has co-signed.
    pub unanimous_note: Option<usize>,
    /// The notes, by their position, by which epochs vouch for the next ones, as far as all before are vouched for.
    pub vouching: Vec<usize>,
}

impl Heads {
    /// Begins with a log that holds the genesis file only. `sizes` are those that notes will be about.
    pub fn new<M: StateMachine>(origin: String, log: &Log<M>, sizes: impl IntoIterator<Item = u64>) -> Self {
        let epoch = Arc::new(log.sealed().epoch.clone());
        let noted = sizes.into_iter().map(|size| (size, None)).collect();
        let mut heads = Self { origin, noted, epoch, changes: Vec::new(), seals: 0, size: 0 };
        heads.take(log, false);
        heads
    }

    /// Takes note of `log`, which ends with `leaf`.
    pub fn visit<M: StateMachine>(&mut self, log: &Log<M>, leaf: &Leaf) {
        let is_sealed = leaf.seal.is_some();
        self.seals += u64::from(is_sealed);
        self.take(log, is_sealed);
        let sealed = log.sealed();
        if is_sealed && sealed.epoch.number != self.epoch.number {
            let to = Arc::new(sealed.epoch.clone());
            let from = std::mem::replace(&mut self.epoch, Arc::clone(&to));
            self.changes.push(EpochChange { from, to, seal: leaf.index, leaf: leaf.to_bytes() });
        }
    }

    /// The head of a seal belongs to the epoch before the one that it puts into force.
    fn take<M: StateMachine>(&mut self, log: &Log<M>, is_sealed: bool) {
        self.size = log.size();
        if let Some(head) = self.noted.get_mut(&self.size) {
            *head = Some(Head { root: log.root(), is_sealed, epoch: Arc::clone(&self.epoch) });
        }
    }

    /// Holds a note against the log.
    ///
    /// # Errors
    ///
    /// [`HeadError`].
    pub fn judge(&self, note: &SignedNote) -> Result<Judged, HeadError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin() != self.origin {
            let (expected, found) = (self.origin.clone(), shortened(checkpoint.origin()));
            return Err(HeadError::Origin { expected, found });
        }
        let size = checkpoint.size();
        let Some(head) = self.noted.get(&size).and_then(Option::as_ref) else {
            return Err(HeadError::Size { size, entries: self.size });
        };
        let (epoch, vouchers) =
            self.vouchers(head, size, note).map_err(|error| HeadError::Signature { size, error })?;
        if *checkpoint.root() != head.root {
            let Vouchers { logs, replicas, witnesses } = &vouchers;
            let mut signers: Vec<String> =
                logs.iter().chain(replicas.keys()).chain(witnesses.keys()).cloned().collect();
            signers.sort_unstable();
            signers.dedup();
            let is_final = vouchers.is_final(epoch);
            return Err(HeadError::Root { size, noted: *checkpoint.root(), found: head.root, signers, is_final });
        }
        let cosigned = !vouchers.replicas.is_empty() || !vouchers.witnesses.is_empty();
        if cosigned && !head.is_sealed {
            return Err(HeadError::NotASeal { size });
        }
        Ok(Judged { size, epoch: Arc::clone(epoch), vouchers })
    }

    /// Who has signed a head, and in which epoch.
    fn vouchers<'a>(
        &'a self,
        head: &'a Head,
        size: u64,
        note: &SignedNote,
    ) -> Result<(&'a Arc<Epoch>, Vouchers), VouchError> {
        let stranger = match head.epoch.vouchers_strict(&self.origin, note) {
            Err(error @ VouchError::Stranger(_)) => error,
            other => return Ok((&head.epoch, other?)),
        };
        // Replicas of the next epoch sign from its seal on in the name of the log, but co-sign only later heads.
        let next = self.changes.iter().find(|change| change.seal.saturating_add(1) == size).ok_or(stranger.clone())?;
        let vouchers = next.to.vouchers_strict(&self.origin, note)?;
        let is_cosigned = !(vouchers.replicas.is_empty() && vouchers.witnesses.is_empty());
        if is_cosigned { Err(stranger) } else { Ok((&next.to, vouchers)) }
    }

    /// What notes amount to, all of which [`Heads::judge`] has accepted.
    ///
    /// Signatures of one head that stand in different notes are not put together.
    pub fn conclude<'a>(&self, judged: impl IntoIterator<Item = &'a Judged> + Clone) -> Conclusion {
        let mut conclusion = Conclusion {
            covered: judged.clone().into_iter().map(|judged| judged.size).max().unwrap_or_default(),
            ..Conclusion::default()
        };
        for change in &self.changes {
            let vouches = |(_, judged): &(usize, &Judged)| {
                let replicas = &judged.vouchers.replicas;
                judged.size > change.seal && change.from.is_vouched_for_by(&judged.epoch, replicas.keys())
            };
            let first = judged.clone().into_iter().enumerate().filter(vouches).min_by_key(|(_, judged)| judged.size);
            let Some((note, _)) = first else { break };
            conclusion.vouching.push(note);
        }
        // The last epoch that is vouched for: heads of later ones are not final.
        let last = self.changes.get(conclusion.vouching.len()).map_or(u64::MAX, |change| change.from.number);
        let vouched = || judged.clone().into_iter().enumerate().filter(|(_, judged)| judged.epoch.number <= last);
        let largest = |wanted: fn(&Judged) -> bool| {
            vouched().filter(|(_, judged)| wanted(judged)).max_by_key(|(_, judged)| judged.size).map(|(note, _)| note)
        };
        conclusion.final_note = largest(|judged| judged.vouchers.is_final(&judged.epoch));
        conclusion.unanimous_note = largest(|judged| judged.vouchers.is_unanimous(&judged.epoch));
        conclusion
    }

    /// The chain of the epochs that `notes` vouch for, those that [`Conclusion::vouching`] names.
    ///
    /// # Errors
    ///
    /// [`ChainError`]; not for notes that were judged and hashes of this very log, as long as there are few enough changes.
    pub fn chain(&self, notes: &[&SignedNote], hashes: &LeafHashes) -> Result<EpochChain, ChainError> {
        let links = self.changes.iter().zip(notes).map(|(change, note)| {
            let size = Checkpoint::parse(note.text()).map_err(ReceiptError::Checkpoint)?.size();
            let proof = hashes.inclusion(change.seal, size).map_err(|error| ChainError::Proof(error.to_string()))?;
            let receipt = Receipt::new(change.seal, None, proof, (*note).clone())?;
            Ok(EpochLink { epoch: change.to.to_bytes(), leaf: change.leaf.clone(), receipt })
        });
        Ok(EpochChain::new(links.collect::<Result<_, ChainError>>()?)?)
    }

    /// The changes of epoch so far.
    pub fn changes(&self) -> &[EpochChange] {
        &self.changes
    }

    /// Seals so far.
    pub const fn seals(&self) -> u64 {
        self.seals
    }

    /// Identity of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The epoch of the genesis file.
    pub fn first_epoch(&self) -> &Epoch {
        self.changes.first().map_or(&self.epoch, |change| &change.from)
    }
}

/// Why no chain of epochs can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There are too many epochs.
    #[error(transparent)]
    Chain(#[from] EpochChainError),
    /// A note is no checkpoint.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The hashes are not those of the log.
    #[error("a seal cannot be proven: {0}")]
    Proof(String),
}

/// The size of the head that an encoded note is about; none if it is no checkpoint.
pub fn noted_size(note: &str) -> Option<u64> {
    let note = SignedNote::parse(note).ok()?;
    Some(Checkpoint::parse(note.text()).ok()?.size())
}
