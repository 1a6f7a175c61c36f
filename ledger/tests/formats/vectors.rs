//! Files that were written once and must be read, and written, the same for ever.

use fedledger_ledger::{
    evidence::{Evidence, Prefix},
    note::SignedNote,
    receipt::Receipt,
};

use crate::sample_log::{ORIGIN, SampleLog, WITNESSES, log_key, policy, witness_key};

const CHECKPOINT: &str = include_str!("../vectors/note/checkpoint_5_of_sample_log.txt");
const RECEIPT: &str = include_str!("../vectors/receipt/entry_2_of_5.tlog-proof");
const SAME_SIZE: &str = include_str!("../vectors/evidence/same_size.hex");
const OTHER_SIZE: &str = include_str!("../vectors/evidence/other_size.hex");

#[test]
fn the_checkpoint_is_read_and_written_the_same() {
    let log = SampleLog::of_size(5);
    assert_eq!(log.checkpoint(5, &WITNESSES).to_string(), CHECKPOINT);
    let note = SignedNote::parse(CHECKPOINT).unwrap();
    assert_eq!(note.to_string(), CHECKPOINT);
    assert_eq!(policy(3).check(&note).unwrap().checkpoint.origin(), ORIGIN);
}

#[test]
fn the_receipt_is_read_and_written_the_same() {
    let log = SampleLog::of_size(5);
    let made = Receipt::new(2, Some(b"extra".to_vec()), log.inclusion(2, 5).unwrap(), log.checkpoint(5, &WITNESSES));
    assert_eq!(made.unwrap().to_string(), RECEIPT);
    let receipt = Receipt::parse(RECEIPT).unwrap();
    assert_eq!(receipt.to_string(), RECEIPT);
    assert!(receipt.verify(&policy(3), b"entry 2").is_ok());
}

#[test]
fn the_evidence_is_read_and_written_the_same() {
    let (log, other) = (SampleLog::of_size(5), SampleLog::forked(7, 3));
    let first = || log.checkpoint(5, &WITNESSES[..1]);
    let prefix = Prefix { root: other.root(5), proof: other.consistency(5, 7) };
    let made = [
        (SAME_SIZE, 2, Evidence::new(first(), other.checkpoint(5, &WITNESSES[..1]), None)),
        (OTHER_SIZE, 1, Evidence::new(first(), other.checkpoint(7, &WITNESSES[1..]), Some(prefix))),
    ];
    for (text, convicted, made) in made {
        let bytes = hex::decode(text.replace('\n', "")).unwrap();
        let evidence = Evidence::from_bytes(&bytes).unwrap();
        assert_eq!(evidence.to_bytes(), bytes);
        assert_eq!(made, Ok(evidence.clone()));
        assert_eq!(evidence.verify(&[log_key(), witness_key(WITNESSES[0])]).unwrap().len(), convicted);
    }
}
