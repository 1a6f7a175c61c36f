//! Co-signatures against those of public witnesses, against the example of the specification, and against every changed
//! bit of one.

use proptest::prelude::*;

use crate::{
    checkpoint::Checkpoint,
    keys::SecretKey,
    note::{NoteError, NoteSignature, SignatureType, SignedNote, VerifierKey, sign_note},
};

/// A checkpoint of a public test log with the co-signatures of four public witnesses. The log signs it twice: the first
/// line is of a type that is not understood (RFC 6962 tree heads).
const ARCHE: &str = include_str!("../../../tests/vectors/note/cosigned_checkpoint.txt");

const ARCHE_KEY: &str = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f";

const WITNESS_KEYS: [&str; 4] = [
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
];

/// When all four witnesses co-signed: 2026-05-23, 21:50:24 UTC.
const ARCHE_TIME_S: u64 = 0x6a12_2120;

const TEXT: &str = "example.com/log\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
const NAME: &str = "example.com/witness";

fn secret() -> SecretKey {
    SecretKey::from_seed([9; 32])
}

fn cosigned(time_s: u64) -> SignedNote {
    let line = NoteSignature::cosign(TEXT, NAME, &secret(), time_s).unwrap();
    SignedNote::from_parts(TEXT, vec![line]).unwrap()
}

fn verify(note: &SignedNote) -> Result<u64, NoteError> {
    note.verify_cosignature(NAME, &secret().public())
}

#[test]
fn cosignatures_of_public_witnesses_verify() {
    let note = SignedNote::parse(ARCHE).unwrap();
    assert_eq!(note.to_string(), ARCHE);
    assert_eq!(Checkpoint::parse(note.text()).unwrap().size(), 1_432_088_532);
    let log: VerifierKey = ARCHE_KEY.parse().unwrap();
    assert_eq!(note.verify(log.name(), log.public_key()), Ok(()));
    let changed = SignedNote::parse(&ARCHE.replace("1432088532", "1432088533")).unwrap();
    for text in WITNESS_KEYS {
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!((key.kind(), key.to_string().as_str()), (SignatureType::CosignatureV1, text));
        assert_eq!(VerifierKey::cosignature_v1(key.name(), *key.public_key()), Ok(key.clone()));
        assert_eq!(note.verify_cosignature(key.name(), key.public_key()), Ok(ARCHE_TIME_S));
        let refused = changed.verify_cosignature(key.name(), key.public_key());
        assert!(matches!(refused, Err(NoteError::BadSignature { .. })), "{refused:?}");
    }
}

#[test]
fn the_example_of_the_specification_is_read_and_written_back() {
    // Its key is not published; the time is, as the line that was signed.
    let line = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin\
        1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
    let signature = NoteSignature::parse_line(line).unwrap();
    assert_eq!((signature.name(), signature.key_id().to_string().as_str()), ("witness.example.com/w1", "8d66cf3f"));
    assert_eq!(signature.signature().len(), 72);
    assert_eq!(signature.signature().first_chunk(), Some(&1_679_315_147u64.to_be_bytes()));
    assert_eq!(signature.to_string(), line);
}

#[test]
fn a_log_signature_is_no_cosignature_nor_the_reverse() {
    let note = cosigned(1);
    assert!(matches!(note.verify(NAME, &secret().public()), Err(NoteError::NotSigned { .. })));
    let note = sign_note(TEXT, NAME, &secret()).unwrap();
    assert!(matches!(verify(&note), Err(NoteError::NotSigned { .. })));
    // Nor does it help to write one key's id before the other's signature.
    let id = VerifierKey::cosignature_v1(NAME, secret().public()).unwrap().key_id();
    for time in [&[][..], &[0; 8]] {
        let bytes = [id.as_bytes().as_slice(), time, note.signatures()[0].signature()].concat();
        let forged = format!("{TEXT}\n\u{2014} {NAME} {}\n", base64(&bytes));
        assert!(matches!(verify(&SignedNote::parse(&forged).unwrap()), Err(NoteError::BadSignature { .. })));
    }
}

#[test]
fn every_changed_bit_of_a_cosigned_note_is_refused() {
    let encoded = cosigned(1_700_000_000).to_string().into_bytes();
    for bit in 0..encoded.len() * 8 {
        let mut changed = encoded.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let accepted = String::from_utf8(changed).ok().and_then(|text| verify(&SignedNote::parse(&text).ok()?).ok());
        assert_eq!(accepted, None, "accepted with bit {bit} changed");
    }
}

#[test]
fn times_are_bounded_and_the_earliest_counts() {
    let latest = i64::MAX as u64;
    assert_eq!(verify(&cosigned(latest)), Ok(latest));
    assert_eq!(NoteSignature::cosign(TEXT, NAME, &secret(), latest + 1), Err(NoteError::Time(latest + 1)));
    // A co-signature of a time that may not be signed, made by hand.
    let late = secret().sign(format!("cosignature/v1\ntime {}\n", latest + 1).as_bytes(), TEXT.as_bytes());
    let id = VerifierKey::cosignature_v1(NAME, secret().public()).unwrap().key_id();
    let bytes = [id.as_bytes().as_slice(), &(latest + 1).to_be_bytes(), late.as_bytes()].concat();
    let late = NoteSignature::parse_line(&format!("\u{2014} {NAME} {}", base64(&bytes))).unwrap();
    let mut note = cosigned(7);
    note.add(NoteSignature::cosign(TEXT, NAME, &secret(), 5).unwrap()).unwrap();
    note.add(NoteSignature::cosign(TEXT, NAME, &secret(), 6).unwrap()).unwrap();
    assert_eq!(verify(&note), Ok(5));
    note.add(late).unwrap();
    assert!(matches!(verify(&note), Err(NoteError::BadSignature { .. })));
}

#[test]
fn what_cannot_stand_in_a_note_is_not_cosigned() {
    let cosign = |text, name| NoteSignature::cosign(text, name, &secret(), 1);
    assert_eq!(cosign("no newline", NAME), Err(NoteError::NoFinalNewline));
    assert_eq!(cosign("a\tb\n", NAME), Err(NoteError::ControlCharacter { offset: 1 }));
    assert_eq!(cosign(TEXT, "two words"), Err(NoteError::KeyName("two words".into())));
}

#[test]
fn notes_are_put_together_from_their_parts() {
    let signed = sign_note(TEXT, "example.com/log", &SecretKey::from_seed([1; 32])).unwrap();
    let lines = signed.to_string().lines().skip(4).map(|line| NoteSignature::parse_line(line).unwrap()).collect();
    assert_eq!(SignedNote::from_parts(TEXT, lines), Ok(signed.clone()));
    let line = signed.signatures()[0].clone();
    let make = |text: &str, count| SignedNote::from_parts(text, vec![line.clone(); count]);
    assert_eq!(make(TEXT, 0), Err(NoteError::Unsigned));
    assert!(make(TEXT, 100).is_ok());
    assert_eq!(make(TEXT, 101), Err(NoteError::TooManySignatures));
    assert_eq!(make("text", 1), Err(NoteError::NoFinalNewline));
    assert_eq!(make("te\0xt\n", 1), Err(NoteError::ControlCharacter { offset: 2 }));
    let large = format!("{}\n", "a".repeat(64 * 1024));
    assert!(matches!(make(&large, 1), Err(NoteError::TooLarge { .. })));
}

#[test]
fn malformed_lines_are_refused() {
    let line = cosigned(1).signatures()[0].to_string();
    assert!(NoteSignature::parse_line(&line).is_ok());
    let malformed = Err(NoteError::MalformedSignature { line: 1 });
    for text in
        ["", "\u{2014} ", "\u{2014} name ", &line[3..], &format!("{line}\n"), &format!("{line} "), &format!(" {line}")]
    {
        assert_eq!(NoteSignature::parse_line(text), malformed, "{text:?}");
    }
    let long = "a".repeat(64 * 1024 + 1);
    assert_eq!(NoteSignature::parse_line(&long), Err(NoteError::TooLarge { size: long.len() }));
}

proptest! {
    #[test]
    fn whatever_is_cosigned_verifies(seed in any::<[u8; 32]>(), time_s in 0..=i64::MAX as u64, size in any::<u64>()) {
        let key = SecretKey::from_seed(seed);
        let text = format!("example.com/log\n{size}\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n");
        let line = NoteSignature::cosign(&text, NAME, &key, time_s).unwrap();
        prop_assert_eq!(NoteSignature::parse_line(&line.to_string()), Ok(line.clone()));
        let note = SignedNote::from_parts(text, vec![line]).unwrap();
        prop_assert_eq!(note.verify_cosignature(NAME, &key.public()), Ok(time_s));
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
