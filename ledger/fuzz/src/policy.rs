//! Trust policies, and what they say about checkpoints.

use std::sync::OnceLock;

use fedledger_ledger::{
    SecretKey,
    note::{NoteSignature, SignedNote, VerifierKey, sign_note},
    policy::{Policy, PolicyError},
};

use super::note::{NAME, TEXT};

/// Names of witnesses that have all co-signed [`TEXT`]; the seed of each one's key is its number.
pub const WITNESSES: [&str; 3] = ["north.example/w", "south.example/w", "west.example/w"];

/// The key with this number, in the name of a witness.
pub fn witness_key(number: usize) -> SecretKey {
    SecretKey::from_seed([number as u8; 32])
}

/// [`TEXT`] with the signature of the log [`NAME`] and the co-signatures of all witnesses.
pub fn witnessed() -> SignedNote {
    let mut note = sign_note(TEXT, NAME, &SecretKey::from_seed([5; 32])).expect("the text and the name are allowed");
    for (number, name) in WITNESSES.iter().enumerate() {
        let time_s = 1_700_000_000 + number as u64;
        let line = NoteSignature::cosign(TEXT, name, &witness_key(number), time_s).expect("the text is a checkpoint");
        note.add(line).expect("there is room");
    }
    note
}

/// Reads the bytes as a policy, and checks a note against it.
pub fn run(data: &[u8]) {
    static NOTE: OnceLock<SignedNote> = OnceLock::new();
    let Ok(policy) = Policy::parse(data) else { return };
    let text = policy.to_bytes();
    assert_eq!(Policy::parse(&text).as_ref(), Ok(&policy), "a policy is read back as it was written");
    assert!(!policy.to_string().is_empty());
    match policy.check(NOTE.get_or_init(witnessed)) {
        Ok(accepted) => {
            assert_eq!(accepted.checkpoint.to_note_text(), TEXT);
            assert!(!accepted.logs.is_empty(), "a checkpoint was accepted that no log has signed");
            let is_log = |key: &VerifierKey| key.name() == NAME && policy.logs().iter().any(|log| log.key == *key);
            assert!(accepted.logs.iter().all(is_log));
            assert!(policy.quorum().is_none() || !accepted.witnesses.is_empty(), "a quorum of nobody");
            assert_eq!(accepted.time_s.is_some(), !accepted.witnesses.is_empty());
            for witness in &accepted.witnesses {
                assert!(policy.witnesses().iter().any(|listed| listed.key == witness.key));
                assert!(WITNESSES.contains(&witness.key.name()), "{} has co-signed nothing", witness.key.name());
            }
        }
        Err(PolicyError::NoQuorum { cosigned, listed, .. }) => {
            assert!(cosigned <= listed && listed == policy.witnesses().len());
        }
        Err(_) => {}
    }
}
