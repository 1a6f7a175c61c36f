//! Messages that no honest replica sends. Without the validation most of them make Raft panic or act on a lie.

use fedledger_ledger::consensus::{Config, Consensus, MessageRefused as Refused, Recovered, ReplicaId, Role, bounds};
use proptest::prelude::*;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

use crate::cluster::Cluster;

const TERM: u64 = 2;

/// A cluster whose first replica leads term 2, with payloads at 3 to 5 committed.
fn cluster() -> Cluster {
    let mut cluster = Cluster::led_by_first(3);
    for i in 0..3u8 {
        cluster.propose(&[i]);
    }
    assert_eq!((cluster.core(1).status().term, cluster.core(2).status().commit), (TERM, 5));
    cluster
}

/// A message from replica 1 to replica 2.
fn message(kind: MessageType) -> Message {
    let mut message = Message { from: 1, to: 2, term: TERM, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: b"x".to_vec().into(), ..Entry::default() }
}

fn append(index: u64, log_term: u64, entries: Vec<Entry>) -> Message {
    let mut append = Message { index, log_term, ..message(MessageType::MsgAppend) };
    append.set_entries(entries.into());
    append
}

fn snapshot(index: u64, term: u64, voters: Vec<u64>) -> Message {
    let mut snapshot = Snapshot { data: b"m".to_vec().into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    metadata.mut_conf_state().voters = voters;
    let mut message = message(MessageType::MsgSnapshot);
    message.set_snapshot(snapshot);
    message
}

/// Hands a message to its receiver over the connection of its sender.
fn send(cluster: &mut Cluster, message: &Message) -> Result<(), Refused> {
    let result = cluster.core(message.to).receive(ReplicaId(message.from), &message.write_to_bytes().unwrap());
    cluster.settle();
    result
}

/// The follower, replica 2, refuses what the leader says.
fn refused(message: &Message) -> Refused {
    let mut cluster = cluster();
    let before = cluster.core(2).status();
    let refused = send(&mut cluster, message).expect_err("refused");
    assert_eq!(cluster.core(2).status(), before, "a refused message changes nothing");
    refused
}

/// The leader, replica 1, refuses what the follower says.
fn refused_by_leader(message: Message) -> Refused {
    let mut cluster = cluster();
    let before = cluster.core(1).status();
    let refused = send(&mut cluster, &Message { from: 2, to: 1, ..message }).expect_err("refused");
    assert_eq!(cluster.core(1).status(), before, "a refused message changes nothing");
    refused
}

#[test]
fn the_honest_forms_of_these_messages_are_taken() {
    let mut cluster = cluster();
    send(&mut cluster, &append(5, TERM, vec![entry(6, TERM)])).unwrap();
    send(&mut cluster, &Message { commit: 5, ..message(MessageType::MsgHeartbeat) }).unwrap();
    let response = Message { from: 2, to: 1, index: 5, ..message(MessageType::MsgAppendResponse) };
    send(&mut cluster, &response).unwrap();
    send(&mut cluster, &snapshot(4, TERM, vec![3, 2, 1])).unwrap();
}

#[test]
fn sender_and_receiver_must_be_right() {
    let mut cluster = cluster();
    let bytes = message(MessageType::MsgHeartbeat).write_to_bytes().unwrap();
    let forged = Refused::ForgedSender { from: ReplicaId(3), claimed: ReplicaId(1) };
    assert_eq!(cluster.core(2).receive(ReplicaId(3), &bytes), Err(forged));
    assert_eq!(cluster.core(3).receive(ReplicaId(1), &bytes), Err(Refused::NotForUs { to: ReplicaId(2) }));
    for from in [ReplicaId(2), ReplicaId(4), ReplicaId(0)] {
        assert_eq!(cluster.core(2).receive(from, &bytes), Err(Refused::UnknownPeer { from }));
    }
}

#[test]
fn messages_of_the_own_process_are_refused() {
    let kinds = [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
    ];
    for kind in kinds {
        // An empty proposal is fatal for a leader.
        assert!(matches!(refused_by_leader(message(kind)), Refused::Forbidden { .. }));
        assert!(matches!(refused(&message(kind)), Refused::Forbidden { .. }));
    }
}

#[test]
fn sizes_and_encodings_are_bounded() {
    let mut cluster = cluster();
    let found = bounds::MESSAGE_SIZE_BYTES_MAX + 1;
    assert_eq!(cluster.core(2).receive(ReplicaId(1), &vec![0; found]), Err(Refused::TooLarge { found }));
    // Groups nested a million deep exhaust the stack of the decoder.
    let groups = vec![0x9b; 1 << 20];
    assert!(matches!(cluster.core(2).receive(ReplicaId(1), &groups), Err(Refused::Malformed(_))));
    let size = bounds::PAYLOAD_SIZE_BYTES_MAX + 1;
    let large = Entry { data: vec![0; size].into(), ..entry(6, TERM) };
    assert_eq!(refused(&append(5, TERM, vec![large])), Refused::PayloadTooLarge { index: 6, size });
}

#[test]
fn terms_are_bounded() {
    let heartbeat = message(MessageType::MsgHeartbeat);
    for term in [0, TERM + bounds::TERM_JUMP_MAX + 1, u64::MAX] {
        assert!(matches!(refused(&Message { term, ..heartbeat.clone() }), Refused::Term { .. }), "{term}");
    }
    let vote = Message { term: u64::MAX, ..message(MessageType::MsgRequestVote) };
    assert!(matches!(refused(&vote), Refused::Term { .. }));
}

#[test]
fn numbers_are_bounded() {
    let response = message(MessageType::MsgAppendResponse);
    for response in [
        Message { index: u64::MAX, ..response.clone() },
        Message { reject: true, reject_hint: u64::MAX, index: 5, ..response.clone() },
        Message { commit: u64::MAX, ..response.clone() },
    ] {
        assert!(matches!(refused_by_leader(response), Refused::NumberOutOfRange { value: u64::MAX, .. }));
    }
    let append = append(u64::MAX, TERM, vec![]);
    assert!(matches!(refused(&append), Refused::NumberOutOfRange { value: u64::MAX, .. }));
}

#[test]
fn a_commit_beyond_the_log_is_refused() {
    let heartbeat = Message { commit: 6, ..message(MessageType::MsgHeartbeat) };
    assert_eq!(refused(&heartbeat), Refused::CommitBeyondLog { commit: 6, last: 5 });
}

#[test]
fn entries_must_follow_each_other_with_rising_terms() {
    let out_of_order = |message| refused(&message);
    let expected = |expected, found| Refused::EntryOutOfOrder { expected, found };
    assert_eq!(out_of_order(append(5, TERM, vec![entry(7, TERM)])), expected(6, 7));
    assert_eq!(out_of_order(append(5, TERM, vec![entry(6, TERM), entry(6, TERM)])), expected(7, 6));
    assert_eq!(out_of_order(append(0, 1, vec![])), expected(1, 0));
    for message in [
        // Raft takes an index beyond its log for one of term 0, and appends behind a hole.
        append(9, 0, vec![entry(10, TERM)]),
        append(5, TERM + 1, vec![]),
        append(5, TERM, vec![entry(6, TERM - 1)]),
        append(5, TERM, vec![entry(6, TERM + 1)]),
        append(5, TERM, vec![entry(6, 0)]),
    ] {
        assert!(matches!(refused(&message), Refused::EntryTerm { .. }), "{message:?}");
    }
}

#[test]
fn what_is_committed_cannot_be_contradicted() {
    let conflict = |index, theirs| Refused::ConflictsWithCommitted { index, ours: TERM, theirs };
    let next = |message| Message { term: TERM + 1, ..message };
    assert_eq!(refused(&append(4, 1, vec![])), conflict(4, 1));
    let replacing = next(append(4, TERM, vec![entry(5, TERM + 1)]));
    assert_eq!(refused(&replacing), conflict(5, TERM + 1));
    assert_eq!(refused(&next(snapshot(5, TERM + 1, vec![1, 2, 3]))), conflict(5, TERM + 1));
}

#[test]
fn changes_of_the_voters_are_refused() {
    for kind in [EntryType::EntryConfChange, EntryType::EntryConfChangeV2] {
        let change = Entry { entry_type: kind, ..entry(6, TERM) };
        assert_eq!(refused(&append(5, TERM, vec![change])), Refused::EntryKind { index: 6 });
    }
}

#[test]
fn there_is_one_leader_in_a_term() {
    let expected = Refused::SecondLeader { term: TERM, leader: ReplicaId(1), claimed: ReplicaId(3) };
    for message in [append(5, TERM, vec![]), message(MessageType::MsgHeartbeat), snapshot(9, TERM, vec![1, 2, 3])] {
        assert_eq!(refused(&Message { from: 3, ..message }), expected);
    }
}

#[test]
fn a_follower_cannot_have_more_than_the_leader() {
    let response = message(MessageType::MsgAppendResponse);
    for response in [
        Message { index: 6, ..response.clone() },
        Message { reject: true, index: 5, reject_hint: 6, log_term: 2, ..response.clone() },
        Message { commit: 6, ..message(MessageType::MsgHeartbeatResponse) },
    ] {
        assert_eq!(refused_by_leader(response), Refused::ResponseBeyondLog { index: 6, last: 5 });
    }
    let demand = Message { reject: true, index: 5, request_snapshot: 5, ..response };
    assert_eq!(refused_by_leader(demand), Refused::SnapshotDemanded);
}

#[test]
fn snapshots_must_have_a_position_and_the_same_voters() {
    for (index, term) in [(0, TERM), (9, 0), (9, TERM + 1)] {
        assert_eq!(refused(&snapshot(index, term, vec![1, 2, 3])), Refused::SnapshotPosition { index, term });
    }
    for voters in [vec![], vec![1, 2], vec![1, 3, 4], vec![1, 1, 2, 3], vec![1, 2, 3, 4]] {
        assert_eq!(refused(&snapshot(9, TERM, voters)), Refused::SnapshotVoters);
    }
    let mut learners = snapshot(9, TERM, vec![1, 2, 3]);
    learners.mut_snapshot().mut_metadata().mut_conf_state().learners = vec![3];
    assert_eq!(refused(&learners), Refused::SnapshotVoters);
    let size = bounds::MANIFEST_SIZE_BYTES_MAX + 1;
    let mut large = snapshot(9, TERM, vec![1, 2, 3]);
    large.mut_snapshot().data = vec![0; size].into();
    assert_eq!(refused(&large), Refused::ManifestTooLarge { size });
}

#[test]
fn while_a_snapshot_is_installed_no_other_and_no_election_is_begun() {
    let mut cluster = cluster();
    cluster.trusting = false;
    cluster.fast_disks = false;
    send(&mut cluster, &snapshot(9, TERM, vec![1, 2, 3])).unwrap();
    assert_eq!(cluster.snapshots_installed, 1);
    assert_eq!(send(&mut cluster, &snapshot(12, TERM, vec![1, 2, 3])), Err(Refused::Installing));
    assert_eq!(send(&mut cluster, &message(MessageType::MsgTimeoutNow)), Err(Refused::Installing));
    cluster.persist(ReplicaId(2));
    assert_eq!(send(&mut cluster, &snapshot(12, TERM, vec![1, 2, 3])), Ok(()));
    assert_eq!(cluster.snapshots_installed, 2);
}

#[test]
fn the_log_in_memory_is_bounded() {
    let mut config = Config::new(ReplicaId(2), 1, 1);
    config.log_size_bytes_max = 10_000;
    let mut core = Consensus::new(config, Recovered::empty((1..=3).map(ReplicaId))).unwrap();
    let mut taken = 0;
    let refused = loop {
        let large = Entry { data: vec![0; 1000].into(), ..entry(2 + taken, TERM) };
        let message = append(1 + taken, if taken == 0 { 1 } else { TERM }, vec![large]);
        match core.receive(ReplicaId(1), &message.write_to_bytes().unwrap()) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refused::LogFull { size: 8_000..10_000 }), "{refused:?} after {taken}");
    // The leader still reaches it.
    let heartbeat = message(MessageType::MsgHeartbeat).write_to_bytes().unwrap();
    assert_eq!(core.receive(ReplicaId(1), &heartbeat), Ok(()));
}

#[test]
fn answers_that_wait_for_a_stuck_disk_are_bounded() {
    let mut cluster = cluster();
    cluster.fast_disks = false;
    send(&mut cluster, &append(5, TERM, vec![entry(6, TERM)])).unwrap();
    let heartbeat = message(MessageType::MsgHeartbeat);
    let taken = (0..10_000).take_while(|_| send(&mut cluster, &heartbeat).is_ok()).count();
    assert_eq!(taken, bounds::WRITES_IN_FLIGHT_MAX - 1);
    assert_eq!(send(&mut cluster, &heartbeat), Err(Refused::DiskBehind));
    while cluster.persist(ReplicaId(2)) {}
    assert_eq!(send(&mut cluster, &heartbeat), Ok(()));
}

#[test]
fn only_needed_snapshots_are_fetched() {
    let mut cluster = cluster();
    let mut peek = |message: &Message| {
        let bytes = message.write_to_bytes().unwrap();
        cluster.core(2).peek_snapshot(ReplicaId(message.from), &bytes).unwrap().map(|meta| meta.position.index)
    };
    assert_eq!(peek(&snapshot(9, TERM, vec![1, 2, 3])), Some(9));
    assert_eq!(peek(&snapshot(5, TERM, vec![1, 2, 3])), None, "committed already");
    assert_eq!(peek(&Message { term: 1, ..snapshot(9, 1, vec![1, 2, 3]) }), None, "of an earlier leader");
    assert_eq!(peek(&message(MessageType::MsgHeartbeat)), None);
}

/// Raft asserts that a new leader's log is on its disk, and relies on its vote being there.
#[test]
fn votes_that_were_not_asked_for_do_not_count() {
    let mut cluster = Cluster::new(3);
    cluster.fast_disks = false;
    cluster.cut.insert(ReplicaId(3));
    cluster.core(1).campaign();
    let pre_vote = Message { from: 2, to: 1, term: 2, ..message(MessageType::MsgRequestPreVoteResponse) };
    let vote = Message { from: 2, to: 1, term: 2, ..message(MessageType::MsgRequestVoteResponse) };
    assert!(matches!(send(&mut cluster, &pre_vote), Err(Refused::VoteNotAsked { .. })));
    cluster.settle();
    assert_eq!(cluster.core(1).status().role, Role::Candidate, "the honest pre-vote was given");
    assert!(matches!(send(&mut cluster, &vote), Err(Refused::VoteNotAsked { .. })), "its own vote is not written");
    cluster.persist(ReplicaId(1));
    cluster.work();
    assert_eq!(send(&mut cluster, &vote), Ok(()));
    assert_eq!(cluster.core(1).status().role, Role::Leader);
}

#[test]
fn only_the_leader_hands_over() {
    let timeout = message(MessageType::MsgTimeoutNow);
    for message in [Message { from: 3, ..timeout.clone() }, Message { term: TERM + 1, ..timeout.clone() }] {
        assert!(matches!(refused(&message), Refused::NotLeader { .. }));
    }
    let mut cluster = cluster();
    send(&mut cluster, &timeout).unwrap();
    assert_eq!(cluster.leader(), Some(ReplicaId(2)));
}

#[test]
fn reads_are_named_after_their_replica_and_bounded() {
    let read = |asker: u64, count: u64, size: usize| {
        let mut message = Message { from: 2, to: 1, term: 0, ..message(MessageType::MsgReadIndex) };
        let mut name = [asker, 7, count].map(u64::to_be_bytes).concat();
        name.resize(size, 0);
        message.set_entries(vec![Entry { data: name.into(), ..Entry::default() }].into());
        message
    };
    // Raft takes the first entry without a look.
    let empty = Message { term: 0, ..message(MessageType::MsgReadIndex) };
    for message in [empty, read(3, 1, 24), read(2, 1, 23), read(2, 1, 32)] {
        assert_eq!(refused_by_leader(message), Refused::ReadName);
    }
    let passed_on = Message { from: 3, to: 2, ..read(3, 1, 24) };
    assert!(matches!(refused(&passed_on), Refused::NotLeader { .. }));

    let mut cluster = cluster();
    cluster.cut.extend([ReplicaId(1)]);
    for count in 0..bounds::READS_PENDING_MAX as u64 {
        send(&mut cluster, &read(2, count, 24)).unwrap();
    }
    assert_eq!(send(&mut cluster, &read(2, 999, 24)), Err(Refused::TooManyReads { from: ReplicaId(2) }));
    assert!(cluster.read(ReplicaId(1)).is_some(), "others are not blocked");
}

#[test]
fn answers_to_no_read_and_odd_contexts_are_refused() {
    let mut answer = message(MessageType::MsgReadIndexResp);
    assert_eq!(refused(&answer), Refused::ReadName);
    answer.set_entries(vec![Entry { data: vec![0; 32].into(), ..Entry::default() }].into());
    assert_eq!(refused(&answer), Refused::ReadUnknown);
    let context = vec![0; 33];
    for kind in [MessageType::MsgHeartbeat, MessageType::MsgAppend, MessageType::MsgRequestVote] {
        let odd = Message { context: context.clone().into(), index: 5, log_term: TERM, ..message(kind) };
        assert!(matches!(refused(&odd), Refused::Context { size: 33, .. }));
    }
    let odd = Message { context: context.into(), ..message(MessageType::MsgHeartbeatResponse) };
    assert!(matches!(refused_by_leader(odd), Refused::Context { size: 33, .. }));
}

fn any_kind() -> impl Strategy<Value = MessageType> {
    (0..=18i32).prop_map(|kind| protobuf::ProtobufEnum::from_i32(kind).unwrap())
}

/// Numbers around those that occur, and extreme ones.
fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12u64, 1 => Just(u64::MAX), 1 => Just(bounds::NUMBER_MAX), 1 => any::<u64>()]
}

fn any_message() -> impl Strategy<Value = Message> {
    let numbers = proptest::collection::vec(any_number(), 8);
    let entries = proptest::collection::vec((any_number(), any_number(), 0..3i32), 0..4);
    let voters = proptest::collection::vec(0..5u64, 0..5);
    let contexts = prop_oneof![4 => Just(0usize), 1 => Just(24), 1 => Just(32), 1 => 0..40usize];
    (any_kind(), numbers, entries, voters, contexts, any::<bool>(), any::<bool>()).prop_map(
        |(kind, numbers, entries, voters, context, reject, follows)| {
            let [term, log_term, index, commit, commit_term, reject_hint, request, priority] = numbers[..] else {
                unreachable!("eight numbers");
            };
            let mut message = match kind {
                MessageType::MsgSnapshot => snapshot(index, log_term, voters),
                kind => message(kind),
            };
            let following = |i: usize, entry: u64| if follows { index.wrapping_add(i as u64 + 1) } else { entry };
            let entries = entries.into_iter().enumerate().map(|(i, (index, term, kind))| {
                let mut data = ReplicaId(1).0.to_be_bytes().to_vec();
                data.resize(context, 0);
                let entry_type = protobuf::ProtobufEnum::from_i32(if kind == 2 { 2 } else { 0 }).unwrap();
                Entry { index: following(i, index), term, entry_type, data: data.into(), ..Entry::default() }
            });
            message.set_entries(entries.collect::<Vec<_>>().into());
            message.context = vec![0; context].into();
            let term = if kind == MessageType::MsgReadIndex { 0 } else { term };
            (message.term, message.log_term, message.index) = (term, log_term, index);
            (message.commit, message.commit_term, message.reject_hint) = (commit, commit_term, reject_hint);
            message.request_snapshot = if request > 8 { request } else { 0 };
            (message.reject, message.priority) = (reject, priority as i64);
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut cluster = cluster();
        let _ = cluster.core(1).receive(ReplicaId(2), &bytes);
        let _ = cluster.core(2).receive(ReplicaId(1), &bytes);
    }

    /// Replica 1 says anything to 2, and 2 to 1, whatever they are at the time. Not the cluster's promises are checked,
    /// a lying majority breaks those, but that nobody panics.
    #[test]
    fn lies_in_the_form_of_messages_never_panic(
        messages in proptest::collection::vec((any_message(), any::<bool>(), 0..40usize), 1..60),
        slow in any::<bool>(),
    ) {
        let mut cluster = cluster();
        cluster.trusting = false;
        cluster.fast_disks = !slow;
        for (message, to_leader, ticks) in messages {
            let message = if to_leader { Message { from: 2, to: 1, ..message } } else { message };
            let bytes = message.write_to_bytes().unwrap();
            let core = cluster.core(message.to);
            let _ = core.receive(ReplicaId(message.from), &bytes);
            for _ in 0..ticks.saturating_sub(20) {
                core.tick();
            }
            cluster.settle();
            cluster.persist(ReplicaId(message.to));
        }
    }

    /// Genuine messages with one byte changed.
    #[test]
    fn damaged_messages_never_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..80),
    ) {
        let mut cluster = cluster();
        cluster.trusting = false;
        for (place, byte) in damage {
            for id in 1..=3 {
                cluster.core(id).tick();
                let _ = cluster.core(id).propose(vec![byte]);
            }
            cluster.work();
            for mut packet in std::mem::take(&mut cluster.network) {
                let place = place.index(packet.message.bytes.len());
                cluster.deliver(packet.clone());
                packet.message.bytes[place] = byte;
                cluster.deliver(packet);
            }
        }
    }
}
