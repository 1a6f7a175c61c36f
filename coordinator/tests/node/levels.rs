//! The API of real replicas: levels, promises, heads that were seen before, and proofs of the state.

use std::path::PathBuf;

use fedledger_coordinator::ReplicaNode;
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    evidence::Evidence,
    intake::INTAKE_ENTRIES,
    leaf::Leaf,
    map::StateProofError,
    merkle::{leaf_hash, verify_consistency, verify_inclusion},
    note::{NoteSignature, SignedNote, VerifierKey},
    storage::{Column, promises::read_promises, rocks::RocksStorage, scan_all},
    transaction::Envelope,
};
use fedledger_proto::{
    api::{ApiClient, ApiError, Level, SeenHead, Submission, Vouched},
    kit::{Identity, ReplicaKit},
};
use tokio::time::timeout;

use super::{LONG, cluster::Cluster, leaf_of};

const ORIGIN: &str = "fedledger/cluster";

fn url(cluster: &Cluster, number: u64) -> String {
    format!("https://{}", ReplicaKit::load(&cluster.replica_directory(number)).unwrap().config.api)
}

fn identity(cluster: &Cluster) -> Identity {
    Identity::load(&cluster.directory().join("site-1/identity")).unwrap()
}

async fn client(cluster: &Cluster, number: u64) -> ApiClient {
    ApiClient::connect(&url(cluster, number), &identity(cluster)).await.unwrap()
}

/// Submits a transaction and waits until it is final; its index.
async fn finalize(cluster: &mut Cluster, client: &ApiClient) -> u64 {
    let envelope = cluster.envelope();
    let submission = timeout(LONG, client.submit_until(&envelope, Level::Final)).await.unwrap().unwrap();
    let Submission::Recorded(submitted) = submission else { unreachable!("a promise where a leaf was asked for") };
    assert!(submitted.level >= Level::Final);
    submitted.index
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_comes_onto_the_ledger() {
    let mut cluster = Cluster::start(3).await;
    let client = client(&cluster, 2).await;
    let envelope = cluster.envelope();
    let submission = client.submit_until(&envelope, Level::Accepted).await.unwrap();
    let Submission::Accepted(receipt) = submission else { panic!("no promise") };
    let epoch = identity(&cluster).genesis.genesis.epoch();
    assert_eq!(epoch.replica_of_author(&receipt.replica), Some("site-2/replica"));
    assert!(receipt.by_index >= INTAKE_ENTRIES);
    // Nobody asks again.
    let index = timeout(LONG, place_of(cluster.node(3), &envelope)).await.unwrap();
    assert_eq!(timeout(LONG, place_of(cluster.node(2), &envelope)).await.unwrap(), index);
    assert!(index <= receipt.by_index);
    // What is there already is answered as such, with the outcome.
    let again = client.submit_until(&envelope, Level::Accepted).await.unwrap();
    assert!(matches!(again, Submission::Recorded(submitted) if submitted.index == index));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_outlives_the_crash_of_the_replica_that_gave_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let envelope = cluster.envelope();
    cluster.kill(2).await;
    cluster.kill(3).await;
    // Nobody can commit it now; the replica takes it at its word all the same, and crashes.
    let client = client(&cluster, 1).await;
    let submission = client.submit_until(&envelope, Level::Accepted).await.unwrap();
    let Submission::Accepted(receipt) = submission else { panic!("no promise") };
    cluster.kill(1).await;
    let promised = || {
        let storage = RocksStorage::open_read_only(&cluster.replica_directory(1).join("ledger")).unwrap();
        read_promises(&storage).unwrap()
    };
    assert_eq!(promised().iter().map(|promised| promised.digest()).collect::<Vec<_>>(), [receipt.transaction]);
    for number in 1..=3 {
        cluster.restart(number).await;
    }
    let index = timeout(LONG, place_of(cluster.node(2), &envelope)).await.unwrap();
    assert!(index <= receipt.by_index);
    timeout(LONG, place_of(cluster.node(1), &envelope)).await.unwrap();
    let is_forgotten = async {
        // Every look waits for an entry of its own.
        while !read_promises(&**cluster.node(1).handle().storage()).unwrap().is_empty() {
            let envelope = cluster.envelope();
            cluster.node(1).handle().submit(envelope).await.unwrap();
        }
    };
    timeout(LONG, is_forgotten).await.unwrap();
    cluster.stop().await;
}

/// Where a transaction stands, as soon as it does.
async fn place_of(node: &ReplicaNode, envelope: &[u8]) -> u64 {
    let mut size = node.handle().log_size();
    let mut next = 1;
    loop {
        size.wait_for(|size| *size > next).await.unwrap();
        if Leaf::from_bytes(&leaf_of(node, next)).unwrap().envelope == envelope {
            return next;
        }
        next += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_tells_how_far_it_and_the_log_are() {
    let mut cluster = Cluster::start(3).await;
    let client = client(&cluster, 1).await;
    let envelope = cluster.envelope();
    let submission = client.submit_until(&envelope, Level::Unanimous).await.unwrap();
    let Submission::Recorded(submitted) = submission else { panic!("no leaf") };
    let status = client.status().await.unwrap();
    assert!(status.unanimous_size > submitted.index && status.final_size >= status.unanimous_size);
    assert!(status.cosigned_size >= status.unanimous_size, "unanimous without this replica: {status:?}");
    let seal = status.seal.unwrap();
    assert!(seal.number >= 1 && seal.index + 1 >= status.final_size);
    let (trusted, sealed) = (status.trusted_time_s.unwrap(), seal.time_ms / 1000);
    assert!(trusted.abs_diff(sealed) <= 60, "the trusted time {trusted} is far from the seal's {sealed}");
    assert_eq!((status.epoch, status.peers.len()), (0, 2));
    assert!(status.peers.iter().all(|peer| peer.cosigned_size.is_some()), "{status:?}");
    // The time survives a restart.
    cluster.kill(1).await;
    cluster.restart(1).await;
    assert!(client.status().await.unwrap().trusted_time_s.is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_shows_the_history_that_another_one_has_shown() {
    let mut cluster = Cluster::start(3).await;
    let (first, second) = (client(&cluster, 1).await, client(&cluster, 2).await);
    finalize(&mut cluster, &first).await;
    let seen = first.check_head().await.unwrap();
    assert!(matches!(seen, SeenHead::Consistent { vouched: Vouched::Final, .. }), "{seen:?}");
    let known = newest(&first).await;
    finalize(&mut cluster, &second).await;
    // Whoever knows the one's head is shown by the other that its log begins with it.
    let (newer, proof) = second.checkpoint_since(Some(&known)).await.unwrap();
    let newer = newer.unwrap();
    let (old, new) = (head(&known), head(&newer));
    verify_consistency(old.size(), old.root(), new.size(), new.root(), &proof.unwrap()).unwrap();
    assert!(matches!(second.check_head().await.unwrap(), SeenHead::Consistent { vouched: Vouched::Final, .. }));
    assert!(new.size() > old.size());
    let proof = second.consistency_proof(old.size(), new.size()).await.unwrap();
    assert_eq!(verify_consistency(old.size(), old.root(), new.size(), new.root(), &proof), Ok(()));
    assert_eq!(first.consistency_proof(new.size(), u64::MAX).await.unwrap_err().code(), "not_found");
    cluster.stop().await;
}

async fn newest(client: &ApiClient) -> SignedNote {
    client.checkpoint().await.unwrap().unwrap()
}

fn head(note: &SignedNote) -> Checkpoint {
    Checkpoint::parse(note.text()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_another_history_is_told_and_kept_as_evidence() {
    let mut cluster = Cluster::start(3).await;
    let people = identity(&cluster);
    let client = client(&cluster, 1).await;
    finalize(&mut cluster, &client).await;
    drop(client);
    // The third replica has shown somebody another history, of a size that is long behind.
    let kit = ReplicaKit::load(&cluster.replica_directory(3)).unwrap();
    let text = Checkpoint::new(ORIGIN, 1, Digest::of(b"another history")).unwrap().to_note_text();
    let name = cosigner_name(ORIGIN, "site-3/replica");
    let line = NoteSignature::cosign(&text, &name, &kit.cosign_key, 1_800_000_000).unwrap();
    let known = SignedNote::from_parts(text, vec![line]).unwrap();
    std::fs::write(people.directory.join("checkpoint"), known.to_string()).unwrap();
    let client = ApiClient::connect(&url(&cluster, 1), &people).await.unwrap();
    let error = client.check_head().await.unwrap_err();
    let ApiError::Conflict(conflict) = error else { panic!("{error}") };
    assert_eq!(*conflict.known_note, known);
    assert!(conflict.reason.contains("in this log they have"), "{conflict}");
    let kept: Vec<PathBuf> = std::fs::read_dir(cluster.replica_directory(1).join("evidence"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let evidence = Evidence::from_bytes(&std::fs::read(&kept[0]).unwrap()).unwrap();
    let key = VerifierKey::cosignature_v1(&name, kit.cosign_key.public()).unwrap();
    assert_eq!(evidence.verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    // A head of another log is no evidence of anything.
    let foreign = SignedNote::parse(&known.to_string().replace(ORIGIN, "fedledger/elsewhere")).unwrap();
    std::fs::remove_file(people.directory.join("checkpoint")).unwrap();
    let client = ApiClient::connect(&url(&cluster, 1), &people).await.unwrap();
    let error = client.checkpoint_since(Some(&foreign)).await.unwrap_err();
    assert_eq!(error.code(), "malformed", "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_proven_from_the_final_head_down() {
    let mut cluster = Cluster::start(3).await;
    let client = client(&cluster, 1).await;
    finalize(&mut cluster, &client).await;
    let storage = cluster.node(1).handle().storage();
    let (key, value) = scan_all(&**storage, Column::State, Vec::new()).next().unwrap().unwrap();
    let proven = client.state_proof(&key).await.unwrap();
    assert_eq!(proven.value.as_deref(), Some(value.as_slice()));
    // Final head, inclusion of the seal, state root, record.
    let note = client.checkpoint().await.unwrap().unwrap();
    let head = head(&note);
    assert!(head.size() > proven.seal_index);
    let leaf = leaf_of(cluster.node(1), proven.seal_index);
    let path = client.inclusion_proof(proven.seal_index, head.size()).await.unwrap();
    verify_inclusion(proven.seal_index, head.size(), &leaf_hash(&leaf), &path, head.root()).unwrap();
    let leaf = Leaf::from_bytes(&leaf).unwrap();
    assert_eq!(Envelope::open_unverified(&leaf.envelope).unwrap().kind, "Seal");
    let root = leaf.seal.unwrap().state_root;
    assert_eq!(proven.proof.verify(&root, &key, Some(&value)), Ok(()));
    assert!(matches!(proven.proof.verify(&root, &key, Some(b"x")), Err(StateProofError::Value { .. })));
    let absent = client.state_proof(b"no such record").await.unwrap();
    assert_eq!(absent.value, None);
    let seal = Leaf::from_bytes(&leaf_of(cluster.node(1), absent.seal_index)).unwrap().seal.unwrap();
    assert_eq!(absent.proof.verify(&seal.state_root, b"no such record", None), Ok(()));
    cluster.stop().await;
}
