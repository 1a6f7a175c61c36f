//! The consensus core, driven by hand: elections, replication, crashes, snapshots, reads, hostile peers, and random
//! schedules of all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests, outside #[test]")]

mod cluster;
mod hostile;
mod reads;
mod schedules;

use std::collections::BTreeSet;

use cluster::Cluster;
use fedledger_ledger::consensus::{
    Config, Consensus, ConsensusError, LogEntry, ProgressError, ProposeError, Recovered, ReplicaId, Role,
    TransferError, bounds,
};
use protobuf::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};

#[test]
fn the_first_replica_of_a_new_cluster_leads_at_once() {
    for voters in [1, 3, 5] {
        let mut cluster = Cluster::led_by_first(voters);
        for id in cluster.ids() {
            assert_eq!(cluster.core(id.0).status().leader, Some(ReplicaId(1)), "{voters} voters, {id}");
        }
    }
}

#[test]
fn without_help_somebody_is_elected_and_the_run_can_be_repeated() {
    let run = || {
        let mut cluster = Cluster::new(5);
        let leader = cluster.elect();
        (leader, cluster.leaders)
    };
    assert_eq!(run(), run());
}

#[test]
fn what_is_proposed_is_applied_everywhere_in_order() {
    let mut cluster = Cluster::led_by_first(3);
    let payloads: Vec<_> = (0..100u32).map(|i| i.to_be_bytes().to_vec()).collect();
    for payload in &payloads {
        cluster.core(1).propose(payload.clone()).unwrap();
    }
    cluster.settle();
    assert_eq!(cluster.agreed_payloads(), payloads);
    assert!(cluster.refused.is_empty(), "{:?}", cluster.refused);
}

#[test]
fn proposals_of_one_step_travel_in_one_message_per_peer() {
    let mut cluster = Cluster::led_by_first(3);
    for i in 0..20u8 {
        cluster.core(1).propose(vec![i; 100]).unwrap();
    }
    cluster.work();
    assert_eq!(cluster.network.len(), 2);
}

#[test]
fn large_payloads_are_cut_into_messages_that_peers_take() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.cut.insert(ReplicaId(3));
    for i in 0..40u8 {
        cluster.propose(&vec![i; 300_000]);
    }
    cluster.propose(&vec![7; bounds::PAYLOAD_SIZE_BYTES_MAX]);
    cluster.cut.clear();
    cluster.ticks(20);
    assert_eq!(cluster.agreed_payloads().len(), 41);
    assert!(cluster.refused.is_empty(), "{:?}", cluster.refused);
}

#[test]
fn only_the_leader_takes_proposals_and_only_sensible_ones() {
    let mut cluster = Cluster::led_by_first(3);
    let leader = Some(ReplicaId(1));
    assert_eq!(cluster.core(2).propose(vec![1]), Err(ProposeError::NotLeader { leader }));
    assert_eq!(cluster.core(1).propose(vec![]), Err(ProposeError::Empty));
    let found = bounds::PAYLOAD_SIZE_BYTES_MAX + 1;
    assert_eq!(cluster.core(1).propose(vec![0; found]), Err(ProposeError::TooLarge { found }));
    let payload = vec![0; bounds::PAYLOAD_SIZE_BYTES_MAX];
    let taken = (0..100).take_while(|_| cluster.core(1).propose(payload.clone()).is_ok()).count();
    assert_eq!(taken as u64, bounds::UNCOMMITTED_SIZE_BYTES_MAX / bounds::PAYLOAD_SIZE_BYTES_MAX as u64);
    assert_eq!(cluster.core(1).propose(payload), Err(ProposeError::Busy));
    cluster.settle();
    assert_eq!(cluster.core(1).propose(vec![1]), Ok(()));
}

#[test]
fn nothing_is_acknowledged_before_it_is_on_the_disk() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.fast_disks = false;
    cluster.core(1).propose(b"unwritten".to_vec()).unwrap();
    cluster.settle();
    // Everybody has the entry in memory, nobody on the disk.
    for id in cluster.ids() {
        assert_eq!(cluster.core(id.0).status().last, 3);
    }
    assert_eq!(cluster.core(1).status().commit, 2);
    cluster.persist(ReplicaId(2));
    cluster.settle();
    assert_eq!(cluster.core(1).status().commit, 2, "the leader's own disk does not count yet");
    cluster.persist(ReplicaId(1));
    cluster.settle();
    assert_eq!(cluster.core(1).status().commit, 3);
}

#[test]
fn a_crash_before_the_write_loses_only_what_nobody_acknowledged() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.propose(b"kept");
    cluster.fast_disks = false;
    cluster.core(1).propose(b"lost".to_vec()).unwrap();
    cluster.settle();
    for id in cluster.ids() {
        cluster.crash(id, 0);
    }
    cluster.fast_disks = true;
    for id in cluster.ids() {
        cluster.start(id);
    }
    cluster.elect();
    cluster.propose(b"later");
    cluster.ticks(5);
    assert_eq!(cluster.agreed_payloads(), [b"kept".to_vec(), b"later".to_vec()]);
}

/// Two changes of leader bring entries back that a write under way is about to delete. Raft takes them for durable when
/// their first write ends, and would let them be applied; after a crash the log would end before the applied index.
#[test]
fn entries_that_come_back_are_durable_only_after_their_last_write() {
    let voters = (1..=3).map(ReplicaId);
    let mut core = Consensus::new(Config::new(ReplicaId(1), 1, 1), Recovered::empty(voters)).unwrap();
    let append = |leader: u64, term: u64, entries: std::ops::RangeInclusive<u64>, entry_term: u64| {
        let entry = |index| Entry { index, term: entry_term, data: vec![1].into(), ..Entry::default() };
        let mut message = Message { from: leader, to: 1, term, index: 1, log_term: 1, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(entries.map(entry).collect::<Vec<_>>().into());
        message
    };
    let messages = [append(2, 2, 2..=4, 2), append(3, 3, 2..=2, 3), append(2, 4, 2..=4, 2)];
    let writes: Vec<_> = messages
        .into_iter()
        .map(|message| {
            core.receive(ReplicaId(message.from), &message.write_to_bytes().unwrap()).unwrap();
            let ready = core.ready().unwrap();
            assert!(ready.messages.is_empty() && ready.log.unwrap().must_sync);
            ready.number
        })
        .collect();
    let mut persisted = |number| {
        let released = core.persisted(number).unwrap().len();
        (released, core.status().persisted)
    };
    assert_eq!(writes.into_iter().map(&mut persisted).collect::<Vec<_>>(), [(1, 1), (1, 1), (1, 4)]);
}

#[test]
fn a_vote_that_is_not_on_the_disk_is_not_given() {
    let mut cluster = Cluster::new(3);
    cluster.fast_disks = false;
    cluster.core(1).campaign();
    // Pre-votes change nothing, so they need no disk; then the candidate's own vote waits for it.
    cluster.settle();
    assert_eq!(cluster.core(1).status().role, Role::Candidate);
    cluster.persist(ReplicaId(1));
    cluster.settle();
    assert_eq!(cluster.core(1).status().role, Role::Candidate, "asked, but nobody has written its vote");
    cluster.persist(ReplicaId(2));
    cluster.settle();
    assert_eq!(cluster.core(1).status().role, Role::Leader);
}

#[test]
fn a_cluster_that_restarts_goes_on_where_it_was() {
    let mut cluster = Cluster::led_by_first(3);
    for i in 0..10u8 {
        cluster.propose(&[i]);
    }
    let term = cluster.core(1).status().term;
    for id in cluster.ids() {
        cluster.crash(id, usize::MAX);
        cluster.start(id);
    }
    let leader = cluster.elect();
    assert!(cluster.core(leader.0).status().term > term);
    cluster.propose(b"after");
    cluster.ticks(5);
    assert_eq!(cluster.agreed_payloads().len(), 11);
}

#[test]
fn the_others_go_on_without_the_leader_and_it_catches_up() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.propose(b"one");
    cluster.crash(ReplicaId(1), usize::MAX);
    assert_ne!(cluster.elect(), ReplicaId(1));
    cluster.propose(b"two");
    cluster.start(ReplicaId(1));
    cluster.ticks(10);
    assert_eq!(cluster.agreed_payloads(), [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn a_leader_that_is_cut_off_steps_down_and_its_entries_are_replaced() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.cut.insert(ReplicaId(1));
    cluster.core(1).propose(b"stranded".to_vec()).unwrap();
    cluster.settle();
    let leader = cluster.elect();
    cluster.core(leader.0).propose(b"kept".to_vec()).unwrap();
    cluster.ticks(30);
    assert_ne!(cluster.core(1).status().role, Role::Leader);
    cluster.cut.clear();
    cluster.ticks(10);
    assert_eq!(cluster.agreed_payloads(), [b"kept".to_vec()]);
}

#[test]
fn a_replica_that_is_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.cut.insert(ReplicaId(3));
    for i in 0..50u8 {
        cluster.propose(&[i]);
    }
    cluster.compact(ReplicaId(1));
    cluster.compact(ReplicaId(2));
    let compacted = cluster.core(1).status().compacted.index;
    assert_eq!(compacted, cluster.core(1).status().applied - cluster.catch_up_entries);
    cluster.cut.clear();
    cluster.ticks(10);
    assert_eq!(cluster.snapshots_installed, 1);
    assert_eq!(cluster.agreed_payloads().len(), 50);
    // It can restart from what it installed, and go on.
    cluster.crash(ReplicaId(3), usize::MAX);
    cluster.start(ReplicaId(3));
    cluster.propose(b"after");
    cluster.ticks(10);
    assert_eq!(cluster.agreed_payloads().len(), 51);
    assert_eq!(cluster.snapshots_installed, 1);
}

#[test]
fn no_election_begins_while_a_snapshot_is_being_installed() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.cut.insert(ReplicaId(3));
    for i in 0..50u8 {
        cluster.propose(&[i]);
    }
    cluster.compact(ReplicaId(1));
    cluster.cut.clear();
    cluster.fast_disks = false;
    for _ in 0..4 {
        cluster.core(1).tick();
        cluster.settle();
    }
    assert_eq!(cluster.snapshots_installed, 1);
    // Raft would look for the replaced entries and panic.
    for _ in 0..100 {
        cluster.core(3).tick();
        cluster.core(3).campaign();
    }
    assert_eq!(cluster.core(3).status().role, Role::Follower);
    cluster.fast_disks = true;
    cluster.ticks(10);
    cluster.core(3).campaign();
    cluster.settle();
    assert_eq!(cluster.agreed_payloads().len(), 50);
}

#[test]
fn a_lost_snapshot_is_sent_again() {
    let mut cluster = Cluster::led_by_first(3);
    cluster.cut.insert(ReplicaId(3));
    for i in 0..50u8 {
        cluster.propose(&[i]);
    }
    cluster.compact(ReplicaId(1));
    cluster.cut.clear();
    let mut lost = 0;
    for _ in 0..bounds::SNAPSHOT_STALL_TICKS + 20 {
        cluster.core(1).tick();
        cluster.work();
        while !cluster.network.is_empty() {
            let packet = cluster.network.remove(0);
            if packet.message.is_snapshot && lost == 0 {
                lost += 1;
            } else {
                cluster.deliver(packet);
                cluster.work();
            }
        }
    }
    assert_eq!((lost, cluster.snapshots_installed), (1, 1));
    assert_eq!(cluster.agreed_payloads().len(), 50);
}

#[test]
fn leadership_can_be_handed_over() {
    let mut cluster = Cluster::led_by_first(3);
    let leader = Some(ReplicaId(1));
    assert_eq!(cluster.core(2).transfer_leadership(ReplicaId(3)), Err(TransferError::NotLeader { leader }));
    for to in [ReplicaId(1), ReplicaId(9)] {
        assert_eq!(cluster.core(1).transfer_leadership(to), Err(TransferError::NotAPeer { to }));
    }
    cluster.core(1).transfer_leadership(ReplicaId(3)).unwrap();
    cluster.settle();
    assert_eq!(cluster.leader(), Some(ReplicaId(3)));
}

#[test]
fn reports_of_what_was_never_handed_out_are_refused() {
    let mut cluster = Cluster::led_by_first(3);
    assert!(matches!(cluster.core(1).persisted(99), Err(ProgressError::UnknownReady { number: 99, .. })));
    let not_committed = ProgressError::NotCommitted { index: 3, last: 2 };
    assert_eq!(cluster.core(1).applied(3), Err(not_committed));
    let outside = |index| ProgressError::SnapshotOutsideLog { index, first: 1, applied: 2 };
    for index in [0, 3] {
        assert_eq!(cluster.core(1).set_snapshot(index, vec![]), Err(outside(index)));
    }
}

#[test]
fn elections_are_spread_over_the_range_and_differ_between_replicas() {
    let mut first = BTreeSet::new();
    for seed in 0..40 {
        let voters = (1..=3).map(ReplicaId);
        let mut cores: Vec<_> = voters
            .clone()
            .map(|id| Consensus::new(Config::new(id, 1, seed), Recovered::empty(voters.clone())).unwrap())
            .collect();
        let waits: Vec<_> = cores
            .iter_mut()
            .map(|core| {
                let candidate = |core: &mut Consensus| {
                    core.tick();
                    core.status().role == Role::PreCandidate
                };
                (1..100).find(|_| candidate(core)).unwrap()
            })
            .collect();
        assert!(waits.iter().all(|ticks| Config::new(ReplicaId(1), 1, 0).election_ticks.contains(ticks)), "{waits:?}");
        first.extend(waits);
    }
    assert_eq!(first.len(), 11, "every timeout from 10 to 20 occurs");
}

#[test]
fn impossible_settings_and_damaged_disks_do_not_start() {
    let start = |change: &dyn Fn(&mut Config, &mut Recovered)| {
        let mut config = Config::new(ReplicaId(1), 1, 1);
        let mut recovered = Recovered::empty((1..=3).map(ReplicaId));
        recovered.hard_state.term = 5;
        recovered.entries = [(2, 1), (3, 4)].map(|(index, term)| LogEntry { index, term, payload: vec![1] }).into();
        change(&mut config, &mut recovered);
        Consensus::new(config, recovered).err()
    };
    assert!(start(&|_, _| {}).is_none());
    use ConsensusError as E;
    assert!(matches!(start(&|c, _| c.heartbeat_ticks = 0), Some(E::Ticks { .. })));
    assert!(matches!(start(&|c, _| c.election_ticks = 2..=20), Some(E::Ticks { .. })));
    assert!(matches!(start(&|c, _| c.id = ReplicaId(4)), Some(E::NotAVoter { replica: ReplicaId(4) })));
    assert!(matches!(start(&|_, r| r.voters = BTreeSet::new()), Some(E::VoterCount { found: 0 })));
    assert!(matches!(start(&|_, r| r.voters.extend([ReplicaId(0)])), Some(E::ReplicaZero)));
    assert!(matches!(start(&|_, r| r.hard_state.vote = Some(ReplicaId(7))), Some(E::NotAVoter { .. })));
    assert!(matches!(start(&|_, r| r.entries[1].index = 4), Some(E::LogGap { expected: 3, found: 4 })));
    assert!(matches!(start(&|_, r| r.entries[0].term = 5), Some(E::EntryTerm { index: 3, .. })));
    assert!(matches!(start(&|_, r| r.entries[1].term = 6), Some(E::EntryTerm { index: 3, .. })));
    assert!(matches!(start(&|_, r| r.applied = 4), Some(E::AppliedOutsideLog { applied: 4, .. })));
    assert!(matches!(start(&|_, r| r.applied = 0), Some(E::AppliedOutsideLog { applied: 0, .. })));
    assert!(matches!(start(&|_, r| r.hard_state.commit = 4), Some(E::CommitBeyondLog { commit: 4, last: 3 })));
    assert!(matches!(start(&|_, r| r.hard_state.term = u64::MAX), Some(E::Number { .. })));
    assert!(matches!(start(&|_, r| r.compacted.index = 0), Some(E::Number { .. })));
    assert!(matches!(LogEntry::from_bytes(2, &[0; 8]), Err(E::EntryDamaged { index: 2 })));
    assert!(matches!(LogEntry::from_bytes(2, &[1; 9]), Err(E::EntryDamaged { index: 2 })));
}
