//! Bytes that are no command, and bytes that are no transaction.

use fedledger_federation::{
    Command,
    command::{JoinRound, RoundKey},
};
use fedledger_ledger::{
    Digest, PublicKey,
    leaf::Leaf,
    limits::VALIDITY_ENTRIES_MAX,
    log::{NONCE_REUSED, Refusal},
    machine::{RejectionCode as _, WriteSet},
    transaction::{Envelope, EnvelopeError, Nonce, Transaction},
};

use crate::consortium::{Consortium, OFFICE, key, plan};

const BASEL: &str = "basel/participant";

#[test]
fn payloads_that_are_not_what_the_kind_says_are_recorded_as_such() {
    let mut consortium = Consortium::new(2);
    let before = consortium.state().digest();
    let key = RoundKey { plan: Digest::of(b"no plan"), round: 1, attempt: 1 };
    let join = Command::JoinRound(JoinRound { key });
    let mut cases = vec![
        ("NoSuchKind".to_owned(), Vec::new(), "unknown_kind"),
        ("joinround".to_owned(), join.payload(), "unknown_kind"),
        ("ApprovePlan".to_owned(), join.payload(), "malformed_payload"),
        ("JoinRound".to_owned(), Vec::new(), "malformed_payload"),
        ("JoinRound".to_owned(), [join.payload(), vec![0]].concat(), "malformed_payload"),
    ];
    for cut in 0..join.payload().len() {
        cases.push(("JoinRound".to_owned(), join.payload()[..cut].to_vec(), "malformed_payload"));
    }
    for (kind, payload, expected) in cases {
        let envelope = consortium.envelope(BASEL, &kind, payload);
        let rejection = consortium.apply(&envelope).unwrap().unwrap().unwrap_err();
        assert_eq!(rejection.code(), expected, "{kind}");
    }
    assert_eq!(consortium.state().digest(), before);
}

#[test]
fn a_nonce_is_good_for_one_transaction() {
    let mut consortium = Consortium::new(2);
    let sign = |consortium: &Consortium, command: &Command| {
        let transaction = Transaction {
            chain: *consortium.log.chain(),
            author: key(OFFICE).public(),
            nonce: Nonce([9; 16]),
            not_after_index: 100,
            kind: command.kind().to_owned(),
            payload: command.payload(),
        };
        transaction.sign(&key(OFFICE)).to_bytes()
    };
    let first = sign(&consortium, &Command::ProposePlan(plan("heart")));
    consortium.apply(&first).unwrap().unwrap().unwrap();
    let state = consortium.state().digest();
    let second = sign(&consortium, &Command::ProposePlan(plan("lung")));
    assert_eq!(consortium.apply(&second).unwrap(), None, "it got to the state machine");
    let leaf = Leaf::from_bytes(consortium.leaves.last().unwrap()).unwrap();
    assert_eq!((leaf.outcome.code(), leaf.write_set), (NONCE_REUSED, WriteSet::default().digest()));
    assert_eq!(consortium.state().digest(), state);
    let opened = Envelope::open(&first, consortium.log.chain()).unwrap();
    assert_eq!(consortium.log.find(&opened, &first), Some(1), "the first outcome can be found again");
}

#[test]
fn what_is_no_valid_transaction_becomes_no_entry() {
    let mut consortium = Consortium::new(2);
    let size = consortium.log.size();
    let sign = |change: &dyn Fn(&mut Transaction), signer: &str| {
        let command = Command::ProposePlan(plan("heart"));
        let mut transaction = Transaction {
            chain: Digest::of(&consortium.genesis),
            author: key(OFFICE).public(),
            nonce: Nonce([1; 16]),
            not_after_index: 100,
            kind: command.kind().to_owned(),
            payload: command.payload(),
        };
        change(&mut transaction);
        transaction.sign(&key(signer)).to_bytes()
    };
    let expired = sign(&|transaction| transaction.not_after_index = 0, OFFICE);
    let far = sign(&|transaction| transaction.not_after_index = size + VALIDITY_ENTRIES_MAX + 1, OFFICE);
    let forged = sign(&|_| (), "mallory");
    let elsewhere = sign(&|transaction| transaction.chain = Digest::of(b"elsewhere"), OFFICE);
    let small_order = sign(&|transaction| transaction.author = PublicKey::from_bytes([0; 32]), OFFICE);
    assert!(matches!(consortium.apply(&expired), Err(Refusal::Expired { .. })));
    assert!(matches!(consortium.apply(&far), Err(Refusal::ExpiryTooFar { .. })));
    for forged in [&forged, &small_order] {
        assert!(matches!(consortium.apply(forged), Err(Refusal::Envelope(EnvelopeError::Signature(_)))));
    }
    assert!(matches!(consortium.apply(&elsewhere), Err(Refusal::Envelope(EnvelopeError::Chain { .. }))));
    assert!(matches!(consortium.apply(b"garbage"), Err(Refusal::Envelope(EnvelopeError::Envelope(_)))));
    assert_eq!(consortium.log.size(), size);
}
