//! Heads that a client has seen: later ones must follow from them, whichever replica shows them, and with whatever call.

use std::{collections::BTreeMap, fs, path::Path};

use fedledger_federation::history::origin;
use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    epoch::{EpochLink, cosigner_name},
    evidence::Evidence,
    merkle::{Frontier, NodeId, consistency_proof, inclusion_proof, leaf_hash},
    note::{NoteSignature, SignedNote, VerifierKey},
    receipt::Receipt,
};
use fedledger_proto::{
    api::{ApiClient, ApiError, Conflict, HeadId, SeenHead, Vouched, limits::NOTE_IN_METADATA_SIZE_BYTES_MAX},
    kit::{Identity, ReplicaKit},
};

use crate::fixture::Fixture;

/// A log whose entries are these, and the keys of the consortium's replica.
struct Log {
    kit: ReplicaKit,
    heads: Vec<(u64, Digest)>,
    nodes: BTreeMap<NodeId, Digest>,
}

impl Log {
    /// `entries` entries, the first of which is `first`.
    fn new(fixture: &Fixture, first: &str, entries: u8) -> Self {
        let (mut frontier, mut nodes, mut heads) = (Frontier::new(), BTreeMap::new(), vec![(0, Digest::default())]);
        for entry in 0..entries {
            let entry = if entry == 0 { first.as_bytes().to_vec() } else { vec![entry] };
            nodes.extend(frontier.append(leaf_hash(&entry)));
            heads.push((frontier.size(), frontier.root()));
        }
        Self { kit: fixture.replica_kit(), heads, nodes }
    }

    /// The head of this size, signed, and co-signed by the replica or not.
    fn head(&self, size: usize, cosigned: bool) -> SignedNote {
        let origin = origin(&self.kit.genesis.genesis);
        let (size, root) = self.heads[size];
        let text = Checkpoint::new(origin.as_str(), size, root).unwrap().to_note_text();
        let log = NoteSignature::sign(&text, &origin, &self.kit.log_key).unwrap();
        let mut note = SignedNote::from_parts(text.as_str(), vec![log]).unwrap();
        if cosigned {
            let name = cosigner_name(&origin, &self.kit.config.name);
            note.add(NoteSignature::cosign(&text, &name, &self.kit.cosign_key, 1_700_000_000).unwrap()).unwrap();
        }
        note
    }

    fn id(&self, size: usize) -> HeadId {
        let (size, root) = self.heads[size];
        HeadId { size, root }
    }

    fn proof(&self, old: u64, new: u64) -> Vec<Digest> {
        consistency_proof(old, new, |node| self.nodes.get(&node).copied().ok_or(())).unwrap()
    }

    fn path(&self, index: u64, size: u64) -> Vec<Digest> {
        inclusion_proof(index, size, |node| self.nodes.get(&node).copied().ok_or(())).unwrap()
    }

    /// Lets the replica show the final head of this size to somebody who knows the one of `known`.
    fn serve(&self, fixture: &Fixture, known: usize, size: usize) -> SignedNote {
        let note = self.head(size, true);
        serve(fixture, &note, Some(self.proof(known as u64, size as u64)));
        note
    }
}

fn serve(fixture: &Fixture, note: &SignedNote, consistency: Option<Vec<Digest>>) {
    *fixture.ledger.checkpoint.lock().unwrap() = Some(note.to_string());
    *fixture.ledger.consistency.lock().unwrap() = consistency;
}

fn seen(newer: Option<&SignedNote>, vouched: Vouched) -> SeenHead {
    SeenHead::Consistent { newer: newer.cloned(), vouched }
}

fn conflict(error: ApiError) -> Box<Conflict> {
    let ApiError::Conflict(conflict) = error else { panic!("{error}") };
    conflict
}

/// The head that the last call has shown.
fn shown(fixture: &Fixture) -> HeadId {
    *fixture.ledger.known.lock().unwrap().last().unwrap()
}

#[tokio::test]
async fn a_head_that_follows_from_the_last_one_takes_its_place() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let log = Log::new(&fixture, "1", 2);
    assert_eq!(client.check_head().await.unwrap(), SeenHead::Nothing);
    let one = log.serve(&fixture, 0, 1);
    assert_eq!(client.check_head().await.unwrap(), seen(Some(&one), Vouched::Final));
    let two = log.serve(&fixture, 1, 2);
    assert_eq!(client.check_head().await.unwrap(), seen(Some(&two), Vouched::Final));
    let noted = fixture.ledger.shown.lock().unwrap().pop().unwrap();
    assert_eq!(noted, Some(one.to_string()), "the replica is shown what is known");
    // A replica that lags shows an older head; the newer one is kept.
    serve(&fixture, &one, Some(Vec::new()));
    assert_eq!(client.check_head().await.unwrap(), seen(None, Vouched::Final));
    client.status().await.unwrap();
    assert_eq!(shown(&fixture), log.id(2));
    // Also beyond the connection.
    drop(client);
    fixture.client("budapest").await.genesis().await.unwrap();
    assert_eq!(shown(&fixture), log.id(2));
}

#[tokio::test]
async fn every_call_shows_the_last_head_and_brings_the_next_one() {
    let fixture = Fixture::new().await;
    let client = fixture.client("regulator").await;
    let log = Log::new(&fixture, "1", 12);
    fixture.ledger.append(b"entry");
    fixture.ledger.records.write().unwrap().insert(b"branch".to_vec(), b"v3".to_vec());
    let blob = fixture.ledger.store(b"weights".to_vec());
    let mut known = 0;
    for call in 0..10 {
        let next = known + 1;
        log.serve(&fixture, known, next);
        match call {
            0 => drop(client.status().await.unwrap()),
            1 => drop(client.genesis().await.unwrap()),
            2 => drop(client.entries(0, false).next().await.unwrap()),
            3 => drop(client.has_blobs(&[blob]).await.unwrap()),
            4 => drop(client.fetch(&blob, 1024).await.unwrap()),
            5 => drop(client.state_proof(b"branch").await.unwrap()),
            6 => drop(client.inclusion_proof(0, 1).await.unwrap()),
            7 => drop(client.consistency_proof(1, 2).await.unwrap()),
            8 => drop(client.submit(b"transaction").await.unwrap()),
            _ => drop(client.checkpoint().await.unwrap()),
        }
        let shown_before = if known == 0 { HeadId::empty() } else { log.id(known) };
        assert_eq!(shown(&fixture), shown_before, "call {call} does not show what is known");
        known = next;
    }
    // Where nothing has changed, nothing is asked.
    let asked = fixture.ledger.shown.lock().unwrap().len();
    client.status().await.unwrap();
    assert_eq!((shown(&fixture), fixture.ledger.shown.lock().unwrap().len()), (log.id(known), asked));
}

#[tokio::test]
async fn a_history_rewritten_between_two_calls_is_refused_and_kept_with_the_evidence() {
    // The proof from a size that is a power of two does not hold the root of the beginning.
    for (old, new) in [(3, 5), (4, 7), (2, 9), (3, 3)] {
        let fixture = Fixture::new().await;
        let client = fixture.client("budapest").await;
        let (honest, forked) = (Log::new(&fixture, "1", 9), Log::new(&fixture, "another", 9));
        for _ in 0..9 {
            fixture.ledger.append(b"entry");
        }
        let known = honest.serve(&fixture, 0, old);
        client.status().await.unwrap();
        let served = forked.serve(&fixture, old, new);
        if new > old {
            *fixture.ledger.path.lock().unwrap() = Some(forked.path(old as u64, new as u64));
        }
        let conflict = conflict(client.genesis().await.unwrap_err());
        assert_eq!((&*conflict.known_note, &*conflict.served_note), (&known, &served));
        let text = conflict.to_string();
        let words = [fixture.url(), format!("of {old} entries"), format!("of {new} entries")];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        kept_with_evidence(&conflict, &fixture.identity("budapest"), &honest.kit);
        // What was known is still known, so whatever is asked next is refused as well.
        assert_eq!(client.status().await.unwrap_err().code(), "conflicting_heads");
        drop(client);
        assert_eq!(fs::read_to_string(identity_file(&fixture, "checkpoint")).unwrap(), known.to_string());
    }
}

fn identity_file(fixture: &Fixture, name: &str) -> std::path::PathBuf {
    fixture.identity("budapest").directory.join(name)
}

/// Both notes and the evidence lie beside the last head, and the evidence convicts the replica.
fn kept_with_evidence(conflict: &Conflict, identity: &Identity, kit: &ReplicaKit) {
    let [known, served, evidence] = conflict.kept.as_slice() else { panic!("{:?}", conflict.kept) };
    assert!(conflict.kept.iter().all(|file| file.parent() == Some(&identity.directory)));
    let text = |file: &Path| fs::read_to_string(file).unwrap();
    assert_eq!(text(known), conflict.known_note.to_string());
    assert_eq!(text(served), conflict.served_note.to_string());
    let evidence = Evidence::from_bytes(&fs::read(evidence).unwrap()).unwrap();
    let name = cosigner_name(&origin(&kit.genesis.genesis), &kit.config.name);
    let key = VerifierKey::cosignature_v1(&name, kit.cosign_key.public()).unwrap();
    assert_eq!(evidence.verify(std::slice::from_ref(&key)).unwrap(), [&key]);
}

#[tokio::test]
async fn a_head_without_a_proof_is_a_conflict_and_without_evidence() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let (honest, forked) = (Log::new(&fixture, "1", 5), Log::new(&fixture, "another", 5));
    honest.serve(&fixture, 0, 3);
    client.status().await.unwrap();
    for (withholds, proof) in [(false, Some(Vec::new())), (true, Some(Vec::new())), (false, None)] {
        *fixture.ledger.withholds.lock().unwrap() = withholds;
        let served = forked.head(5, true);
        serve(&fixture, &served, proof);
        let conflict = conflict(client.genesis().await.unwrap_err());
        assert_eq!((&*conflict.served_note, &conflict.evidence), (&served, &None), "{conflict}");
        assert_eq!(conflict.kept.len(), 2);
    }
    // It says that it has a newer head, and shows none.
    *fixture.ledger.withholds.lock().unwrap() = true;
    *fixture.ledger.checkpoint.lock().unwrap() = Some(honest.head(4, true).to_string());
    *fixture.ledger.consistency.lock().unwrap() = None;
    let error = client.genesis().await.unwrap_err();
    assert!(conflict(error).reason.contains("in this log they have"), "it refuses the head that it was shown");
}

#[tokio::test]
async fn a_replica_that_has_another_history_says_so_before_anything_is_done() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let (honest, forked) = (Log::new(&fixture, "1", 5), Log::new(&fixture, "another", 5));
    let known = honest.serve(&fixture, 0, 3);
    client.status().await.unwrap();
    fixture.ledger.roots.lock().unwrap().insert(3, forked.id(3).root);
    forked.serve(&fixture, 3, 5);
    let size = fixture.ledger.size();
    let conflict = conflict(client.submit(b"transaction").await.unwrap_err());
    assert_eq!((&*conflict.known_note, fixture.ledger.size()), (&known, size));
    assert!(conflict.reason.contains("in this log they have"), "{conflict}");
}

#[tokio::test]
async fn a_note_too_large_for_the_answer_is_asked_for() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let log = Log::new(&fixture, "1", 3);
    log.serve(&fixture, 0, 1);
    client.status().await.unwrap();
    let mut note = log.head(3, true);
    for number in 0..90 {
        let (name, key) = (format!("stranger-{number}"), SecretKey::from_seed([number; 32]));
        let line = NoteSignature::cosign(note.text(), &name, &key, 1_700_000_000).unwrap();
        note.add(line).unwrap();
    }
    assert!(note.to_string().len() > NOTE_IN_METADATA_SIZE_BYTES_MAX);
    serve(&fixture, &note, Some(log.proof(1, 3)));
    client.status().await.unwrap();
    client.status().await.unwrap();
    assert_eq!(shown(&fixture), log.id(3));
}

#[tokio::test]
async fn a_head_for_which_nobody_stands_is_not_remembered() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let log = Log::new(&fixture, "1", 2);
    serve(&fixture, &log.head(2, false), Some(log.proof(0, 2)));
    assert_eq!(client.check_head().await.unwrap(), seen(None, Vouched::NotYet));
    client.status().await.unwrap();
    assert_eq!(shown(&fixture), HeadId::empty());
    log.serve(&fixture, 0, 1);
    client.status().await.unwrap();
    serve(&fixture, &log.head(2, false), Some(log.proof(1, 2)));
    assert_eq!(client.check_head().await.unwrap(), seen(None, Vouched::NotYet));
    client.status().await.unwrap();
    assert_eq!(shown(&fixture), log.id(1));
}

#[tokio::test]
async fn no_claim_of_a_later_epoch_lowers_what_is_asked_for() {
    let fixture = Fixture::new().await;
    let mut identity = fixture.identity("budapest");
    let log = Log::new(&fixture, "1", 2);
    *fixture.ledger.epoch.lock().unwrap() = 7;
    // One replica stands by it, and one is not enough; nor is nobody, whatever the genesis file says.
    for (threshold, cosigned) in [(2, true), (0, false)] {
        identity.genesis.genesis.finality_threshold = threshold;
        let client = ApiClient::connect_with(&fixture.url(), &identity.tls, &identity.genesis).await.unwrap();
        serve(&fixture, &log.head(2, cosigned), Some(log.proof(0, 2)));
        assert_eq!(client.check_head().await.unwrap(), seen(None, Vouched::NotYet));
    }
    // An epoch that nobody vouches for is none.
    let receipt = Receipt::new(1, None, Vec::new(), log.head(2, true)).unwrap();
    let link = EpochLink { epoch: b"epoch".to_vec(), leaf: b"leaf".to_vec(), receipt };
    fixture.ledger.links.lock().unwrap().push((7, link));
    let client = ApiClient::connect_with(&fixture.url(), &identity.tls, &identity.genesis).await.unwrap();
    assert_eq!(client.check_head().await.unwrap_err().code(), "invalid_head");
    assert_eq!(client.status().await.unwrap_err().code(), "invalid_head");
}

#[tokio::test]
async fn what_is_no_head_of_this_log_is_refused() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let good = Log::new(&fixture, "1", 1).head(1, true).to_string();
    let other_log = good.replacen("fedledger/heart", "fedledger/lung", 1);
    // The co-signature is of another size.
    let forged = good.replacen("\n1\n", "\n2\n", 1);
    for note in [other_log, forged] {
        *fixture.ledger.checkpoint.lock().unwrap() = Some(note.clone());
        for error in [client.check_head().await.unwrap_err(), client.status().await.unwrap_err()] {
            assert!(matches!(error, ApiError::Head { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_last_head_that_is_damaged_is_named_before_anybody_is_asked() {
    let fixture = Fixture::new().await;
    let identity = fixture.identity("budapest");
    fs::write(identity.directory.join("checkpoint"), "no note").unwrap();
    let error = ApiClient::connect(&fixture.url(), &identity).await.unwrap_err();
    assert!(matches!(error, ApiError::Seen(_)) && error.to_string().contains("checkpoint"), "{error}");
}
