//! What the core asks its caller to do, and what it tells about itself.

use super::{
    config::{HardState, LogEntry, LogPosition, ReplicaId},
    reads::ReadId,
};

/// Work for the caller, to be done in the order of the fields.
///
/// The next [`Consensus::ready`](super::Consensus::ready) may be asked for, and messages may be received, before the
/// work is done; but writes, applications and installations of successive ones keep their order.
#[derive(Debug, Default)]
pub struct Ready {
    /// Its number, for [`Consensus::persisted`](super::Consensus::persisted).
    pub number: u64,
    /// Send these at once. They may be lost and delayed; they must not be repeated.
    pub messages: Vec<Outgoing>,
    /// Install this before anything else, replacing the state machine: the caller fetched the bulk before it let the
    /// message in (see [`Consensus::peek_snapshot`](super::Consensus::peek_snapshot)). Installed in one batch with
    /// `log`, which then follows the snapshot's position: every older entry is gone. Afterwards call
    /// [`Consensus::applied`](super::Consensus::applied) with its index. There are no `committed` entries beside it.
    pub snapshot: Option<SnapshotMeta>,
    /// Write this.
    pub log: Option<LogWrite>,
    /// Apply these to the state machine, in order, then call [`Consensus::applied`](super::Consensus::applied). They
    /// are on this replica's disk already.
    pub committed: Vec<Committed>,
    /// Each of these reads sees everything that was committed when it began, once the state machine has applied up to
    /// the index beside it.
    pub reads: Vec<(ReadId, u64)>,
    /// These reads got no answer in time and never will: begin new ones.
    pub lost_reads: Vec<ReadId>,
    /// What this replica has become, if that changed.
    pub role: Option<RoleChange>,
}

/// One atomic write to the log on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWrite {
    /// Entries that follow each other. Everything on the disk from the first one's index on is replaced: older entries
    /// with higher indexes must be deleted in the same batch.
    pub entries: Vec<LogEntry>,
    /// The new hard state, in the same batch.
    pub hard_state: Option<HardState>,
    /// Whether the batch must survive a crash: sync it, then call
    /// [`Consensus::persisted`](super::Consensus::persisted) with the number of its [`Ready`]. Without it only the
    /// commit index changes; write it with the next batch or at leisure, nothing is to be reported.
    pub must_sync: bool,
}

/// A message for a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The receiver.
    pub to: ReplicaId,
    /// The message.
    pub bytes: Vec<u8>,
    /// Whether it is a snapshot: if it cannot be sent, say so with
    /// [`Consensus::snapshot_failed`](super::Consensus::snapshot_failed).
    pub is_snapshot: bool,
}

/// A snapshot: a position of the log and what describes the state there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that it stands for.
    pub position: LogPosition,
    /// What its maker gave to [`Consensus::set_snapshot`](super::Consensus::set_snapshot).
    pub manifest: Vec<u8>,
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What was proposed. Empty for the entry with which a leader begins its term: nothing is to be applied, but the
    /// applied index advances.
    pub payload: Vec<u8>,
}

impl Committed {
    /// Whether this is the entry with which a leader begins its term.
    pub const fn is_noop(&self) -> bool {
        self.payload.is_empty()
    }
}

/// What a replica is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it would be elected (Raft dissertation, section 9.6).
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

impl Role {
    pub(super) const fn from_raft(role: raft::StateRole) -> Self {
        match role {
            raft::StateRole::Follower => Self::Follower,
            raft::StateRole::PreCandidate => Self::PreCandidate,
            raft::StateRole::Candidate => Self::Candidate,
            raft::StateRole::Leader => Self::Leader,
        }
    }
}

/// A change of role or leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    /// What this replica is now.
    pub role: Role,
    /// Who leads now, if that is known.
    pub leader: Option<ReplicaId>,
}

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This replica.
    pub id: ReplicaId,
    /// What it is.
    pub role: Role,
    /// Who leads, if that is known.
    pub leader: Option<ReplicaId>,
    /// The latest term.
    pub term: u64,
    /// Up to which index the log is known to be committed.
    pub commit: u64,
    /// Up to which index the state machine has applied.
    pub applied: u64,
    /// Index of the last entry.
    pub last: u64,
    /// Up to which index the log is on this replica's disk.
    pub persisted: u64,
    /// The last position that is no longer in the log.
    pub compacted: LogPosition,
    /// How much memory the log takes.
    pub log_size_bytes: u64,
    /// The other voters by id, if this replica leads.
    pub peers: Vec<PeerStatus>,
}

/// What a leader knows of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub id: ReplicaId,
    /// Up to which index its log is known to match.
    pub matched: u64,
    /// Whether it was heard of recently.
    pub active: bool,
    /// Whether it is being sent a snapshot.
    pub snapshot: bool,
}
