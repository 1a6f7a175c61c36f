//! What the API asks of the replica that it stands for.

use std::{collections::BTreeSet, fmt, pin::Pin};

use bytes::Bytes;
use fedledger_federation::member::{MemberId, Role};
use fedledger_ledger::{Digest, PublicKey, log::Refusal, storage::StorageError};
use fedledger_proto::api::NodeStatus;
use tokio::{io::AsyncRead, sync::watch};

/// The replica, as the API sees it. The API is the only caller; it has bounded what it passes on.
///
/// Every method may be called at any time from many tasks. Futures may be dropped before they are ready, when a client
/// gives up; what they began may then still happen.
pub trait Backend: Send + Sync + 'static {
    /// Brings a signed transaction of at most
    /// [`ENVELOPE_SIZE_BYTES_MAX`](fedledger_ledger::limits::ENVELOPE_SIZE_BYTES_MAX) bytes onto the ledger, through
    /// the leader if need be, and waits until it is applied here. Bytes that are on the ledger already have the outcome
    /// that they had.
    fn submit(&self, envelope: Bytes) -> impl Future<Output = Result<SubmitOutcome, SubmitError>> + Send;

    /// Where the replica stands.
    fn status(&self) -> impl Future<Output = Result<NodeStatus, ReadError>> + Send;

    /// What the Merkle log hashes at `index`: a leaf, or the genesis file at 0. `None` beyond the end.
    fn leaf(&self, index: u64) -> impl Future<Output = Result<Option<Bytes>, ReadError>> + Send;

    /// The number of entries that are applied and can be read. It never falls, and it rises only after the state that
    /// [`Backend::member_of_api_key`] and [`Backend::is_raw_update`] answer from has changed.
    fn size_changes(&self) -> watch::Receiver<u64>;

    /// The genesis file.
    fn genesis(&self) -> Bytes;

    /// The latest signed head of the log, if there is one.
    fn checkpoint(&self) -> impl Future<Output = Result<Option<String>, ReadError>> + Send;

    /// The audit path of entry `index` in the log of `size` entries.
    fn inclusion_proof(&self, index: u64, size: u64) -> impl Future<Output = Result<Vec<Digest>, ReadError>> + Send;

    /// Whether the replica holds a blob.
    fn has_blob(&self, digest: &Digest) -> impl Future<Output = Result<bool, ReadError>> + Send;

    /// A blob, to be read from the beginning.
    fn blob(&self, digest: &Digest) -> impl Future<Output = Result<Option<Blob>, ReadError>> + Send;

    /// Whose API key this is in the ledger's current state. `None` for a revoked key.
    fn member_of_api_key(&self, key: &PublicKey) -> Option<Caller>;

    /// Whether a blob is a participant's raw update, which only replicas and auditors may read. This must hold of an
    /// uploaded blob already while nothing on the ledger says what it is.
    fn is_raw_update(&self, digest: &Digest) -> bool;
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The member.
    pub member: MemberId,
    /// What it may do.
    pub roles: BTreeSet<Role>,
}

/// What became of a submitted transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitOutcome {
    /// Its place in the log.
    pub index: u64,
    /// The bytes of its leaf.
    pub leaf: Bytes,
    /// Why it was rejected, for people.
    pub reason: Option<String>,
}

/// A blob that is about to be read.
pub struct Blob {
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a blob of {} bytes", self.size)
    }
}

/// A transaction that was not brought onto the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It can never be applied as it stands.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// Nobody leads, or a majority of the replicas cannot be reached.
    #[error("no leader is known: a majority of the replicas must run and reach each other; try again later")]
    NoLeader,
    /// Too much waits already.
    #[error("too many transactions wait to be committed: try again later")]
    Busy,
    /// It was not committed in time; it may still be.
    #[error("the transaction was not committed in time, but may still be: submit the same bytes again")]
    TimedOut,
    /// The replica is shutting down or has stopped taking work.
    #[error("this replica takes no transactions any more: try another one")]
    Stopping,
}

/// A question that the replica cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A proof that does not exist.
    #[error(
        "there is no proof of entry {index} in a log of {size} entries, this log has {log_size}: ask for a smaller size"
    )]
    NoProof {
        /// Entry asked for.
        index: u64,
        /// Size of the log asked for.
        size: u64,
        /// Size of the log.
        log_size: u64,
    },
    /// Too much is going on.
    #[error("this replica has too much to do: try again later")]
    Busy,
    /// The replica is shutting down or has stopped taking work.
    #[error("this replica has stopped: try another one")]
    Stopping,
    /// The storage fails or is damaged.
    #[error("the storage fails: {0}")]
    Storage(#[from] StorageError),
    /// A blob cannot be opened.
    #[error("a blob cannot be opened: {0}")]
    Blob(#[from] std::io::Error),
}
