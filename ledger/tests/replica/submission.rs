//! Transactions through any replica, once; what is rejected or no transaction at all.

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    leaf::Leaf,
    log::{Log, read_leaf},
    machine::WriteSet,
    note::SignedNote,
    replica::{Answer, Fault, Replica, SubmitError},
    seal::{SEAL_KIND, SealProposal},
    storage::{memory::MemoryStorage, notes::read_note},
};

use crate::{
    cluster::{Cluster, index, open},
    machine::{ORIGIN, Words, author_key, cosign_key, genesis, log_key, signed, transaction},
};

fn say(cluster: &Cluster, nonce: u64, word: &[u8]) -> Vec<u8> {
    transaction(cluster.chain(), nonce, "Say", word)
}

#[test]
fn transactions_come_through_any_replica_and_once() {
    let mut cluster = Cluster::new(3);
    for at in 1..=3 {
        let envelope = say(&cluster, at, b"yes");
        assert_eq!(index(&cluster.submit(at, &envelope)), at);
        // The same bytes again, through another replica: the first outcome.
        assert_eq!(index(&cluster.submit(at % 3 + 1, &envelope)), at);
    }
    cluster.ticks(5);
    cluster.assert_agree();
    assert_eq!(cluster.size(2), 4);
    assert_eq!(cluster.nodes[&3].replica.log().machine().counts[b"yes".as_slice()], 3);
}

#[test]
fn rejections_stand_on_the_ledger_and_change_nothing() {
    let mut cluster = Cluster::new(3);
    let envelopes = [(1, b"no".as_slice()), (2, b"yes"), (2, b"other")].map(|(nonce, word)| say(&cluster, nonce, word));
    let rejected = cluster.submit(1, &envelopes[0]);
    assert_eq!(rejected, Answer::Committed { index: 1, reason: Some("that word is not taken".into()) });
    // A nonce used for other bytes is a rejection too, and evidence.
    cluster.submit(1, &envelopes[1]);
    let reused = cluster.submit(1, &envelopes[2]);
    let leaf = |index| Leaf::from_bytes(&read_leaf(&*cluster.nodes[&1].storage, index).unwrap()).unwrap();
    assert_eq!(leaf(1).outcome.code(), "refused_word");
    assert_eq!(leaf(index(&reused)).outcome.code(), "nonce_reused");
    assert_eq!(leaf(1).write_set, WriteSet::default().digest());
    assert_eq!(cluster.nodes[&1].replica.log().machine().counts.len(), 1);
}

#[test]
fn what_is_no_transaction_never_becomes_a_leaf() {
    let mut cluster = Cluster::new(3);
    let mut damaged = say(&cluster, 1, b"yes");
    *damaged.last_mut().unwrap() ^= 1;
    let replica = &mut cluster.node(1).replica;
    assert!(matches!(replica.submit(1, &damaged), Err(SubmitError::Refused(_))));
    assert!(matches!(replica.submit(2, b"garbage"), Err(SubmitError::Refused(_))));
    cluster.ticks(5);
    assert_eq!(cluster.size(2), 1);
}

#[test]
fn nobody_can_submit_a_seal_not_even_a_replica() {
    let mut cluster = Cluster::new(3);
    let payload = SealProposal { time_ms: cluster.now_ms, term: 2, cosigned: vec![] }.to_bytes();
    let seal = signed(&author_key(2), cluster.chain(), 1, SEAL_KIND, &payload);
    assert_eq!(cluster.node(2).replica.submit(1, &seal), Err(SubmitError::Seal));
    assert_eq!(cluster.node(1).replica.propose_for_peer(&seal), Err(SubmitError::Seal));
    cluster.ticks(5);
    assert_eq!(cluster.size(1), 1);
}

#[test]
fn a_directory_of_another_consortium_is_refused() {
    let storage = MemoryStorage::default();
    open(1, 3, 1, &cosign_key(1), &storage).unwrap();
    let refused: Result<Replica<Words>, Fault> = open(1, 4, 2, &cosign_key(1), &storage);
    assert!(matches!(refused, Err(Fault::OtherChain { .. })));
}

#[test]
fn every_replica_keeps_its_signed_checkpoint() {
    let mut cluster = Cluster::new(3);
    cluster.say(b"yes");
    cluster.ticks(5);
    for (id, node) in &cluster.nodes {
        let note = SignedNote::parse(&read_note(&*node.storage, "head").unwrap().unwrap()).unwrap();
        note.verify(ORIGIN, &log_key(*id).public()).unwrap();
        let checkpoint = Checkpoint::parse(note.text()).unwrap();
        assert_eq!((checkpoint.size(), *checkpoint.root()), (2, node.replica.log().root()));
    }
}

#[test]
fn replaying_the_leaves_gives_the_same_log_seals_included() {
    let mut cluster = Cluster::new(3);
    for turn in 0..10 {
        cluster.say(if turn % 3 == 0 { b"no" } else { b"yes" });
        cluster.advance(60);
    }
    let replica = &cluster.nodes[&1].replica;
    assert!(replica.log().sealed().number >= 10);
    let (mut log, _) = Log::<Words>::genesis(&genesis(3)).unwrap();
    for index in 1..replica.log().size() {
        log.replay(&read_leaf(&*cluster.nodes[&1].storage, index).unwrap()).unwrap();
    }
    assert_eq!(log.root(), replica.log().root());
    assert_eq!(log.sealed(), replica.log().sealed());
    assert_eq!(log.chain(), &Digest::of(&genesis(3)));
}
