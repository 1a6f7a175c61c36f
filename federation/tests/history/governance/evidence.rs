//! Evidence of two histories on record.

use fedledger_federation::{
    Command, Event,
    governance::{Action, NodeKeys, RecordEvidence, RotateKeys},
    history::origin,
};
use fedledger_ledger::{
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    evidence::Evidence,
    note::{NoteSignature, SignedNote},
};

use super::*;
use crate::consortium::set;

/// A head of this log, or of one that calls itself so, signed by these replicas in the name of the log and by these nodes in
/// their own, with the key that a label names.
fn head(consortium: &Consortium, root: &str, signers: &[&str], cosigners: &[(&str, &str)]) -> SignedNote {
    let origin = origin(consortium.state().consortium());
    signed(&origin, root, signers, cosigners)
}

fn signed(origin: &str, root: &str, signers: &[&str], cosigners: &[(&str, &str)]) -> SignedNote {
    let text = Checkpoint::new(origin, 7, Digest::of(root.as_bytes())).unwrap().to_note_text();
    let log = |node: &&str| NoteSignature::sign(&text, origin, &key(&format!("{node}/log"))).unwrap();
    let cosign = |(node, label): &(&str, &str)| {
        NoteSignature::cosign(&text, &cosigner_name(origin, node), &key(label), 1_700_000_000).unwrap()
    };
    let signatures = signers.iter().map(log).chain(cosigners.iter().map(cosign)).collect();
    SignedNote::from_parts(text.clone(), signatures).unwrap()
}

fn record(one: SignedNote, other: SignedNote) -> Command {
    let evidence = Evidence::new(one, other, None).unwrap().to_bytes();
    Command::RecordEvidence(RecordEvidence { evidence })
}

#[test]
fn whoever_signed_two_histories_is_named_once() {
    let mut consortium = Consortium::new(2);
    let one = head(&consortium, "one", &["porto/replica"], &[("turin/replica", "turin/replica/cosign")]);
    let other = |signers: &[&str], cosigners: &[(&str, &str)]| head(&consortium, "other", signers, cosigners);
    let porto = record(one.clone(), other(&["porto/replica", "lyon/replica"], &[]));
    let again = record(other(&["porto/replica"], &[]), one.clone());
    let both = record(one, other(&["porto/replica"], &[("turin/replica", "turin/replica/cosign")]));
    let event = consortium.accept("basel/participant", porto.clone());
    let Event::EvidenceRecorded { evidence, culprits } = event else { panic!("{event:?}") };
    assert_eq!(culprits, set(&["porto/replica"]), "lyon signed one of them only");
    let record = consortium.state().evidence().get(&evidence).unwrap();
    assert_eq!((record.index, &record.culprits), (1, &culprits));
    for repeated in [porto, again] {
        assert_eq!(consortium.refused("turin/organisation", repeated), "evidence_known");
    }
    let Event::EvidenceRecorded { culprits, .. } = consortium.accept("lyon/replica", both) else { panic!("refused") };
    assert_eq!(culprits, set(&["porto/replica", "turin/replica"]), "one more culprit is news");
    assert!(consortium.state().members().get("porto").is_some(), "what follows is for the members to decide");
    let restored = Log::<Federation>::load(&consortium.storage).unwrap().unwrap();
    assert_eq!(restored.machine().digest(), consortium.state().digest());
}

#[test]
fn keys_that_were_replaced_still_convict() {
    let mut consortium = Consortium::new(2);
    let new = "porto/replica/cosign/2";
    let signed_by = |label: &'static str, root: &str| head(&consortium, root, &[], &[("porto/replica", label)]);
    let old = record(signed_by("porto/replica/cosign", "one"), signed_by("porto/replica/cosign", "other"));
    let mixed = record(signed_by("porto/replica/cosign", "one"), signed_by(new, "other"));
    let future = record(signed_by(new, "one"), signed_by(new, "other"));
    assert_eq!(consortium.refused(BASEL, future.clone()), "invalid_evidence", "nobody has this key yet");
    let node =
        NodeKeys { name: "porto/replica".to_owned(), cosign_key: Some(key(new).public()), ..NodeKeys::default() };
    let rotate = RotateKeys { member: "porto".to_owned(), organisation_key: None, api_key: None, node: Some(node) };
    carry_out(&mut consortium, Action::RotateKeys(rotate));
    assert_eq!(consortium.refused(BASEL, mixed), "invalid_evidence", "either key signed one of them");
    consortium.accept(BASEL, future);
    carry_out(&mut consortium, exclude("porto"));
    // The heads and the culprit are the same, so it is on record; another head is not.
    assert_eq!(consortium.refused(BASEL, old), "evidence_known");
    let third = head(&consortium, "third", &[], &[("porto/replica", "porto/replica/cosign")]);
    let first = head(&consortium, "one", &[], &[("porto/replica", "porto/replica/cosign")]);
    let event = consortium.accept(BASEL, record(first, third));
    assert!(matches!(event, Event::EvidenceRecorded { .. }), "{event:?}");
}

#[test]
fn a_witness_is_convicted_too_and_nobody_in_the_name_of_another() {
    let mut consortium = Consortium::new(2);
    let by = |root: &str, name: &'static str, label: &'static str| head(&consortium, root, &[], &[(name, label)]);
    let witness = "basel/participant";
    let convicting =
        record(by("a", witness, "basel/participant/witness"), by("b", witness, "basel/participant/witness"));
    let framed =
        record(by("c", "lyon/replica", "porto/replica/cosign"), by("d", "lyon/replica", "porto/replica/cosign"));
    let stranger = record(by("e", "lyon/replica", "mallory"), by("f", "lyon/replica", "mallory"));
    for forged in [framed, stranger] {
        assert_eq!(consortium.refused(BASEL, forged), "invalid_evidence");
    }
    assert_eq!(consortium.refused("mallory", convicting.clone()), "unknown_author");
    let event = consortium.accept(BASEL, convicting);
    let Event::EvidenceRecorded { culprits, .. } = event else { panic!("{event:?}") };
    assert_eq!(culprits, set(&[witness]));
}

#[test]
fn evidence_is_about_this_log_and_whole() {
    let mut consortium = Consortium::new(2);
    let elsewhere = |root| signed("fedledger/other", root, &["porto/replica"], &[]);
    let foreign = record(elsewhere("one"), elsewhere("other"));
    assert_eq!(consortium.refused(BASEL, foreign), "foreign_evidence");
    let here = |root: &str| head(&consortium, root, &["porto/replica"], &[]);
    let whole = Evidence::new(here("one"), here("other"), None).unwrap().to_bytes();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        let evidence = whole[..length].to_vec();
        let code = consortium.refused(BASEL, Command::RecordEvidence(RecordEvidence { evidence }));
        assert_eq!(code, "invalid_evidence", "{length}");
    }
}
