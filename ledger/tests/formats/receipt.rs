//! Receipts: every entry of small logs, every deviation from the format, and every changed bit.

use fedledger_ledger::{
    Digest,
    checkpoint::CheckpointError,
    merkle::ProofMismatch,
    note::{NoteError, sign_note},
    policy::PolicyError,
    receipt::{RECEIPT_EXTRA_SIZE_BYTES_MAX, RECEIPT_HASHES_MAX, RECEIPT_SIZE_BYTES_MAX, Receipt, ReceiptError},
};
use proptest::prelude::*;

use crate::sample_log::{ORIGIN, SampleLog, TIME_S, WITNESSES, policy, secret};

/// Largest size that is checked exhaustively.
const EXHAUSTIVE_SIZE: u64 = 20;

fn receipt(log: &SampleLog, index: u64, size: u64) -> Receipt {
    Receipt::new(index, None, log.inclusion(index, size).unwrap(), log.checkpoint(size, &WITNESSES)).unwrap()
}

#[test]
fn every_entry_of_every_log_has_a_receipt_that_verifies_for_no_other() {
    let log = SampleLog::of_size(EXHAUSTIVE_SIZE);
    let policy = policy(2);
    for size in 1..=EXHAUSTIVE_SIZE {
        for index in 0..size {
            let written = receipt(&log, index, size).to_string();
            let receipt = Receipt::parse(&written).unwrap();
            assert_eq!(receipt.to_string(), written);
            let accepted = receipt.verify(&policy, log.leaf(index)).unwrap();
            assert_eq!((accepted.checkpoint.size(), accepted.checkpoint.root()), (size, &log.root(size)));
            assert_eq!((accepted.witnesses.len(), accepted.time_s), (3, Some(TIME_S + 1)));
            for other in (0..size).filter(|other| *other != index) {
                let refused = receipt.verify(&policy, log.leaf(other));
                assert!(matches!(refused, Err(ReceiptError::Inclusion(ProofMismatch::Root { .. }))));
            }
        }
    }
}

#[test]
fn the_checkpoint_must_satisfy_the_policy() {
    let log = SampleLog::of_size(5);
    let note = log.checkpoint(5, &["w2.example"]);
    let receipt = Receipt::new(3, None, log.inclusion(3, 5).unwrap(), note).unwrap();
    assert!(receipt.verify(&policy(1), log.leaf(3)).is_ok());
    let refused = receipt.verify(&policy(2), log.leaf(3));
    assert!(matches!(refused, Err(ReceiptError::Policy(PolicyError::NoQuorum { cosigned: 1, listed: 3, .. }))));
}

#[test]
fn a_proof_of_another_place_or_size_is_refused() {
    let log = SampleLog::of_size(8);
    let verify = |index, hashes, size| {
        let receipt = Receipt::new(index, None, hashes, log.checkpoint(size, &WITNESSES)).unwrap();
        receipt.verify(&policy(2), log.leaf(3))
    };
    let hashes = log.inclusion(3, 8).unwrap();
    assert!(verify(3, hashes.clone(), 8).is_ok());
    assert!(verify(2, hashes.clone(), 8).is_err());
    assert!(verify(3, hashes.clone(), 7).is_err());
    assert_eq!(
        verify(8, hashes.clone(), 8),
        Err(ReceiptError::Inclusion(ProofMismatch::IndexOutOfRange { index: 8, size: 8 }))
    );
    assert_eq!(
        verify(3, hashes[1..].to_vec(), 8),
        Err(ReceiptError::Inclusion(ProofMismatch::Length { expected: 3, found: 2 }))
    );
    let empty = Receipt::new(0, None, Vec::new(), log.checkpoint(0, &WITNESSES)).unwrap();
    assert!(empty.verify(&policy(2), log.leaf(0)).is_err());
}

#[test]
fn every_changed_bit_is_refused() {
    let log = SampleLog::of_size(7);
    // Every signature is needed: a line whose name or key has changed is one by an unknown key.
    let policy = policy(WITNESSES.len());
    let encoded = receipt(&log, 4, 7).to_string().into_bytes();
    let verify = |bytes| Receipt::parse(&String::from_utf8(bytes).ok()?).ok()?.verify(&policy, log.leaf(4)).ok();
    assert!(verify(encoded.clone()).is_some());
    for bit in 0..encoded.len() * 8 {
        let mut changed = encoded.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verify(changed), None, "accepted with bit {bit} changed");
    }
}

#[test]
fn every_shortened_receipt_is_refused() {
    let log = SampleLog::of_size(7);
    let written = receipt(&log, 4, 7).to_string();
    let policy = policy(WITNESSES.len());
    for (length, _) in written.char_indices() {
        let verified = Receipt::parse(&written[..length]).map(|receipt| receipt.verify(&policy, log.leaf(4)));
        assert!(!matches!(verified, Ok(Ok(_))), "accepted when cut at {length}");
    }
}

#[test]
fn extra_data_is_carried_and_protected_by_nothing() {
    let log = SampleLog::of_size(3);
    let plain = receipt(&log, 1, 3);
    let extra = b"context".to_vec();
    let with_extra = Receipt::new(1, Some(extra), plain.hashes().to_vec(), plain.checkpoint().clone()).unwrap();
    let written = with_extra.to_string();
    assert!(written.starts_with("c2sp.org/tlog-proof@v1\nextra Y29udGV4dA==\nindex 1\n"));
    assert_eq!(Receipt::parse(&written).as_ref(), Ok(&with_extra));
    assert_eq!(with_extra.extra(), Some(b"context".as_slice()));
    let accepted = plain.verify(&policy(2), log.leaf(1));
    assert_eq!(with_extra.verify(&policy(2), log.leaf(1)), accepted);
    let changed = Receipt::parse(&written.replace("Y29udGV4dA==", "AAAA")).unwrap();
    assert_eq!(changed.verify(&policy(2), log.leaf(1)), accepted);
}

#[test]
fn every_deviation_from_the_format_is_refused() {
    let log = SampleLog::of_size(3);
    let written = receipt(&log, 0, 3).to_string();
    assert!(Receipt::parse(&written).is_ok());
    let hashes: Vec<&str> = written.lines().skip(2).take(2).collect();
    let (header, index) = ("c2sp.org/tlog-proof@v1\n", "index 0\n");
    let hash = |number| ReceiptError::Hash { number };
    let cases = [
        ("", "", ReceiptError::Header),
        ("@v1\n", "@v2\n", ReceiptError::Header),
        (header, "", ReceiptError::Header),
        (header, "\u{feff}c2sp.org/tlog-proof@v1\n", ReceiptError::Header),
        (header, "c2sp.org/tlog-proof@v1\r\n", ReceiptError::Header),
        (header, "c2sp.org/tlog-proof@v1 \n", ReceiptError::Header),
        (index, "", ReceiptError::Index),
        (index, "index 00\n", ReceiptError::Index),
        (index, "index +0\n", ReceiptError::Index),
        (index, "index -1\n", ReceiptError::Index),
        (index, "index  0\n", ReceiptError::Index),
        (index, "index 0 \n", ReceiptError::Index),
        (index, "index\t0\n", ReceiptError::Index),
        (index, "Index 0\n", ReceiptError::Index),
        (index, "index 18446744073709551616\n", ReceiptError::Index),
        (index, "index \n", ReceiptError::Index),
        (index, "\nindex 0\n", ReceiptError::Index),
        (index, "index 0\nindex 0\n", hash(1)),
        (index, "extra \nindex 0\n", ReceiptError::Extra),
        (index, "extra AA\nindex 0\n", ReceiptError::Extra),
        (index, "extra AAB=\nindex 0\n", ReceiptError::Extra),
        (index, "extra AAAA \nindex 0\n", ReceiptError::Extra),
        (index, "extra AAAA\nextra AAAA\nindex 0\n", ReceiptError::Index),
        (index, "extra\nindex 0\n", ReceiptError::Index),
        (index, "index 0\nextra AAAA\n", hash(1)),
        (hashes[0], &hashes[0][..43], hash(1)),
        (hashes[1], &format!("{} ", hashes[1]), hash(2)),
        (hashes[1], "AAAA", hash(2)),
        ("\n\nexample.com", "\nexample.com", hash(3)),
        ("\n\nexample.com", "\n\n\nexample.com", ReceiptError::Checkpoint(CheckpointError::ExtensionLines)),
        ("\nexample.com/log\n", "\nexample.com/log\nmore\n", ReceiptError::Checkpoint(CheckpointError::ExtensionLines)),
    ];
    for (part, replacement, error) in cases {
        let text = if part.is_empty() { String::new() } else { written.replacen(part, replacement, 1) };
        assert_eq!(Receipt::parse(&text), Err(error), "{text:?}");
    }
    let cut = written.split("\n\n").next().unwrap();
    assert_eq!(Receipt::parse(&format!("{cut}\n")), Err(ReceiptError::NoSeparator));
    assert_eq!(Receipt::parse(&format!("{cut}\n\n")), Err(ReceiptError::Note(NoteError::NoFinalNewline)));
}

#[test]
fn size_and_number_of_hashes_are_bounded() {
    let note = || SampleLog::of_size(1).checkpoint(1, &WITNESSES);
    let make = |extra: usize, hashes: usize| {
        Receipt::new(u64::MAX, (extra > 0).then(|| vec![7; extra]), vec![Digest::default(); hashes], note())
    };
    let largest = make(RECEIPT_EXTRA_SIZE_BYTES_MAX, RECEIPT_HASHES_MAX).unwrap();
    assert_eq!(Receipt::parse(&largest.to_string()).as_ref(), Ok(&largest));
    assert_eq!(make(RECEIPT_EXTRA_SIZE_BYTES_MAX + 1, 0), Err(ReceiptError::Extra));
    assert_eq!(make(0, RECEIPT_HASHES_MAX + 1), Err(ReceiptError::TooManyHashes));
    assert_eq!(Receipt::new(0, Some(Vec::new()), Vec::new(), note()), Err(ReceiptError::Extra));
    let one_more = largest.to_string().replacen("\n\n", &format!("\n{}=\n\n", "A".repeat(43)), 1);
    assert_eq!(Receipt::parse(&one_more), Err(ReceiptError::TooManyHashes));
    let size = RECEIPT_SIZE_BYTES_MAX + 1;
    assert_eq!(Receipt::parse(&"a".repeat(size)), Err(ReceiptError::TooLarge { size }));
}

#[test]
fn the_largest_note_fits_with_the_largest_rest() {
    // No receipt that can be made is refused for its size when it is read.
    let base64 = |bytes: usize| bytes.div_ceil(3) * 4;
    let rest = "c2sp.org/tlog-proof@v1\nextra \nindex 18446744073709551615\n\n".len()
        + base64(RECEIPT_EXTRA_SIZE_BYTES_MAX)
        + RECEIPT_HASHES_MAX * (base64(32) + 1);
    assert!(fedledger_ledger::note::NOTE_SIZE_BYTES_MAX + rest <= RECEIPT_SIZE_BYTES_MAX);
}

#[test]
fn what_is_no_checkpoint_has_no_receipt() {
    let note = sign_note("text\n", ORIGIN, &secret(ORIGIN)).unwrap();
    assert_eq!(Receipt::new(0, None, Vec::new(), note), Err(ReceiptError::Checkpoint(CheckpointError::Incomplete)));
}

proptest! {
    #[test]
    fn whatever_parses_is_written_back_the_same(
        extra in "(extra [A-D]{2,4}={0,2}\n)?",
        index in "(0|[1-9][0-9]{0,20}|0[0-9])",
        hashes in "([A-D]{42,43}={1,2}\n){0,3}",
    ) {
        let note = SampleLog::of_size(1).checkpoint(1, &[]);
        let text = format!("c2sp.org/tlog-proof@v1\n{extra}index {index}\n{hashes}\n{note}");
        if let Ok(receipt) = Receipt::parse(&text) {
            prop_assert_eq!(receipt.to_string(), text);
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        index in any::<u64>(),
        extra in prop::option::of(prop::collection::vec(any::<u8>(), 1..40)),
        hashes in prop::collection::vec(any::<[u8; 32]>(), 0..64),
    ) {
        let hashes = hashes.into_iter().map(Digest::from_bytes).collect();
        let receipt = Receipt::new(index, extra, hashes, SampleLog::of_size(2).checkpoint(2, &WITNESSES)).unwrap();
        prop_assert_eq!(Receipt::parse(&receipt.to_string()), Ok(receipt));
    }

    #[test]
    fn arbitrary_text_is_no_receipt(text in ".*") {
        prop_assert!(Receipt::parse(&text).is_err());
        let continued = format!("c2sp.org/tlog-proof@v1\nindex 0\n{text}");
        prop_assert!(Receipt::parse(&continued).is_err());
    }
}
