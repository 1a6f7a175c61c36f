//! What a replica must not forget: what it has co-signed, and what is final.

use fedledger_ledger::{
    Digest,
    replica::{Fault, SEAL_INTERVAL_MS},
    storage::{Batch, Column, LogStorage as _, scan_all},
};

use crate::{cluster::Cluster, machine::name};

#[test]
fn a_restarted_replica_knows_what_is_final() {
    let mut cluster = Cluster::new(4);
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    let size = cluster.size(1);
    for id in 1..=4 {
        // What is final follows from what is durable; that it is known need not have reached the disk.
        cluster.nodes[&id].storage.write(&Batch::default(), true).unwrap();
        cluster.restart(id);
        assert_eq!((cluster.final_size(id), cluster.unanimous_size(id)), (size, size));
        assert_eq!(cluster.nodes[&id].replica.cosigned().size, size);
    }
    assert!(cluster.is_unanimous(index));
}

#[test]
fn a_replica_that_forgot_that_something_is_final_learns_it_again() {
    let mut cluster = Cluster::new(4);
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    for id in 1..=4 {
        cluster.restart(id);
    }
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_unanimous(index)));
    cluster.assert_agree();
}

/// A disk that comes back from a backup in part: the record of what was co-signed is newer than the log.
#[test]
fn a_replica_that_lost_what_it_co_signed_does_not_start() {
    let mut cluster = Cluster::new(4);
    cluster.say(b"yes");
    let storage = &cluster.nodes[&2].storage;
    let mut backup = Batch::default();
    for (key, value) in scan_all(&**storage, Column::Meta, Vec::new()).map(Result::unwrap) {
        backup.put(Column::Meta, key, value);
    }
    cluster.advance(SEAL_INTERVAL_MS);
    let size = cluster.size(2);
    assert_eq!(cluster.nodes[&2].replica.cosigned().size, size);
    cluster.nodes[&2].storage.write(&backup, true).unwrap();
    match cluster.try_restart(2) {
        Err(Fault::CosignedLost { cosigned, size: found }) => assert_eq!((cosigned, found), (size, size - 1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replica_whose_disk_holds_other_entries_than_it_co_signed_does_not_start() {
    let mut cluster = Cluster::new(4);
    cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    let (size, root) = (cluster.size(2), cluster.nodes[&2].replica.log().root());
    let storage = &cluster.nodes[&2].storage;
    let mut batch = Batch::default();
    for (key, _) in scan_all(&**storage, Column::Node, Vec::new()).map(Result::unwrap) {
        batch.put(Column::Node, key, *Digest::of(b"something else").as_bytes());
    }
    storage.write(&batch, true).unwrap();
    match cluster.try_restart(2) {
        Err(Fault::CosignedChanged { size: at, cosigned, found }) => {
            assert_eq!((at, cosigned), (size, root));
            assert_ne!(found, root);
        }
        other => panic!("{other:?}"),
    }
}

/// Between the write and the signature a replica may die: then it must never sign a head of that size.
#[test]
fn what_was_about_to_be_signed_counts_as_signed() {
    let mut cluster = Cluster::new(4);
    cluster.say(b"yes");
    cluster.node(3).is_stuck = true;
    cluster.advance(SEAL_INTERVAL_MS);
    let size = cluster.size(3);
    assert_eq!(cluster.nodes[&3].replica.cosigned().size, size);
    let has_signed = |cluster: &Cluster| cluster.nodes[&1].replica.finality().cosigned_size(&name(3));
    assert_eq!(has_signed(&cluster), None, "nothing is signed before it is durable");
    cluster.node(3).is_stuck = false;
    cluster.restart(3);
    assert_eq!(cluster.nodes[&3].replica.cosigned().size, size, "the write was durable");
    // A signature asked for after the restart is none of this process's business.
    let step = cluster.node(3).replica.cosign(size);
    assert!(step.findings.is_empty() && step.write.is_none());
    cluster.pass(5_000);
    assert_eq!(has_signed(&cluster), None);
    assert!(cluster.is_final(1) && !cluster.is_unanimous(1));
    // It vouches for what comes after it.
    let index = cluster.say(b"after");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(index));
    assert!(has_signed(&cluster) > Some(size));
}
