//! Key files: one text opens with one passphrase to one key, and none costs more than it may.

use ed25519_dalek::{
    SigningKey,
    pkcs8::{
        EncodePublicKey as _,
        spki::der::pem::{LineEnding, encode_string},
    },
};
use fedledger_ledger::SecretKey;
use fedledger_proto::kit::{KeyTextError, Passphrase, ScryptCost, key_cost, parse_key};

/// Label of an encrypted key in PEM.
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// The passphrase of the seeds.
pub const PASSPHRASE: &str = "correct horse";

/// Most memory that a file may ask for, in bytes.
const MEMORY_BYTES_MAX: u128 = 256 * 1024 * 1024;

/// Most bytes that a file may have mixed.
const WORK_BYTES_MAX: u128 = 4 * 1024 * 1024 * 1024;

/// Bytes mixed for a passphrase that the target tries: the fuzzer is to try many files.
const TRIED_BYTES_MAX: u128 = 64 * 1024;

/// The key of the seeds.
pub fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

/// The passphrase [`PASSPHRASE`].
pub fn passphrase() -> Passphrase {
    Passphrase::new(PASSPHRASE.to_owned().into()).expect("one short line")
}

/// Reads the bytes as a key file, and as what the PEM of an encrypted one holds.
pub fn run(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        check(text);
        let lines = Passphrase::new(text.to_owned().into()).is_ok();
        assert!(!lines || (!text.is_empty() && text.len() <= 1024 && !text.contains('\n')));
    }
    check(&around(data));
}

/// The key file whose PEM holds these bytes, with the public key of the seeds behind it.
fn around(der: &[u8]) -> String {
    let encrypted = encode_string(ENCRYPTED_LABEL, LineEnding::LF, der).expect("it fits");
    let public = SigningKey::from_bytes(&key().seed()).verifying_key();
    encrypted + &public.to_public_key_pem(LineEnding::LF).expect("a key can be encoded")
}

fn check(text: &str) {
    let cost = match key_cost(text) {
        Ok(None) => {
            assert!(!matches!(parse_key(text, None), Err(KeyTextError::Locked | KeyTextError::WrongPassphrase)));
            return;
        }
        Ok(Some(cost)) => cost,
        Err(error) => {
            assert!(matches!(error, KeyTextError::Malformed(_) | KeyTextError::Unsupported), "{error}");
            for passphrase in [None, Some(passphrase())] {
                assert_eq!(parse_key(text, passphrase.as_ref()).err(), Some(error), "what cannot be paid was opened");
            }
            return;
        }
    };
    assert_eq!(parse_key(text, None).err(), Some(KeyTextError::Locked));
    let ScryptCost { log_n, r, p } = cost;
    // RFC 7914, sections 5 and 6: blocks of 128 * r bytes, N of them in memory and p beside these, mixed p times.
    let (n, block, passes) = (1u128 << log_n, 128 * u128::from(r), u128::from(p));
    let (memory, work) = ((n + passes) * block, n * passes * block);
    assert!(log_n > 0 && r > 0 && p > 0, "{cost:?} is no cost");
    assert!(memory <= MEMORY_BYTES_MAX && work <= WORK_BYTES_MAX, "{cost:?} is too much");
    if work > TRIED_BYTES_MAX {
        return;
    }
    match parse_key(text, Some(&passphrase())) {
        Ok(found) => assert_eq!(found.seed(), key().seed(), "a key that was never encrypted came out"),
        Err(error) => assert_eq!(error, KeyTextError::WrongPassphrase),
    }
    let other = Passphrase::new("another".to_owned().into()).expect("one short line");
    assert_eq!(parse_key(text, Some(&other)).err(), Some(KeyTextError::WrongPassphrase));
}
