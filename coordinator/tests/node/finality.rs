//! Finality between real replicas: co-signatures, a replica whose state was changed, and one that signs two histories.

use fedledger_coordinator::ReplicaNode;
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    evidence::Evidence,
    leaf::Leaf,
    merkle::verify_consistency,
    note::{NoteSignature, SignedNote, VerifierKey},
    replica::{SEAL_ENTRIES, SealPace},
    storage::{Batch, Column, LogStorage, rocks::RocksStorage, scan_all},
    transaction::Envelope,
};
use fedledger_proto::{
    api::Level,
    kit::ReplicaKit,
    wire::{CheckpointRequest, CheckpointResponse},
};
use futures::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{
    cluster::{Cluster, LONG},
    connected, leaf_of,
};

pub const ORIGIN: &str = "fedledger/cluster";

/// Brings a transaction onto the ledger through a replica, and waits until it has reached a level there.
pub async fn reach(cluster: &mut Cluster, number: u64, level: Level) -> u64 {
    let envelope = cluster.envelope();
    let handle = cluster.node(number).handle().clone();
    let index = handle.submit(envelope).await.unwrap().index;
    assert!(handle.reach(index, level).await, "entry {index} did not become {level:?} at replica {number}");
    index
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_become_final_at_every_replica_also_without_one() {
    let mut cluster = Cluster::start(4).await;
    for number in 1..=4 {
        reach(&mut cluster, number, Level::Unanimous).await;
    }
    cluster.kill(4).await;
    let index = reach(&mut cluster, 1, Level::Final).await;
    let finalized = *cluster.node(1).handle().finalized().borrow();
    assert!(finalized.unanimous_size <= index, "a replica that is down has co-signed");
    cluster.restart(4).await;
    // What was final is known to be final; what comes now is co-signed by all again.
    reach(&mut cluster, 4, Level::Unanimous).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finality_stops_and_goes_on_with_the_co_signers() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Final).await;
    // Three of four are the threshold, and also the majority: with two, nothing is committed either.
    cluster.kill(3).await;
    cluster.kill(4).await;
    let before = cluster.node(1).handle().finalized().borrow().final_size;
    assert!(!timeout(LONG, cluster.node(1).handle().read_barrier()).await.unwrap());
    assert_eq!(cluster.node(1).handle().finalized().borrow().final_size, before);
    cluster.restart(3).await;
    reach(&mut cluster, 1, Level::Final).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_seals_entries_are_committed_and_none_becomes_final() {
    let never = SealPace { interval_ms: u64::MAX, entries: u64::MAX };
    let mut cluster = Cluster::start_paced(3, never).await;
    cluster.leader().await;
    let count = SEAL_ENTRIES + 100;
    let envelopes: Vec<_> = (0..count).map(|_| cluster.envelope()).collect();
    let handle = cluster.node(1).handle().clone();
    let submit = |envelope| async { handle.submit(envelope).await.unwrap() };
    let submitted: Vec<_> = stream::iter(envelopes).map(submit).buffer_unordered(100).collect().await;
    // The genesis file is entry 0; a seal would have taken an index, too.
    assert_eq!(submitted.iter().map(|submitted| submitted.index).max(), Some(count));
    assert_eq!(handle.query(|replica| replica.log().sealed().number).await, Some(0));
    assert_eq!(handle.finalized().borrow().final_size, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_state_was_changed_stops_and_the_others_go_on() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Unanimous).await;
    cluster.kill(4).await;
    plant(&cluster.replica_directory(4).join("ledger"));
    cluster.restart(4).await;
    let index = reach(&mut cluster, 1, Level::Final).await;
    let reason = timeout(LONG, cluster.node(4).ended()).await.unwrap();
    assert!(reason.contains("have co-signed the root") && reason.contains("this replica has computed"), "{reason}");
    assert!(reach(&mut cluster, 2, Level::Final).await > index);
    cluster.kill(4).await;
    cluster.stop().await;
}

/// Changes one letter of a member's display name in the stored state.
fn plant(ledger: &std::path::Path) {
    let storage = RocksStorage::open(ledger).unwrap();
    let letters = b"site-2";
    let record = scan_all(&storage, Column::State, Vec::new()).map(Result::unwrap).find_map(|(key, value)| {
        let mut places = value.windows(letters.len()).enumerate().filter(|(_, window)| window == letters);
        // The id comes first, then the name.
        let (_, second) = (places.next()?, places.next()?);
        let is_member = key.len() < 16 && value.windows(4).any(|window| window == b"name");
        is_member.then(|| (key, value.clone(), second.0))
    });
    let (key, mut value, place) = record.unwrap();
    value[place] = b'S';
    let mut batch = Batch::default();
    batch.put(Column::State, key, value);
    storage.write(&batch, true).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_heads_signed_by_one_replica_end_as_evidence_on_the_ledger() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Unanimous).await;
    cluster.kill(4).await;
    let index = reach(&mut cluster, 1, Level::Final).await;
    let kit = ReplicaKit::load(&cluster.replica_directory(4)).unwrap();
    let honest = newest_head(cluster.node(1)).await;
    let forged = Checkpoint::new(ORIGIN, honest.size(), Digest::of(b"another history")).unwrap();
    let (liar, replica) = cluster.dial(kit.transport_key.clone()).await;
    connected(&liar).await;
    for checkpoint in [&forged, &honest] {
        let text = checkpoint.to_note_text();
        let name = cosigner_name(ORIGIN, "site-4/replica");
        let line = NoteSignature::cosign(&text, &name, &kit.cosign_key, 1_800_000_000).unwrap();
        let note = SignedNote::from_parts(text, vec![line]).unwrap().to_string();
        // The first is taken as a disagreement, the second convicts.
        let _ = liar.call(replica, &CheckpointRequest::Offer { note }, LONG).await;
    }
    let envelope = timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    let transaction = Envelope::open(&envelope, &cluster.chain()).unwrap();
    assert_eq!(transaction.kind, "RecordEvidence");
    let files: Vec<_> = std::fs::read_dir(cluster.replica_directory(1).join("evidence")).unwrap().collect();
    let evidence = Evidence::from_bytes(&std::fs::read(files[0].as_ref().unwrap().path()).unwrap()).unwrap();
    let name = cosigner_name(ORIGIN, "site-4/replica");
    let key = VerifierKey::cosignature_v1(&name, kit.cosign_key.public()).unwrap();
    assert_eq!(evidence.verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    liar.shutdown().await;
    cluster.stop().await;
}

pub async fn newest_head(node: &ReplicaNode) -> Checkpoint {
    let note = node.handle().query(|replica| replica.finality().newest_note()).await.unwrap().unwrap();
    Checkpoint::parse(SignedNote::parse(&note).unwrap().text()).unwrap()
}

/// The first accepted record of evidence after an index.
pub async fn recorded(node: &ReplicaNode, from: u64) -> Vec<u8> {
    let mut size = node.handle().log_size();
    let mut next = from;
    loop {
        size.wait_for(|size| *size > next).await.unwrap();
        let leaf = Leaf::from_bytes(&leaf_of(node, next)).unwrap();
        let kind = Envelope::open_unverified(&leaf.envelope).unwrap().kind;
        if kind == "RecordEvidence" && leaf.outcome.is_accepted() {
            return leaf.envelope;
        }
        next += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participants_co_signature_is_collected_but_makes_nothing_final() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Final).await;
    let head = newest_head(cluster.node(1)).await;
    let (endpoint, replica) = cluster.participant().await;
    let kit = fedledger_proto::kit::ParticipantKit::load(&cluster.directory().join("site-1/participant")).unwrap();
    let (text, name) = (head.to_note_text(), cosigner_name(ORIGIN, "site-1/participant"));
    let line = NoteSignature::cosign(&text, &name, &kit.witness_key, 1_800_000_000).unwrap();
    let note = SignedNote::from_parts(text, vec![line.clone()]).unwrap().to_string();
    endpoint.call(replica, &CheckpointRequest::Offer { note }, LONG).await.unwrap();
    let witnessed = cluster.node(1).handle().query(move |replica| {
        let note = replica.finality().newest_note().and_then(|note| SignedNote::parse(&note).ok());
        note.is_some_and(|note| note.signatures().contains(&line))
    });
    assert!(witnessed.await.unwrap());
    endpoint.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_an_offered_head_proves_that_it_goes_on_from_it() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Final).await;
    let offered = newest_head(cluster.node(1)).await;
    reach(&mut cluster, 1, Level::Final).await;
    let (endpoint, replica) = cluster.participant().await;
    let kit = fedledger_proto::kit::ParticipantKit::load(&cluster.directory().join("site-1/participant")).unwrap();
    let (text, name) = (offered.to_note_text(), cosigner_name(ORIGIN, "site-1/participant"));
    let line = NoteSignature::cosign(&text, &name, &kit.witness_key, 1_800_000_000).unwrap();
    let note = SignedNote::from_parts(text, vec![line]).unwrap().to_string();
    let answer = endpoint.call(replica, &CheckpointRequest::Offer { note }, LONG).await.unwrap();
    let CheckpointResponse::Taken { note: Some(newest), consistency: Some(proof) } = answer else {
        panic!("{answer:?}");
    };
    let newest = Checkpoint::parse(SignedNote::parse(&newest).unwrap().text()).unwrap();
    assert!(newest.size() > offered.size());
    verify_consistency(offered.size(), offered.root(), newest.size(), newest.root(), &proof).unwrap();
    endpoint.shutdown().await;
    cluster.stop().await;
}
