//! From one epoch to the next: other thresholds, keys and replicas.

use std::collections::BTreeSet;

use fedledger_ledger::{
    codec,
    epoch::{Epoch, cosigner_name},
    finality::Finding,
    log::read_epochs,
    note::{NoteSignature, SignedNote},
    replica::SEAL_INTERVAL_MS,
    storage::{Batch, LogStorage as _},
};

use crate::{
    cluster::Cluster,
    machine::{CHANGE_EPOCH, ORIGIN, cosign_key, epoch_of, keys, name, rotated_key},
};

/// Proposes an epoch and returns the index of the entry.
fn change(cluster: &mut Cluster, epoch: &Epoch) -> u64 {
    cluster.submit_kind(CHANGE_EPOCH, &codec::encode(epoch))
}

/// Checks, on every replica, that no head of an epoch was final before somebody vouched for the epoch. `first` is the
/// smallest head of epoch `number`.
fn assert_vouched_for_first(cluster: &Cluster, number: u64, first: u64) {
    for (id, node) in &cluster.nodes {
        let vouched = node.findings.iter().position(|found| is_vouched_for(found, number));
        let is_final = |found: &Finding| matches!(found, Finding::Final { size, .. } if *size >= first);
        let finals: Vec<usize> = (0..node.findings.len()).filter(|place| is_final(&node.findings[*place])).collect();
        let vouched = vouched.unwrap_or(usize::MAX);
        assert!(finals.iter().all(|place| *place > vouched), "replica {id}: {:?}", node.findings);
    }
}

fn is_vouched_for(finding: &Finding, epoch: u64) -> bool {
    matches!(finding, Finding::EpochVouchedFor { number, .. } if *number == epoch)
}

fn epoch(cluster: &Cluster, id: u64) -> u64 {
    cluster.nodes[&id].replica.log().sealed().epoch.number
}

#[test]
fn the_seal_after_a_change_is_judged_by_the_old_epoch_and_later_ones_by_the_new() {
    let mut cluster = Cluster::new(4);
    cluster.turn_off(4);
    let changed = change(&mut cluster, &Epoch { threshold: 4, ..epoch_of(4) });
    assert_eq!(epoch(&cluster, 1), 0, "not in force yet");
    cluster.advance(SEAL_INTERVAL_MS);
    assert_eq!(epoch(&cluster, 1), 1);
    assert!(cluster.is_final(changed), "three of four, as the old epoch says");
    let first = cluster.size(1);
    let index = cluster.say(b"yes");
    cluster.pass(3_000);
    assert!(!cluster.is_final(index), "the new epoch wants all four");
    cluster.turn_on(4);
    assert!(cluster.pass_until(60_000, |cluster| cluster.is_final(index)));
    assert_vouched_for_first(&cluster, 1, first + 1);
    for id in 1..=3 {
        let numbers: Vec<_> = cluster.nodes[&id].findings.iter().filter(|found| is_vouched_for(found, 1)).collect();
        assert_eq!(numbers.len(), 1);
        let epochs = read_epochs(&*cluster.nodes[&id].storage).unwrap();
        let places: Vec<_> = epochs.iter().map(|known| (known.epoch.number, known.size)).collect();
        assert_eq!(places, [(0, 0), (1, first)]);
    }
}

/// The new epoch would be content with less; but as long as the old one has not vouched for it, it has no say.
#[test]
fn a_new_epoch_makes_nothing_final_until_the_old_one_has_vouched_for_it() {
    let mut cluster = Cluster::new(4);
    for id in [3, 4] {
        cluster.node(id).is_stuck = true;
    }
    let changed = change(&mut cluster, &Epoch { threshold: 2, ..epoch_of(4) });
    cluster.advance(SEAL_INTERVAL_MS);
    assert_eq!(epoch(&cluster, 1), 1);
    let first = cluster.size(1) + 1;
    let index = cluster.say(b"yes");
    cluster.pass(3_000);
    assert!(!cluster.is_final(changed) && !cluster.is_final(index), "two of the old epoch are too few");
    assert!(cluster.final_sizes().is_empty());
    // A restart forgets nothing of this.
    for id in 1..=4 {
        cluster.restart(id);
    }
    assert!(cluster.pass_until(10_000, |cluster| cluster.leader().is_some()));
    let later = cluster.say(b"later");
    cluster.pass(5_000);
    assert!(cluster.final_sizes().is_empty(), "final after a restart: {:?}", cluster.final_sizes());
    // The third co-signs a later head only: that vouches for the new epoch as well.
    cluster.node(3).is_stuck = false;
    assert!(cluster.pass_until(60_000, |cluster| cluster.is_final(later)));
    assert_vouched_for_first(&cluster, 1, first);
    // From now on two are enough.
    cluster.node(3).is_stuck = true;
    let last = cluster.say(b"last");
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_final(last)));
    // And that is known after another restart, too.
    for id in 1..=4 {
        cluster.nodes[&id].storage.write(&Batch::default(), true).unwrap();
        cluster.restart(id);
    }
    assert!(cluster.pass_until(10_000, |cluster| cluster.leader().is_some()));
    let last = cluster.say(b"after the restart");
    assert!(cluster.pass_until(10_000, |cluster| cluster.is_final(last)));
}

#[test]
fn a_key_that_was_exchanged_makes_nothing_final_any_more() {
    let mut cluster = Cluster::new(4);
    let mut next = epoch_of(4);
    next.replicas.get_mut(&name(4)).unwrap().cosign = rotated_key(4).public();
    let changed = change(&mut cluster, &next);
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(changed), "the old key's last head");
    let transitional = cluster.size(1);
    cluster.turn_off(3);
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(!cluster.is_final(index), "1 and 2 only");
    assert_eq!(cluster.nodes[&4].replica.cosigned().size, transitional, "its key is not the epoch's");
    // Whoever has the old key cannot make the head final either.
    let text =
        SignedNote::parse(&cluster.nodes[&1].replica.finality().newest_note().unwrap()).unwrap().text().to_owned();
    let line = NoteSignature::cosign(&text, &cosigner_name(ORIGIN, &name(4)), &cosign_key(4), 1).unwrap();
    let forged = SignedNote::from_parts(text, vec![line]).unwrap().to_string();
    cluster.offer(1, &forged);
    cluster.offer(2, &forged);
    assert!(!cluster.is_final(index));
    // With its new key the replica counts.
    cluster.node(4).cosign_key = rotated_key(4);
    cluster.restart(4);
    assert!(cluster.pass_until(60_000, |cluster| cluster.is_final(index)));
    cluster.turn_on(3);
    assert!(cluster.pass_until(60_000, |cluster| cluster.leader().is_some() && cluster.size(3) == cluster.size(1)));
    let last = cluster.say(b"all");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(last));
}

#[test]
fn replicas_leave_and_join() {
    let mut cluster = Cluster::new(4);
    let mut without = Epoch { threshold: 2, ..epoch_of(4) };
    without.replicas.remove(&name(4));
    change(&mut cluster, &without);
    cluster.advance(SEAL_INTERVAL_MS);
    let left = cluster.size(1);
    assert_eq!(cluster.nodes[&4].replica.cosigned().size, left, "its last co-signature vouches for its successors");
    let index = cluster.say(b"yes");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_unanimous(index), "all three that are left");
    assert_eq!(cluster.nodes[&4].replica.cosigned().size, left);
    // It comes back, with another one in one change.
    let mut with = epoch_of(4);
    with.replicas.insert(name(5), keys(5));
    with.threshold = 4;
    change(&mut cluster, &with);
    cluster.advance(SEAL_INTERVAL_MS);
    assert_eq!((epoch(&cluster, 1), cluster.nodes[&4].replica.cosigned().size), (2, left), "vouched for without it");
    assert!(cluster.is_final(cluster.size(1) - 1));
    let index = cluster.say(b"again");
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(cluster.is_final(index) && !cluster.is_unanimous(index), "four of five");
    assert!(cluster.nodes[&4].replica.cosigned().size > left);
}

#[test]
fn of_several_changes_before_a_seal_the_last_comes_into_force() {
    let mut cluster = Cluster::new(4);
    change(&mut cluster, &Epoch { threshold: 1, ..epoch_of(4) });
    change(&mut cluster, &Epoch { threshold: 4, ..epoch_of(4) });
    cluster.advance(SEAL_INTERVAL_MS);
    assert_eq!(epoch(&cluster, 2), 2);
    let vouched: BTreeSet<u64> = (0..=3).filter(|number| is_known_to_all(&cluster, *number)).collect();
    assert_eq!(vouched, BTreeSet::from([2]), "the one between was never in force");
    let index = cluster.say(b"yes");
    cluster.turn_off(4);
    cluster.advance(SEAL_INTERVAL_MS);
    assert!(!cluster.is_final(index));
}

fn is_known_to_all(cluster: &Cluster, number: u64) -> bool {
    cluster.nodes.values().all(|node| node.findings.iter().any(|found| is_vouched_for(found, number)))
}
