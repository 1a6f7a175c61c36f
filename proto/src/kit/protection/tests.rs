//! Encrypted keys: that they come back, and everything that must not.

use super::*;

const CHEAP: ScryptCost = ScryptCost { log_n: 2, r: 1, p: 1 };

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn encrypted(cost: ScryptCost) -> String {
    encrypt(&key(), Protection { passphrase: &passphrase("correct horse"), cost }, [9; 32]).unwrap()
}

#[test]
fn a_key_comes_back_with_its_passphrase_only() {
    for cost in [CHEAP, ScryptCost::default()] {
        let text = encrypted(cost);
        assert!(text.starts_with(ENCRYPTED_BEGIN) && !text.contains(&hex::encode([7; 32])));
        let opened = decrypt(&text, Some(&passphrase("correct horse"))).unwrap();
        assert_eq!(opened.seed(), key().seed());
        assert_eq!(decrypt(&text, None).unwrap_err(), KeyTextError::Locked);
        let wrong = decrypt(&text, Some(&passphrase("correct horsf"))).unwrap_err();
        assert_eq!(wrong, KeyTextError::WrongPassphrase);
    }
}

#[test]
fn no_wrong_passphrase_opens_anything() {
    // One in 256 gives correct padding, so that the key behind it is what counts.
    let text = encrypted(CHEAP);
    for number in 0..2000 {
        let wrong = decrypt(&text, Some(&passphrase(&number.to_string()))).unwrap_err();
        assert_eq!(wrong, KeyTextError::WrongPassphrase);
    }
}

#[test]
fn every_damaged_byte_is_noticed() {
    let text = encrypted(CHEAP);
    assert!(text.is_ascii());
    for position in 0..text.len() {
        for flipped in [1, 2, 32] {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= flipped;
            let damaged = String::from_utf8(bytes).unwrap();
            let opened = decrypt(&damaged, Some(&passphrase("correct horse")));
            assert!(opened.is_err(), "byte {position} ^ {flipped} does not matter");
        }
    }
    for end in 0..text.len() {
        assert!(decrypt(&text[..end], Some(&passphrase("correct horse"))).is_err(), "cut at {end}");
    }
    assert!(decrypt(&(text + "\n"), Some(&passphrase("correct horse"))).is_err());
}

/// A file that asks for these costs, which nobody has paid.
fn demanding(cost_parameter: u64, block_size: u16, parallelization: u16) -> String {
    let cost = scrypt::Params::new(CHEAP.log_n, CHEAP.r, CHEAP.p).unwrap();
    let mut parameters = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &[1; 16], [2; 16]).unwrap();
    if let pbes2::Kdf::Scrypt(scrypt) = &mut parameters.kdf {
        (scrypt.cost_parameter, scrypt.block_size, scrypt.parallelization) =
            (cost_parameter, block_size, parallelization);
    }
    let public = VerifyingKey::from_bytes(key().public().as_bytes()).unwrap();
    to_text(&parameters.into(), &[0; 64], &public).unwrap()
}

#[test]
fn hostile_costs_are_refused_before_they_are_paid() {
    let hostile = [
        (1 << 40, 8, 1),
        (u64::MAX, 8, 1),
        (1 << 63, u16::MAX, u16::MAX),
        (1 << 21, 8, 1),
        (1 << 18, 8, 64),
        (16, u16::MAX, u16::MAX),
        // Little work, but a large block for each of many passes.
        (2, u16::MAX, 64),
        (0, 8, 1),
        (1, 8, 1),
        (3, 8, 1),
        (16, 0, 1),
        (16, 8, 0),
    ];
    for (n, r, p) in hostile {
        let refused = decrypt(&demanding(n, r, p), Some(&passphrase("x"))).unwrap_err();
        assert!(matches!(refused, KeyTextError::Unsupported | KeyTextError::Malformed(_)), "{n} {r} {p}: {refused:?}");
    }
    assert_eq!(decrypt(&demanding(4, 1, 1), Some(&passphrase("x"))).unwrap_err(), KeyTextError::WrongPassphrase);
    let expensive = ScryptCost { log_n: 30, ..CHEAP };
    assert!(encrypt(&key(), Protection { passphrase: &passphrase("x"), cost: expensive }, [0; 32]).is_err());
}

#[test]
fn another_public_key_behind_it_is_refused() {
    let other = SecretKey::from_seed([8; 32]);
    let foreign =
        encrypt(&other, Protection { passphrase: &passphrase("correct horse"), cost: CHEAP }, [9; 32]).unwrap();
    let text = encrypted(CHEAP);
    let (own, _) = text.split_at(text.find(PUBLIC_BEGIN).unwrap());
    let (_, public) = foreign.split_at(foreign.find(PUBLIC_BEGIN).unwrap());
    let mixed = own.to_owned() + public;
    assert_eq!(decrypt(&mixed, Some(&passphrase("correct horse"))).unwrap_err(), KeyTextError::WrongPassphrase);
}

#[test]
fn openssl_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("api.key");
    std::fs::write(&file, encrypted(ScryptCost::default())).unwrap();
    let arguments = ["pkey", "-passin", "pass:correct horse", "-pubout", "-in"];
    let output = match std::process::Command::new("openssl").args(arguments).arg(&file).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: there is no openssl here: {error}");
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = encrypted(ScryptCost::default());
    let (_, public) = text.split_at(text.find(PUBLIC_BEGIN).unwrap());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), public);
}
