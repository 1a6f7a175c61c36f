//! Writes under way: which messages wait for which of them, and what may be told to Raft when one ends.

use std::collections::VecDeque;

use raft::eraftpb::{Message, MessageType};

use super::{outgoing, ready::Outgoing};

/// The terms in which this replica asked for votes; only what was sent counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// Highest term of a vote request.
    pub(super) votes: u64,
    /// Highest term of a pre-vote request.
    pub(super) pre_votes: u64,
}

/// A `Ready` that was handed out and is not yet reported to Raft.
struct Pending {
    number: u64,
    must_sync: bool,
    /// Whether it replaces entries of writes before it.
    truncates: bool,
    messages: Vec<Message>,
}

/// The writes under way, in order.
#[derive(Default)]
pub(super) struct Persistence {
    pending: VecDeque<Pending>,
    /// The last number handed out.
    issued: u64,
    /// Up to which number everything is on the disk.
    settled: u64,
    asked: Asked,
}

impl Persistence {
    /// Notes a `Ready` and the messages that wait for it.
    pub(super) fn issue(&mut self, number: u64, must_sync: bool, truncates: bool, messages: Vec<Message>) {
        self.issued = number;
        self.pending.push_back(Pending { number, must_sync, truncates, messages });
    }

    /// Takes note that everything up to `number` is on the disk, and returns the messages that waited for it. What
    /// needs no sync waits only for the writes before it.
    pub(super) fn settle(&mut self, number: u64) -> Vec<Outgoing> {
        let mut released = Vec::new();
        while let Some(first) = self.pending.pop_front_if(|first| first.number <= number || !first.must_sync) {
            self.settled = first.number;
            released.extend(first.messages);
        }
        for message in &released {
            match message.get_msg_type() {
                MessageType::MsgRequestVote => self.asked.votes = self.asked.votes.max(message.term),
                MessageType::MsgRequestPreVote => self.asked.pre_votes = self.asked.pre_votes.max(message.term),
                _ => {}
            }
        }
        outgoing::encode(released)
    }

    /// Up to which number Raft may be told that its log is on the disk.
    ///
    /// Nothing while a write is under way that replaces older entries: two changes of leader can bring back an entry
    /// which that write is about to delete. Raft would take it for durable, because it knows index and term.
    pub(super) fn reportable(&self) -> Option<u64> {
        (!self.pending.iter().any(|pending| pending.truncates)).then_some(self.settled)
    }

    /// The last number handed out.
    pub(super) const fn issued(&self) -> u64 {
        self.issued
    }

    /// How many writes are under way.
    pub(super) fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// The terms in which votes were asked for.
    pub(super) const fn asked(&self) -> Asked {
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(term: u64) -> Vec<Message> {
        let mut message = Message { to: 2, term, ..Message::default() };
        message.set_msg_type(MessageType::MsgRequestVote);
        vec![message]
    }

    #[test]
    fn messages_wait_for_every_write_before_them() {
        let mut persistence = Persistence::default();
        persistence.issue(1, true, false, vec![]);
        persistence.issue(2, false, false, vote(7));
        assert!(persistence.settle(0).is_empty());
        assert_eq!(persistence.asked().votes, 0, "not asked before it was sent");
        assert_eq!(persistence.settle(1).len(), 1);
        assert_eq!((persistence.asked().votes, persistence.under_way()), (7, 0));
    }

    #[test]
    fn what_needs_no_sync_goes_at_once_when_nothing_is_under_way() {
        let mut persistence = Persistence::default();
        persistence.issue(1, false, false, vote(3));
        assert_eq!(persistence.settle(0).len(), 1);
        assert_eq!(persistence.reportable(), Some(1));
    }

    #[test]
    fn nothing_is_reported_while_a_replacing_write_is_under_way() {
        let mut persistence = Persistence::default();
        persistence.issue(1, true, false, vec![]);
        persistence.issue(2, true, true, vec![]);
        persistence.settle(1);
        assert_eq!(persistence.reportable(), None);
        persistence.settle(2);
        assert_eq!(persistence.reportable(), Some(2));
    }
}
