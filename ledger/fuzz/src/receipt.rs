//! Receipts: whatever verifies is about the true entry at its true place.

use std::sync::OnceLock;

use fedledger_ledger::{
    checkpoint::Checkpoint,
    policy::{Policy, PolicyBuilder},
    receipt::Receipt,
};

use super::history::{History, SIZE, entry, honest_key};

/// Reads the bytes as a receipt and verifies it under a policy that trusts the log's own key.
pub fn run(data: &[u8]) {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(receipt) = Receipt::parse(text) else { return };
    assert_eq!(receipt.to_string(), text, "a receipt has one text");
    let parts = (receipt.extra().map(<[u8]>::to_vec), receipt.hashes().to_vec(), receipt.checkpoint().clone());
    assert_eq!(Receipt::new(receipt.index(), parts.0, parts.1, parts.2).as_ref(), Ok(&receipt));

    let policy = POLICY.get_or_init(|| {
        let mut builder = PolicyBuilder::new();
        builder.log(honest_key(), None).expect("one log");
        builder.quorum(b"none").expect("one quorum");
        builder.build().expect("a policy with a log and a quorum")
    });
    let index = receipt.index();
    for other in (0..SIZE).filter(|other| *other != index) {
        assert!(receipt.verify(policy, &entry(other)).is_err(), "entry {other} was accepted at {index}");
    }
    if let Ok(accepted) = receipt.verify(policy, &entry(index)) {
        let log = History::get();
        let checkpoint: &Checkpoint = &accepted.checkpoint;
        assert_eq!(*checkpoint.root(), log.root(checkpoint.size()), "the log has signed another root");
        assert_eq!(receipt.hashes(), log.inclusion(index, checkpoint.size()), "a wrong proof was accepted");
    }
}
