//! What becomes of submissions and reads, and why a replica must stop.

use crate::{
    consensus::{ConsensusError, ProposeError, ReplicaId},
    digest::Digest,
    log::{Refusal, ReplayError},
    storage::StorageError,
};

/// The answer to a waiting caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The transaction is the leaf at this index; when the state machine refused it just now, the reason in words.
    Committed {
        /// Index of the leaf.
        index: u64,
        /// Why it was rejected, where that is known.
        reason: Option<String>,
    },
    /// The transaction did not become a leaf.
    Refused(Refusal),
    /// Everything that was committed when the read began is applied.
    Read,
    /// The read was lost; begin another.
    ReadLost,
}

/// How a submission goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// It is at this index already.
    Known(u64),
    /// It was proposed; the answer will come.
    Proposed,
    /// It is to be sent to the leader, if there is one; the answer will come once it is applied here.
    Forward(Option<ReplicaId>),
}

/// Why a submission is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It is no valid transaction now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is a seal, which leaders propose of their own accord only: others could keep every head from becoming final.
    #[error("seals are proposed by the replica that leads and cannot be submitted")]
    Seal,
    /// Too much is under way.
    #[error("the replica is busy: try again a little later")]
    Busy,
    /// The proposal is impossible.
    #[error(transparent)]
    Propose(ProposeError),
}

/// A replica that must stop, because going on could lose or fork history.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the storage gave back does not fit together.
    #[error("the stored state does not fit together: {0}")]
    Recovery(#[from] ConsensusError),
    /// The genesis file cannot be used.
    #[error("{0}")]
    Genesis(String),
    /// The directory belongs to another consortium.
    #[error("the ledger in this directory belongs to chain {found}, the genesis file is chain {expected}")]
    OtherChain {
        /// Digest of the genesis file.
        expected: Digest,
        /// Chain of the stored ledger.
        found: Digest,
    },
    /// A received leaf contradicts what this replica computes.
    #[error("entry {index} received from a peer does not follow from the entries before it: {error}")]
    Diverged {
        /// Index of the leaf.
        index: u64,
        /// How.
        error: ReplayError,
    },
    /// The leaves received for a snapshot are not those that it describes.
    #[error(
        "the first {size} entries have the root {found}, the snapshot says {expected}: the leader, or whoever sent the \
         entries, does not hold this log; the members must find out which one lies"
    )]
    SnapshotRoot {
        /// Entries that the snapshot describes.
        size: u64,
        /// Root in the snapshot's manifest.
        expected: Digest,
        /// Root computed.
        found: Digest,
    },
    /// The log's root at the snapshot's size is not known.
    #[error("a snapshot of {size} entries was taken without comparing it with the log of {log} entries")]
    SnapshotSize {
        /// Entries that the snapshot describes.
        size: u64,
        /// Entries in the log.
        log: u64,
    },
    /// It has co-signed more than its storage holds.
    #[error(
        "this replica has co-signed the first {cosigned} entries, its storage holds {size}: it has lost what it vouched \
         for, and must not go on under this identity; have its members admit a new one"
    )]
    CosignedLost {
        /// Entries under the last head that it has co-signed.
        cosigned: u64,
        /// Entries that it holds.
        size: u64,
    },
    /// Its storage holds other entries than it has co-signed.
    #[error(
        "this replica has co-signed the root {cosigned} of {size} entries, its storage leads to {found}: the storage was \
         changed; restore it from a backup or a peer"
    )]
    CosignedChanged {
        /// Entries under the last head that it has co-signed.
        size: u64,
        /// Root that it has co-signed.
        cosigned: Digest,
        /// Root of the entries that it holds.
        found: Digest,
    },
    /// A leader wants to replace entries that this replica has co-signed.
    #[error(
        "{from} wants to replace the entry at Raft index {index} of term {ours} by one of term {theirs}, but this replica \
         has co-signed it: the message is kept as evidence; the members must decide which history holds"
    )]
    Fork {
        /// Who sent the message.
        from: ReplicaId,
        /// Raft index of the entry.
        index: u64,
        /// Term of the entry that was co-signed.
        ours: u64,
        /// Term of the entry that is to replace it.
        theirs: u64,
        /// The message.
        message: Vec<u8>,
    },
    /// The other replicas have computed another state or another log.
    #[error(
        "{signers:?} have co-signed the root {theirs} of {size} entries, this replica has computed {own}: its state or \
         its software differs; it stops before it misleads anybody"
    )]
    RootDiverged {
        /// Entries under the head.
        size: u64,
        /// Root that this replica has computed.
        own: Digest,
        /// Root that the others have co-signed.
        theirs: Digest,
        /// Who they are.
        signers: Vec<String>,
    },
    /// The order of steps was violated; a defect.
    #[error("internal order violated: {0}")]
    Order(String),
}
