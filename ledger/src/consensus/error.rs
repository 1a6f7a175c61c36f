//! Everything that the consensus core refuses, and why.

use std::fmt;

use raft::eraftpb::MessageType;

use super::{ReplicaId, bounds, wire::WireError};

/// A core that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The election timeouts do not fit the heartbeats.
    #[error(
        "elections after {start} to {end} ticks do not fit heartbeats every {heartbeat} ticks: \
             0 < heartbeat < shortest election <= longest election must hold"
    )]
    Ticks {
        /// Ticks between heartbeats.
        heartbeat: u32,
        /// Shortest election timeout, in ticks.
        start: u32,
        /// Longest election timeout, in ticks.
        end: u32,
    },
    /// There are no voters, or too many.
    #[error("a cluster has 1 to {max} voters, not {found}", max = bounds::VOTERS_MAX)]
    VoterCount {
        /// How many there are.
        found: usize,
    },
    /// Replica ids begin with 1; Raft uses 0 for nobody.
    #[error("replica id 0 is reserved: number the replicas from 1")]
    ReplicaZero,
    /// The replica is none of the voters.
    #[error("{replica} is not among the voters: check the id against the genesis file")]
    NotAVoter {
        /// The replica.
        replica: ReplicaId,
    },
    /// The recovered log has a hole.
    #[error("the recovered log continues with index {found} where {expected} must follow: restore this replica")]
    LogGap {
        /// The index that must follow.
        expected: u64,
        /// The index found.
        found: u64,
    },
    /// A recovered entry has an impossible term.
    #[error("the recovered entry {index} has term {term}, outside {lowest} to {highest}: restore this replica")]
    EntryTerm {
        /// The entry's index.
        index: u64,
        /// Its term.
        term: u64,
        /// The term of the entry before.
        lowest: u64,
        /// The recovered term.
        highest: u64,
    },
    /// A stored entry is none that this version writes.
    #[error("the recovered entry {index} is damaged: restore this replica")]
    EntryDamaged {
        /// The entry's index.
        index: u64,
    },
    /// The applied index is not covered by the recovered log.
    #[error("the applied index {applied} is outside the recovered log, {first} to {last}: restore this replica")]
    AppliedOutsideLog {
        /// The applied index.
        applied: u64,
        /// The compaction point.
        first: u64,
        /// The last index.
        last: u64,
    },
    /// The commit index is beyond the recovered log.
    #[error("the commit index {commit} is beyond the recovered log's end {last}: restore this replica")]
    CommitBeyondLog {
        /// The commit index.
        commit: u64,
        /// The last index.
        last: u64,
    },
    /// A recovered number is impossible.
    #[error("the recovered {what} {value} is impossible: restore this replica")]
    Number {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// The Raft library refused to start.
    #[error("raft refused to start")]
    Start(#[source] StartError),
}

/// Why the Raft library refused to start.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(pub(super) raft::Error);

/// Stored bytes that are not a hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hard state has 24 bytes, not {found}")]
pub struct HardStateError {
    /// How many bytes were found.
    pub found: usize,
}

/// What kind of message was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MessageKind(pub(super) MessageType);

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A message that was not handed to Raft; this replica's state is unchanged.
///
/// Late messages of honest replicas can be refused too (`VoteNotAsked`, `ReadUnknown`, `NotLeader`, ...), so one
/// refusal is no proof of anything. [`Self::is_suspicious`] tells those apart that no honest replica causes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageRefused {
    /// A snapshot's manifest does not say what the snapshot stands for.
    #[error("the manifest of a snapshot is malformed")]
    Manifest,
    /// The message is too large.
    #[error("a message has at most {max} bytes, not {found}", max = bounds::MESSAGE_SIZE_BYTES_MAX)]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// The bytes are not a message.
    #[error("not a consensus message")]
    Malformed(#[from] WireError),
    /// The message names another sender than the connection it came over.
    #[error("a message from {claimed} came over the connection of {from}")]
    ForgedSender {
        /// The authenticated peer.
        from: ReplicaId,
        /// The sender in the message.
        claimed: ReplicaId,
    },
    /// The sender is none of the other voters.
    #[error("{from} is not a peer in this cluster")]
    UnknownPeer {
        /// The authenticated peer.
        from: ReplicaId,
    },
    /// The message is for another replica.
    #[error("the message is for {to}, not for this replica")]
    NotForUs {
        /// The receiver in the message.
        to: ReplicaId,
    },
    /// Peers may not send this kind of message.
    #[error("{kind} may not come from a peer")]
    Forbidden {
        /// The kind of message.
        kind: MessageKind,
    },
    /// A number in the message is impossible.
    #[error("{kind} has an impossible number {value}")]
    NumberOutOfRange {
        /// The kind of message.
        kind: MessageKind,
        /// The number.
        value: u64,
    },
    /// The message has a term where none belongs, none where one belongs, or one that is too far ahead.
    #[error("{kind} has term {term}, and {lowest} to {highest} were expected")]
    Term {
        /// The kind of message.
        kind: MessageKind,
        /// Its term.
        term: u64,
        /// Lowest acceptable term.
        lowest: u64,
        /// Highest acceptable term.
        highest: u64,
    },
    /// The message has a context that no replica sends.
    #[error("{kind} has a context of {size} bytes that no replica sends")]
    Context {
        /// The kind of message.
        kind: MessageKind,
        /// The context's size in bytes.
        size: usize,
    },
    /// The entries do not follow each other.
    #[error("entry {found} stands where entry {expected} belongs")]
    EntryOutOfOrder {
        /// The index that belongs there.
        expected: u64,
        /// The index found.
        found: u64,
    },
    /// The terms of the entries are impossible.
    #[error("entry {index} has term {term}, outside {lowest} to {highest}")]
    EntryTerm {
        /// The entry's index.
        index: u64,
        /// Its term.
        term: u64,
        /// The term of the entry before.
        lowest: u64,
        /// The term of the message.
        highest: u64,
    },
    /// The entry would change the configuration, which this version does not do.
    #[error("entry {index} would change the voters: this version has a fixed configuration")]
    EntryKind {
        /// The entry's index.
        index: u64,
    },
    /// The entry's payload is too large.
    #[error("the payload of entry {index} has {size} bytes, and at most {max} are allowed",
            max = bounds::PAYLOAD_SIZE_BYTES_MAX)]
    PayloadTooLarge {
        /// The entry's index.
        index: u64,
        /// The payload's size in bytes.
        size: usize,
    },
    /// The message contradicts an entry that is committed here. One of the two replicas is not what it claims to be.
    #[error("committed entry {index} has term {ours} here and term {theirs} in the message")]
    ConflictsWithCommitted {
        /// The entry's index.
        index: u64,
        /// Its term here.
        ours: u64,
        /// Its term in the message.
        theirs: u64,
    },
    /// The leader believes that this replica has entries that it does not have: the leader lies, or this replica lost
    /// what it had acknowledged.
    #[error(
        "commit index {commit} is beyond the end {last} of this replica's log: \
             if its disk was replaced or rolled back, restore this replica"
    )]
    CommitBeyondLog {
        /// The commit index in the message.
        commit: u64,
        /// The last index here.
        last: u64,
    },
    /// A follower acknowledges entries that were never sent.
    #[error("index {index} is beyond the end {last} of the leader's log")]
    ResponseBeyondLog {
        /// The index in the message.
        index: u64,
        /// The last index here.
        last: u64,
    },
    /// A follower demands a snapshot, which this version never does.
    #[error("a snapshot was demanded")]
    SnapshotDemanded,
    /// A second leader claims the term.
    #[error("{claimed} claims to lead term {term}, which {leader} leads")]
    SecondLeader {
        /// The term.
        term: u64,
        /// Its leader.
        leader: ReplicaId,
        /// Who claims it too.
        claimed: ReplicaId,
    },
    /// A vote answers a request that was not sent.
    #[error("{kind} answers a request that was not sent")]
    VoteNotAsked {
        /// The kind of message.
        kind: MessageKind,
    },
    /// The voters in the snapshot are not this cluster's.
    #[error("the snapshot's voters are not this cluster's")]
    SnapshotVoters,
    /// The snapshot has no position or an impossible one.
    #[error("the snapshot has the impossible position {index} of term {term}")]
    SnapshotPosition {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// The snapshot's manifest is too large.
    #[error("the snapshot's manifest has {size} bytes, and at most {max} are allowed",
            max = bounds::MANIFEST_SIZE_BYTES_MAX)]
    ManifestTooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Another snapshot is being installed.
    #[error("a snapshot is being installed")]
    Installing,
    /// The message is for the leader only, or from the leader only.
    #[error("{kind} does not concern this replica's leader")]
    NotLeader {
        /// The kind of message.
        kind: MessageKind,
    },
    /// A read is not named as reads are.
    #[error("the read is not named after its replica")]
    ReadName,
    /// The answer is to no read that waits here.
    #[error("the answer is to no read that waits here")]
    ReadUnknown,
    /// Too many of the sender's reads wait.
    #[error("{max} reads of {from} wait already", max = bounds::READS_PENDING_MAX)]
    TooManyReads {
        /// The sender.
        from: ReplicaId,
    },
    /// The log in memory is full; compaction makes room.
    #[error("the log has {size} bytes in memory: it must be compacted first")]
    LogFull {
        /// Its size in bytes.
        size: u64,
    },
    /// The disk is too far behind to take more.
    #[error("{max} writes are under way: the disk is behind", max = bounds::WRITES_IN_FLIGHT_MAX)]
    DiskBehind,
    /// Raft itself refused the message.
    #[error("raft did not take {kind}")]
    NotTaken {
        /// The kind of message.
        kind: MessageKind,
    },
}

impl MessageRefused {
    /// Whether no honest replica in good health sends such a message, however late it arrives.
    pub const fn is_suspicious(&self) -> bool {
        !matches!(
            self,
            Self::VoteNotAsked { .. }
                | Self::Installing
                | Self::NotLeader { .. }
                | Self::ReadUnknown
                | Self::TooManyReads { .. }
                | Self::LogFull { .. }
                | Self::DiskBehind
                | Self::NotTaken { .. }
        )
    }
}

/// A payload that was not appended. Whoever proposed may try again, with the same transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader appends.
    #[error("this replica does not lead: {}", hint(*leader))]
    NotLeader {
        /// The leader, if one is known.
        leader: Option<ReplicaId>,
    },
    /// Too much is uncommitted, leadership is being handed over, or the log in memory is full.
    #[error("too much waits to be committed, or leadership is being handed over: try again later")]
    Busy,
    /// The payload is too large.
    #[error("a payload has at most {max} bytes, not {found}", max = bounds::PAYLOAD_SIZE_BYTES_MAX)]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// The payload is empty; empty entries are Raft's own.
    #[error("an empty payload cannot be proposed")]
    Empty,
}

/// A read that was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader is known.
    #[error("no leader is known: try again later")]
    NoLeader,
    /// This replica leads, but has not committed in its term yet.
    #[error("the leader is new and has committed nothing yet: try again later")]
    LeaderIsNew,
    /// Too many reads wait.
    #[error("{max} reads wait already: try again later", max = bounds::READS_PENDING_MAX)]
    TooMany,
}

/// A report of progress that contradicts what was handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgressError {
    /// No such `Ready` was handed out.
    #[error("ready {number} was never handed out; the last one is {last}")]
    UnknownReady {
        /// The number reported.
        number: u64,
        /// The last number handed out.
        last: u64,
    },
    /// The entry was not handed out for application.
    #[error("entry {index} was never handed out as committed; the last one is {last}")]
    NotCommitted {
        /// The index reported.
        index: u64,
        /// The last index handed out.
        last: u64,
    },
    /// A snapshot can only stand for what is applied and not yet compacted.
    #[error("a snapshot at {index} is outside the applied log in memory, {first} to {applied}")]
    SnapshotOutsideLog {
        /// The snapshot's index.
        index: u64,
        /// The compaction point.
        first: u64,
        /// The applied index.
        applied: u64,
    },
    /// The manifest is too large.
    #[error("a manifest has at most {max} bytes, not {found}", max = bounds::MANIFEST_SIZE_BYTES_MAX)]
    ManifestTooLarge {
        /// Its size in bytes.
        found: usize,
    },
}

/// Leadership that cannot be handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader hands over.
    #[error("this replica does not lead: {}", hint(*leader))]
    NotLeader {
        /// The leader, if one is known.
        leader: Option<ReplicaId>,
    },
    /// The successor is no other voter.
    #[error("{to} is no other voter of this cluster")]
    NotAPeer {
        /// The successor.
        to: ReplicaId,
    },
}

/// Where to turn instead.
fn hint(leader: Option<ReplicaId>) -> String {
    leader.map_or_else(|| "no leader is known, try again later".into(), |leader| format!("ask {leader}"))
}
