//! Replicas whose state differs, and histories that contradict each other.

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    consensus::ReplicaId,
    epoch::cosigner_name,
    finality::Finding,
    note::{NoteSignature, SignedNote, VerifierKey},
    replica::{Fault, SEAL_INTERVAL_MS},
    storage::{Batch, Column, LogStorage as _},
};
use protobuf::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};

use crate::{
    cluster::Cluster,
    machine::{ORIGIN, cosign_key, log_key, name},
};

/// Checks that a replica has stopped because it computed another root than the others.
fn assert_stopped(cluster: &Cluster, id: u64) {
    match cluster.faults.get(&id) {
        Some(Fault::RootDiverged { size, own, theirs, signers }) => {
            let others = cluster.nodes.values().find(|node| node.replica.status().id.0 != id).unwrap();
            let note = SignedNote::parse(&others.replica.finality().final_note().unwrap()).unwrap();
            let right = Checkpoint::parse(note.text()).unwrap();
            assert_eq!((*size, theirs), (right.size(), right.root()));
            assert_ne!(own, theirs);
            assert!(!signers.contains(&name(id)) && signers.len() >= 3, "{signers:?}");
            let text = cluster.faults[&id].to_string();
            assert!(text.contains(&own.to_string()) && text.contains(&theirs.to_string()), "{text}");
        }
        other => panic!("replica {id}: {other:?}"),
    }
}

#[test]
fn a_replica_that_computes_otherwise_stops_at_the_next_seal_and_the_others_go_on() {
    let mut cluster = Cluster::new(4);
    let before = cluster.say(b"before");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(before));
    cluster.node(3).faulty = true;
    let wrong = cluster.say(b"yes");
    assert!(cluster.faults.is_empty(), "nothing shows before the seal");
    cluster.advance(SEAL_INTERVAL_MS);
    assert_stopped(&cluster, 3);
    assert!(cluster.is_final(wrong));
    let after = cluster.say(b"after");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_final(after));
    assert_eq!(cluster.faults.len(), 1);
}

#[test]
fn a_leader_that_computes_otherwise_stops_as_well() {
    let mut cluster = Cluster::new(4);
    cluster.node(1).faulty = true;
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    assert_stopped(&cluster, 1);
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_final(index) && cluster.leader().is_some()));
}

/// The entry that shows it may have been applied long ago, and the damage may be on the disk only.
#[test]
fn a_changed_record_on_the_disk_is_noticed_at_the_next_seal() {
    let mut cluster = Cluster::new(4);
    cluster.say(b"word");
    cluster.say(b"word");
    cluster.advance(SEAL_INTERVAL_MS);
    let storage = &cluster.nodes[&2].storage;
    let mut value = storage.get(Column::State, b"word").unwrap().unwrap();
    assert_eq!(value, [2], "the count, in DAG-CBOR");
    value[0] ^= 1;
    let mut batch = Batch::default();
    batch.put(Column::State, b"word".as_slice(), value);
    storage.write(&batch, true).unwrap();
    cluster.restart(2);
    cluster.ticks(10);
    // The entry itself has nothing to do with the damaged record.
    let index = cluster.say(b"other");
    cluster.advance(SEAL_INTERVAL_MS);
    assert_stopped(&cluster, 2);
    assert!(cluster.is_final(index));
}

#[test]
fn when_too_many_diverge_nothing_becomes_final_any_more() {
    for (replicas, wrong) in [(4, 2), (5, 2), (5, 3), (7, 3), (7, 4)] {
        let mut cluster = Cluster::new(replicas);
        let before = cluster.say(b"before");
        cluster.advance(SEAL_INTERVAL_MS);
        assert!(cluster.is_unanimous(before));
        for id in 2..2 + wrong {
            cluster.node(id).faulty = true;
        }
        let finals = cluster.final_sizes();
        let index = cluster.say(b"yes");
        cluster.pass(20_000);
        // The cluster checks that no two heads of one size are final; here there is not even one.
        assert_eq!(cluster.final_sizes(), finals, "{wrong} of {replicas} differ");
        assert!(!cluster.is_final(index));
        assert!(cluster.faults.is_empty(), "nobody knows who is wrong: {:?}", cluster.faults);
        let disagree = |finding: &Finding| matches!(finding, Finding::Disagreement { .. });
        assert!(cluster.nodes.values().all(|node| node.findings.iter().any(disagree)), "but everybody says so");
    }
}

/// As many as make a head final cannot be contradicted: the one that is right by itself stops, too.
#[test]
fn one_against_all_others_stops_whoever_is_right() {
    let mut cluster = Cluster::new(4);
    for id in 1..=3 {
        cluster.node(id).faulty = true;
    }
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    assert_stopped(&cluster, 4);
    assert!(cluster.is_final(index));
}

#[test]
fn a_leader_that_wants_to_replace_co_signed_entries_is_a_fork() {
    let mut cluster = Cluster::new(4);
    cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    let status = cluster.nodes[&2].replica.status();
    let cosigned = *cluster.nodes[&2].replica.cosigned();
    assert!(cosigned.raft_index > 0);
    let bytes = replacing(cosigned.raft_index, status.term);
    assert!(cluster.node(2).replica.receive(ReplicaId(3), &bytes).is_err());
    cluster.work();
    match &cluster.faults[&2] {
        Fault::Fork { from, index, ours, theirs, message } => {
            assert_eq!((*from, *index), (ReplicaId(3), cosigned.raft_index));
            assert_eq!((*ours, *theirs), (status.term, status.term + 1));
            assert_eq!(*message, bytes);
        }
        other => panic!("{other:?}"),
    }
    // Its log is as it was, and it may start again.
    cluster.restart(2);
    let index = cluster.say(b"after");
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_unanimous(index)));
}

#[test]
fn replacing_committed_entries_that_nobody_has_co_signed_is_refused_without_stopping() {
    let mut cluster = Cluster::new(4);
    cluster.say(b"yes");
    let status = cluster.nodes[&2].replica.status();
    assert!(cluster.node(2).replica.receive(ReplicaId(3), &replacing(status.commit, status.term)).is_err());
    cluster.work();
    assert!(cluster.faults.is_empty());
}

/// An append by a self-styled leader of the next term that replaces the entry at `index`.
fn replacing(index: u64, term: u64) -> Vec<u8> {
    let mut message = Message {
        from: 3,
        to: 2,
        term: term + 1,
        index: index - 1,
        log_term: term,
        commit: index,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    let entry = Entry { index, term: term + 1, data: b"another".to_vec().into(), ..Entry::default() };
    message.set_entries(vec![entry].into());
    message.write_to_bytes().unwrap()
}

#[test]
fn whoever_signs_two_heads_is_convicted_and_finality_goes_on() {
    let mut cluster = Cluster::new(4);
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    let size = cluster.size(1);
    let other = Checkpoint::new(ORIGIN, size, Digest::of(b"another root")).unwrap().to_note_text();
    let lines = vec![
        NoteSignature::sign(&other, ORIGIN, &log_key(4)).unwrap(),
        NoteSignature::cosign(&other, &cosigner_name(ORIGIN, &name(4)), &cosign_key(4), 1).unwrap(),
    ];
    let note = SignedNote::from_parts(other, lines).unwrap().to_string();
    for _ in 0..2 {
        for id in 1..=3 {
            cluster.offer(id, &note);
        }
    }
    let key = VerifierKey::cosignature_v1(&cosigner_name(ORIGIN, &name(4)), cosign_key(4).public()).unwrap();
    for id in 1..=3 {
        let evidence = cluster.nodes[&id].findings.iter().filter_map(|finding| match finding {
            Finding::Equivocation { evidence, .. } => Some(evidence),
            _ => None,
        });
        let evidence: Vec<_> = evidence.collect();
        assert_eq!(evidence.len(), 1, "once is enough");
        assert_eq!(evidence[0].verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    }
    assert!(cluster.is_final(index) && cluster.faults.is_empty());
    let after = cluster.say(b"after");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_final(after));
}
