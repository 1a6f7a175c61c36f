//! Raft messages from peers that lie, between everything that the replica itself does.
//!
//! Raft 0.7 panics on many messages that no honest replica sends; none of them may get through. The replica is one of
//! three and starts as the follower of nobody. Terms, commit indexes and what is applied never fall.

use std::collections::VecDeque;

use fedledger_ledger::consensus::{Config, Consensus, Recovered, ReplicaId, Status};
use protobuf::{Message as _, ProtobufEnum as _};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

use super::choices::Choices;

/// The replica under test; its peers are 1 and 3.
const ID: u64 = 2;

/// Most steps of one run.
const STEPS_MAX: usize = 200;

/// Steps: the first byte of each in the fuzzer's bytes, modulo their number.
pub mod step {
    /// Bytes of a peer: its id, the length in two bytes, and they.
    pub const BYTES: u8 = 0;
    /// A message of a peer with fields chosen from what would hurt.
    pub const MESSAGE: u8 = 1;
    /// Some ticks.
    pub const TICKS: u8 = 2;
    /// The oldest write reaches the disk.
    pub const PERSIST: u8 = 3;
    /// The replica stands for election.
    pub const CAMPAIGN: u8 = 4;
    /// A proposal.
    pub const PROPOSE: u8 = 5;
    /// A linearizable read.
    pub const READ: u8 = 6;
    /// A snapshot is made, and the log compacted.
    pub const COMPACT: u8 = 7;
    /// Trouble with a peer is reported.
    pub const TROUBLE: u8 = 8;
    /// Leadership is to go to a peer.
    pub const TRANSFER: u8 = 9;
    /// How many there are.
    pub const COUNT: usize = 10;
}

struct Replica {
    core: Consensus,
    /// Numbers of the writes that have not reached the disk.
    unsynced: VecDeque<u64>,
    /// Ids under which peers were sent something, which they may repeat.
    contexts: Vec<Vec<u8>>,
}

/// Lets a replica live through what the bytes say.
pub fn run(data: &[u8]) {
    let mut config = Config::new(ReplicaId(ID), 1, 7);
    config.catch_up_entries = 4;
    config.log_size_bytes_max = 1 << 20;
    let core = Consensus::new(config, Recovered::empty([1, 2, 3].map(ReplicaId))).expect("the settings are possible");
    let mut replica = Replica { core, unsynced: VecDeque::new(), contexts: Vec::new() };
    let mut choices = Choices::new(data);
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        let before = replica.core.status();
        replica.step(&mut choices);
        replica.settle();
        let after = replica.core.status();
        assert!(after.term >= before.term, "the term fell from {} to {}", before.term, after.term);
        assert!(after.commit >= before.commit, "the commit index fell from {} to {}", before.commit, after.commit);
        assert!(after.applied >= before.applied && after.applied <= after.commit.max(after.last));
    }
}

impl Replica {
    fn step(&mut self, choices: &mut Choices<'_>) {
        let kind = choices.below(step::COUNT) as u8;
        match kind {
            step::BYTES => {
                let peer = peer(choices);
                let bytes = choices.sized_bytes();
                self.receive(peer, bytes);
            }
            step::MESSAGE => {
                let message = self.message(choices);
                // A message that cannot be encoded cannot be sent.
                if let Ok(bytes) = message.write_to_bytes() {
                    self.receive(ReplicaId(message.from), &bytes);
                }
            }
            step::TICKS => (0..1 + choices.below(24)).for_each(|_| {
                self.core.tick();
                self.settle();
            }),
            step::PERSIST => self.persist(),
            step::CAMPAIGN => self.core.campaign(),
            step::PROPOSE => _ = self.core.propose(choices.sized_bytes().to_vec()),
            step::READ => _ = self.core.read_index(),
            step::COMPACT => {
                let index = self.number(choices);
                let _ = self.core.set_snapshot(index, b"manifest".to_vec());
                let index = self.number(choices);
                self.core.compact(index);
            }
            step::TROUBLE => {
                let peer = peer(choices);
                self.core.unreachable(peer);
                self.core.snapshot_failed(peer);
            }
            _ => _ = self.core.transfer_leadership(peer(choices)),
        }
    }

    fn receive(&mut self, from: ReplicaId, bytes: &[u8]) {
        let peeked = self.core.peek_snapshot(from, bytes);
        let before = self.core.status();
        let received = self.core.receive(from, bytes);
        if received.is_err() {
            assert_eq!(self.core.status(), before, "a refused message changes nothing");
        }
        if let (Err(refused), Ok(())) = (peeked, received) {
            panic!("what may not be peeked at was taken: {refused}");
        }
    }

    fn persist(&mut self) {
        if let Some(number) = self.unsynced.pop_front() {
            let released = self.core.persisted(number).expect("the write was asked for");
            self.remember(released.iter().map(|outgoing| outgoing.bytes.as_slice()));
        }
    }

    /// Does everything that the core asks for, writes to the disk aside.
    fn settle(&mut self) {
        while let Some(ready) = self.core.ready() {
            if let Some(snapshot) = &ready.snapshot {
                self.core.applied(snapshot.position.index).expect("the snapshot was handed out");
            }
            if let Some(last) = ready.committed.last() {
                self.core.applied(last.index).expect("the entries were handed out");
            }
            if ready.log.as_ref().is_some_and(|log| log.must_sync) {
                self.unsynced.push_back(ready.number);
            }
            self.remember(ready.messages.iter().map(|outgoing| outgoing.bytes.as_slice()));
        }
    }

    /// Keeps the contexts of messages that went out: a peer's answer has to name one.
    fn remember<'a>(&mut self, messages: impl Iterator<Item = &'a [u8]>) {
        for bytes in messages {
            let message = Message::parse_from_bytes(bytes).expect("the core sends messages");
            if !message.context.is_empty() {
                self.contexts.push(message.context.to_vec());
            }
        }
    }

    /// A message of a peer to this replica.
    fn message(&self, choices: &mut Choices<'_>) -> Message {
        let mut message = Message { from: peer(choices).0, to: ID, ..Message::default() };
        message.set_msg_type(MessageType::from_i32(choices.below(19) as i32).unwrap_or_default());
        message.term = self.number(choices);
        message.index = self.number(choices);
        message.log_term = self.number(choices);
        message.commit = self.number(choices);
        let flags = choices.byte();
        message.reject = flags & 1 != 0;
        if flags & 2 != 0 {
            message.reject_hint = self.number(choices);
            message.request_snapshot = self.number(choices);
        }
        if flags & 4 != 0 {
            let mut index = message.index;
            for _ in 0..choices.below(5) {
                index = index.wrapping_add(1);
                message.mut_entries().push(self.entry(choices, index));
            }
        }
        if flags & 8 != 0 {
            message.context = self.context(choices).into();
        }
        if flags & 16 != 0 {
            message.set_snapshot(self.snapshot(choices));
        }
        if flags & 32 != 0 {
            message.priority = choices.number() as i64;
            message.deprecated_priority = choices.number();
            message.commit_term = self.number(choices);
        }
        message
    }

    fn entry(&self, choices: &mut Choices<'_>, index: u64) -> Entry {
        let flags = choices.byte();
        let mut entry = Entry { index, term: self.number(choices), ..Entry::default() };
        if flags & 1 != 0 {
            entry.index = self.number(choices);
        }
        if flags & 2 != 0 {
            entry.entry_type = EntryType::from_i32(choices.below(3) as i32).unwrap_or_default();
        }
        if flags & 4 != 0 {
            entry.context = self.context(choices).into();
        }
        let length = choices.below(40);
        entry.data = choices.bytes(length).to_vec().into();
        entry
    }

    fn snapshot(&self, choices: &mut Choices<'_>) -> Snapshot {
        let mut snapshot = Snapshot { data: b"manifest".to_vec().into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = self.number(choices);
        metadata.term = self.number(choices);
        metadata.mut_conf_state().voters = match choices.below(4) {
            0 => (0..choices.below(5)).map(|_| choices.number()).collect(),
            _ => vec![1, 2, 3],
        };
        snapshot
    }

    fn context(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        match self.contexts.len() {
            0 => choices.bytes(32).to_vec(),
            known => {
                let place = choices.below(256);
                self.contexts.get(place % (known + 1)).cloned().unwrap_or_else(|| choices.bytes(32).to_vec())
            }
        }
    }

    /// A term or an index: one that means something now, or any.
    fn number(&self, choices: &mut Choices<'_>) -> u64 {
        let Status { term, commit, last, compacted, .. } = self.core.status();
        match choices.below(10) {
            0 => 0,
            1 => term,
            2 => term.saturating_add(1),
            3 => term.saturating_sub(1),
            4 => commit,
            5 => last,
            6 => last.saturating_add(1),
            7 => compacted.index,
            8 => choices.byte().into(),
            _ => choices.number(),
        }
    }
}

fn peer(choices: &mut Choices<'_>) -> ReplicaId {
    // Mostly a peer that exists.
    ReplicaId([1, 3, 1, 3, 1, 3, 0, ID, 4][choices.below(9)])
}
