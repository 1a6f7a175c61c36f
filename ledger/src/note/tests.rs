//! Notes against published examples, and against every changed bit of one.

mod cosignatures;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;

use super::*;

/// The example of the package documentation of `golang.org/x/mod/sumdb/note`.
const PETER_TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const PETER_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
/// The type byte and the seed from `PRIVATE+KEY+PeterNeumann+c74f20a3+...`, a key that was published as an example.
const PETER_SECRET: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER_LINE: &str = "\u{2014} PeterNeumann \
    x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

/// The second signer of the same package's tests, whose seed is zero.
const ENOCH_KEY: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const ENOCH_LINE: &str = "\u{2014} EnochRoot \
    rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

fn peter_note() -> String {
    format!("{PETER_TEXT}\n{PETER_LINE}")
}

fn peter_secret() -> SecretKey {
    let bytes = BASE64.decode(PETER_SECRET).unwrap();
    SecretKey::from_seed(bytes[1..].try_into().unwrap())
}

fn verify(note: &str, key: &str) -> Result<(), NoteError> {
    let key: VerifierKey = key.parse().unwrap();
    SignedNote::parse(note)?.verify(key.name(), key.public_key())
}

#[test]
fn the_published_example_verifies_and_is_reproduced() {
    let parsed = SignedNote::parse(&peter_note()).unwrap();
    assert_eq!(parsed.text(), PETER_TEXT);
    assert_eq!(parsed.signatures().len(), 1);
    assert_eq!(parsed.signatures()[0].key_id().to_string(), "c74f20a3");
    assert_eq!(parsed.to_string(), peter_note());
    assert_eq!(verify(&peter_note(), PETER_KEY), Ok(()));
    assert_eq!(sign_note(PETER_TEXT, "PeterNeumann", &peter_secret()), Ok(parsed));
}

#[test]
fn a_second_signature_follows_the_first() {
    let mut note = sign_note(PETER_TEXT, "PeterNeumann", &peter_secret()).unwrap();
    note.sign("EnochRoot", &SecretKey::from_seed([0; 32])).unwrap();
    let expected = format!("{PETER_TEXT}\n{PETER_LINE}{ENOCH_LINE}");
    assert_eq!(note.to_string(), expected);
    assert_eq!(SignedNote::parse(&expected), Ok(note));
    assert_eq!(verify(&expected, PETER_KEY), Ok(()));
    assert_eq!(verify(&expected, ENOCH_KEY), Ok(()));
}

#[test]
fn the_example_of_the_specification_verifies() {
    let note = "This is an example message.\n\n\u{2014} example.com/foo \
        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    assert_eq!(verify(note, "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"), Ok(()));
}

#[test]
fn every_changed_bit_of_a_note_is_refused() {
    let encoded = peter_note().into_bytes();
    for bit in 0..encoded.len() * 8 {
        let mut changed = encoded.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(text) = String::from_utf8(changed) {
            assert!(verify(&text, PETER_KEY).is_err(), "accepted with bit {bit} changed:\n{text}");
        }
    }
}

#[test]
fn every_shortened_note_is_refused() {
    let note = peter_note();
    for (length, _) in note.char_indices() {
        assert!(verify(&note[..length], PETER_KEY).is_err(), "accepted when cut at {length}");
        assert!(length == 0 || verify(&note[length..], PETER_KEY).is_err(), "accepted without the first {length}");
    }
}

#[test]
fn lines_by_unknown_keys_are_kept_but_do_not_count() {
    // Type and key are unknown, as those of a witness or of a post-quantum signature are.
    let unknown = format!("\u{2014} PeterNeumann {}\n", BASE64.encode([7; 2420]));
    let note = format!("{PETER_TEXT}\n{unknown}{PETER_LINE}");
    assert_eq!(verify(&note, PETER_KEY), Ok(()));
    assert_eq!(SignedNote::parse(&note).unwrap().to_string(), note);
    let enoch: VerifierKey = ENOCH_KEY.parse().unwrap();
    let missing = NoteError::NotSigned { name: "EnochRoot".into(), key_id: enoch.key_id() };
    assert_eq!(verify(&note, ENOCH_KEY), Err(missing));
}

#[test]
fn one_bad_signature_by_the_key_spoils_the_note() {
    let key_id = PETER_KEY.parse::<VerifierKey>().unwrap().key_id();
    for length in [1, 63, 64, 65] {
        let bytes = [key_id.as_bytes().as_slice(), &vec![7; length]].concat();
        let bad = format!("\u{2014} PeterNeumann {}\n", BASE64.encode(bytes));
        for note in [format!("{PETER_TEXT}\n{bad}{PETER_LINE}"), format!("{PETER_TEXT}\n{PETER_LINE}{bad}")] {
            assert!(matches!(verify(&note, PETER_KEY), Err(NoteError::BadSignature { .. })), "length {length}");
        }
    }
}

#[test]
fn the_text_ends_at_the_last_empty_line() {
    let key = SecretKey::from_seed([5; 32]);
    for text in ["\n", "\n\n\n", "a\n", "a\n\n", "a\n\nb\n", "a\n\n\u{2014} b AAAAAAA=\n"] {
        let note = sign_note(text, "example.com", &key).unwrap();
        let parsed = SignedNote::parse(&note.to_string()).unwrap();
        assert_eq!((parsed.text(), &parsed), (text, &note));
        assert_eq!(parsed.verify("example.com", &key.public()), Ok(()));
    }
}

#[test]
fn malformed_notes_are_refused_for_what_is_wrong_with_them() {
    let line = PETER_LINE.trim_end();
    let base64 = line.rsplit_once(' ').unwrap().1;
    let malformed = |line| NoteError::MalformedSignature { line };
    let cases = [
        ("", NoteError::NoFinalNewline),
        ("\n", NoteError::NoSeparator),
        ("text\n", NoteError::NoSeparator),
        ("text\n\n", NoteError::NoSeparator),
        (PETER_LINE, NoteError::NoSeparator),
        (&format!("\n{PETER_LINE}"), NoteError::NoSeparator),
        (&format!("text\n{PETER_LINE}"), NoteError::NoSeparator),
        (&format!("text\n\n{line}"), NoteError::NoFinalNewline),
        ("text\n\n\n", malformed(1)),
        (&format!("text\n\n{PETER_LINE}\n"), malformed(2)),
        (&format!("text\n\n{PETER_LINE}more\n"), malformed(2)),
        (&format!("text\n\n{line} \n"), malformed(1)),
        (&format!("text\n\n {PETER_LINE}"), malformed(1)),
        (&format!("text\n\n- PeterNeumann {base64}\n"), malformed(1)),
        (&format!("text\n\n\u{2014}  {base64}\n"), malformed(1)),
        (&format!("text\n\n\u{2014} Peter+Neumann {base64}\n"), malformed(1)),
        (&format!("text\n\n\u{2014} Peter\u{a0}Neumann {base64}\n"), malformed(1)),
        (&format!("text\n\n\u{2014} PeterNeumann  {base64}\n"), malformed(1)),
        (&format!("text\n\n\u{2014} PeterNeumann {}\n", base64.trim_end_matches('=')), malformed(1)),
        ("text\n\n\u{2014} PeterNeumann x08gow==\n", malformed(1)),
        // Stray bits after the last byte: a second encoding of the same signature.
        ("text\n\n\u{2014} PeterNeumann x08go/Z=\n", malformed(1)),
        (&format!("te\txt\n\n{PETER_LINE}"), NoteError::ControlCharacter { offset: 2 }),
        (&format!("text\r\n\n{PETER_LINE}"), NoteError::ControlCharacter { offset: 4 }),
        (&format!("text\0\n\n{PETER_LINE}"), NoteError::ControlCharacter { offset: 4 }),
    ];
    for (note, error) in cases {
        assert_eq!(SignedNote::parse(note), Err(error), "{note:?}");
    }
}

#[test]
fn what_cannot_be_encoded_is_not_signed() {
    let key = SecretKey::from_seed([5; 32]);
    assert_eq!(sign_note("no newline", "name", &key), Err(NoteError::NoFinalNewline));
    assert_eq!(sign_note("", "name", &key), Err(NoteError::NoFinalNewline));
    assert_eq!(sign_note("a\tb\n", "name", &key), Err(NoteError::ControlCharacter { offset: 1 }));
    for name in ["", "a b", "a+b", "a\nb", "a\u{2003}b", "a\u{1}b"] {
        assert_eq!(sign_note("text\n", name, &key), Err(NoteError::KeyName(name.into())));
    }
}

#[test]
fn size_and_number_of_signatures_are_bounded() {
    let key = SecretKey::from_seed([5; 32]);
    let mut note = sign_note("text\n", "name", &key).unwrap();
    while note.signatures().len() < NOTE_SIGNATURES_MAX {
        note.sign("name", &key).unwrap();
    }
    assert_eq!(SignedNote::parse(&note.to_string()), Ok(note.clone()));
    let full = note.clone();
    assert_eq!(note.sign("name", &key), Err(NoteError::TooManySignatures));
    assert_eq!(note, full);
    let one_more = format!("{note}{}\n", note.signatures()[0]);
    assert_eq!(SignedNote::parse(&one_more), Err(NoteError::TooManySignatures));

    let overhead = sign_note("\n", "name", &key).unwrap().to_string().len();
    let largest = format!("{}\n", "a".repeat(NOTE_SIZE_BYTES_MAX - overhead));
    let note = sign_note(&largest, "name", &key).unwrap();
    assert_eq!(SignedNote::parse(&note.to_string()), Ok(note));
    let too_large = NoteError::TooLarge { size: NOTE_SIZE_BYTES_MAX + 1 };
    assert_eq!(sign_note(&format!("a{largest}"), "name", &key), Err(too_large.clone()));
    assert_eq!(SignedNote::parse(&"a".repeat(NOTE_SIZE_BYTES_MAX + 1)), Err(too_large));
}

#[test]
fn published_verifier_keys_are_read_and_written_back() {
    let sum_db = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    for text in [PETER_KEY, ENOCH_KEY, sum_db] {
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(VerifierKey::ed25519(key.name(), *key.public_key()), Ok(key));
    }
    let enoch = VerifierKey::ed25519("EnochRoot", SecretKey::from_seed([0; 32]).public()).unwrap();
    assert_eq!(enoch.to_string(), ENOCH_KEY);
}

#[test]
fn damaged_verifier_keys_are_refused() {
    for bit in 0..PETER_KEY.len() * 8 {
        let mut changed = PETER_KEY.as_bytes().to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(text) = String::from_utf8(changed) {
            assert!(text.parse::<VerifierKey>().is_err(), "accepted {text}");
        }
    }
    for length in 0..PETER_KEY.len() {
        assert!(PETER_KEY[..length].parse::<VerifierKey>().is_err(), "accepted when cut at {length}");
    }
    // The same name and key for a type of signature that is not understood, ML-DSA-44 co-signatures.
    let unknown = "PeterNeumann+c74f20a3+BpEYKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDF";
    assert_eq!(unknown.parse::<VerifierKey>(), Err(VerifierKeyError::UnknownType(0x06)));
    let expected = PETER_KEY.parse::<VerifierKey>().unwrap().key_id();
    let found = KeyId::from_bytes([0; 4]);
    let wrong_id = PETER_KEY.replace("c74f20a3", "00000000");
    assert_eq!(wrong_id.parse::<VerifierKey>(), Err(VerifierKeyError::WrongId { expected, found }));
    let long = "a".repeat(1024);
    let refused = VerifierKey::ed25519(&long, peter_secret().public());
    assert_eq!(refused, Err(VerifierKeyError::Name("a".repeat(80))));
}

proptest! {
    #[test]
    fn whatever_parses_encodes_to_the_same_bytes(
        text in "[a-z\n\u{2014} +]{0,12}",
        lines in prop::collection::vec("\u{2014} [a-z]{1,3} [A-D]{4}([A-D]{4}|[A-D]{3}=)[+ =\n]?", 1..3)
    ) {
        let encoded = format!("{text}\n\n{}\n", lines.join("\n"));
        if let Ok(note) = SignedNote::parse(&encoded) {
            prop_assert_eq!(note.to_string(), encoded);
        }
    }

    #[test]
    fn whatever_is_signed_parses_and_verifies(
        text in "([^\u{0}-\u{9}\u{b}-\u{1f}]{0,20}\n){1,4}", seed in any::<[u8; 32]>()
    ) {
        let key = SecretKey::from_seed(seed);
        let note = sign_note(&text, "example.com/log", &key).unwrap();
        let parsed = SignedNote::parse(&note.to_string()).unwrap();
        prop_assert_eq!(&parsed, &note);
        prop_assert_eq!(parsed.verify("example.com/log", &key.public()), Ok(()));
    }

    #[test]
    fn arbitrary_text_is_no_verifier_key(text in ".*") {
        prop_assert!(text.parse::<VerifierKey>().is_err());
    }
}
