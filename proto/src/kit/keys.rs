//! Key files: 64 hexadecimal digits of an Ed25519 seed and a newline, or PKCS#8 in PEM (RFC 8410) where TLS needs it.

use std::path::Path;

use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding},
};
use fedledger_ledger::{PublicKey, SecretKey};

use super::{certificates::CertificateError, error::KitError, files::read_secret};

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

/// Largest key file, in bytes.
const KEY_SIZE_BYTES_MAX: u64 = 16 * 1024;

/// What a key file holds.
pub(super) fn to_file(key: &SecretKey) -> Vec<u8> {
    format!("{}\n", hex::encode(key.seed())).into_bytes()
}

/// Loads a key that must be `expected`, the one of `owner`.
pub(super) fn load(file: &Path, expected: &PublicKey, owner: &str) -> Result<SecretKey, KitError> {
    let text = read_secret(file, KEY_SIZE_BYTES_MAX)?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|_| KitError::MalformedKey { file: file.to_owned(), expected: "64 hexadecimal digits" })?;
    let key = SecretKey::from_seed(seed);
    check_owner(&key.public(), file, expected, owner)?;
    Ok(key)
}

/// Refuses a key of somebody else.
pub(super) fn check_owner(key: &PublicKey, file: &Path, expected: &PublicKey, owner: &str) -> Result<(), KitError> {
    if key == expected {
        Ok(())
    } else {
        Err(KitError::ForeignKey { key: *key, file: file.to_owned(), owner: owner.to_owned() })
    }
}

/// PKCS#8 in PEM, without the public key: OpenSSL before 3.2 cannot read the form that has it.
pub(super) fn to_pem(key: &SecretKey) -> Result<String, CertificateError> {
    let pair = KeypairBytes { secret_key: key.seed(), public_key: None };
    let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(|_| CertificateError::PrivateKey)?;
    Ok(pem.as_str().to_owned())
}

/// Loads a key in PEM, as text and as what it means.
pub(super) fn load_pem(file: &Path) -> Result<(String, PublicKey), KitError> {
    let pem = read_secret(file, KEY_SIZE_BYTES_MAX)?;
    let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| KitError::MalformedKey {
        file: file.to_owned(),
        expected: "an Ed25519 private key in PEM (PKCS#8)",
    })?;
    Ok((pem, PublicKey::from_bytes(key.verifying_key().to_bytes())))
}
