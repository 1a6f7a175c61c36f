//! Receipts of records: whatever verifies shows a true record of the state at a true seal.

use std::sync::OnceLock;

use fedledger_ledger::{
    policy::Policy,
    state_receipt::{STATE_RECEIPT_SIZE_BYTES_MAX, StateReceipt},
};

use super::{
    choices::Choices,
    sealed::{ORIGIN, SEALS, Sealed, forged_seal},
    state_proof::{KEYS, RECORDS, state},
};

/// Most changes of a true receipt.
const CHANGES_MAX: usize = 3;

/// Reads the bytes as a receipt of a record, and changes a true one.
pub fn run(data: &[u8]) {
    if let Ok(receipt) = StateReceipt::from_bytes(data) {
        assert!(data.len() <= STATE_RECEIPT_SIZE_BYTES_MAX && StateReceipt::is_meant_by(data));
        assert_eq!(receipt.to_bytes(), data, "a receipt of a record has one encoding");
        tells_the_truth(&receipt);
    }
    let receipt = changed(&mut Choices::new(data));
    let bytes = receipt.to_bytes();
    match StateReceipt::from_bytes(&bytes) {
        Ok(read) => assert_eq!(read, receipt),
        Err(error) => assert!(receipt.receipt.extra().is_some(), "what was written cannot be read: {error}"),
    }
    tells_the_truth(&receipt);
}

/// The policies of the epochs that the seals belong to.
fn policies() -> &'static [Policy] {
    static POLICIES: OnceLock<Vec<Policy>> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let policy = |epoch: &fedledger_ledger::epoch::Epoch| epoch.policy(ORIGIN).expect("three replicas are few");
        Sealed::get().epochs.iter().map(policy).collect()
    })
}

fn tells_the_truth(receipt: &StateReceipt) {
    // Replicas of one epoch may be those of the next, too.
    for shown in policies().iter().filter_map(|policy| receipt.verify(policy).ok()) {
        let seal = SEALS.iter().position(|index| *index == shown.index).expect("another entry was accepted as a seal");
        let (leaf, true_receipt) = &Sealed::get().seals[seal];
        assert_eq!(receipt.leaf, *leaf, "another seal was accepted");
        assert_eq!(receipt.receipt.hashes(), true_receipt.hashes(), "a wrong proof was accepted");
        assert_eq!(receipt.proof, state().prove(&receipt.key), "another proof was accepted");
        let is_record = matches!(receipt.key.as_slice(), [key] if *key < RECORDS);
        let value = is_record.then(|| receipt.key.repeat(2));
        assert_eq!(receipt.value, value, "another value was accepted");
    }
}

/// A true receipt with a few changes.
fn changed(choices: &mut Choices<'_>) -> StateReceipt {
    let log = Sealed::get();
    let (leaf, receipt) = log.seals[choices.below(SEALS.len())].clone();
    let key = choices.byte() % KEYS;
    let value = (key < RECORDS).then(|| vec![key; 2]);
    let mut changed = StateReceipt { leaf, receipt, proof: state().prove(&[key]), key: vec![key], value };
    for _ in 0..choices.below(CHANGES_MAX + 1) {
        match choices.below(6) {
            0 => changed.leaf = choices.changed(&changed.leaf),
            1 => changed.key = choices.changed(&changed.key),
            2 => changed.value = changed.value.map(|value| choices.changed(&value)),
            3 => changed.value = (choices.below(2) == 1).then(|| vec![choices.byte(); 2]),
            4 => changed.proof = state().prove(&[choices.byte()]),
            _ => {
                let epoch = &log.epochs[choices.below(log.epochs.len())];
                (changed.leaf, changed.receipt) = forged_seal(choices.number_below(20), epoch.number.min(1), epoch);
            }
        }
    }
    changed
}
