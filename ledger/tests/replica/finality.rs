//! From a submitted entry to a final and unanimous one, with everybody there and with some missing.

use fedledger_ledger::{
    checkpoint::Checkpoint,
    finality::Finding,
    leaf::Leaf,
    log::read_leaf,
    note::{NoteSignature, SignedNote},
    replica::{SEAL_ENTRIES, SEAL_INTERVAL_MS},
    seal::SealProposal,
    storage::{Batch, LogStorage as _, notes::read_note},
    transaction::Envelope,
};

use crate::{
    cluster::Cluster,
    machine::{ORIGIN, cosign_key, log_key, name, threshold},
};

#[test]
fn what_is_submitted_becomes_final_and_unanimous() {
    for replicas in [3, 4, 5, 7] {
        let mut cluster = Cluster::new(replicas);
        let index = cluster.say(b"yes");
        assert!(!cluster.is_final(index), "nothing is final before it is sealed");
        cluster.advance(SEAL_INTERVAL_MS);
        assert!(cluster.is_final(index) && cluster.is_unanimous(index), "{replicas} replicas");
        cluster.assert_agree();
        let leader = &cluster.nodes[&1];
        let note = SignedNote::parse(&leader.replica.finality().final_note().unwrap()).unwrap();
        note.verify(ORIGIN, &log_key(1).public()).unwrap();
        for id in 1..=replicas {
            let time_s = note.verify_cosignature(&format!("{ORIGIN}/{}", name(id)), &cosign_key(id).public()).unwrap();
            assert_eq!(time_s, cluster.now_ms / 1000);
        }
        let head = Checkpoint::parse(note.text()).unwrap();
        assert_eq!((head.size(), *head.root()), (leader.replica.log().size(), leader.replica.log().root()));
        // What is final is on the disk as well.
        assert_eq!(read_note(&*leader.storage, "final").unwrap().as_deref(), Some(note.to_string().as_str()));
    }
}

#[test]
fn a_seal_fixes_state_time_and_who_co_signed_the_one_before() {
    let mut cluster = Cluster::new(4);
    cluster.advance(SEAL_INTERVAL_MS);
    cluster.say(b"yes");
    let state_root = cluster.nodes[&2].replica.log().state().root();
    cluster.advance(SEAL_INTERVAL_MS);
    let sealed = cluster.nodes[&2].replica.log().sealed();
    assert_eq!((sealed.number, sealed.index, sealed.time_ms), (2, 3, cluster.now_ms));
    let leaf = Leaf::from_bytes(&read_leaf(&*cluster.nodes[&2].storage, 3).unwrap()).unwrap();
    let seal = leaf.seal.unwrap();
    assert_eq!((seal.number, seal.previous, seal.epoch, seal.time_ms), (2, 1, 0, cluster.now_ms));
    assert_eq!(seal.state_root, state_root);
    let proposal = SealProposal::from_bytes(&Envelope::open_unverified(&leaf.envelope).unwrap().payload).unwrap();
    assert_eq!(proposal.cosigned, [1, 2, 3, 4].map(name));
}

#[test]
fn enough_replicas_make_it_final_and_one_fewer_do_not() {
    for replicas in [3, 4, 5, 7] {
        let mut cluster = Cluster::new(replicas);
        // Those beyond the threshold are down; the leader is not among them.
        for id in threshold(replicas) + 1..=replicas {
            cluster.turn_off(id);
        }
        let first = cluster.say(b"first");
        cluster.advance(SEAL_INTERVAL_MS);
        assert!(cluster.is_final(first), "{replicas} replicas, {} of them up", threshold(replicas));
        assert!(!cluster.is_unanimous(first));
        // One more is down. Where consensus needs it as well, nothing is committed; elsewhere nothing becomes final.
        let missing = threshold(replicas);
        cluster.turn_off(missing);
        if cluster.nodes.len() as u64 / 2 < missing - 1 {
            let second = cluster.say(b"second");
            cluster.pass(20_000);
            assert!(cluster.nodes.values().all(|node| node.replica.finality().final_size() <= second));
            cluster.turn_on(missing);
            // Nobody says anything new: a leader seals again until all is final.
            assert!(cluster.pass_until(60_000, |cluster| cluster.is_final(second)), "{replicas} replicas");
        } else {
            cluster.pass(3_000);
            cluster.turn_on(missing);
            assert!(cluster.pass_until(10_000, |cluster| cluster.leader().is_some()));
            let second = cluster.say(b"second");
            assert!(cluster.pass_until(60_000, |cluster| cluster.is_final(second)), "{replicas} replicas");
        }
    }
}

/// A replica that only hears the others' notes, having been away while they signed, learns what is final.
#[test]
fn a_replica_that_cannot_sign_learns_what_is_final() {
    let mut cluster = Cluster::new(4);
    cluster.node(4).skew_ms = 60_000;
    cluster.advance(1);
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_final(index));
    assert!(!cluster.is_unanimous(index));
    assert_eq!(cluster.nodes[&4].replica.cosigned().size, 0, "its clock is wrong");
    let note = SignedNote::parse(&cluster.nodes[&4].replica.finality().final_note().unwrap()).unwrap();
    assert!((1..=3).any(|id| note.verify(ORIGIN, &log_key(id).public()).is_ok()), "signed in the name of the log");
}

#[test]
fn seals_keep_their_distance_in_time() {
    let mut cluster = Cluster::new(4);
    let mut seals = Vec::new();
    for _ in 0..200 {
        cluster.say(b"yes");
        cluster.advance(7);
        let sealed = cluster.nodes[&1].replica.log().sealed();
        if seals.last().is_none_or(|(number, _)| *number != sealed.number) {
            seals.push((sealed.number, sealed.time_ms));
        }
    }
    assert!(seals.len() > 20, "{seals:?}");
    assert!(seals.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1 && pair[1].1 - pair[0].1 >= SEAL_INTERVAL_MS));
    // 7 ms do not divide 50: the next multiple is 56.
    assert!(seals.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 56));
}

#[test]
fn many_entries_do_not_wait_for_the_time() {
    let mut cluster = Cluster::new(3);
    cluster.say(b"first");
    cluster.advance(SEAL_INTERVAL_MS);
    let before = cluster.nodes[&1].replica.log().sealed().number;
    for _ in 1..SEAL_ENTRIES {
        cluster.say(b"yes");
    }
    cluster.advance(0);
    assert_eq!(cluster.nodes[&1].replica.log().sealed().number, before, "one entry too few");
    let last = cluster.say(b"yes");
    cluster.advance(0);
    assert_eq!(cluster.nodes[&1].replica.log().sealed().number, before + 1);
    assert!(cluster.is_unanimous(last));
}

#[test]
fn nothing_is_sealed_when_nothing_happened() {
    let mut cluster = Cluster::new(4);
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(index));
    let size = cluster.size(1);
    cluster.pass(120_000);
    assert_eq!(cluster.size(1), size);
    assert_eq!(cluster.nodes[&1].replica.seal_due_ms(), None);
    assert_eq!(cluster.leader(), Some(1), "nobody had a reason to hand over");
}

/// The last co-signature of a head may come when a later one is final already.
#[test]
fn what_is_kept_as_final_never_goes_back() {
    let mut cluster = Cluster::new(4);
    cluster.say(b"one");
    cluster.turn_off(4);
    cluster.advance(SEAL_INTERVAL_MS);
    let first = cluster.nodes[&1].replica.finality().newest_note().unwrap();
    cluster.say(b"two");
    cluster.advance(SEAL_INTERVAL_MS);
    let final_size = cluster.final_size(1);
    assert_eq!(final_size, cluster.size(1));
    // Replica 4 signs the first head now.
    let text = SignedNote::parse(&first).unwrap().text().to_owned();
    let name = format!("{ORIGIN}/{}", name(4));
    let line = NoteSignature::cosign(&text, &name, &cosign_key(4), 1).unwrap();
    let late = SignedNote::from_parts(text, vec![line]).unwrap();
    cluster.offer(1, &late.to_string());
    assert!(matches!(cluster.nodes[&1].findings.last(), Some(Finding::Unanimous { size, .. }) if *size < final_size));
    cluster.node(1).storage.write(&Batch::default(), true).unwrap();
    cluster.restart(1);
    assert_eq!(cluster.final_size(1), final_size);
}
