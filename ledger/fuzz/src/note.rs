//! Signed notes, the checkpoints in them and the keys that verify them.

use fedledger_ledger::{
    SecretKey,
    checkpoint::Checkpoint,
    note::{NOTE_SIGNATURES_MAX, NoteSignature, SignatureType, SignedNote, VerifierKey, sign_note},
};

/// Name of the key under which one text is signed, and only that one.
pub const NAME: &str = "example.com/log";

/// The only text that [`NAME`] has signed.
pub const TEXT: &str = "example.com/log\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn key() -> SecretKey {
    SecretKey::from_seed([5; 32])
}

/// The note of [`NAME`] with [`TEXT`].
pub fn signed() -> SignedNote {
    sign_note(TEXT, NAME, &key()).expect("the text and the name are allowed")
}

/// Reads the bytes as a note, as a checkpoint and as a key.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text, "a key has one text");
        let again = match key.kind() {
            SignatureType::Ed25519 => VerifierKey::ed25519(key.name(), *key.public_key()),
            SignatureType::CosignatureV1 => VerifierKey::cosignature_v1(key.name(), *key.public_key()),
        };
        assert_eq!(again, Ok(key));
    }
    if let Ok(line) = NoteSignature::parse_line(text) {
        assert_eq!(line.to_string(), text, "a signature has one line");
    }
    check_checkpoint(text);
    let Ok(note) = SignedNote::parse(text) else { return };
    assert_eq!(note.to_string(), text, "a note has one encoding");
    assert!((1..=NOTE_SIGNATURES_MAX).contains(&note.signatures().len()));
    assert!(text.starts_with(note.text()));
    check_checkpoint(note.text());
    if note.verify(NAME, &key().public()).is_ok() {
        assert_eq!(note.text(), TEXT, "a note verifies that nobody has signed");
    }
    assert!(note.verify_cosignature(NAME, &key().public()).is_err(), "nothing was co-signed");
    if let Ok(key) = VerifierKey::ed25519("example.com/other", key().public()) {
        assert!(note.verify(key.name(), key.public_key()).is_err(), "nothing was signed under this name");
    }
}

fn check_checkpoint(text: &str) {
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_note_text(), text, "a checkpoint has one text");
        let again = Checkpoint::new(checkpoint.origin(), checkpoint.size(), *checkpoint.root());
        assert_eq!(again, Ok(checkpoint));
    }
}
