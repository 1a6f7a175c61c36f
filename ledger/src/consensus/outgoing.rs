//! Raft's messages on their way out: joined where they follow each other, encoded.

use std::collections::BTreeMap;

use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

use super::{bounds::APPEND_SIZE_BYTES_MAX, config::ReplicaId, ready::Outgoing};

/// Encodes messages, in order.
pub(super) fn encode(messages: Vec<Message>) -> Vec<Outgoing> {
    join(messages).into_iter().filter_map(|message| encode_one(&message)).collect()
}

fn encode_one(message: &Message) -> Option<Outgoing> {
    let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
    match message.write_to_bytes() {
        Ok(bytes) => Some(Outgoing { to: ReplicaId(message.to), bytes, is_snapshot }),
        Err(error) => {
            // As good as lost on the way, which Raft provides for.
            tracing::error!(to = message.to, %error, "a consensus message could not be encoded");
            None
        }
    }
}

/// Joins appends to the same peer that follow each other: a leader makes one of each proposal.
fn join(messages: Vec<Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    // Where each peer's last message is, and the size of its entries.
    let mut last: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for mut message in messages {
        let size = message.entries.iter().map(|entry| u64::from(entry.compute_size())).sum::<u64>();
        if let Some((place, total)) = last.get_mut(&message.to)
            && let Some(before) = joined.get_mut(*place)
            && *total + size <= APPEND_SIZE_BYTES_MAX
            && continues(before, &message)
        {
            before.mut_entries().extend(message.take_entries());
            before.commit = before.commit.max(message.commit);
            *total += size;
            continue;
        }
        last.insert(message.to, (joined.len(), size));
        joined.push(message);
    }
    joined
}

/// Whether the entries of an append follow those of the one before.
fn continues(before: &Message, next: &Message) -> bool {
    let kind = MessageType::MsgAppend;
    let (index, term) =
        before.entries.last().map_or((before.index, before.log_term), |entry| (entry.index, entry.term));
    before.get_msg_type() == kind
        && next.get_msg_type() == kind
        && before.term == next.term
        && (index, term) == (next.index, next.log_term)
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn append(to: u64, after: u64, count: u64, size: usize) -> Message {
        let entries: Vec<_> = (after + 1..=after + count)
            .map(|index| Entry { index, term: 3, data: vec![1; size].into(), ..Entry::default() })
            .collect();
        let mut message =
            Message { to, from: 1, term: 3, index: after, log_term: 3, commit: after, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(entries.into());
        message
    }

    fn shape(messages: &[Message]) -> Vec<(u64, u64, usize, u64)> {
        messages.iter().map(|m| (m.to, m.index, m.entries.len(), m.commit)).collect()
    }

    #[test]
    fn appends_that_follow_each_other_are_joined_per_peer() {
        let joined = join(vec![append(2, 5, 1, 9), append(3, 5, 1, 9), append(2, 6, 2, 9), append(3, 6, 2, 9)]);
        assert_eq!(shape(&joined), [(2, 5, 3, 6), (3, 5, 3, 6)]);
    }

    #[test]
    fn gaps_other_messages_and_size_end_a_run() {
        let gap = join(vec![append(2, 5, 1, 9), append(2, 7, 1, 9)]);
        assert_eq!(shape(&gap), [(2, 5, 1, 5), (2, 7, 1, 7)]);
        let mut heartbeat = Message { to: 2, term: 3, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        assert_eq!(join(vec![append(2, 5, 1, 9), heartbeat, append(2, 6, 1, 9)]).len(), 3);
        assert_eq!(join(vec![append(2, 5, 1, 600_000), append(2, 6, 1, 600_000)]).len(), 2);
    }
}
