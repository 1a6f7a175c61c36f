//! Replicas convict whoever signs two histories: with which keys, from what they have on their disks, and after a restart.

use std::path::PathBuf;

use fedledger_federation::{
    Command,
    governance::{Action, NodeKeys, Propose, RotateKeys, Vote},
};
use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    evidence::{Evidence, Prefix},
    log::read_node,
    merkle::{consistency_proof, root_at},
    note::{NoteSignature, SignedNote, VerifierKey, sign_note},
    transaction::{Nonce, Transaction},
};
use fedledger_proto::{
    api::Level,
    endpoint::{CallError, Endpoint},
    kit::{Identity, ReplicaKit},
    wire::CheckpointRequest,
};
use tokio::time::timeout;

use super::{
    cluster::{Cluster, LONG},
    connected,
    finality::{ORIGIN, newest_head, reach, recorded},
};

const LIAR: &str = "site-4/replica";

fn kit(cluster: &Cluster) -> ReplicaKit {
    ReplicaKit::load(&cluster.replica_directory(4)).unwrap()
}

fn forged(size: u64, what: &str) -> Checkpoint {
    Checkpoint::new(ORIGIN, size, Digest::of(what.as_bytes())).unwrap()
}

/// A head co-signed by the fourth replica.
fn cosigned(head: &Checkpoint, kit: &ReplicaKit) -> SignedNote {
    let text = head.to_note_text();
    let name = cosigner_name(ORIGIN, LIAR);
    let line = NoteSignature::cosign(&text, &name, &kit.cosign_key, 1_800_000_000).unwrap();
    SignedNote::from_parts(text, vec![line]).unwrap()
}

/// A head that the fourth replica has signed in the name of the log only.
fn signed(head: &Checkpoint, kit: &ReplicaKit) -> SignedNote {
    sign_note(&head.to_note_text(), ORIGIN, &kit.log_key).unwrap()
}

fn cosign_key(kit: &ReplicaKit) -> VerifierKey {
    VerifierKey::cosignature_v1(&cosigner_name(ORIGIN, LIAR), kit.cosign_key.public()).unwrap()
}

fn log_key(kit: &ReplicaKit) -> VerifierKey {
    VerifierKey::ed25519(ORIGIN, kit.log_key.public()).unwrap()
}

/// Hands a note to the first replica in the fourth one's place.
async fn offer(cluster: &Cluster, liar: &Endpoint, note: &SignedNote) -> Result<(), CallError> {
    let to = ReplicaKit::load(&cluster.replica_directory(1)).unwrap().transport_key.public();
    liar.call(to, &CheckpointRequest::Offer { note: note.to_string() }, LONG).await.map(drop)
}

async fn liar(cluster: &Cluster) -> Endpoint {
    let (liar, _) = cluster.dial(kit(cluster).transport_key).await;
    connected(&liar).await;
    liar
}

/// The files that the first replica has kept, with names that begin so.
fn kept(cluster: &Cluster, prefix: &str) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(cluster.replica_directory(1).join("evidence")) else { return Vec::new() };
    let begins = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    files.map(|file| file.unwrap().path()).filter(begins).collect()
}

fn evidence(cluster: &Cluster) -> Evidence {
    let files = kept(cluster, "equivocation-");
    Evidence::from_bytes(&std::fs::read(&files[0]).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_signed_in_the_name_of_the_log_only_convict() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Unanimous).await;
    cluster.kill(4).await;
    let index = reach(&mut cluster, 1, Level::Final).await;
    let kit = kit(&cluster);
    let honest = newest_head(cluster.node(1)).await;
    let liar = liar(&cluster).await;
    offer(&cluster, &liar, &signed(&honest, &kit)).await.unwrap();
    let refused = offer(&cluster, &liar, &signed(&forged(honest.size(), "another history"), &kit)).await;
    assert!(refused.unwrap_err().to_string().contains("in this log they have"));
    // Once the answer is there, so is the file.
    let key = log_key(&kit);
    assert_eq!(evidence(&cluster).verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    liar.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_cosigned_early_at_a_size_that_gets_no_seal_convicts() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Unanimous).await;
    cluster.kill(4).await;
    reach(&mut cluster, 1, Level::Final).await;
    let kit = kit(&cluster);
    let before = newest_head(cluster.node(1)).await;
    let liar = liar(&cluster).await;
    // The next entry is a transaction; the seal comes after it.
    offer(&cluster, &liar, &cosigned(&forged(before.size() + 1, "another history"), &kit)).await.unwrap();
    assert_eq!(kept(&cluster, ""), Vec::<PathBuf>::new());
    let index = reach(&mut cluster, 1, Level::Final).await;
    let honest = newest_head(cluster.node(1)).await;
    assert!(honest.size() > before.size() + 1);
    offer(&cluster, &liar, &cosigned(&honest, &kit)).await.unwrap();
    timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    let key = cosign_key(&kit);
    assert_eq!(evidence(&cluster).verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    liar.shutdown().await;
    cluster.stop().await;
}

/// Brings a command of a site's people onto the ledger.
async fn command(cluster: &Cluster, site: u8, command: &Command) {
    let identity = Identity::load(&cluster.directory().join(format!("site-{site}/identity"))).unwrap();
    let transaction = Transaction {
        chain: cluster.chain(),
        author: identity.organisation_key.public(),
        nonce: Nonce([site; 16]),
        not_after_index: 10_000,
        kind: command.kind().to_owned(),
        payload: command.payload(),
    };
    let envelope = transaction.sign(&identity.organisation_key).to_bytes();
    let submitted = cluster.node(1).handle().submit(envelope).await.unwrap();
    assert_eq!(submitted.reason, None);
}

/// The members replace both keys with which the fourth replica signs heads.
async fn replace_keys(cluster: &Cluster) {
    let new = |seed: u8| Some(SecretKey::from_seed([seed; 32]).public());
    let node = NodeKeys { name: LIAR.to_owned(), log_key: new(0x71), cosign_key: new(0x72), ..NodeKeys::default() };
    let member = "site-4".to_owned();
    let action = Action::RotateKeys(RotateKeys { member, organisation_key: None, api_key: None, node: Some(node) });
    let known = action.clone();
    let against = cluster.node(1).handle().query(move |replica| known.target(replica.log().machine())).await.unwrap();
    let propose = Propose { action, against, expires_index: 10_000, reason: "the disk was sold".to_owned() };
    let proposal = propose.id(&"site-1".to_owned());
    command(cluster, 1, &Command::Propose(propose)).await;
    for site in [2, 3] {
        command(cluster, site, &Command::Vote(Vote { proposal, approve: true })).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_replaced_convict() {
    let mut cluster = Cluster::start(4).await;
    let before = reach(&mut cluster, 1, Level::Unanimous).await;
    let kit = kit(&cluster);
    // The first replica has seen its keys under a head of the log before they are replaced.
    let honest = newest_head(cluster.node(1)).await;
    assert!(honest.size() > before);
    cluster.kill(4).await;
    let dialled = liar(&cluster).await;
    offer(&cluster, &dialled, &signed(&honest, &kit)).await.unwrap();
    replace_keys(&cluster).await;
    let index = reach(&mut cluster, 1, Level::Final).await;
    let epoch = cluster.node(1).handle().query(|replica| replica.log().sealed().epoch.number).await;
    assert_eq!(epoch, Some(1));
    for (sign, key) in [(signed as fn(&_, &_) -> _, log_key(&kit)), (cosigned, cosign_key(&kit))] {
        let refused = offer(&cluster, &dialled, &sign(&forged(before, "another history"), &kit)).await;
        assert!(refused.unwrap_err().to_string().contains("in this log they have"));
        let convicts = |file: &PathBuf| {
            let evidence = Evidence::from_bytes(&std::fs::read(file).unwrap()).unwrap();
            evidence.verify(std::slice::from_ref(&key)).is_ok()
        };
        assert!(kept(&cluster, "equivocation-").iter().any(convicts), "{key}");
    }
    timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    dialled.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_the_log_has_not_reached_convicts_when_it_does() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Unanimous).await;
    cluster.kill(4).await;
    let kit = kit(&cluster);
    let index = reach(&mut cluster, 1, Level::Final).await;
    let liar = liar(&cluster).await;
    let size = newest_head(cluster.node(1)).await.size() + 2;
    offer(&cluster, &liar, &signed(&forged(size, "to come"), &kit)).await.unwrap();
    assert_eq!(kept(&cluster, ""), Vec::<PathBuf>::new(), "it may still become true");
    for _ in 0..3 {
        reach(&mut cluster, 1, Level::Final).await;
    }
    // The same key signs what is there.
    let honest = newest_head(cluster.node(1)).await;
    assert!(honest.size() >= size);
    offer(&cluster, &liar, &signed(&honest, &kit)).await.unwrap();
    timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    let key = log_key(&kit);
    assert_eq!(evidence(&cluster).verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    liar.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_convicts_from_its_disk_after_a_restart() {
    let mut cluster = Cluster::start(4).await;
    let before = reach(&mut cluster, 1, Level::Unanimous).await;
    cluster.kill(4).await;
    let index = reach(&mut cluster, 1, Level::Final).await;
    cluster.kill(1).await;
    cluster.restart(1).await;
    let kit = kit(&cluster);
    let liar = liar(&cluster).await;
    let refused = offer(&cluster, &liar, &cosigned(&forged(before + 1, "another history"), &kit)).await;
    assert!(refused.is_err());
    let key = cosign_key(&kit);
    assert_eq!(evidence(&cluster).verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    liar.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_convicts_nobody_yet_is_kept_through_a_restart_until_it_does() {
    let mut cluster = Cluster::start(4).await;
    reach(&mut cluster, 1, Level::Unanimous).await;
    cluster.kill(4).await;
    let index = reach(&mut cluster, 1, Level::Final).await;
    let kit = kit(&cluster);
    let dialled = liar(&cluster).await;
    // Larger than whatever the liar has co-signed of this log.
    let size = newest_head(cluster.node(1)).await.size();
    let lie = cosigned(&forged(size, "another history"), &kit);
    assert!(offer(&cluster, &dialled, &lie).await.is_err());
    assert_eq!((kept(&cluster, "contradiction-").len(), kept(&cluster, "equivocation-").len()), (1, 0));
    dialled.shutdown().await;
    cluster.kill(1).await;
    cluster.restart(1).await;
    assert_eq!(kept(&cluster, "contradiction-").len(), 1);
    // It comes back, and co-signs the log as if nothing had been.
    cluster.restart(4).await;
    reach(&mut cluster, 1, Level::Unanimous).await;
    timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    let key = cosign_key(&kit);
    assert_eq!(evidence(&cluster).verify(std::slice::from_ref(&key)).unwrap(), [&key]);
    cluster.stop().await;
    assert_eq!(kept(&cluster, "contradiction-"), Vec::<PathBuf>::new(), "the evidence stands in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_an_earlier_process_has_left_is_recorded() {
    let mut cluster = Cluster::start(4).await;
    let index = reach(&mut cluster, 1, Level::Unanimous).await;
    let kit = kit(&cluster);
    let honest = newest_head(cluster.node(1)).await;
    let storage = std::sync::Arc::clone(cluster.node(1).handle().storage());
    let root = root_at(1, |node| read_node(&*storage, node)).unwrap();
    let proof = consistency_proof(1, honest.size(), |node| read_node(&*storage, node)).unwrap();
    drop(storage);
    let notes = [forged(1, "another genesis"), honest].map(|head| cosigned(&head, &kit));
    let [lie, honest] = notes;
    let evidence = Evidence::new(lie, honest, Some(Prefix { root, proof })).unwrap();
    cluster.kill(1).await;
    let folder = cluster.replica_directory(1).join("evidence");
    std::fs::create_dir_all(&folder).unwrap();
    // The name is that of earlier releases.
    let name = format!("equivocation-{}.evidence", Digest::of(&evidence.to_bytes()));
    std::fs::write(folder.join(name), evidence.to_bytes()).unwrap();
    cluster.restart(1).await;
    timeout(LONG, recorded(cluster.node(2), index)).await.unwrap();
    cluster.stop().await;
}
