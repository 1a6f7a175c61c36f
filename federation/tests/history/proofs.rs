//! Receipts of entries and records, made from whole histories and checked with nothing but the genesis file.

use fedledger_federation::{
    Command,
    command::{MoveBranch, Tag},
    history::{Proofs, ProveError, Source, Wanted},
    subject::{Subject, record_as_json},
};
use fedledger_ledger::{
    Digest, codec,
    epoch::{EpochChain, Epochs},
    leaf::{Leaf, Outcome},
    map::StateProofError,
    receipt::{Receipt, ReceiptError},
    state_receipt::{StateReceipt, StateReceiptError},
    transaction::Envelope,
};

use crate::consortium::{Consortium, OFFICE, genesis, key, open_bundle};

const ORIGIN: &str = "fedledger/hearts";

/// What whoever has the genesis file trusts.
fn trusted(participants: usize) -> Epochs {
    EpochChain::default().verify(ORIGIN, &genesis(participants).epoch()).unwrap()
}

fn prove(source: &impl Source, wanted: Wanted) -> Proofs {
    Proofs::read(source, wanted, 1).unwrap()
}

fn of_entry(index: u64) -> Wanted {
    Wanted { entry: Some(index), record: None }
}

fn of_record(subject: &Subject) -> Wanted {
    Wanted { entry: None, record: Some(subject.record_key()) }
}

/// The receipt of a record, as it is after it was written to a file.
fn state_receipt(source: &impl Source, subject: &Subject) -> StateReceipt {
    let receipt = prove(source, of_record(subject)).state_receipt().unwrap();
    StateReceipt::from_bytes(&receipt.to_bytes()).unwrap()
}

#[test]
fn every_entry_of_a_history_has_a_receipt_that_says_what_it_is() {
    let consortium = Consortium::with_history(2);
    let (bundle, node) = (open_bundle(&consortium.bundle()), consortium.source());
    let epochs = trusted(2);
    for index in (0..consortium.log.size()).step_by(7).chain([consortium.log.size() - 2]) {
        let text = prove(&bundle, of_entry(index)).receipt().unwrap().to_string();
        assert_eq!(prove(&node, of_entry(index)).receipt().unwrap().to_string(), text, "another from the node");
        let receipt = Receipt::parse(&text).unwrap();
        let leaf = receipt.extra().unwrap();
        let policy = epochs.policy_for(receipt.checkpoint()).unwrap();
        let accepted = receipt.verify(&policy, leaf).unwrap();
        assert_eq!((accepted.checkpoint.size(), accepted.time_s.is_some()), (consortium.log.size(), true));
        let expected = index.checked_sub(1).map_or(&consortium.genesis, |at| &consortium.leaves[at as usize]);
        assert_eq!(leaf, expected);
    }
}

#[test]
fn a_receipt_of_a_rejected_entry_proves_that_it_was_rejected() {
    let consortium = Consortium::with_history(2);
    // The seal stands behind it.
    let index = consortium.log.size() - 2;
    let receipt = prove(&consortium.source(), of_entry(index)).receipt().unwrap();
    let policy = trusted(2).policy_for(receipt.checkpoint()).unwrap();
    let leaf = Leaf::from_bytes(receipt.extra().unwrap()).unwrap();
    assert_eq!(leaf.outcome, Outcome::Rejected("head_moved".to_owned()));
    assert_eq!(Envelope::open(&leaf.envelope, consortium.log.chain()).unwrap().kind, "MoveBranch");
    assert!(receipt.verify(&policy, &leaf.to_bytes()).is_ok());
    // That it was accepted cannot be shown.
    let accepted = Leaf { outcome: Outcome::Accepted, ..leaf };
    let refused = receipt.verify(&policy, &accepted.to_bytes());
    assert!(matches!(refused, Err(ReceiptError::Inclusion(_))), "{refused:?}");
}

#[test]
fn what_is_not_final_is_not_proven() {
    let mut consortium = Consortium::with_history(2);
    let size = consortium.log.size();
    consortium.start(crate::consortium::plan("later"));
    let source = consortium.source();
    let refused = prove(&source, of_entry(size)).receipt().unwrap_err();
    assert!(matches!(refused, ProveError::NotFinal { index, final_entries } if (index, final_entries) == (size, size)));
    consortium.sign_checkpoints(2);
    let proofs = prove(&consortium.source(), of_entry(1));
    assert_eq!(proofs.final_entries(), 0);
    assert!(matches!(proofs.receipt(), Err(ProveError::NothingFinal)));
    assert!(matches!(proofs.state_receipt(), Err(ProveError::NothingFinal)));
}

#[test]
fn the_head_of_a_branch_is_proven_with_its_value() {
    let consortium = Consortium::with_history(2);
    let subject = Subject::Branch("main".to_owned());
    let receipt = state_receipt(&consortium.source(), &subject);
    assert_eq!(receipt, state_receipt(&open_bundle(&consortium.bundle()), &subject));
    let policy = trusted(2).policy_for(receipt.receipt.checkpoint()).unwrap();
    let shown = receipt.verify(&policy).unwrap();
    assert_eq!((shown.index, shown.seal.number), (consortium.log.size() - 1, 4));
    let head = consortium.head("main");
    assert_eq!(receipt.value, Some(codec::encode(&head)));
    let json = record_as_json(receipt.value.as_ref().unwrap()).unwrap();
    assert!(json.as_str().unwrap().contains(&head.digest().to_string()), "{json}");
    let version = state_receipt(&consortium.source(), &Subject::Version(head));
    version.verify(&policy).unwrap();
    let json = record_as_json(version.value.as_ref().unwrap()).unwrap();
    assert!(json["manifest"]["parents"].is_array() && json["revoked"].is_null(), "{json}");
}

#[test]
fn what_is_not_recorded_is_proven_to_be_absent() {
    let consortium = Consortium::with_history(2);
    let policy = trusted(2).policy_for(consortium.notes.first().unwrap()).unwrap();
    let subjects = [
        Subject::Branch("shadow".to_owned()),
        Subject::Tag("gold".to_owned()),
        Subject::RevokedKey(key("basel/replica").public()),
    ];
    for subject in subjects {
        let receipt = state_receipt(&consortium.source(), &subject);
        assert_eq!(receipt.value, None);
        receipt.verify(&policy).unwrap();
        let present = StateReceipt { value: Some(vec![0xf6]), ..receipt.clone() };
        let refused = present.verify(&policy).unwrap_err();
        assert_eq!(refused, StateReceiptError::Proof(StateProofError::Absent));
        let other = StateReceipt { key: Subject::Branch("main".to_owned()).record_key(), ..receipt };
        assert!(
            matches!(other.verify(&policy), Err(StateReceiptError::Proof(_))),
            "it shows nothing about another key"
        );
    }
}

#[test]
fn what_is_recorded_is_not_shown_to_be_absent_or_to_be_something_else() {
    let consortium = Consortium::with_history(2);
    let receipt = state_receipt(&consortium.source(), &Subject::Branch("main".to_owned()));
    let policy = trusted(2).policy_for(receipt.receipt.checkpoint()).unwrap();
    let initial = consortium.state().numbers().get(&0).unwrap();
    let other = StateReceipt { value: Some(codec::encode(initial)), ..receipt.clone() };
    assert!(matches!(other.verify(&policy), Err(StateReceiptError::Proof(StateProofError::Value { .. }))));
    let absent = StateReceipt { value: None, ..receipt };
    assert!(matches!(absent.verify(&policy), Err(StateReceiptError::Proof(StateProofError::Present(_)))));
}

#[test]
fn a_record_is_not_proven_with_another_seal() {
    let mut consortium = Consortium::with_history(2);
    let subject = Subject::Branch("main".to_owned());
    let before = state_receipt(&consortium.source(), &subject);
    let (head, initial) = (consortium.head("main"), *consortium.state().numbers().get(&0).unwrap());
    let reason = "again".to_owned();
    let back = MoveBranch { branch: "main".to_owned(), from: Some(head), to: initial, revoke: false, reason };
    consortium.accept(OFFICE, Command::MoveBranch(back));
    consortium.accept(OFFICE, Command::Tag(Tag { name: "gold".to_owned(), version: initial }));
    consortium.sign_checkpoints(3);
    let after = state_receipt(&consortium.source(), &subject);
    assert_ne!(before.value, after.value);
    let policy = trusted(2).policy_for(after.receipt.checkpoint()).unwrap();
    assert!(before.verify(&policy).is_ok() && after.verify(&policy).is_ok(), "each was true in its time");
    // The old record with the new seal, and the other way round.
    let (leaf, receipt) = (after.leaf.clone(), after.receipt.clone());
    let stale = StateReceipt { leaf, receipt, ..before.clone() };
    assert!(matches!(stale.verify(&policy), Err(StateReceiptError::Proof(StateProofError::Root { .. }))));
    let index = StateReceipt { leaf: before.leaf.clone(), ..after.clone() };
    assert!(matches!(index.verify(&policy), Err(StateReceiptError::Index { .. })));
    let no_seal = StateReceipt { leaf: consortium.leaves[0].clone(), ..after.clone() };
    assert_eq!(no_seal.verify(&policy), Err(StateReceiptError::NoSeal));
    let mut leaf = Leaf::from_bytes(&after.leaf).unwrap();
    leaf.seal.as_mut().unwrap().state_root = Digest::of(b"another state");
    let forged = StateReceipt { leaf: leaf.to_bytes(), ..after };
    assert!(matches!(forged.verify(&policy), Err(StateReceiptError::Receipt(ReceiptError::Inclusion(_)))));
}

#[test]
fn every_flipped_bit_of_a_receipt_of_a_record_is_noticed() {
    let consortium = Consortium::with_history(2);
    let receipt = state_receipt(&consortium.source(), &Subject::Branch("main".to_owned()));
    let policy = trusted(2).policy_for(receipt.receipt.checkpoint()).unwrap();
    let bytes = receipt.to_bytes();
    let (mut unnoticed, text) = (Vec::new(), receipt.receipt.checkpoint().text());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(read) = StateReceipt::from_bytes(&flipped) else { continue };
        if read.verify(&policy).is_ok() {
            // Lines by keys that the policy does not list are ignored, as the format demands.
            let same = |other: &StateReceipt| {
                (&other.leaf, &other.proof, &other.key, &other.value, other.receipt.hashes())
                    == (&receipt.leaf, &receipt.proof, &receipt.key, &receipt.value, receipt.receipt.hashes())
            };
            if !same(&read) || read.receipt.checkpoint().text() != text {
                unnoticed.push(bit);
            }
        }
    }
    assert_eq!(unnoticed, [] as [usize; 0]);
}
