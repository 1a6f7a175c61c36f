//! Heads that a client has seen: later ones must follow from them, whichever replica shows them.

use fedledger_federation::history::origin;
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    merkle::{Frontier, leaf_hash},
    note::{NoteSignature, SignedNote},
};
use fedledger_proto::{
    api::{HeadError, SeenHead, Vouched},
    kit::ReplicaKit,
};

use crate::fixture::Fixture;

/// The heads of a log whose entries are these, signed, and co-signed by the consortium's replica or not.
fn head(fixture: &Fixture, entries: &[&[u8]], cosigned: bool) -> SignedNote {
    let kit: ReplicaKit = fixture.replica_kit();
    let mut frontier = Frontier::new();
    for entry in entries {
        frontier.append(leaf_hash(entry));
    }
    let origin = origin(&kit.genesis.genesis);
    let text = Checkpoint::new(origin.as_str(), entries.len() as u64, frontier.root()).unwrap().to_note_text();
    let log = NoteSignature::sign(&text, &origin, &kit.log_key).unwrap();
    let mut note = SignedNote::from_parts(text.as_str(), vec![log]).unwrap();
    if cosigned {
        let name = cosigner_name(&origin, &kit.config.name);
        note.add(NoteSignature::cosign(&text, &name, &kit.cosign_key, 1_700_000_000).unwrap()).unwrap();
    }
    note
}

fn serve(fixture: &Fixture, note: &SignedNote, consistency: Option<Vec<Digest>>) {
    *fixture.ledger.checkpoint.lock().unwrap() = Some(note.to_string());
    *fixture.ledger.consistency.lock().unwrap() = consistency;
}

fn seen(newer: Option<&SignedNote>, vouched: Vouched) -> SeenHead {
    SeenHead::Consistent { newer: newer.cloned(), vouched }
}

#[tokio::test]
async fn a_head_that_follows_from_the_last_one_takes_its_place() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let genesis = fixture.identity("budapest").genesis;
    assert_eq!(client.check_head(&genesis, None).await.unwrap(), SeenHead::Nothing);
    let one = head(&fixture, &[b"1"], true);
    serve(&fixture, &one, None);
    assert_eq!(client.check_head(&genesis, None).await.unwrap(), seen(Some(&one), Vouched::Final));
    let two = head(&fixture, &[b"1", b"2"], true);
    serve(&fixture, &two, Some(vec![leaf_hash(b"2")]));
    assert_eq!(client.check_head(&genesis, Some(&one)).await.unwrap(), seen(Some(&two), Vouched::Final));
    let shown = fixture.ledger.shown.lock().unwrap().pop().unwrap();
    assert_eq!(shown, Some(one.to_string()), "the replica is shown what is known");
    // A replica that lags shows an older head; the newer one is kept.
    serve(&fixture, &one, Some(Vec::new()));
    assert_eq!(client.check_head(&genesis, Some(&two)).await.unwrap(), seen(None, Vouched::Final));
}

#[tokio::test]
async fn a_head_for_which_nobody_stands_is_not_remembered() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let genesis = fixture.identity("budapest").genesis;
    let alone = head(&fixture, &[b"1", b"2"], false);
    serve(&fixture, &alone, Some(vec![leaf_hash(b"2")]));
    assert_eq!(client.check_head(&genesis, None).await.unwrap(), seen(None, Vouched::NotYet));
    let one = head(&fixture, &[b"1"], true);
    assert_eq!(client.check_head(&genesis, Some(&one)).await.unwrap(), seen(None, Vouched::NotYet));
}

#[tokio::test]
async fn no_claim_of_a_later_epoch_lowers_what_is_asked_for() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let mut genesis = fixture.identity("budapest").genesis;
    let (one, two) = (head(&fixture, &[b"1"], true), head(&fixture, &[b"1", b"2"], true));
    serve(&fixture, &two, Some(vec![leaf_hash(b"2")]));
    *fixture.ledger.epoch.lock().unwrap() = 7;
    assert_eq!(client.check_head(&genesis, Some(&one)).await.unwrap(), seen(Some(&two), Vouched::Final));
    // One replica stands by it, and one is not enough.
    genesis.genesis.finality_threshold = 2;
    for known in [None, Some(&one)] {
        let unchecked = seen(None, Vouched::Unchecked { epoch: 7 });
        assert_eq!(client.check_head(&genesis, known).await.unwrap(), unchecked);
    }
    // Nor is nobody, whatever the genesis file says.
    genesis.genesis.finality_threshold = 0;
    serve(&fixture, &head(&fixture, &[b"1", b"2"], false), None);
    let unchecked = seen(None, Vouched::Unchecked { epoch: 7 });
    assert_eq!(client.check_head(&genesis, None).await.unwrap(), unchecked);
}

#[tokio::test]
async fn two_histories_are_a_conflict_with_both_notes() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let genesis = fixture.identity("budapest").genesis;
    let known = head(&fixture, &[b"1"], true);
    let forked = head(&fixture, &[b"another", b"2"], true);
    let made_up = Some(vec![leaf_hash(b"2")]);
    let same_size = head(&fixture, &[b"another"], true);
    for (served, proof, why) in [
        (&forked, made_up, "root"),
        (&forked, Some(Vec::new()), "must have 1 hashes"),
        (&same_size, Some(Vec::new()), "root"),
        // The replica says so itself, and keeps the note that it was shown.
        (&forked, None, "in this log they have"),
    ] {
        serve(&fixture, served, proof);
        let error = client.check_head(&genesis, Some(&known)).await.unwrap_err();
        let HeadError::Conflict(conflict) = error else { panic!("{error}") };
        assert_eq!((*conflict.known_note.clone(), *conflict.served_note.clone()), (known.clone(), served.clone()));
        assert!(conflict.reason.contains(why), "{conflict}");
        assert!(conflict.to_string().contains("of 1 entries") && conflict.to_string().contains(&fixture.url()));
    }
}

#[tokio::test]
async fn what_is_no_head_of_this_log_is_refused() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let genesis = fixture.identity("budapest").genesis;
    let good = head(&fixture, &[b"1"], true).to_string();
    let other_log = good.replacen("fedledger/heart", "fedledger/lung", 1);
    // The co-signature is of another size.
    let forged = good.replacen("\n1\n", "\n2\n", 1);
    for note in [other_log, forged] {
        *fixture.ledger.checkpoint.lock().unwrap() = Some(note.clone());
        let error = client.check_head(&genesis, None).await.unwrap_err();
        assert!(matches!(error, HeadError::Invalid { .. }), "{error}");
    }
}
