//! Proofs from a history, for whoever will have nothing else: receipts of entries and records, the chain of epochs, and the
//! policy.

use std::collections::BTreeMap;

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    epoch::{Epoch, EpochChain},
    heads::{ChainError, Conclusion, Heads, Judged, noted_size},
    log::Log,
    map::StateMap,
    merkle::LeafHashes,
    note::SignedNote,
    policy::{Policy, PolicyDefect},
    receipt::{RECEIPT_EXTRA_SIZE_BYTES_MAX, Receipt, ReceiptError},
    state_receipt::StateReceipt,
    storage::{Batch, Column, Write},
};

use super::{HistoryError, Source, SourceError, origin, replay};
use crate::Federation;

/// What is to be proven of a history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Index of an entry.
    pub entry: Option<u64>,
    /// Key of a record of the state.
    pub record: Option<Vec<u8>>,
}

/// A history that was replayed in order to prove things about it. It holds 32 bytes for each entry.
#[derive(Debug)]
pub struct Proofs {
    log: Log<Federation>,
    heads: Heads,
    hashes: LeafHashes,
    notes: Vec<SignedNote>,
    judged: Vec<Judged>,
    conclusion: Conclusion,
    wanted: Wanted,
    /// The entry that is wanted.
    entry: Option<Vec<u8>>,
    /// What is wrong with the first note that does not hold.
    unsound: Option<String>,
    /// The last sealed state of each epoch that its replicas have made final.
    states: BTreeMap<u64, SealedState>,
}

/// A state that a seal fixes.
#[derive(Debug)]
struct SealedState {
    size: u64,
    leaf: Vec<u8>,
    state: StateMap,
    /// Value of the record that is wanted.
    value: Option<Vec<u8>>,
}

/// Why something cannot be proven.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The history is not in order.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A note cannot be read, or contradicts the entries: somebody is wrong, and perhaps this history.
    #[error("a checkpoint note of this history does not hold: {0}")]
    Unsound(String),
    /// Nothing is final.
    #[error("no head of this history is final: not enough replicas have co-signed one")]
    NothingFinal,
    /// The entry is not under a final head.
    #[error("entry {index} is not final yet, the first {final_entries} entries are")]
    NotFinal {
        /// Its index.
        index: u64,
        /// Entries that are.
        final_entries: u64,
    },
    /// The receipt cannot be put together.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The chain of epochs cannot be put together.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The epoch cannot be expressed as a policy.
    #[error("the epoch cannot be expressed as a policy: {0}")]
    Policy(#[from] PolicyDefect),
}

impl From<SourceError> for ProveError {
    fn from(error: SourceError) -> Self {
        Self::History(error.into())
    }
}

impl Proofs {
    /// Replays a history with at most `threads` threads of the current rayon pool.
    ///
    /// # Errors
    ///
    /// [`ProveError::History`] if the entries are not in order. Notes that do not hold are left out, and nothing is proven
    /// then.
    pub fn read<S: Source + ?Sized>(source: &S, wanted: Wanted, threads: usize) -> Result<Self, ProveError> {
        let genesis = source.genesis()?;
        // The notes come first: the history of a running replica grows meanwhile.
        let encoded = source.notes()?;
        let parsed = encoded.iter().map(|note| SignedNote::parse(&note.text));
        let (mut notes, mut unsound) = (Vec::new(), None);
        for note in parsed {
            match note {
                Ok(note) => notes.push(note),
                Err(error) => unsound = unsound.or(Some(error.to_string())),
            }
        }
        let (mut log, batch) = Log::<Federation>::genesis(&genesis).map_err(HistoryError::Genesis)?;
        let sizes: Vec<u64> = notes.iter().map(|note| noted_size(&note.to_string()).unwrap_or_default()).collect();
        let mut replaying = Replaying {
            heads: Heads::new(origin(log.machine().consortium()), &log, sizes.iter().copied()),
            hashes: LeafHashes::default(),
            notes: &notes,
            sizes: &sizes,
            wanted: &wanted,
            entry: (wanted.entry == Some(0)).then_some(genesis),
            value: None,
            states: BTreeMap::new(),
        };
        replaying.take(&batch);
        replay(&mut log, source, threads, |log, entry| {
            replaying.take(&entry.batch);
            if wanted.entry == Some(entry.leaf.index) {
                replaying.entry = Some(entry.leaf.to_bytes());
            }
            replaying.heads.visit(log, &entry.leaf);
            if entry.leaf.seal.is_some() && wanted.record.is_some() {
                replaying.keep_state(log, || entry.leaf.to_bytes());
            }
        })?;
        let Replaying { heads, hashes, entry, states, .. } = replaying;
        let (mut sound, mut judged) = (Vec::new(), Vec::new());
        for note in notes {
            match heads.judge(&note) {
                Ok(verdict) => {
                    sound.push(note);
                    judged.push(verdict);
                }
                Err(error) => unsound = unsound.or(Some(error.to_string())),
            }
        }
        let conclusion = heads.conclude(&judged);
        Ok(Self { log, heads, hashes, notes: sound, judged, conclusion, wanted, entry, unsound, states })
    }

    /// The log at the end of the history.
    pub const fn log(&self) -> &Log<Federation> {
        &self.log
    }

    /// Hash of the entry at `index`.
    pub fn leaf_hash(&self, index: u64) -> Option<Digest> {
        self.hashes.get(index)
    }

    /// The bytes of the entry that is wanted, if it is there.
    pub fn entry(&self) -> Option<&[u8]> {
        self.entry.as_deref()
    }

    /// Entries that are final.
    pub fn final_entries(&self) -> u64 {
        self.final_head().map_or(0, |(_, head)| head.size)
    }

    /// The note by which most entries are final.
    ///
    /// # Errors
    ///
    /// [`ProveError::NothingFinal`].
    pub fn final_note(&self) -> Result<&SignedNote, ProveError> {
        self.final_head().map(|(note, _)| note).ok_or(ProveError::NothingFinal)
    }

    /// A receipt of the entry that is wanted, under the largest final head. Its extra data is the entry itself, unless that
    /// is the genesis file and too large for it.
    ///
    /// # Errors
    ///
    /// [`ProveError`].
    pub fn receipt(&self) -> Result<Receipt, ProveError> {
        let index = self.wanted.entry.unwrap_or_default();
        let fits = |entry: &&Vec<u8>| (1..=RECEIPT_EXTRA_SIZE_BYTES_MAX).contains(&entry.len());
        self.receipt_of(index, self.entry.as_ref().filter(fits).cloned())
    }

    /// A receipt of the record that is wanted, as the seal of the largest final head has fixed it.
    ///
    /// # Errors
    ///
    /// [`ProveError`].
    pub fn state_receipt(&self) -> Result<StateReceipt, ProveError> {
        self.check_sound()?;
        let (_, head) = self.final_head().ok_or(ProveError::NothingFinal)?;
        let sealed = self.states.get(&head.epoch.number).filter(|sealed| sealed.size == head.size);
        let (Some(sealed), Some(key)) = (sealed, &self.wanted.record) else { return Err(ProveError::NothingFinal) };
        Ok(StateReceipt {
            leaf: sealed.leaf.clone(),
            receipt: self.receipt_of(head.size.saturating_sub(1), None)?,
            proof: sealed.state.prove(key),
            key: key.clone(),
            value: sealed.value.clone(),
        })
    }

    /// The chain of the epochs that are vouched for.
    ///
    /// # Errors
    ///
    /// [`ProveError::Chain`].
    pub fn chain(&self) -> Result<EpochChain, ProveError> {
        let notes: Vec<&SignedNote> =
            self.conclusion.vouching.iter().filter_map(|note| self.notes.get(*note)).collect();
        Ok(self.heads.chain(&notes, &self.hashes)?)
    }

    /// The policy of the largest final head, or of the first epoch as long as nothing is final.
    ///
    /// # Errors
    ///
    /// [`ProveError::Policy`].
    pub fn policy(&self) -> Result<Policy, ProveError> {
        let epoch: &Epoch = self.final_head().map_or(self.heads.first_epoch(), |(_, head)| &head.epoch);
        Ok(epoch.policy(self.heads.origin())?)
    }

    fn final_head(&self) -> Option<(&SignedNote, &Judged)> {
        let note = self.conclusion.final_note?;
        Some((self.notes.get(note)?, self.judged.get(note)?))
    }

    /// Whoever has signed for this history and for another must not be proven right.
    fn check_sound(&self) -> Result<(), ProveError> {
        self.unsound.as_ref().map_or(Ok(()), |error| Err(ProveError::Unsound(error.clone())))
    }

    fn receipt_of(&self, index: u64, extra: Option<Vec<u8>>) -> Result<Receipt, ProveError> {
        self.check_sound()?;
        let note = self.final_note()?;
        let size = Checkpoint::parse(note.text()).map_err(ReceiptError::Checkpoint)?.size();
        let proof = self.hashes.inclusion(index, size);
        let proof = proof.map_err(|_| ProveError::NotFinal { index, final_entries: size })?;
        Ok(Receipt::new(index, extra, proof, note.clone())?)
    }
}

/// What is gathered on the way.
struct Replaying<'a> {
    heads: Heads,
    hashes: LeafHashes,
    notes: &'a [SignedNote],
    /// The sizes that they are about.
    sizes: &'a [u64],
    wanted: &'a Wanted,
    entry: Option<Vec<u8>>,
    /// The record that is wanted, as it is now.
    value: Option<Vec<u8>>,
    states: BTreeMap<u64, SealedState>,
}

impl Replaying<'_> {
    /// Takes what an entry has written.
    fn take(&mut self, batch: &Batch) {
        for write in batch.writes() {
            match write {
                // A leaf is a node of level 0.
                Write::Put(Column::Node, key, hash) if key.first() == Some(&0) => {
                    if let Ok(hash) = hash.as_slice().try_into() {
                        self.hashes.push(Digest::from_bytes(hash));
                    }
                }
                Write::Put(Column::State, key, value) if Some(key) == self.wanted.record.as_ref() => {
                    self.value = Some(value.clone());
                }
                Write::Delete(Column::State, key) if Some(key) == self.wanted.record.as_ref() => self.value = None,
                _ => {}
            }
        }
    }

    /// Keeps the state if a note says that the head which ends here is final: which of these heads counts in the end shows
    /// only when all epochs are known.
    fn keep_state(&mut self, log: &Log<Federation>, leaf: impl FnOnce() -> Vec<u8>) {
        let size = log.size();
        let mut notes = self.notes.iter().zip(self.sizes).filter(|(_, noted)| **noted == size);
        let is_final = |judged: &Judged| judged.vouchers.is_final(&judged.epoch);
        let judged = notes.find_map(|(note, _)| self.heads.judge(note).ok().filter(is_final));
        if let Some(judged) = judged {
            let (state, value) = (log.state().clone(), self.value.clone());
            self.states.insert(judged.epoch.number, SealedState { size, leaf: leaf(), state, value });
        }
    }
}
