//! What a peer may say. Raft 0.7 trusts its peers: many messages that no honest replica sends make it panic, and it
//! acts on messages that only its own process should send. Everything of that kind is refused here.
//!
//! Raft ignores what comes from earlier terms, or answers it from its own state, so contents are compared with this
//! replica's log only where the message's term is not behind.

use raft::{
    CAMPAIGN_TRANSFER, Raft, StateRole,
    eraftpb::{Entry, EntryType, Message, MessageType, Snapshot},
};

use super::{
    bounds::{MANIFEST_SIZE_BYTES_MAX, NUMBER_MAX, PAYLOAD_SIZE_BYTES_MAX, READS_PENDING_MAX, TERM_JUMP_MAX},
    config::ReplicaId,
    error::{MessageKind, MessageRefused},
    memory_log::{MemoryLog, size_bytes},
    persistence::Asked,
    reads::{CONTEXT_SIZE_BYTES, ReadId, Reads},
};

/// What a message is compared with.
pub(super) struct Gate<'a> {
    pub(super) raft: &'a Raft<MemoryLog>,
    pub(super) reads: &'a Reads,
    pub(super) asked: Asked,
    /// Whether a snapshot is being installed.
    pub(super) installing: bool,
    pub(super) log_size_bytes_max: u64,
}

impl Gate<'_> {
    /// Whether Raft may see `message`, which came from `from`.
    pub(super) fn check(&self, from: ReplicaId, message: &Message) -> Result<(), MessageRefused> {
        let kind = MessageKind(message.get_msg_type());
        self.check_addresses(from, message)?;
        check_numbers(kind, message)?;
        self.check_term(kind, message.term)?;
        match message.get_msg_type() {
            MessageType::MsgAppend => self.check_append(from, message),
            MessageType::MsgHeartbeat => self.check_heartbeat(from, message),
            MessageType::MsgSnapshot => self.check_snapshot(from, message),
            MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => self.check_response(kind, message),
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => check_vote_request(kind, message),
            MessageType::MsgRequestVoteResponse => self.check_vote(kind, message),
            MessageType::MsgRequestPreVoteResponse => self.check_pre_vote(kind, message),
            MessageType::MsgTimeoutNow => self.check_timeout_now(from, kind, message),
            MessageType::MsgReadIndex => self.check_read(from, kind, message),
            MessageType::MsgReadIndexResp => self.check_read_answer(from, kind, message),
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader => Err(MessageRefused::Forbidden { kind }),
        }
    }

    fn check_addresses(&self, from: ReplicaId, message: &Message) -> Result<(), MessageRefused> {
        if from.0 == self.raft.id || self.raft.store().voters().binary_search(&from.0).is_err() {
            return Err(MessageRefused::UnknownPeer { from });
        }
        if message.from != from.0 {
            return Err(MessageRefused::ForgedSender { from, claimed: ReplicaId(message.from) });
        }
        if message.to != self.raft.id {
            return Err(MessageRefused::NotForUs { to: ReplicaId(message.to) });
        }
        Ok(())
    }

    /// Raft takes term 0 for its own process's, and counts terms up without a check.
    fn check_term(&self, kind: MessageKind, term: u64) -> Result<(), MessageRefused> {
        let (lowest, highest) = match kind.0 {
            MessageType::MsgReadIndex => (0, 0),
            _ => (1, NUMBER_MAX.min(self.raft.term.saturating_add(TERM_JUMP_MAX))),
        };
        if (lowest..=highest).contains(&term) {
            Ok(())
        } else {
            Err(MessageRefused::Term { kind, term, lowest, highest })
        }
    }

    /// Whether the message is of the current term and this replica is in `role`.
    fn is_now(&self, role: StateRole, message: &Message) -> bool {
        self.raft.state == role && self.raft.term == message.term
    }

    /// There is one leader per term.
    fn check_leader(&self, from: ReplicaId, message: &Message) -> Result<(), MessageRefused> {
        let leader = self.raft.leader_id;
        if message.term == self.raft.term && leader != 0 && leader != from.0 {
            return Err(MessageRefused::SecondLeader { term: message.term, leader: ReplicaId(leader), claimed: from });
        }
        Ok(())
    }

    /// An entry that is committed here has the same term everywhere.
    fn check_committed(&self, index: u64, theirs: u64) -> Result<(), MessageRefused> {
        let log = &self.raft.raft_log;
        if index > log.committed || index + 1 < log.first_index() {
            return Ok(());
        }
        match log.term(index) {
            Ok(ours) if ours != theirs => Err(MessageRefused::ConflictsWithCommitted { index, ours, theirs }),
            _ => Ok(()),
        }
    }

    fn check_append(&self, from: ReplicaId, message: &Message) -> Result<(), MessageRefused> {
        check_entries(message)?;
        if message.term < self.raft.term {
            return Ok(());
        }
        self.check_leader(from, message)?;
        self.check_committed(message.index, message.log_term)?;
        for entry in message.entries.iter().take_while(|entry| entry.index <= self.raft.raft_log.committed) {
            self.check_committed(entry.index, entry.term)?;
        }
        let held =
            self.raft.store().size_bytes() + self.raft.raft_log.unstable.entries.iter().map(size_bytes).sum::<u64>();
        let added: u64 = message.entries.iter().map(size_bytes).sum();
        if added > 0 && held + added > self.log_size_bytes_max {
            return Err(MessageRefused::LogFull { size: held });
        }
        Ok(())
    }

    fn check_heartbeat(&self, from: ReplicaId, message: &Message) -> Result<(), MessageRefused> {
        check_context(message, &[0, CONTEXT_SIZE_BYTES])?;
        if message.term < self.raft.term {
            return Ok(());
        }
        self.check_leader(from, message)?;
        let last = self.raft.raft_log.last_index();
        if message.commit > last {
            return Err(MessageRefused::CommitBeyondLog { commit: message.commit, last });
        }
        Ok(())
    }

    fn check_snapshot(&self, from: ReplicaId, message: &Message) -> Result<(), MessageRefused> {
        let snapshot = message.get_snapshot();
        let (index, term) = position(snapshot);
        if !(1..=NUMBER_MAX).contains(&index) || !(1..=message.term).contains(&term) {
            return Err(MessageRefused::SnapshotPosition { index, term });
        }
        if snapshot.data.len() > MANIFEST_SIZE_BYTES_MAX {
            return Err(MessageRefused::ManifestTooLarge { size: snapshot.data.len() });
        }
        let conf_state = snapshot.get_metadata().get_conf_state();
        let mut voters = conf_state.voters.clone();
        voters.sort_unstable();
        let others = [&conf_state.learners, &conf_state.voters_outgoing, &conf_state.learners_next];
        if voters != self.raft.store().voters() || others.iter().any(|ids| !ids.is_empty()) || conf_state.auto_leave {
            return Err(MessageRefused::SnapshotVoters);
        }
        if message.term < self.raft.term {
            return Ok(());
        }
        self.check_leader(from, message)?;
        self.check_committed(index, term)?;
        if self.installing || self.raft.snap().is_some() {
            return Err(MessageRefused::Installing);
        }
        Ok(())
    }

    fn check_response(&self, kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
        let sizes: &[usize] = if kind.0 == MessageType::MsgHeartbeatResponse { &[0, CONTEXT_SIZE_BYTES] } else { &[0] };
        check_context(message, sizes)?;
        if message.request_snapshot != 0 {
            return Err(MessageRefused::SnapshotDemanded);
        }
        let last = self.raft.raft_log.last_index();
        let highest = message.index.max(message.commit).max(message.reject_hint);
        if self.is_now(StateRole::Leader, message) && highest > last {
            return Err(MessageRefused::ResponseBeyondLog { index: highest, last });
        }
        Ok(())
    }

    /// A replica that becomes leader must have its whole log and its own vote on the disk, and Raft asserts it. That
    /// holds when its requests have been sent, because they wait for the disk.
    fn check_vote(&self, kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
        if self.is_now(StateRole::Candidate, message) && self.asked.votes != message.term {
            return Err(MessageRefused::VoteNotAsked { kind });
        }
        Ok(())
    }

    /// As [`Self::check_vote`]. A granted pre-vote names the term that was asked about, the next one; a refusal names
    /// the refuser's own, and a later one ends this replica's attempt in any case.
    fn check_pre_vote(&self, kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
        let (ours, next) = (self.raft.term, self.raft.term.saturating_add(1));
        let is_late = message.term < ours;
        let steps_down = message.reject && message.term > ours;
        if self.raft.state != StateRole::PreCandidate || is_late || steps_down {
            return Ok(());
        }
        let expected = if message.reject { ours } else { next };
        if message.term != expected || self.asked.pre_votes != next {
            return Err(MessageRefused::VoteNotAsked { kind });
        }
        Ok(())
    }

    fn check_timeout_now(&self, from: ReplicaId, kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
        if !self.is_now(StateRole::Follower, message) || self.raft.leader_id != from.0 {
            return Err(MessageRefused::NotLeader { kind });
        }
        // Raft would look for entries that the snapshot replaced.
        if self.installing {
            return Err(MessageRefused::Installing);
        }
        Ok(())
    }

    /// A follower would pass the request on in the asker's name, so only the leader takes it.
    fn check_read(&self, from: ReplicaId, kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
        let [request] = message.entries.as_slice() else {
            return Err(MessageRefused::ReadName);
        };
        if ReadId::asker_of_request(&request.data) != Some(from) {
            return Err(MessageRefused::ReadName);
        }
        if self.raft.state != StateRole::Leader {
            return Err(MessageRefused::NotLeader { kind });
        }
        let queue = &self.raft.read_only.read_index_queue;
        let waiting = queue.iter().filter(|context| ReadId::asker_of_context(context) == Some(from)).count();
        if waiting >= READS_PENDING_MAX {
            return Err(MessageRefused::TooManyReads { from });
        }
        Ok(())
    }

    fn check_read_answer(&self, from: ReplicaId, kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
        let [answer] = message.entries.as_slice() else {
            return Err(MessageRefused::ReadName);
        };
        if !self.is_now(StateRole::Follower, message) || self.raft.leader_id != from.0 {
            return Err(MessageRefused::NotLeader { kind });
        }
        if !self.reads.is_waiting(&answer.data) {
            return Err(MessageRefused::ReadUnknown);
        }
        Ok(())
    }
}

/// Index and term of a snapshot.
pub(super) fn position(snapshot: &Snapshot) -> (u64, u64) {
    (snapshot.get_metadata().index, snapshot.get_metadata().term)
}

/// Raft adds to these numbers without a check.
fn check_numbers(kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
    let numbers = [message.index, message.log_term, message.commit, message.commit_term, message.reject_hint];
    match numbers.into_iter().find(|number| *number > NUMBER_MAX) {
        Some(value) => Err(MessageRefused::NumberOutOfRange { kind, value }),
        None => Ok(()),
    }
}

fn check_context(message: &Message, sizes: &[usize]) -> Result<(), MessageRefused> {
    let size = message.context.len();
    if sizes.contains(&size) {
        return Ok(());
    }
    Err(MessageRefused::Context { kind: MessageKind(message.get_msg_type()), size })
}

fn check_vote_request(kind: MessageKind, message: &Message) -> Result<(), MessageRefused> {
    if message.log_term > message.term {
        return Err(MessageRefused::NumberOutOfRange { kind, value: message.log_term });
    }
    let transfer = kind.0 == MessageType::MsgRequestVote && message.context == CAMPAIGN_TRANSFER;
    if transfer { Ok(()) } else { check_context(message, &[0]) }
}

/// Raft slices its log by the indexes of the entries, and takes any index beyond its log for one of term 0.
fn check_entries(message: &Message) -> Result<(), MessageRefused> {
    check_context(message, &[0])?;
    let highest = message.term;
    let in_order = |index, term, lowest| {
        if (lowest..=highest).contains(&term) {
            return Ok(());
        }
        Err(MessageRefused::EntryTerm { index, term, lowest, highest })
    };
    in_order(message.index, message.log_term, 1)?;
    if message.index == 0 {
        return Err(MessageRefused::EntryOutOfOrder { expected: 1, found: 0 });
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        if entry.index != index + 1 {
            return Err(MessageRefused::EntryOutOfOrder { expected: index + 1, found: entry.index });
        }
        in_order(entry.index, entry.term, term)?;
        check_payload(entry)?;
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

fn check_payload(entry: &Entry) -> Result<(), MessageRefused> {
    if entry.get_entry_type() != EntryType::EntryNormal || !entry.context.is_empty() {
        return Err(MessageRefused::EntryKind { index: entry.index });
    }
    if entry.data.len() > PAYLOAD_SIZE_BYTES_MAX {
        return Err(MessageRefused::PayloadTooLarge { index: entry.index, size: entry.data.len() });
    }
    Ok(())
}
