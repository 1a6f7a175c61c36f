//! Key files: 64 hexadecimal digits of an Ed25519 seed and a newline, or PKCS#8 in PEM (RFC 8410) where TLS needs it.
//! With a passphrase, all of them are encrypted in the same way, see `protection`.

use std::path::{Path, PathBuf};

use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding},
};
use fedledger_ledger::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{
    certificates::CertificateError,
    error::KitError,
    files::read_secret,
    passphrase::Passphrase,
    protection::{self, ENCRYPTED_BEGIN},
    tls::{API_KEY, AUTHORITY_KEY},
};

/// The key that signs a node's transactions.
pub(super) const TRANSACTION_KEY: &str = "transaction.key";
/// The key that identifies a node to others.
pub(super) const TRANSPORT_KEY: &str = "transport.key";
/// The key that signs a replica's checkpoints.
pub(super) const LOG_KEY: &str = "log.key";
/// The key with which a replica co-signs the log's head.
pub(super) const COSIGN_KEY: &str = "cosign.key";
/// The key with which a participant co-signs heads of the log.
pub(super) const WITNESS_KEY: &str = "witness.key";
/// The key that signs a member's decisions.
pub(super) const ORGANISATION_KEY: &str = "organisation.key";

/// Every name of a key file.
pub(super) const KEY_FILES: [&str; 8] =
    [ORGANISATION_KEY, API_KEY, TRANSPORT_KEY, TRANSACTION_KEY, LOG_KEY, COSIGN_KEY, WITNESS_KEY, AUTHORITY_KEY];

/// Largest key file, in bytes.
const KEY_SIZE_BYTES_MAX: u64 = 16 * 1024;

/// What a plain key in PEM begins with.
const PLAIN_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";

/// Text that is no key, or not without more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Not what was expected.
    #[error("expected {0}")]
    Malformed(&'static str),
    /// Encrypted, and there is no passphrase.
    #[error("the key is encrypted: give its passphrase")]
    Locked,
    /// Encrypted with another passphrase, or damaged: nobody can tell.
    #[error("the passphrase is wrong, or the key file is damaged")]
    WrongPassphrase,
    /// Encrypted in another way, or so that it would take too much memory or time.
    #[error("the key is encrypted in a way that is not supported: encrypt it with scrypt and AES-256-CBC at less cost")]
    Unsupported,
}

impl KeyTextError {
    /// The error about a file.
    pub(super) fn at(self, file: &Path) -> KitError {
        let file = file.to_owned();
        match self {
            Self::Malformed(expected) => KitError::MalformedKey { file, expected },
            Self::Locked => KitError::Locked { file },
            Self::WrongPassphrase => KitError::WrongPassphrase { file },
            Self::Unsupported => KitError::UnsupportedEncryption { file },
        }
    }
}

/// What a key file holds that is not encrypted. Those of TLS are in PEM.
pub(super) fn to_text(name: &str, key: &SecretKey) -> Result<Zeroizing<String>, CertificateError> {
    if [API_KEY, AUTHORITY_KEY].contains(&name) { to_pem(key) } else { Ok(to_hex(key)) }
}

fn to_hex(key: &SecretKey) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(Zeroizing::new(key.seed())) + "\n")
}

/// PKCS#8 in PEM, without the public key: OpenSSL before 3.2 cannot read the form that has it.
pub(super) fn to_pem(key: &SecretKey) -> Result<Zeroizing<String>, CertificateError> {
    let pair = KeypairBytes { secret_key: key.seed(), public_key: None };
    pair.to_pkcs8_pem(LineEnding::LF).map_err(|_| CertificateError::PrivateKey)
}

/// The key in the text of a key file, whatever its form; `passphrase` is for one that is encrypted.
///
/// # Errors
///
/// [`KeyTextError`]. A text that asks for too much memory or time is refused before anything is derived.
pub fn parse(text: &str, passphrase: Option<&Passphrase>) -> Result<SecretKey, KeyTextError> {
    if text.starts_with(ENCRYPTED_BEGIN) {
        return protection::decrypt(text, passphrase);
    }
    if text.starts_with(PLAIN_BEGIN) {
        let expected = KeyTextError::Malformed("an Ed25519 private key in PEM (PKCS#8)");
        let key = SigningKey::from_pkcs8_pem(text).map_err(|_| expected)?;
        return Ok(SecretKey::from_seed(key.to_bytes()));
    }
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), seed.as_mut())
        .map_err(|_| KeyTextError::Malformed("64 hexadecimal digits, or a key in PEM"))?;
    Ok(SecretKey::from_seed(*seed))
}

/// Reads a key file, whatever its form.
pub(super) fn read(file: &Path, passphrase: Option<&Passphrase>) -> Result<SecretKey, KitError> {
    let text = read_secret(file, KEY_SIZE_BYTES_MAX)?;
    parse(&text, passphrase).map_err(|error| error.at(file))
}

/// Whether a key file is encrypted.
pub(super) fn is_encrypted(file: &Path) -> Result<bool, KitError> {
    Ok(read_secret(file, KEY_SIZE_BYTES_MAX)?.starts_with(ENCRYPTED_BEGIN))
}

/// Refuses a key of somebody else.
pub(super) fn check_owner(key: &PublicKey, file: &Path, expected: &PublicKey, owner: &str) -> Result<(), KitError> {
    if key == expected {
        Ok(())
    } else {
        Err(KitError::ForeignKey { key: *key, file: file.to_owned(), owner: owner.to_owned() })
    }
}

/// Where the key lies that is to follow the one in `file`.
pub(super) fn next_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

/// Key files of one folder, with those that are to follow them.
#[derive(Debug, Clone)]
pub(super) struct Keyring {
    folder: PathBuf,
    keys: Vec<(PathBuf, SecretKey)>,
}

impl Keyring {
    /// Reads the keys with these names, and what is to follow them.
    pub fn load(folder: &Path, names: &[&str], passphrase: Option<&Passphrase>) -> Result<Self, KitError> {
        let mut keys = Vec::new();
        for name in names {
            let file = folder.join(name);
            let next = next_of(&file);
            let following = match read(&next, passphrase) {
                Ok(key) => Some((next, key)),
                Err(KitError::Missing { .. }) => None,
                Err(error) => return Err(error),
            };
            let key = read(&file, passphrase)?;
            keys.push((file, key));
            keys.extend(following);
        }
        Ok(Self { folder: folder.to_owned(), keys })
    }

    /// The key with this name that is `expected`, or the one that is to follow it and is `expected` by now.
    pub fn pick(&self, name: &str, expected: &PublicKey, owner: &str) -> Result<SecretKey, KitError> {
        let file = self.folder.join(name);
        let next = next_of(&file);
        let found = |wanted: &Path| self.keys.iter().find(|(file, _)| file == wanted).map(|(_, key)| key);
        let key = found(&file).ok_or_else(|| KitError::Missing { file: file.clone() })?;
        match found(&next) {
            Some(following) if following.public() == *expected => Ok(following.clone()),
            _ => {
                check_owner(&key.public(), &file, expected, owner)?;
                Ok(key.clone())
            }
        }
    }
}
