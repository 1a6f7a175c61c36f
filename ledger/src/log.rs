//! The applied log: committed transactions in, leaves and state changes out.
//!
//! [`Log`] is the pure heart of a replica and of every verifier. A replica feeds it what Raft committed
//! ([`Log::apply`]); whoever received leaves from elsewhere, be it a replica catching up, a participant or an auditor,
//! feeds it those ([`Log::replay`]) and learns whether the transactions, applied anew, really lead to them.

mod opened;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::opened::OpenedLeaf;

use crate::{
    codec::{self, CodecError},
    digest::Digest,
    keys::PublicKey,
    leaf::{Leaf, Outcome},
    limits::VALIDITY_ENTRIES_MAX,
    machine::{RejectionCode, StateMachine, WriteSet},
    merkle::{Frontier, NodeId, leaf_hash},
    storage::{Batch, Column, LogStorage, StorageError, scan_all},
    transaction::{Envelope, EnvelopeError, Nonce, Transaction},
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
    Entry(Entry<M>),
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
    /// What the state machine made of it; `None` when a reused nonce kept it from getting there.
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
            machine,
            frontier: Frontier::new(),
            last_raft_index: 0,
            dedup: Dedup::default(),
        };
        let mut batch = Batch::default();
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
        let mut failure = None;
        let mut records = scan_all(storage, Column::State, Vec::new()).map_while(|record| match record {
            Ok(record) => Some(record),
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
        Ok(Some(Self {
            chain: Digest::of(&genesis),
            machine: machine.map_err(StorageError::Corrupt)?,
            frontier: position.frontier,
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
        if raft_index <= self.last_raft_index {
            return Applied::Known;
        }
        match self.check(envelope) {
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
        let index = self.size();
        let mut writes = WriteSet::default();
        let result = (!reused).then(|| {
            self.machine.apply(index, &transaction.author, &transaction.kind, &transaction.payload, &mut writes)
        });
        debug_assert!(writes.is_empty() || matches!(result, Some(Ok(_))), "a rejection wrote something");
        let outcome = match &result {
            Some(Ok(_)) => Outcome::Accepted,
            Some(Err(rejection)) => Outcome::Rejected(rejection.code().to_owned()),
            None => Outcome::Rejected(NONCE_REUSED.to_owned()),
        };
        let leaf = Leaf { index, raft_index, envelope: envelope.to_vec(), outcome, write_set: writes.digest() };
        let mut batch = Batch::default();
        self.last_raft_index = raft_index;
        if !reused {
            self.dedup.insert(&transaction, Known { index, envelope: digest }, &mut batch);
        }
        self.append(&leaf.to_bytes(), &writes, &mut batch);
        self.dedup.forget_expired(self.frontier.size(), &mut batch);
        Applied::Entry(Entry { leaf, transaction, result, batch })
    }

    /// Applies a leaf received from elsewhere, after checking that its transaction leads to exactly this leaf.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]: the leaf is forged, damaged, or from another history. After [`ReplayError::Outcome`] or
    /// [`ReplayError::WriteSet`] the log has gone on with what it computed itself and must not be used as that of the sender.
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
            Applied::Entry(entry) => Ok(entry),
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
        for (key, value) in writes.iter() {
            match value {
                Some(value) => batch.put(Column::State, key, value),
                None => batch.delete(Column::State, key),
            }
        }
        let position = Position { frontier: self.frontier.clone(), last_raft_index: self.last_raft_index };
        batch.put(Column::Meta, META_POSITION, codec::encode(&position));
    }
}

/// The bytes of the leaf at `index`, or of the genesis file at 0.
///
/// # Errors
///
/// [`StorageError::Corrupt`] where it is missing.
pub fn read_leaf<S: LogStorage + ?Sized>(storage: &S, index: u64) -> Result<Vec<u8>, StorageError> {
    let missing = || StorageError::Corrupt(format!("leaf {index} is missing"));
    storage.get(Column::Leaf, &index.to_be_bytes())?.ok_or_else(missing)
}

/// The root of a complete subtree, for proofs.
///
/// # Errors
///
/// [`StorageError::Corrupt`] where it is missing.
pub fn read_node<S: LogStorage + ?Sized>(storage: &S, node: NodeId) -> Result<Digest, StorageError> {
    let missing = || StorageError::Corrupt(format!("tree node {node:?} is missing"));
    let bytes = storage.get(Column::Node, &node.to_key())?.ok_or_else(missing)?;
    bytes.try_into().map(Digest::from_bytes).map_err(|_| missing())
}

/// Key of the log's position among the single values.
const META_POSITION: &[u8] = b"position";

/// A frontier has at most 64 nodes of 34 bytes.
const POSITION_SIZE_BYTES_MAX: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Position {
    frontier: Frontier,
    last_raft_index: u64,
}

fn corrupt(what: &str, error: &CodecError) -> StorageError {
    StorageError::Corrupt(format!("{what}: {error}"))
}

/// Transactions whose expiry has not passed, so that submitting one again finds the first outcome.
#[derive(Debug, Default)]
struct Dedup {
    known: BTreeMap<(PublicKey, Nonce), Known>,
    /// Keys of `known` by the last index at which they can still be submitted.
    expiry: BTreeMap<u64, Vec<(PublicKey, Nonce)>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    index: u64,
    envelope: Digest,
}

/// Index, envelope digest, expiry.
#[derive(Serialize, Deserialize)]
struct KnownRecord(u64, Digest, u64);

impl Dedup {
    fn get(&self, author: &PublicKey, nonce: Nonce) -> Option<Known> {
        self.known.get(&(*author, nonce)).copied()
    }

    fn insert(&mut self, transaction: &Transaction, known: Known, batch: &mut Batch) {
        let key = (transaction.author, transaction.nonce);
        let record = KnownRecord(known.index, known.envelope, transaction.not_after_index);
        batch.put(Column::Dedup, dedup_key(&key), codec::encode(&record));
        self.known.insert(key, known);
        self.expiry.entry(transaction.not_after_index).or_default().push(key);
    }

    /// Forgets what can no longer be applied: the next leaf has index `size`.
    fn forget_expired(&mut self, size: u64, batch: &mut Batch) {
        while let Some(entry) = self.expiry.first_entry().filter(|entry| *entry.key() < size) {
            for key in entry.remove() {
                batch.delete(Column::Dedup, dedup_key(&key));
                self.known.remove(&key);
            }
        }
    }

    fn load<S: LogStorage + ?Sized>(storage: &S) -> Result<Self, StorageError> {
        let mut dedup = Self::default();
        for record in scan_all(storage, Column::Dedup, Vec::new()) {
            let (key, value) = record?;
            let damaged = || StorageError::Corrupt("a record of a nonce is damaged".to_owned());
            let (author, nonce) = key.split_at_checked(32).ok_or_else(damaged)?;
            let author = PublicKey::from_bytes(author.try_into().map_err(|_| damaged())?);
            let nonce = Nonce(nonce.try_into().map_err(|_| damaged())?);
            let KnownRecord(index, envelope, expiry) = codec::decode(&value, 128).map_err(|_| damaged())?;
            dedup.known.insert((author, nonce), Known { index, envelope });
            dedup.expiry.entry(expiry).or_default().push((author, nonce));
        }
        Ok(dedup)
    }
}

fn dedup_key((author, nonce): &(PublicKey, Nonce)) -> Vec<u8> {
    [author.as_bytes().as_slice(), &nonce.0].concat()
}
