//! Linearizable reads, and the stale read of Raft 0.7 that the core's contexts prevent.

use fedledger_ledger::consensus::{ReadError, ReplicaId, bounds};
use raft::{
    RawNode, StateRole,
    eraftpb::{Message, MessageType},
    storage::MemStorage,
};

use crate::cluster::{Cluster, Packet};

#[test]
fn every_replica_reads_what_was_committed_before() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.propose(b"v1");
    for id in cluster.ids() {
        cluster.read(id).unwrap();
    }
    cluster.settle();
    let indexes: Vec<_> = cluster.answered.iter().map(|(_, index)| *index).collect();
    assert_eq!(indexes, [3, 3, 3]);
}

#[test]
fn the_only_replica_reads_at_once() {
    let mut cluster = Cluster::led_by_first(1);
    cluster.propose(b"v1");
    cluster.read(ReplicaId(1)).unwrap();
    cluster.settle();
    assert_eq!(cluster.answered.len(), 1);
}

#[test]
fn reads_that_cannot_be_answered_are_refused_or_lost_but_never_silent() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.core(1).read_index(), Err(ReadError::NoLeader));
    cluster.fast_disks = false;
    cluster.core(1).campaign();
    for id in [1, 2] {
        cluster.settle();
        cluster.persist(ReplicaId(id));
    }
    cluster.settle();
    assert_eq!(cluster.core(1).read_index(), Err(ReadError::LeaderIsNew));

    let mut cluster = Cluster::led_by_first(3);
    cluster.cut.insert(ReplicaId(2));
    let read = cluster.read(ReplicaId(2)).unwrap();
    cluster.ticks(bounds::READ_EXPIRY_TICKS as usize);
    assert_eq!((cluster.answered.len(), &cluster.lost_reads[..]), (0, &[read][..]));
}

#[test]
fn reads_in_waiting_are_bounded() {
    let mut cluster = Cluster::led_by_first(3);
    for _ in 0..bounds::READS_PENDING_MAX {
        cluster.read(ReplicaId(2)).unwrap();
    }
    assert_eq!(cluster.core(2).read_index(), Err(ReadError::TooMany));
    cluster.settle();
    assert_eq!(cluster.answered.len(), bounds::READS_PENDING_MAX);
    assert!(cluster.core(2).read_index().is_ok());
}

fn kind(packet: &Packet) -> MessageType {
    let message: Message = protobuf::Message::parse_from_bytes(&packet.message.bytes).unwrap();
    message.get_msg_type()
}

/// Takes the packets of one kind off the network.
fn take(cluster: &mut Cluster, wanted: MessageType) -> Vec<Packet> {
    cluster.network.extract_if(.., |packet| kind(packet) == wanted).collect()
}

/// The schedule of [`raw_raft_answers_a_stale_read_when_a_context_is_reused`], with the same request repeated by the
/// network instead of the same context reused by the caller, which the core's interface cannot express.
#[test]
fn a_repeated_request_and_late_acknowledgements_release_no_read() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.propose(b"v1");
    let first = cluster.read(ReplicaId(2)).unwrap();
    cluster.work();
    let repeated = take(&mut cluster, MessageType::MsgReadIndex);
    assert_eq!(repeated.len(), 1);
    cluster.deliver(repeated[0].clone());
    cluster.work();
    for heartbeat in take(&mut cluster, MessageType::MsgHeartbeat) {
        cluster.deliver(heartbeat);
    }
    cluster.work();
    // The acknowledgement of 2 arrives and answers the read, that of 3 is late.
    let (late, prompt): (Vec<_>, Vec<_>) =
        take(&mut cluster, MessageType::MsgHeartbeatResponse).into_iter().partition(|packet| packet.from.0 == 3);
    for packet in prompt {
        cluster.deliver(packet);
    }
    cluster.settle();
    assert_eq!(cluster.answered, [(first, 3)]);

    // Replica 1 is paused; 2 and 3 elect a leader and commit.
    cluster.cut.insert(ReplicaId(1));
    while cluster.leaders.len() < 2 {
        for id in [2, 3] {
            cluster.core(id).tick();
        }
        cluster.settle();
    }
    let leader = *cluster.leaders.values().last().unwrap();
    cluster.core(leader.0).propose(b"v2".to_vec()).unwrap();
    cluster.settle();

    // A read begins on the deposed leader, and only old packets reach it.
    let stale = cluster.read(ReplicaId(1)).unwrap();
    cluster.cut.clear();
    for packet in repeated.into_iter().chain(late) {
        cluster.deliver(packet);
    }
    cluster.work();
    assert!(cluster.reads.contains_key(&stale), "the read waits");
    assert_eq!(cluster.answered.len(), 1);
}

fn raw_node(id: u64) -> RawNode<MemStorage> {
    let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
    let config = raft::Config {
        id,
        election_tick: 10,
        heartbeat_tick: 1,
        max_size_per_msg: 1 << 20,
        check_quorum: true,
        pre_vote: true,
        ..Default::default()
    };
    RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!())).unwrap()
}

/// Carries out everything that a raw node asks for. Returns its messages and the contexts of answered reads.
fn drain(node: &mut RawNode<MemStorage>) -> (Vec<Message>, Vec<(u64, Vec<u8>)>) {
    let (mut messages, mut reads) = (Vec::new(), Vec::new());
    while node.has_ready() {
        let mut ready = node.ready();
        messages.extend(ready.take_messages());
        reads.extend(ready.take_read_states().into_iter().map(|read| (read.index, read.request_ctx)));
        node.mut_store().wl().append(ready.entries()).unwrap();
        if let Some(state) = ready.hs() {
            node.mut_store().wl().set_hardstate(state.clone());
        }
        messages.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        messages.extend(light.take_messages());
        node.advance_apply();
    }
    (messages, reads)
}

fn pump(nodes: &mut [RawNode<MemStorage>], mut queue: Vec<Message>, cut: u64) {
    while let Some(message) = (!queue.is_empty()).then(|| queue.remove(0)) {
        if message.to != cut && message.from != cut {
            let node = &mut nodes[message.to as usize - 1];
            // Messages of deposed leaders may be refused.
            let _ = node.step(message);
            queue.extend(drain(node).0);
        }
    }
}

/// Whether the deposed leader answers a read that began after a later commit.
fn raw_read_is_stale(second_context: &[u8]) -> bool {
    let mut nodes: Vec<_> = (1..=3).map(raw_node).collect();
    nodes[0].campaign().unwrap();
    let messages = drain(&mut nodes[0]).0;
    pump(&mut nodes, messages, 0);
    assert_eq!(nodes[0].raft.state, StateRole::Leader);
    nodes[0].propose(vec![], b"v1".to_vec()).unwrap();
    let messages = drain(&mut nodes[0]).0;
    pump(&mut nodes, messages, 0);
    let first_commit = nodes[0].raft.raft_log.committed;

    nodes[1].read_index(b"A".to_vec());
    let requests = drain(&mut nodes[1]).0;
    nodes[1].read_index(second_context.to_vec());
    let late_requests = drain(&mut nodes[1]).0;
    for request in requests {
        nodes[0].step(request).unwrap();
    }
    let mut late_acks = Vec::new();
    for heartbeat in drain(&mut nodes[0]).0 {
        let to = heartbeat.to as usize - 1;
        nodes[to].step(heartbeat).unwrap();
        for ack in drain(&mut nodes[to]).0 {
            if ack.from == 2 { nodes[0].step(ack).unwrap() } else { late_acks.push(ack) }
        }
    }
    drain(&mut nodes[0]);

    while nodes[1..].iter().all(|node| node.raft.state != StateRole::Leader) {
        for i in [1, 2] {
            nodes[i].tick();
            let messages = drain(&mut nodes[i]).0;
            pump(&mut nodes, messages, 1);
        }
    }
    let leader = if nodes[1].raft.state == StateRole::Leader { 1 } else { 2 };
    nodes[leader].propose(vec![], b"v2".to_vec()).unwrap();
    let messages = drain(&mut nodes[leader]).0;
    pump(&mut nodes, messages, 1);
    assert!(nodes[leader].raft.raft_log.committed > first_commit);

    nodes[0].read_index(b"B".to_vec());
    let mut reads = drain(&mut nodes[0]).1;
    for message in late_requests.into_iter().chain(late_acks) {
        let _ = nodes[0].step(message);
        reads.extend(drain(&mut nodes[0]).1);
    }
    reads.contains(&(first_commit, b"B".to_vec()))
}

/// Why contexts must be unique: if this ever fails, Raft was repaired and the guard may go.
#[test]
fn raw_raft_answers_a_stale_read_when_a_context_is_reused() {
    assert!(raw_read_is_stale(b"A"));
    assert!(!raw_read_is_stale(b"A, second attempt"));
}
