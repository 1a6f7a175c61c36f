//! The storage seam: what a replica keeps, as one ordered key-value space in columns with atomic batches.
//!
//! Two real sides: `rocks::RocksStorage` on disk (feature `rocksdb`, on by default), and [`memory::MemoryStorage`], which
//! forgets unsynced batches when it "crashes" and so stands for a disk in simulations. Everything that one applied batch
//! of transactions changes goes into one [`Batch`]: leaves, tree nodes, state records, deduplication and the applied
//! position can never disagree.

pub mod memory;
pub mod notes;
pub mod promises;
#[cfg(feature = "rocksdb")]
pub mod rocks;

/// A group of keys with one purpose and one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// Raft log entries by index (big-endian).
    Raft,
    /// Single values: hard state, applied position, frontier, ...
    Meta,
    /// Leaves by index (big-endian); the genesis file at 0.
    Leaf,
    /// Roots of complete subtrees of the Merkle log.
    Node,
    /// Records of the replicated state.
    State,
    /// Nonces of transactions that could still be submitted again.
    Dedup,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 6] = [Self::Raft, Self::Meta, Self::Leaf, Self::Node, Self::State, Self::Dedup];

    /// The column's name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Meta => "meta",
            Self::Leaf => "leaf",
            Self::Node => "node",
            Self::State => "state",
            Self::Dedup => "dedup",
        }
    }
}

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Column, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Column, Vec<u8>),
    /// Removes the keys from the first (included) to the second (excluded).
    DeleteRange(Column, Vec<u8>, Vec<u8>),
}

/// Changes that take effect together or not at all, in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch(Vec<Write>);

impl Batch {
    /// Adds a change.
    pub fn push(&mut self, write: Write) {
        self.0.push(write);
    }

    /// Sets a key.
    pub fn put(&mut self, column: Column, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.push(Write::Put(column, key.into(), value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, column: Column, key: impl Into<Vec<u8>>) {
        self.push(Write::Delete(column, key.into()));
    }

    /// Appends the changes of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The changes in order.
    pub fn writes(&self) -> &[Write] {
        &self.0
    }
}

/// A disk that can no longer be trusted. The replica stops before it loses anything: a failed sync is never repeated,
/// because nobody knows what it left behind.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the directory open.
    #[error("{path} is in use by another process: stop it first, or choose another directory")]
    InUse {
        /// The directory.
        path: String,
    },
    /// There is no ledger at that place.
    #[error("there is no ledger in {path}")]
    Missing {
        /// The directory.
        path: String,
    },
    /// Reading or writing failed.
    #[error("storage failed: {0}")]
    Io(String),
    /// What was read is not what was written.
    #[error("storage is damaged: {0}")]
    Corrupt(String),
}

/// A visited record, key before value.
pub type Record = (Vec<u8>, Vec<u8>);

/// What a replica keeps. See the module's documentation.
pub trait LogStorage: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the replica must stop.
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// At most `limit` records in the order of their keys, from `from` (included) on.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the replica must stop.
    fn scan(&self, column: Column, from: &[u8], limit: usize) -> Result<Vec<Record>, StorageError>;

    /// Applies a batch atomically. With `durable`, it and every batch before it survive a crash once this returns.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; the replica must stop, and whether the batch took effect is unknown until it is opened again.
    fn write(&self, batch: &Batch, durable: bool) -> Result<(), StorageError>;
}

/// Records per step of [`scan_all`].
const SCAN_STEP: usize = 1024;

/// Every record of a column, fetched in steps; ends after the first error.
pub fn scan_all<S: LogStorage + ?Sized>(
    storage: &S,
    column: Column,
    from: Vec<u8>,
) -> impl Iterator<Item = Result<Record, StorageError>> {
    let mut next = Some(from);
    let mut step = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(record) = step.next() {
                return Some(Ok(record));
            }
            let from = next.take()?;
            match storage.scan(column, &from, SCAN_STEP) {
                Ok(records) => {
                    if records.len() == SCAN_STEP {
                        // The smallest key after the last one.
                        next = records.last().map(|(key, _)| [key.as_slice(), &[0]].concat());
                    }
                    step = records.into_iter();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    })
}
