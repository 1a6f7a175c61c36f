//! What the API asks of the replica that it stands for.

use std::{collections::BTreeSet, fmt, pin::Pin, time::Duration};

use bytes::Bytes;
use fedledger_federation::member::{MemberId, Role};
use fedledger_ledger::{
    Digest, PublicKey, epoch::EpochLink, intake::IntakeReceipt, log::Refusal, storage::StorageError,
};
use fedledger_proto::api::{HeadAnswer, HeadId, Level, NodeStatus};
use tokio::{io::AsyncRead, sync::watch};

use crate::{
    checkpoints::{CheckpointFailure, Latest},
    replica::Finalized,
};

/// The replica, as the API sees it. The API is the only caller; it has bounded what it passes on.
///
/// Every method may be called at any time from many tasks. Futures may be dropped before they are ready, when a client
/// gives up; what they began may then still happen.
pub trait Backend: Send + Sync + 'static {
    /// Brings a signed transaction of at most
    /// [`ENVELOPE_SIZE_BYTES_MAX`](fedledger_ledger::limits::ENVELOPE_SIZE_BYTES_MAX) bytes onto the ledger, through
    /// the leader if need be, and waits until it is applied here and has reached the level `wait`. Bytes that are on the
    /// ledger already have the outcome that they had. [`Level::Accepted`] is answered with the replica's promise at once,
    /// on account of `member`.
    fn submit(
        &self,
        envelope: Bytes,
        wait: Level,
        member: &MemberId,
    ) -> impl Future<Output = Result<SubmitOutcome, SubmitError>> + Send;

    /// Where the replica stands.
    fn status(&self) -> impl Future<Output = Result<NodeStatus, ReadError>> + Send;

    /// What the Merkle log hashes at `index`: a leaf, or the genesis file at 0. `None` beyond the end.
    fn leaf(&self, index: u64) -> impl Future<Output = Result<Option<Bytes>, ReadError>> + Send;

    /// The number of entries that are applied and can be read. It never falls, and it rises only after the state that
    /// [`Backend::member_of_api_key`] and [`Backend::is_raw_update`] answer from has changed.
    fn size_changes(&self) -> watch::Receiver<u64>;

    /// How many of these entries are final.
    fn finality_changes(&self) -> watch::Receiver<Finalized>;

    /// The genesis file.
    fn genesis(&self) -> Bytes;

    /// The latest final head of the log, or the latest signed one, if there is any; and how it extends `known`, the note of
    /// a head that the caller has seen.
    fn checkpoint(
        &self,
        known: Option<String>,
    ) -> impl Future<Output = Result<Option<Latest>, CheckpointFailure>> + Send;

    /// Refuses a head that a client knows if the log has another one of that size.
    fn holds(&self, known: &HeadId) -> impl Future<Output = Result<(), CheckpointFailure>> + Send;

    /// The newest final head, and how it extends the one that a client knows.
    fn head_since(&self, known: &HeadId) -> impl Future<Output = Result<HeadAnswer, CheckpointFailure>> + Send;

    /// The epoch that came into force after the one with this number, and how its replicas vouch for it; with its own
    /// number.
    fn epoch_link(&self, after: u64) -> impl Future<Output = Result<Option<(u64, EpochLink)>, ReadError>> + Send;

    /// The proof that the log of `new_size` entries begins with that of `old_size`.
    fn consistency_proof(
        &self,
        old_size: u64,
        new_size: u64,
    ) -> impl Future<Output = Result<Vec<Digest>, ReadError>> + Send;

    /// What the last final seal says of a record.
    fn state_proof(&self, key: Bytes) -> impl Future<Output = Result<StateAnswer, ReadError>> + Send;

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
pub enum SubmitOutcome {
    /// The replica will bring it onto the ledger.
    Accepted(IntakeReceipt),
    /// It is on the ledger.
    Recorded(Recorded),
}

/// A record of the replicated state, as the last final seal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateAnswer {
    /// Index of the seal.
    pub seal_index: u64,
    /// The proof, encoded.
    pub proof: Bytes,
    /// The value, if there is one.
    pub value: Option<Bytes>,
}

/// A transaction that is on the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the log.
    pub index: u64,
    /// The bytes of its leaf.
    pub leaf: Bytes,
    /// Why it was rejected, for people.
    pub reason: Option<String>,
    /// The level that it has reached.
    pub level: Level,
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
    /// It is of a kind that nobody submits.
    #[error("seals are proposed by the replica that leads and cannot be submitted")]
    Seal,
    /// Nobody leads, or a majority of the replicas cannot be reached.
    #[error("no leader is known: a majority of the replicas must run and reach each other; try again later")]
    NoLeader,
    /// Too much waits already.
    #[error("too many transactions wait to be committed: try again later")]
    Busy,
    /// It was not committed in time; it may still be.
    #[error("the transaction was not committed in time, but may still be: submit the same bytes again")]
    TimedOut,
    /// It may expire too soon for a promise.
    #[error(
        "the transaction may expire at log index {not_after_index}, before index {by_index} by which it would be promised to \
         be on the log: sign it anew with a later expiry, or wait until it is committed"
    )]
    ExpiresTooSoon {
        /// Its expiry.
        not_after_index: u64,
        /// Index of the promise.
        by_index: u64,
    },
    /// It is on the ledger, but not enough replicas have co-signed a head over it in time.
    #[error(
        "the transaction is committed as entry {index}, but not {level} within {} s: too few replicas co-sign; it stays \
         committed and need not be submitted again, see `fedledger status`",
        after.as_secs()
    )]
    NotFinal {
        /// Its place in the log.
        index: u64,
        /// The level asked for.
        level: Level,
        /// How long was waited.
        after: Duration,
    },
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
    /// A proof between sizes that are none of this log, or in the wrong order.
    #[error(
        "there is no proof that a log of {new_size} entries begins with one of {old_size}, this log has {log_size}: ask for \
         smaller sizes, the earlier one first"
    )]
    NoConsistency {
        /// Size of the earlier log.
        old_size: u64,
        /// Size of the later log.
        new_size: u64,
        /// Size of the log.
        log_size: u64,
    },
    /// No head has become final since the replica started.
    #[error("no head has become final since this replica started: try again after the next entry, or ask another one")]
    NoFinalState,
    /// The storage is always ahead of the last final seal.
    #[error("this record changes faster than seals become final: try again later")]
    RecordChanges,
    /// A record that does not fit into an answer.
    #[error("the record has {size} bytes, which is more than is sent")]
    RecordTooLarge {
        /// Its size in bytes.
        size: usize,
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
