//! Consensus on the order of the log: Raft (Ongaro and Ousterhout, 2014) as a pure state machine.
//!
//! [`Consensus`] drives the `raft` crate and does no IO: time comes in as ticks, messages as bytes, and everything that
//! is to be done comes out as a [`Ready`]. The caller is a loop:
//!
//! 1. hand in what happened: [`tick`](Consensus::tick), [`receive`](Consensus::receive),
//!    [`propose`](Consensus::propose), [`persisted`](Consensus::persisted), [`applied`](Consensus::applied);
//! 2. while there is a [`ready`](Consensus::ready), do what it says.
//!
//! What the wrapper adds to the crate:
//!
//! - Messages that wait for the disk are kept here and come out of [`persisted`](Consensus::persisted), so nothing can
//!   be acknowledged before it is durable.
//! - No message of a peer can make Raft panic or act in another's name (`validate`).
//! - Reads never reuse a context, which would make them stale (`reads`).
//! - Election timeouts are a hash of seed, replica and term, so runs can be repeated.
//! - Snapshots carry a manifest only. A replica that stays without progress gets another one.
//!
//! The voters are fixed. Changes of the configuration are never proposed, and refused from peers.

pub mod bounds;
mod config;
mod error;
mod logging;
mod memory_log;
mod outgoing;
mod persistence;
mod reads;
mod ready;
mod validate;
mod wire;

use std::collections::BTreeMap;

use raft::{
    ProgressState, RawNode, SnapshotStatus, StateRole,
    eraftpb::{Message, MessageType},
};

pub use config::{Config, HardState, LogEntry, LogPosition, Recovered, ReplicaId};
pub use error::{
    ConsensusError, HardStateError, MessageKind, MessageRefused, ProgressError, ProposeError, ReadError, StartError,
    TransferError,
};
pub use reads::ReadId;
pub use ready::{Committed, LogWrite, Outgoing, PeerStatus, Ready, Role, RoleChange, SnapshotMeta, Status};
pub use wire::WireError;

use memory_log::MemoryLog;
use persistence::Persistence;
use reads::Reads;
use validate::Gate;

/// One replica's part in the consensus. See the module's documentation.
pub struct Consensus {
    config: Config,
    raw: RawNode<MemoryLog>,
    persistence: Persistence,
    reads: Reads,
    /// Up to which index entries or snapshots were handed out for application.
    handed_out: u64,
    /// Up to which index the caller has applied.
    applied: u64,
    /// The snapshot that was handed out last, until it is applied. Raft must not begin an election meanwhile: it would
    /// look for entries that the snapshot replaced.
    installing: Option<u64>,
    /// For how many ticks each peer has been sent a snapshot without progress.
    stalled: BTreeMap<u64, u32>,
}

impl Consensus {
    /// A follower with what the disk gave back.
    ///
    /// # Errors
    ///
    /// The settings are impossible, or the recovered state does not fit together; then this replica must be restored
    /// from its peers rather than started.
    pub fn new(config: Config, recovered: Recovered) -> Result<Self, ConsensusError> {
        let applied = recovered.applied;
        let log = recovered.into_log(config.id)?;
        let raft_config = config.for_raft(applied)?;
        let raw = RawNode::new(&raft_config, log, &logging::logger())
            .map_err(|error| ConsensusError::Start(StartError(error)))?;
        let mut consensus = Self {
            reads: Reads::new(config.id, config.boot_id),
            config,
            raw,
            persistence: Persistence::default(),
            handed_out: applied,
            applied,
            installing: None,
            stalled: BTreeMap::new(),
        };
        consensus.set_election_timeout();
        Ok(consensus)
    }

    /// Lets a tick of time pass.
    pub fn tick(&mut self) {
        self.reads.tick();
        if self.installing.is_none() {
            self.raw.tick();
        }
        self.retry_stalled_snapshots();
        self.set_election_timeout();
    }

    /// Stands for election at once instead of waiting for the timeout, as the first replica of a new cluster does.
    pub fn campaign(&mut self) {
        if self.installing.is_none()
            && let Err(error) = self.raw.campaign()
        {
            tracing::warn!(%error, "raft did not begin an election");
        }
        self.set_election_timeout();
    }

    /// Takes a message that came over the authenticated connection of `from`.
    ///
    /// # Errors
    ///
    /// The message was refused and changed nothing.
    pub fn receive(&mut self, from: ReplicaId, message: &[u8]) -> Result<(), MessageRefused> {
        if self.persistence.under_way() >= bounds::WRITES_IN_FLIGHT_MAX {
            return Err(MessageRefused::DiskBehind);
        }
        let mut message = self.admit(from, message)?;
        let kind = MessageKind(message.get_msg_type());
        if kind.0 == MessageType::MsgReadIndex {
            for request in message.mut_entries().iter_mut() {
                request.data = self.reads.take(&request.data).into();
            }
        }
        let taken = self.raw.step(message);
        self.set_election_timeout();
        taken.map_err(|_| MessageRefused::NotTaken { kind })
    }

    /// The snapshot in a message, if it has one that this replica needs. The caller fetches what the manifest names
    /// first and only then hands the message to [`Self::receive`]; until then it may be thrown away at any time.
    ///
    /// # Errors
    ///
    /// [`Self::receive`] would refuse the message.
    pub fn peek_snapshot(&self, from: ReplicaId, message: &[u8]) -> Result<Option<SnapshotMeta>, MessageRefused> {
        let message = self.admit(from, message)?;
        let log = &self.raw.raft.raft_log;
        let (index, term) = validate::position(message.get_snapshot());
        let is_needed = message.get_msg_type() == MessageType::MsgSnapshot
            && message.term >= self.raw.raft.term
            && index > log.committed
            && !log.match_term(index, term);
        let manifest = || message.get_snapshot().data.to_vec();
        Ok(is_needed.then(|| SnapshotMeta { position: LogPosition { index, term }, manifest: manifest() }))
    }

    /// Appends a payload to the log, if this replica leads. It takes effect when it comes back as
    /// [committed](Ready::committed); it may also be lost without notice when leadership changes.
    ///
    /// # Errors
    ///
    /// The payload was not appended.
    pub fn propose(&mut self, payload: Vec<u8>) -> Result<(), ProposeError> {
        if payload.is_empty() {
            return Err(ProposeError::Empty);
        }
        if payload.len() > bounds::PAYLOAD_SIZE_BYTES_MAX {
            return Err(ProposeError::TooLarge { found: payload.len() });
        }
        if !self.leads() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        let is_full = self.raw.store().size_bytes() >= self.config.log_size_bytes_max;
        if is_full || self.persistence.under_way() >= bounds::WRITES_IN_FLIGHT_MAX {
            return Err(ProposeError::Busy);
        }
        self.raw.propose(Vec::new(), payload).map_err(|_| ProposeError::Busy)
    }

    /// Begins a linearizable read; the answer comes in [`Ready::reads`] or [`Ready::lost_reads`]. An attempt is never
    /// repeated: after it is lost, begin another.
    ///
    /// # Errors
    ///
    /// The read cannot be answered now.
    pub fn read_index(&mut self) -> Result<ReadId, ReadError> {
        if self.leader().is_none() {
            return Err(ReadError::NoLeader);
        }
        // Raft would drop the read silently.
        if self.leads() && !self.raw.raft.commit_to_current_term() {
            return Err(ReadError::LeaderIsNew);
        }
        let read = self.reads.begin()?;
        let mut context = read.to_bytes();
        if self.leads() {
            context = self.reads.take(&context);
        }
        self.raw.read_index(context);
        Ok(read)
    }

    /// What is to be done next, if anything.
    pub fn ready(&mut self) -> Option<Ready> {
        if !self.raw.has_ready() && !self.reads.has_lost() {
            return None;
        }
        let mut raw = self.raw.ready();
        let number = raw.number();
        let (hard_state, must_sync) = (raw.hs().map(HardState::from_raft), raw.must_sync());
        let role = raw.ss().map(|soft| RoleChange {
            role: Role::from_raft(soft.raft_state),
            leader: (soft.leader_id != 0).then_some(ReplicaId(soft.leader_id)),
        });
        let snapshot = self.install(raw.snapshot());
        let committed = self.hand_out(raw.take_committed_entries());
        let reads = raw.take_read_states().into_iter();
        let reads = reads.filter_map(|state| Some((self.reads.finish(&state.request_ctx)?, state.index))).collect();
        let mut messages = outgoing::encode(raw.take_messages());
        let waiting = raw.take_persisted_messages();

        let appended = raw.take_entries();
        let last = self.raw.store().last();
        let truncates = snapshot.is_some() || appended.first().is_some_and(|first| first.index <= last);
        let entries: Vec<_> = appended.iter().map(stored).collect();
        self.raw.mut_store().append(appended);
        self.raw.advance_append_async(raw);

        self.persistence.issue(number, must_sync, truncates, waiting);
        messages.extend(self.settle(0));
        let log = (!entries.is_empty() || hard_state.is_some()).then_some(LogWrite { entries, hard_state, must_sync });
        let lost_reads = self.reads.take_lost();
        Some(Ready { number, messages, snapshot, log, committed, reads, lost_reads, role })
    }

    /// Takes note that the write of [`Ready`] `number`, and every one before it, would survive a crash. Returns the
    /// messages that had to wait for that: send them now.
    ///
    /// # Errors
    ///
    /// No such `Ready` was handed out.
    pub fn persisted(&mut self, number: u64) -> Result<Vec<Outgoing>, ProgressError> {
        let last = self.persistence.issued();
        if number > last {
            return Err(ProgressError::UnknownReady { number, last });
        }
        Ok(self.settle(number))
    }

    /// Takes note that the state machine has applied everything up to `index`, or installed the snapshot at it.
    ///
    /// # Errors
    ///
    /// The index was not handed out.
    pub fn applied(&mut self, index: u64) -> Result<(), ProgressError> {
        if index > self.handed_out {
            return Err(ProgressError::NotCommitted { index, last: self.handed_out });
        }
        self.applied = self.applied.max(index);
        self.report_applied();
        Ok(())
    }

    /// From now on, replicas that lag too far get a snapshot at `index` that is described by `manifest`. Call it after
    /// every start, too: snapshots do not outlive the process here.
    ///
    /// # Errors
    ///
    /// The index is not applied yet or compacted already, or the manifest is too large.
    pub fn set_snapshot(&mut self, index: u64, manifest: Vec<u8>) -> Result<(), ProgressError> {
        if manifest.len() > bounds::MANIFEST_SIZE_BYTES_MAX {
            return Err(ProgressError::ManifestTooLarge { found: manifest.len() });
        }
        let (first, applied) = (self.raw.store().compacted().index, self.raw.raft.raft_log.applied);
        let term = self.raw.store().term_of(index).filter(|_| index <= applied);
        let term = term.ok_or(ProgressError::SnapshotOutsideLog { index, first, applied })?;
        self.raw.mut_store().set_manifest(LogPosition { index, term }, manifest);
        Ok(())
    }

    /// Drops the log in memory up to `index`, but nothing that is not applied, nothing beyond the last
    /// [snapshot](Self::set_snapshot), and not the last entries, which lagging replicas may still fetch. Returns the
    /// last position that is gone; the caller may drop the same from its disk.
    pub fn compact(&mut self, index: u64) -> LogPosition {
        let limit = index.min(self.raw.raft.raft_log.applied);
        let keep = self.config.catch_up_entries;
        self.raw.mut_store().compact(limit, keep)
    }

    /// Takes note that messages to `peer` may be lost.
    pub fn unreachable(&mut self, peer: ReplicaId) {
        self.raw.report_unreachable(peer.0);
    }

    /// Takes note that a snapshot for `peer` was not delivered.
    pub fn snapshot_failed(&mut self, peer: ReplicaId) {
        self.raw.report_snapshot(peer.0, SnapshotStatus::Failure);
    }

    /// Hands leadership to another replica, if it has caught up within an election timeout. Meanwhile proposals are
    /// refused.
    ///
    /// # Errors
    ///
    /// This replica does not lead, or `to` cannot.
    pub fn transfer_leadership(&mut self, to: ReplicaId) -> Result<(), TransferError> {
        if !self.leads() {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if to == self.config.id || self.raw.store().voters().binary_search(&to.0).is_err() {
            return Err(TransferError::NotAPeer { to });
        }
        self.raw.transfer_leader(to.0);
        Ok(())
    }

    /// Where this replica stands.
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let mut peers = Vec::new();
        if self.leads() {
            let others = raft.prs().iter().filter(|(id, _)| **id != self.config.id.0);
            peers.extend(others.map(|(id, progress)| PeerStatus {
                id: ReplicaId(*id),
                matched: progress.matched,
                active: progress.recent_active,
                snapshot: progress.state == ProgressState::Snapshot,
            }));
            peers.sort_unstable_by_key(|peer| peer.id);
        }
        Status {
            id: self.config.id,
            role: Role::from_raft(raft.state),
            leader: self.leader(),
            term: raft.term,
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            last: raft.raft_log.last_index(),
            persisted: raft.raft_log.persisted,
            compacted: self.raw.store().compacted(),
            log_size_bytes: self.raw.store().size_bytes(),
            peers,
        }
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn leader(&self) -> Option<ReplicaId> {
        (self.raw.raft.leader_id != 0).then_some(ReplicaId(self.raw.raft.leader_id))
    }

    /// Decodes and validates a message.
    fn admit(&self, from: ReplicaId, bytes: &[u8]) -> Result<Message, MessageRefused> {
        if bytes.len() > bounds::MESSAGE_SIZE_BYTES_MAX {
            return Err(MessageRefused::TooLarge { found: bytes.len() });
        }
        let message = wire::decode_message(bytes)?;
        let gate = Gate {
            raft: &self.raw.raft,
            reads: &self.reads,
            asked: self.persistence.asked(),
            installing: self.installing.is_some(),
            log_size_bytes_max: self.config.log_size_bytes_max,
        };
        gate.check(from, &message)?;
        Ok(message)
    }

    /// Replaces the log in memory with a snapshot that Raft accepted.
    fn install(&mut self, snapshot: &raft::eraftpb::Snapshot) -> Option<SnapshotMeta> {
        if snapshot.is_empty() {
            return None;
        }
        let (index, term) = validate::position(snapshot);
        let meta = SnapshotMeta { position: LogPosition { index, term }, manifest: snapshot.data.to_vec() };
        self.raw.mut_store().install(meta.position, meta.manifest.clone());
        self.installing = Some(index);
        self.handed_out = self.handed_out.max(index);
        Some(meta)
    }

    fn hand_out(&mut self, entries: Vec<raft::eraftpb::Entry>) -> Vec<Committed> {
        if let Some(last) = entries.last() {
            self.handed_out = self.handed_out.max(last.index);
        }
        let committed = |entry: raft::eraftpb::Entry| Committed {
            index: entry.index,
            term: entry.term,
            payload: entry.data.to_vec(),
        };
        entries.into_iter().map(committed).collect()
    }

    /// Releases what waited for the writes up to `number`.
    fn settle(&mut self, number: u64) -> Vec<Outgoing> {
        let released = self.persistence.settle(number);
        if let Some(settled) = self.persistence.reportable() {
            self.raw.on_persist_ready(settled);
            self.report_applied();
        }
        released
    }

    /// Tells Raft what is applied. It panics where that is not durable yet, which can only be a snapshot that was
    /// installed before the log write beside it ended; then this is called again when it has.
    fn report_applied(&mut self) {
        let log = &self.raw.raft.raft_log;
        let index = self.applied;
        if index > log.applied && index <= log.committed.min(log.persisted) {
            self.raw.advance_apply_to(index);
        }
        if self.installing.is_some_and(|snapshot| self.raw.raft.raft_log.applied >= snapshot) {
            self.installing = None;
        }
    }

    /// Replaces the timeout that Raft drew at random, if it did.
    fn set_election_timeout(&mut self) {
        let timeout = self.config.election_timeout(self.raw.raft.term);
        self.raw.raft.set_randomized_election_timeout(timeout);
    }

    /// Raft waits forever for a replica that it sent a snapshot.
    fn retry_stalled_snapshots(&mut self) {
        let progress = self.raw.raft.prs();
        let leads = self.raw.raft.state == StateRole::Leader;
        let receives = |id: u64| leads && progress.get(id).is_some_and(|p| p.state == ProgressState::Snapshot);
        self.stalled.retain(|id, _| receives(*id));
        for id in self.raw.store().voters().iter().filter(|id| receives(**id)) {
            *self.stalled.entry(*id).or_default() += 1;
        }
        let expired = |ticks: &u32| *ticks >= bounds::SNAPSHOT_STALL_TICKS;
        let failed: Vec<_> = self.stalled.iter().filter(|(_, ticks)| expired(ticks)).map(|(id, _)| *id).collect();
        for id in failed {
            self.stalled.remove(&id);
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }
}

/// The form of an entry on the disk.
fn stored(entry: &raft::eraftpb::Entry) -> LogEntry {
    LogEntry { index: entry.index, term: entry.term, payload: entry.data.to_vec() }
}
