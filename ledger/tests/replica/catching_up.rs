//! Replicas that restart, were away, or are told lies while they catch up.

use fedledger_ledger::{
    Digest,
    leaf::Leaf,
    log::{Log, read_leaf},
    replica::Fault,
    seal::{SEAL_KIND, SealProposal},
    storage::memory::MemoryStorage,
};

use crate::{
    cluster::{BEGIN_MS, Cluster, index, open},
    machine::{Words, author_key, cosign_key, genesis, signed, transaction},
};

#[test]
fn a_replica_restarts_with_everything_acknowledged() {
    let mut cluster = Cluster::new(3);
    let envelopes: Vec<_> = (1..=21).map(|nonce| transaction(cluster.chain(), nonce, "Say", b"yes")).collect();
    for envelope in &envelopes[..20] {
        cluster.submit(1, envelope);
    }
    cluster.restart(3);
    cluster.ticks(30);
    cluster.assert_agree();
    // And the whole cluster at once.
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.ticks(100);
    let leader = cluster.leader().unwrap();
    assert_eq!(index(&cluster.submit(leader, &envelopes[20])), 21);
    // Deduplication survives, too.
    assert_eq!(index(&cluster.submit(leader, &envelopes[4])), 5);
    cluster.ticks(5);
    cluster.assert_agree();
    assert_eq!(cluster.nodes[&3].replica.log().machine().counts[b"yes".as_slice()], 21);
}

#[test]
fn a_replica_that_was_away_for_long_catches_up_from_leaves() {
    let mut cluster = Cluster::new(3);
    cluster.say(b"before");
    cluster.turn_off(3);
    // More than the Raft log keeps: it is compacted every 4,096 entries.
    for turn in 0..4_300 {
        cluster.say(b"yes");
        if turn % 1_000 == 0 {
            cluster.advance(60);
        }
    }
    let first_kept = cluster.nodes[&1].replica.status().compacted.index;
    assert!(first_kept > 3_000, "nothing was compacted: {first_kept}");
    cluster.turn_on(3);
    assert!(cluster.pass_until(10_000, |cluster| cluster.size(3) == cluster.size(1)));
    cluster.assert_agree();
    // It counts in the quorum again, and what is said now needs its co-signature.
    cluster.turn_off(2);
    let after = cluster.say(b"after");
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_final(after)));
    cluster.turn_on(2);
    cluster.restart(3);
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_unanimous(after)));
    cluster.assert_agree();
}

/// A cluster in which the third replica was away for so long that it needs a snapshot, and holds more than the snapshot
/// describes: somebody has sent it all entries that there are.
fn ahead_of_the_snapshot() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.turn_off(3);
    // More than the Raft log keeps: it is compacted every 4,096 entries.
    for _ in 0..4_300 {
        cluster.say(b"yes");
    }
    let leaves = cluster.leaves(1, cluster.size(3), cluster.size(1));
    cluster.catch_up(3, &leaves);
    cluster
}

#[test]
fn a_snapshot_that_is_shorter_than_the_log_is_compared_with_its_beginning() {
    let mut cluster = ahead_of_the_snapshot();
    cluster.turn_on(3);
    let applied = |cluster: &Cluster, id: u64| cluster.nodes[&id].replica.status().applied;
    assert!(cluster.pass_until(10_000, |cluster| applied(cluster, 3) == applied(cluster, 1)));
    assert!(cluster.snapshots.iter().any(|(snapshot, log)| snapshot < log), "{:?}", cluster.snapshots);
    cluster.turn_off(2);
    let after = cluster.say(b"needs its acknowledgement");
    cluster.assert_agree();
    assert_eq!(index(&cluster.submit(1, &transaction(cluster.chain(), 77, "Say", b"yes"))), after + 1);
}

#[test]
fn a_forged_snapshot_that_is_shorter_than_the_log_is_refused() {
    let mut cluster = ahead_of_the_snapshot();
    cluster.forges_snapshots = true;
    let (size, applied) = (cluster.size(3), cluster.nodes[&3].replica.status().applied);
    cluster.turn_on(3);
    assert!(cluster.pass_until(10_000, |cluster| cluster.faults.contains_key(&3)));
    let (snapshot, log) = cluster.snapshots[0];
    assert!(snapshot < log && log == size, "{:?}", cluster.snapshots);
    let forged = Digest::of(b"forged");
    let fault = &cluster.faults[&3];
    assert!(matches!(fault, Fault::SnapshotRoot { size, expected, .. } if *size == snapshot && *expected == forged));
    // Nothing of it was taken: with an honest leader it goes on.
    cluster.forges_snapshots = false;
    cluster.restart(3);
    assert!(cluster.nodes[&3].replica.status().applied <= applied);
    assert!(cluster.pass_until(60_000, |cluster| cluster.nodes[&3].replica.status().applied > applied));
    cluster.ticks(5);
    cluster.assert_agree();
}

#[test]
fn forged_leaves_are_refused_while_catching_up() {
    let mut cluster = Cluster::new(3);
    cluster.say(b"yes");
    let leaf = read_leaf(&*cluster.nodes[&1].storage, 1).unwrap();
    let mut fresh = open(2, 3, 9, &cosign_key(2), &MemoryStorage::default()).unwrap();
    let mut forged = Leaf::from_bytes(&leaf).unwrap();
    forged.write_set = Digest::of(b"something else");
    let (_, outcome) = fresh.catch_up(&[forged.to_bytes()]);
    assert!(matches!(outcome, Err(Fault::Diverged { index: 1, .. })), "{outcome:?}");
}

/// A lying peer can make up leaves that follow from each other. Nobody has agreed on them, and no replica vouches for
/// them, neither at once nor with what consensus says next, also not when a bad leaf ends them.
#[test]
fn heads_of_fetched_leaves_are_not_co_signed() {
    let (mut log, _) = Log::<Words>::genesis(&genesis(1)).unwrap();
    let payload = SealProposal { time_ms: BEGIN_MS, term: 2, cosigned: vec![] }.to_bytes();
    let envelopes = [
        transaction(Digest::of(&genesis(1)), 1, "Say", b"made up"),
        signed(&author_key(1), Digest::of(&genesis(1)), 1, SEAL_KIND, &payload),
    ];
    let leaves: Vec<_> =
        (2..).zip(&envelopes).map(|(raft_index, envelope)| leaf(&mut log, raft_index, envelope)).collect();
    for last in [None, Some(b"no leaf".to_vec())] {
        let storage = MemoryStorage::default();
        let mut fresh = open(1, 1, 9, &cosign_key(1), &storage).unwrap();
        fresh.clock(BEGIN_MS);
        let leaves: Vec<_> = leaves.iter().cloned().chain(last).collect();
        let (step, _) = fresh.catch_up(&leaves);
        assert_eq!((fresh.log().size(), fresh.log().sealed().number), (3, 1));
        assert_eq!(step.write.unwrap().cosign, None);
        let applied = fresh.status().applied;
        fresh.campaign();
        while let Some(step) = fresh.step().unwrap() {
            let Some(write) = step.write else { continue };
            assert_eq!(write.cosign, None);
            if let Some(number) = write.number {
                fresh.persisted(number).unwrap();
            }
        }
        assert!(fresh.status().applied > applied, "consensus had something to apply");
        assert_eq!(fresh.cosigned().size, 0);
    }
}

fn leaf(log: &mut Log<Words>, raft_index: u64, envelope: &[u8]) -> Vec<u8> {
    match log.apply(raft_index, envelope) {
        fedledger_ledger::log::Applied::Entry(entry) => entry.leaf.to_bytes(),
        other => panic!("no leaf: {other:?}"),
    }
}
