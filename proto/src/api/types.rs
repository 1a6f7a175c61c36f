//! What a replica says of itself.

use std::fmt;

use fedledger_federation::progress::PlanProgress;
use fedledger_ledger::Digest;
use serde::Serialize;

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Name of the node, such as `cleveland/replica`.
    pub node: String,
    /// Version of its software.
    pub software: String,
    /// Name of the consortium.
    pub consortium: String,
    /// SHA-256 of the genesis file.
    pub chain: Digest,
    /// What the replica is in Raft.
    pub role: RaftRole,
    /// Name of the leading node, if one is known.
    pub leader: Option<String>,
    /// The latest Raft term.
    pub term: u64,
    /// Raft index up to which entries are committed.
    pub committed_index: u64,
    /// Raft index up to which entries are applied.
    pub applied_index: u64,
    /// Raft index of the last entry.
    pub last_index: u64,
    /// Entries in the log.
    pub log_size: u64,
    /// Merkle root over them.
    pub root: Digest,
    /// Entries that are final.
    pub final_size: u64,
    /// Co-signatures that make a checkpoint final.
    pub finality_threshold: u64,
    /// The latest checkpoint, as a signed note; none before the first seal.
    pub checkpoint: Option<String>,
    /// The other replicas.
    pub peers: Vec<PeerStatus>,
    /// Entries under a head that every replica has co-signed.
    pub unanimous_size: u64,
    /// Entries under the last head that this replica has co-signed.
    pub cosigned_size: u64,
    /// Number of the epoch in force: which replicas make heads final.
    pub epoch: u64,
    /// The last seal, final or not.
    pub seal: Option<SealStatus>,
    /// Trusted time of the final head, in seconds since the Unix epoch; none before the first.
    pub trusted_time_s: Option<u64>,
    /// Where the plans stand that are carried out, as this replica sees it; at most
    /// [`PLANS_MAX`](super::limits::PLANS_MAX).
    pub progress: Vec<PlanProgress>,
}

/// A seal of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SealStatus {
    /// Seals are counted from 1.
    pub number: u64,
    /// Its place in the log.
    pub index: u64,
    /// The leader's time, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// What a replica knows of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    /// Name of the node.
    pub node: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Raft index up to which its log is known to match; only the leader knows.
    pub matched_index: Option<u64>,
    /// Size of the last log head that it is known to have co-signed.
    pub cosigned_size: Option<u64>,
}

/// How sure an entry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A replica has taken the transaction and will bring it onto the ledger.
    Accepted,
    /// A majority of the replicas has it on disk: a crash does not undo it.
    #[default]
    Committed,
    /// Enough replicas have co-signed a head over it: no dishonest minority can undo it.
    Final,
    /// Every replica has co-signed a head over it.
    Unanimous,
}

impl Level {
    /// The level as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Committed => "committed",
            Self::Final => "final",
            Self::Unanimous => "unanimous",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A replica's role in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RaftRole {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}
