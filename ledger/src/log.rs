//! The applied log: committed transactions in, leaves and state changes out.
//!
//! [`Log`] is the pure heart of a replica and of every verifier. A replica feeds it what Raft committed
//! ([`Log::apply`]); whoever received leaves from elsewhere, be it a replica catching up, a participant or an auditor,
//! feeds it those ([`Log::replay`]) and learns whether the transactions, applied anew, really lead to them.

mod dedup;
mod epochs;
mod opened;
mod sealed;
mod stored;

use serde::{Deserialize, Serialize};

pub use self::{
    epochs::{EpochInForce, read_epoch_after, read_epochs},
    opened::OpenedLeaf,
    sealed::Sealed,
    stored::{read_leaf, read_node, read_root},
};

use self::{
    dedup::{Dedup, Known},
    epochs::put_epoch,
};
use crate::{
    codec::{self, CodecError},
    digest::Digest,
    epoch::Epoch,
    leaf::{Leaf, Outcome},
    limits::VALIDITY_ENTRIES_MAX,
    machine::{RejectionCode, StateMachine, WriteSet},
    map::StateMap,
    merkle::{Frontier, leaf_hash},
    seal::{SEAL_KIND, Seal},
    storage::{Batch, Column, LogStorage, StorageError, scan_all},
    transaction::{Envelope, EnvelopeError, Transaction},
};

/// Code of the rejection that stands on the ledger when an author uses a nonce for two different transactions.
pub const NONCE_REUSED: &str = "nonce_reused";

/// The applied log over a state machine. See the module's documentation.
#[derive(Debug)]
pub struct Log<M> {
    chain: Digest,
    machine: M,
    frontier: Frontier,
    /// Raft index of the last leaf.
    last_raft_index: u64,
    dedup: Dedup,
    /// Hashes of the machine's records.
    state: StateMap,
    sealed: Sealed,
}

/// A transaction that does not reach the state machine and becomes no leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No valid transaction of this chain.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Its time, counted in log entries, has passed.
    #[error("the transaction expired at log index {not_after_index}, the log has {size} entries: sign it anew")]
    Expired {
        /// Last index at which it could have been applied.
        not_after_index: u64,
        /// Entries in the log.
        size: u64,
    },
    /// Its expiry lies too far ahead for its nonce to be remembered until then.
    #[error(
        "the transaction may expire at log index {not_after_index}, later than {VALIDITY_ENTRIES_MAX} entries after the \
         log's size of {size}: choose an earlier expiry"
    )]
    ExpiryTooFar {
        /// Expiry asked for.
        not_after_index: u64,
        /// Entries in the log.
        size: u64,
    },
}

/// What one committed Raft entry did to the log.
#[derive(Debug)]
pub enum Applied<M: StateMachine> {
    /// It became a leaf.
    Entry(Box<Entry<M>>),
    /// The same transaction had already become the leaf at this index.
    Duplicate(u64),
    /// It became no leaf.
    Refused(Refusal),
    /// Its effects were already in the log, because leaves had been received from a peer.
    Known,
}

/// A new leaf and what it changes on disk.
#[derive(Debug)]
pub struct Entry<M: StateMachine> {
    /// The leaf.
    pub leaf: Leaf,
    /// The transaction inside it.
    pub transaction: Transaction,
    /// What the state machine made of it; `None` for a seal, and when a reused nonce kept it from getting there.
    pub result: Option<Result<M::Event, M::Rejection>>,
    /// Everything to be written, atomically and in the order of the log.
    pub batch: Batch,
}

/// A leaf that does not follow from the log before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Not a canonical leaf.
    #[error("the leaf is malformed: {0}")]
    Malformed(CodecError),
    /// Not the next leaf.
    #[error("expected the leaf of index {expected}, found {found}")]
    Index {
        /// Size of the log so far.
        expected: u64,
        /// Index in the leaf.
        found: u64,
    },
    /// The Raft index does not rise.
    #[error("Raft index {found} does not follow {previous}")]
    RaftIndex {
        /// Raft index of the leaf before.
        previous: u64,
        /// Raft index in the leaf.
        found: u64,
    },
    /// Its transaction could never have become a leaf.
    #[error("the transaction is not valid: {0}")]
    Refused(Refusal),
    /// Its transaction is already at another index.
    #[error("the transaction already stands at index {0}")]
    Duplicate(u64),
    /// The leaf records another outcome than the transaction has.
    #[error("the leaf records the outcome {recorded:?}, the transaction's outcome is {computed:?}")]
    Outcome {
        /// Code in the leaf.
        recorded: String,
        /// Code found by applying the transaction.
        computed: String,
    },
    /// The leaf records other changes of state than the transaction makes.
    #[error("the leaf records the write set {recorded}, the transaction writes {computed}")]
    WriteSet {
        /// Digest in the leaf.
        recorded: Digest,
        /// Digest found by applying the transaction.
        computed: Digest,
    },
    /// The leaf records another seal than the entries before it lead to.
    #[error("the leaf records the seal {recorded:?}, the entries before it lead to {computed:?}")]
    Seal {
        /// The seal in the leaf.
        recorded: Option<Box<Seal>>,
        /// The seal found by applying the transaction.
        computed: Option<Box<Seal>>,
    },
}

impl ReplayError {
    /// Whether the sender's state differs from what the same entries lead to here, and the log has gone on with the latter.
    pub const fn is_divergence(&self) -> bool {
        matches!(self, Self::Outcome { .. } | Self::WriteSet { .. } | Self::Seal { .. })
    }
}

impl<M: StateMachine> Log<M> {
    /// The log that holds the genesis file only, and what to write for it.
    ///
    /// # Errors
    ///
    /// The machine's word on what is wrong with the genesis file.
    pub fn genesis(bytes: &[u8]) -> Result<(Self, Batch), String> {
        let mut writes = WriteSet::default();
        let machine = M::genesis(bytes, &mut writes)?;
        let mut log = Self {
            chain: Digest::of(bytes),
            sealed: Sealed::none(machine.epoch().clone()),
            machine,
            state: StateMap::default(),
            frontier: Frontier::new(),
            last_raft_index: 0,
            dedup: Dedup::default(),
        };
        let mut batch = Batch::default();
        put_epoch(&mut batch, &log.sealed.epoch, 0);
        log.append(bytes, &writes, &mut batch);
        Ok((log, batch))
    }

    /// The log as it was last written to `storage`; `None` where there is none yet.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when reading fails or what is read cannot be understood.
    pub fn load<S: LogStorage + ?Sized>(storage: &S) -> Result<Option<Self>, StorageError> {
        let Some(position) = storage.get(Column::Meta, META_POSITION)? else { return Ok(None) };
        let position: Position =
            codec::decode(&position, POSITION_SIZE_BYTES_MAX).map_err(|error| corrupt("log position", &error))?;
        let genesis = read_leaf(storage, 0)?;
        let dedup = Dedup::load(storage)?;
        let sealed = storage.get(Column::Meta, META_SEALED)?;
        let (mut failure, mut state) = (None, StateMap::default());
        let mut records = scan_all(storage, Column::State, Vec::new()).map_while(|record| match record {
            Ok((key, value)) => {
                state.apply([(&key, Some(&value))]);
                Some((key, value))
            }
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        let machine = M::restore(&mut records);
        drop(records);
        if let Some(error) = failure {
            return Err(error);
        }
        let machine = machine.map_err(StorageError::Corrupt)?;
        let sealed = match sealed {
            Some(bytes) => {
                codec::decode(&bytes, SEALED_SIZE_BYTES_MAX).map_err(|error| corrupt("the last seal", &error))?
            }
            None => Sealed::none(first_epoch::<M>(&genesis)?),
        };
        Ok(Some(Self {
            chain: Digest::of(&genesis),
            machine,
            state,
            sealed,
            frontier: Frontier::read(position.size, |node| read_node(storage, node))?,
            last_raft_index: position.last_raft_index,
            dedup,
        }))
    }

    /// Checks a submitted transaction without applying it: everything that would keep it from becoming a leaf, except a
    /// nonce that is already known.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the transaction must not be proposed.
    pub fn check(&self, envelope: &[u8]) -> Result<Transaction, Refusal> {
        let transaction = Envelope::open(envelope, &self.chain)?;
        self.check_expiry(&transaction)?;
        Ok(transaction)
    }

    /// [`Self::check`] for an envelope that has passed it before: the signature, which is most of its cost, and the chain
    /// are what they were.
    fn check_again(&self, envelope: &[u8]) -> Result<Transaction, Refusal> {
        let transaction = Envelope::open_unverified(envelope)?;
        self.check_expiry(&transaction)?;
        Ok(transaction)
    }

    /// Whether there are entries after the last seal. The seal itself is not counted: it would never end.
    pub const fn is_dirty(&self) -> bool {
        self.sealed.number == 0 || self.size() > self.sealed.index + 1
    }

    /// Where sealing stands.
    pub const fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// The hashes of the replicated records as they are now. A clone costs next to nothing and stays as it is.
    pub const fn state(&self) -> &StateMap {
        &self.state
    }

    fn check_expiry(&self, transaction: &Transaction) -> Result<(), Refusal> {
        let (not_after_index, size) = (transaction.not_after_index, self.size());
        if not_after_index < size {
            return Err(Refusal::Expired { not_after_index, size });
        }
        if not_after_index - size > VALIDITY_ENTRIES_MAX {
            return Err(Refusal::ExpiryTooFar { not_after_index, size });
        }
        Ok(())
    }

    /// The index at which a transaction already stands, if its nonce is known and its bytes are the same.
    pub fn find(&self, transaction: &Transaction, envelope: &[u8]) -> Option<u64> {
        let known = self.dedup.get(&transaction.author, transaction.nonce)?;
        (known.envelope == Digest::of(envelope)).then_some(known.index)
    }

    /// Applies the transaction that Raft committed at `raft_index`.
    pub fn apply(&mut self, raft_index: u64, envelope: &[u8]) -> Applied<M> {
        self.apply_unless_known(raft_index, envelope, Self::check)
    }

    /// [`Self::apply`] for an envelope whose very bytes have passed [`Self::check`] on this log.
    pub(crate) fn apply_known_valid(&mut self, raft_index: u64, envelope: &[u8]) -> Applied<M> {
        self.apply_unless_known(raft_index, envelope, Self::check_again)
    }

    fn apply_unless_known(
        &mut self,
        raft_index: u64,
        envelope: &[u8],
        check: fn(&Self, &[u8]) -> Result<Transaction, Refusal>,
    ) -> Applied<M> {
        if raft_index <= self.last_raft_index {
            return Applied::Known;
        }
        match check(self, envelope) {
            Ok(transaction) => self.apply_checked(raft_index, envelope, transaction),
            Err(refusal) => Applied::Refused(refusal),
        }
    }

    /// Applies a transaction whose envelope and expiry have been checked.
    fn apply_checked(&mut self, raft_index: u64, envelope: &[u8], transaction: Transaction) -> Applied<M> {
        let digest = Digest::of(envelope);
        let known = self.dedup.get(&transaction.author, transaction.nonce);
        if let Some(known) = known.filter(|known| known.envelope == digest) {
            return Applied::Duplicate(known.index);
        }
        let reused = known.is_some();
        let is_seal = !reused && transaction.kind == SEAL_KIND;
        let index = self.size();
        let mut batch = Batch::default();
        let mut writes = WriteSet::default();
        let result = (!reused && !is_seal).then(|| {
            self.machine.apply(index, &transaction.author, &transaction.kind, &transaction.payload, &mut writes)
        });
        debug_assert!(writes.is_empty() || matches!(result, Some(Ok(_))), "a rejection wrote something");
        let (outcome, seal) = match &result {
            Some(Ok(_)) => (Outcome::Accepted, None),
            Some(Err(rejection)) => (Outcome::Rejected(rejection.code().to_owned()), None),
            None if is_seal => match self.seal(index, &transaction, &mut batch) {
                Ok(seal) => (Outcome::Accepted, Some(seal)),
                Err(code) => (Outcome::Rejected(code.to_owned()), None),
            },
            None => (Outcome::Rejected(NONCE_REUSED.to_owned()), None),
        };
        let leaf = Leaf { index, raft_index, envelope: envelope.to_vec(), outcome, write_set: writes.digest(), seal };
        self.last_raft_index = raft_index;
        if !reused {
            self.dedup.insert(&transaction, Known { index, envelope: digest }, &mut batch);
        }
        self.append(&leaf.to_bytes(), &writes, &mut batch);
        self.dedup.forget_expired(self.frontier.size(), &mut batch);
        Applied::Entry(Box::new(Entry { leaf, transaction, result, batch }))
    }

    fn seal(&mut self, index: u64, transaction: &Transaction, batch: &mut Batch) -> Result<Seal, &'static str> {
        let newest = self.machine.epoch();
        let seal = self.sealed.next(&transaction.author, &transaction.payload, &self.state, newest)?;
        self.sealed.advance(&seal, index, newest);
        if self.sealed.previous_epoch.is_some() {
            put_epoch(batch, &self.sealed.epoch, index + 1);
        }
        batch.put(Column::Meta, META_SEALED, codec::encode(&self.sealed));
        Ok(seal)
    }

    /// Applies a leaf received from elsewhere, after checking that its transaction leads to exactly this leaf.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]: the leaf is forged, damaged, or from another history. After a
    /// [divergence](ReplayError::is_divergence) the log has gone on with what it computed itself and must not be used as that of the sender.
    pub fn replay(&mut self, bytes: &[u8]) -> Result<Entry<M>, ReplayError> {
        let opened = OpenedLeaf::open(bytes, &self.chain)?;
        self.replay_opened(opened)
    }

    /// [`Log::replay`] for a leaf whose signature has been checked already, perhaps on another thread.
    ///
    /// # Errors
    ///
    /// As [`Log::replay`].
    pub fn replay_opened(&mut self, opened: OpenedLeaf) -> Result<Entry<M>, ReplayError> {
        let OpenedLeaf { leaf, transaction } = opened;
        let (expected, found) = (self.chain, transaction.chain);
        if expected != found {
            return Err(ReplayError::Refused(EnvelopeError::Chain { expected, found }.into()));
        }
        if leaf.index != self.size() {
            return Err(ReplayError::Index { expected: self.size(), found: leaf.index });
        }
        if leaf.raft_index <= self.last_raft_index {
            return Err(ReplayError::RaftIndex { previous: self.last_raft_index, found: leaf.raft_index });
        }
        self.check_expiry(&transaction).map_err(ReplayError::Refused)?;
        match self.apply_checked(leaf.raft_index, &leaf.envelope, transaction) {
            Applied::Entry(entry) if entry.leaf.outcome != leaf.outcome => Err(ReplayError::Outcome {
                recorded: leaf.outcome.code().to_owned(),
                computed: entry.leaf.outcome.code().to_owned(),
            }),
            Applied::Entry(entry) if entry.leaf.write_set != leaf.write_set => {
                Err(ReplayError::WriteSet { recorded: leaf.write_set, computed: entry.leaf.write_set })
            }
            Applied::Entry(entry) if entry.leaf.seal != leaf.seal => {
                Err(ReplayError::Seal { recorded: leaf.seal.map(Box::new), computed: entry.leaf.seal.map(Box::new) })
            }
            Applied::Entry(entry) => Ok(*entry),
            Applied::Duplicate(index) => Err(ReplayError::Duplicate(index)),
            Applied::Refused(refusal) => Err(ReplayError::Refused(refusal)),
            Applied::Known => Err(ReplayError::RaftIndex { previous: self.last_raft_index, found: leaf.raft_index }),
        }
    }

    /// The chain id: the digest of the genesis file.
    pub const fn chain(&self) -> &Digest {
        &self.chain
    }

    /// Number of entries, the genesis file included.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root of the Merkle tree over all entries (RFC 6962).
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// The state machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    fn append(&mut self, leaf: &[u8], writes: &WriteSet, batch: &mut Batch) {
        batch.put(Column::Leaf, self.frontier.size().to_be_bytes(), leaf);
        for (node, hash) in self.frontier.append(leaf_hash(leaf)) {
            batch.put(Column::Node, node.to_key(), *hash.as_bytes());
        }
        self.state.apply(writes.iter());
        for (key, value) in writes.iter() {
            match value {
                Some(value) => batch.put(Column::State, key, value),
                None => batch.delete(Column::State, key),
            }
        }
        let position = Position { size: self.size(), last_raft_index: self.last_raft_index };
        batch.put(Column::Meta, META_POSITION, codec::encode(&position));
    }
}

/// Key of the log's position among the single values.
const META_POSITION: &[u8] = b"position";

/// Key of [`Sealed`] among the single values.
const META_SEALED: &[u8] = b"sealed";

/// Largest record of where sealing stands: two epochs.
const SEALED_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Two numbers with their names.
const POSITION_SIZE_BYTES_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
struct Position {
    size: u64,
    last_raft_index: u64,
}

/// The epoch of a log that was never sealed.
fn first_epoch<M: StateMachine>(genesis: &[u8]) -> Result<Epoch, StorageError> {
    let machine = M::genesis(genesis, &mut WriteSet::default()).map_err(StorageError::Corrupt)?;
    Ok(machine.epoch().clone())
}

fn corrupt(what: &str, error: &CodecError) -> StorageError {
    StorageError::Corrupt(format!("{what}: {error}"))
}
