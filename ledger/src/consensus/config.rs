//! What a replica's consensus core is started with: settings, and what the disk gave back.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use raft::{ReadOnlyOption, eraftpb::Entry};

use super::{
    bounds,
    error::{ConsensusError, HardStateError},
    memory_log::MemoryLog,
};

/// The number of a replica in its cluster, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.0)
    }
}

/// The settings of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This replica.
    pub id: ReplicaId,
    /// A number that no earlier start of this replica had. It keeps the names of reads unique.
    pub boot_id: u64,
    /// Seed of the election timeouts. Replicas may share it, their ids differ.
    pub election_seed: u64,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// After how many ticks without a leader an election begins; every replica draws from this range anew in every
    /// term. Its start is also how long a leader stays one without hearing from a majority.
    pub election_ticks: RangeInclusive<u32>,
    /// How many bytes of log may be in memory before appends are refused until the caller compacts.
    pub log_size_bytes_max: u64,
    /// How many applied entries stay in memory for replicas that lag, so that they need no snapshot.
    pub catch_up_entries: u64,
}

impl Config {
    /// The defaults: heartbeats every 2 ticks, elections after 10 to 20.
    pub const fn new(id: ReplicaId, boot_id: u64, election_seed: u64) -> Self {
        Self {
            id,
            boot_id,
            election_seed,
            heartbeat_ticks: 2,
            election_ticks: 10..=20,
            log_size_bytes_max: bounds::LOG_SIZE_BYTES_MAX_DEFAULT,
            catch_up_entries: bounds::CATCH_UP_ENTRIES_DEFAULT,
        }
    }

    /// The settings of the Raft library, every one of them.
    pub(super) fn for_raft(&self, applied: u64) -> Result<raft::Config, ConsensusError> {
        let (start, end) = (*self.election_ticks.start(), *self.election_ticks.end());
        if self.heartbeat_ticks == 0 || start <= self.heartbeat_ticks || end < start || end == u32::MAX {
            return Err(ConsensusError::Ticks { heartbeat: self.heartbeat_ticks, start, end });
        }
        Ok(raft::Config {
            id: self.id.0,
            election_tick: start as usize,
            heartbeat_tick: self.heartbeat_ticks as usize,
            applied,
            max_size_per_msg: bounds::APPEND_SIZE_BYTES_MAX,
            max_inflight_msgs: bounds::APPENDS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: start as usize,
            max_election_tick: end as usize + 1,
            read_only_option: ReadOnlyOption::Safe,
            skip_bcast_commit: false,
            // Raft's batching knows no size limit and may join appends that do not follow each other; `outgoing` joins
            // them instead.
            batch_append: false,
            priority: 0,
            max_uncommitted_size: bounds::UNCOMMITTED_SIZE_BYTES_MAX,
            max_committed_size_per_ready: bounds::COMMITTED_SIZE_BYTES_PER_READY_MAX,
        })
    }

    /// The election timeout of this replica in `term`, in ticks: a hash of seed, replica and term (the finalizer of
    /// splitmix64), so that runs can be repeated and replicas rarely collide.
    pub(super) fn election_timeout(&self, term: u64) -> usize {
        let (start, end) = (u64::from(*self.election_ticks.start()), u64::from(*self.election_ticks.end()));
        let mut hash = self.election_seed;
        for part in [self.id.0, term] {
            hash = (hash ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            hash ^= hash >> 31;
        }
        // At most `end`, a `u32`.
        (start + hash % (end - start + 1)) as usize
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Index of the entry.
    pub index: u64,
    /// Term in which it was proposed.
    pub term: u64,
}

/// What a replica must remember besides its log, so that it never votes twice in a term (Raft, figure 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: u64,
    /// Whom this replica voted for in that term.
    pub vote: Option<ReplicaId>,
    /// Up to which index the log is known to be committed.
    pub commit: u64,
}

impl HardState {
    /// Three big-endian numbers: term, vote (0 for none), commit.
    pub fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let numbers = [self.term, self.vote.map_or(0, |vote| vote.0), self.commit];
        for (slot, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// The inverse of [`Self::to_bytes`].
    ///
    /// # Errors
    ///
    /// The number of bytes is not 24.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HardStateError> {
        let bytes: &[u8; 24] = bytes.try_into().map_err(|_| HardStateError { found: bytes.len() })?;
        let mut numbers =
            bytes.chunks_exact(8).map(|slot| slot.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        let mut next = || numbers.next().unwrap_or_default();
        let (term, vote, commit) = (next(), next(), next());
        Ok(Self { term, vote: (vote != 0).then_some(ReplicaId(vote)), commit })
    }

    pub(super) fn from_raft(state: &raft::eraftpb::HardState) -> Self {
        Self { term: state.term, vote: (state.vote != 0).then_some(ReplicaId(state.vote)), commit: state.commit }
    }

    fn to_raft(self) -> raft::eraftpb::HardState {
        raft::eraftpb::HardState {
            term: self.term,
            vote: self.vote.map_or(0, |vote| vote.0),
            commit: self.commit,
            ..Default::default()
        }
    }
}

/// A log entry as the disk keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index, the key on the disk.
    pub index: u64,
    /// Term in which it was proposed.
    pub term: u64,
    /// What was proposed; empty for the entry with which a leader begins its term.
    pub payload: Vec<u8>,
}

/// First byte of a stored entry: a payload. Changes of the voters will get another one.
const STORED_PAYLOAD: u8 = 0;

impl LogEntry {
    /// The value on the disk: a kind byte, the term (big-endian), the payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[STORED_PAYLOAD], self.term.to_be_bytes().as_slice(), &self.payload].concat()
    }

    /// The inverse of [`Self::to_bytes`] for the value at `index`.
    ///
    /// # Errors
    ///
    /// The bytes are no stored entry of this version.
    pub fn from_bytes(index: u64, bytes: &[u8]) -> Result<Self, ConsensusError> {
        let damaged = ConsensusError::EntryDamaged { index };
        let Some((&[STORED_PAYLOAD, ref term @ ..], payload)) = bytes.split_first_chunk::<9>() else {
            return Err(damaged);
        };
        Ok(Self { index, term: u64::from_be_bytes(*term), payload: payload.to_vec() })
    }
}

/// What the disk gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The last hard state written.
    pub hard_state: HardState,
    /// The last position that is no longer in the log.
    pub compacted: LogPosition,
    /// The log that follows it, without holes.
    pub entries: Vec<LogEntry>,
    /// Up to which index the state machine has applied, from the same batch as its state.
    pub applied: u64,
    /// The voters as of `applied`. They never change in this version.
    pub voters: BTreeSet<ReplicaId>,
}

impl Recovered {
    /// A new cluster's state, the same on every voter: an empty log that begins after index 1 of term 1.
    pub fn empty(voters: impl IntoIterator<Item = ReplicaId>) -> Self {
        Self {
            hard_state: HardState { term: 1, vote: None, commit: 1 },
            compacted: LogPosition { index: 1, term: 1 },
            entries: Vec::new(),
            applied: 1,
            voters: voters.into_iter().collect(),
        }
    }

    /// The log in memory, if everything fits together.
    pub(super) fn into_log(mut self, id: ReplicaId) -> Result<MemoryLog, ConsensusError> {
        self.check_voters(id)?;
        self.check_numbers()?;
        let entries = self.take_entries()?;
        let last = entries.last().map_or(self.compacted.index, |entry| entry.index);
        let (applied, first) = (self.applied, self.compacted.index);
        if !(first..=last).contains(&applied) {
            return Err(ConsensusError::AppliedOutsideLog { applied, first, last });
        }
        // What is applied is committed; the commit index itself is written lazily.
        let commit = self.hard_state.commit.max(applied);
        if commit > last {
            return Err(ConsensusError::CommitBeyondLog { commit, last });
        }
        let hard_state = HardState { commit, ..self.hard_state }.to_raft();
        Ok(MemoryLog::new(hard_state, self.voters.iter().map(|voter| voter.0).collect(), self.compacted, entries))
    }

    fn check_voters(&self, id: ReplicaId) -> Result<(), ConsensusError> {
        if !(1..=bounds::VOTERS_MAX).contains(&self.voters.len()) {
            return Err(ConsensusError::VoterCount { found: self.voters.len() });
        }
        if id.0 == 0 || self.voters.contains(&ReplicaId(0)) {
            return Err(ConsensusError::ReplicaZero);
        }
        for replica in [Some(id), self.hard_state.vote].into_iter().flatten() {
            if !self.voters.contains(&replica) {
                return Err(ConsensusError::NotAVoter { replica });
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConsensusError> {
        let numbers = [
            ("term", self.hard_state.term),
            ("compacted index", self.compacted.index),
            ("compacted term", self.compacted.term),
        ];
        for (what, value) in numbers {
            if !(1..=bounds::NUMBER_MAX).contains(&value) {
                return Err(ConsensusError::Number { what, value });
            }
        }
        if self.compacted.term > self.hard_state.term {
            return Err(ConsensusError::Number { what: "compacted term", value: self.compacted.term });
        }
        Ok(())
    }

    /// The entries, after a check that each follows the one before.
    fn take_entries(&mut self) -> Result<Vec<Entry>, ConsensusError> {
        let mut before = self.compacted;
        let highest = self.hard_state.term;
        let mut entries = Vec::with_capacity(self.entries.len());
        for LogEntry { index, term, payload } in std::mem::take(&mut self.entries) {
            if index != before.index + 1 {
                return Err(ConsensusError::LogGap { expected: before.index + 1, found: index });
            }
            if !(before.term..=highest).contains(&term) {
                return Err(ConsensusError::EntryTerm { index, term, lowest: before.term, highest });
            }
            if index > bounds::NUMBER_MAX || payload.len() > bounds::PAYLOAD_SIZE_BYTES_MAX {
                return Err(ConsensusError::EntryDamaged { index });
            }
            before = LogPosition { index, term };
            entries.push(Entry { index, term, data: payload.into(), ..Entry::default() });
        }
        Ok(entries)
    }
}
