//! Key files encrypted with a passphrase: PKCS#8 `EncryptedPrivateKeyInfo` in PEM (RFC 5958) with PBES2 (RFC 8018),
//! scrypt (RFC 7914) and AES-256-CBC, followed by the public key.
//!
//! OpenSSL reads and writes this form. CBC does not notice changed bytes, so the public key behind it serves as the
//! check: what is decrypted must belong to it.

use ed25519_dalek::{
    SigningKey, VerifyingKey,
    pkcs8::{
        DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
        spki::der::{
            self, Decode as _, DecodeValue, Encode as _, EncodeValue, Header, Length, Reader, Sequence, Writer,
            asn1::OctetStringRef,
            pem::{self, LineEnding},
        },
    },
};
use fedledger_ledger::SecretKey;
use pkcs5::{
    EncryptionScheme,
    pbes2::{self, EncryptionScheme as Cipher},
    scrypt,
};
use zeroize::Zeroizing;

use super::{keys::KeyTextError, passphrase::Passphrase};

/// Label of an encrypted key in PEM.
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// What an encrypted key begins with.
pub(super) const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// What the public key behind it begins with.
const PUBLIC_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";

/// Most memory that a key file may ask for while it is decrypted, in bytes.
const SCRYPT_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most work that a key file may ask for, in bytes mixed: a few seconds.
const SCRYPT_WORK_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Most passes that a key file may ask for.
const SCRYPT_PASSES_MAX: u16 = 64;

/// What it costs to try a passphrase (RFC 7914, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScryptCost {
    /// Logarithm of the CPU and memory cost to the base 2.
    pub log_n: u8,
    /// Block size.
    pub r: u32,
    /// Passes over the memory.
    pub p: u32,
}

impl Default for ScryptCost {
    /// 16 MiB in five passes, as OWASP recommends for this much memory; much more would be too much for OpenSSL, which
    /// allows 32 MiB.
    fn default() -> Self {
        Self { log_n: 14, r: 8, p: 5 }
    }
}

/// How keys are encrypted.
#[derive(Debug, Clone, Copy)]
pub struct Protection<'a> {
    /// The passphrase.
    pub passphrase: &'a Passphrase,
    /// What it costs to try one.
    pub cost: ScryptCost,
}

/// A key that cannot be encrypted, which is a defect or a cost out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key cannot be encrypted at this cost")]
pub struct ProtectionError;

/// The text of an encrypted key file. `randomness` is drawn for this file alone, for the salt and the cipher.
///
/// # Errors
///
/// [`ProtectionError`].
pub fn encrypt(key: &SecretKey, protection: Protection<'_>, randomness: [u8; 32]) -> Result<String, ProtectionError> {
    let ScryptCost { log_n, r, p } = protection.cost;
    let (salt, iv) = halves(randomness);
    let cost = scrypt::Params::new(log_n, r, p).map_err(|_| ProtectionError)?;
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|_| ProtectionError)?;
    let scheme = EncryptionScheme::from(parameters);
    check_cost(&scheme).map_err(|_| ProtectionError)?;
    let pair = KeypairBytes { secret_key: key.seed(), public_key: None };
    let plain = pair.to_pkcs8_der().map_err(|_| ProtectionError)?;
    let data = scheme.encrypt(protection.passphrase.as_bytes(), plain.as_bytes()).map_err(|_| ProtectionError)?;
    let public = VerifyingKey::from_bytes(key.public().as_bytes()).map_err(|_| ProtectionError)?;
    to_text(&scheme, &data, &public).map_err(|_| ProtectionError)
}

/// What it costs to try a passphrase on the text of a key file; nothing where the key is not encrypted.
///
/// # Errors
///
/// [`KeyTextError::Malformed`], or [`KeyTextError::Unsupported`] where the cost is beyond the bounds.
pub fn key_cost(text: &str) -> Result<Option<ScryptCost>, KeyTextError> {
    if !text.starts_with(ENCRYPTED_BEGIN) {
        return Ok(None);
    }
    check_cost(&Encrypted::parse(text)?.scheme).map(Some)
}

/// The key in an encrypted key file. Nothing is derived from the passphrase before the costs are known to be bearable.
pub(super) fn decrypt(text: &str, passphrase: Option<&Passphrase>) -> Result<SecretKey, KeyTextError> {
    let Encrypted { scheme, data, public } = Encrypted::parse(text)?;
    check_cost(&scheme)?;
    let passphrase = passphrase.ok_or(KeyTextError::Locked)?;
    let mut buffer = Zeroizing::new(data);
    let plain = scheme.decrypt_in_place(passphrase.as_bytes(), &mut buffer);
    let key = plain.ok().and_then(|plain| SigningKey::from_pkcs8_der(plain).ok());
    match key {
        Some(key) if key.verifying_key() == public => Ok(SecretKey::from_seed(key.to_bytes())),
        _ => Err(KeyTextError::WrongPassphrase),
    }
}

/// What an encrypted key file says, before anything is derived.
struct Encrypted {
    scheme: EncryptionScheme,
    data: Vec<u8>,
    public: VerifyingKey,
}

impl Encrypted {
    fn parse(text: &str) -> Result<Self, KeyTextError> {
        const MALFORMED: KeyTextError =
            KeyTextError::Malformed("an encrypted Ed25519 private key in PEM (PKCS#8) and its public key");
        let position = text.find(PUBLIC_BEGIN).ok_or(MALFORMED)?;
        let (encrypted, public) = text.split_at_checked(position).ok_or(MALFORMED)?;
        let (label, der) = pem::decode_vec(encrypted.as_bytes()).map_err(|_| MALFORMED)?;
        let EncryptedKey { scheme, data } = EncryptedKey::from_der(&der).map_err(|_| MALFORMED)?;
        let public = VerifyingKey::from_public_key_pem(public).map_err(|_| MALFORMED)?;
        // Every byte of the file matters, white space too.
        if label != ENCRYPTED_LABEL || to_text(&scheme, data.as_bytes(), &public).ok().as_deref() != Some(text) {
            return Err(MALFORMED);
        }
        Ok(Self { scheme, data: data.as_bytes().to_vec(), public })
    }
}

/// The cost of a key file. Other ciphers are refused, and costs that would keep this machine busy.
fn check_cost(scheme: &EncryptionScheme) -> Result<ScryptCost, KeyTextError> {
    /// Bytes of a block per unit of the block size (RFC 7914, section 4).
    const UNIT_BYTES: u64 = 128;
    let Some(pbes2::Parameters { kdf: pbes2::Kdf::Scrypt(cost), encryption: Cipher::Aes256Cbc { .. }, .. }) =
        scheme.pbes2()
    else {
        return Err(KeyTextError::Unsupported);
    };
    let (n, r, p) = (cost.cost_parameter, u64::from(cost.block_size), u64::from(cost.parallelization));
    let blocks = |count: u64| count.checked_mul(UNIT_BYTES)?.checked_mul(r);
    // The mixed memory, and a block for every pass beside it.
    let memory = n.checked_add(p).and_then(blocks);
    let work = n.checked_mul(p).and_then(blocks);
    let bearable = memory.is_some_and(|bytes| bytes <= SCRYPT_MEMORY_BYTES_MAX)
        && work.is_some_and(|bytes| bytes <= SCRYPT_WORK_BYTES_MAX)
        && (1..=SCRYPT_PASSES_MAX).contains(&cost.parallelization)
        && r > 0
        && n > 1
        && n.is_power_of_two();
    match u8::try_from(n.trailing_zeros()) {
        Ok(log_n) if bearable => Ok(ScryptCost { log_n, r: cost.block_size.into(), p: cost.parallelization.into() }),
        _ => Err(KeyTextError::Unsupported),
    }
}

fn to_text(
    scheme: &EncryptionScheme,
    data: &[u8],
    public: &VerifyingKey,
) -> Result<String, ed25519_dalek::pkcs8::Error> {
    let der = EncryptedKey { scheme: scheme.clone(), data: OctetStringRef::new(data)? }.to_der()?;
    let encrypted = pem::encode_string(ENCRYPTED_LABEL, LineEnding::LF, &der).map_err(der::Error::from)?;
    Ok(encrypted + &public.to_public_key_pem(LineEnding::LF).map_err(ed25519_dalek::pkcs8::Error::from)?)
}

fn halves(randomness: [u8; 32]) -> ([u8; 16], [u8; 16]) {
    let (mut first, mut second) = ([0; 16], [0; 16]);
    for (target, source) in first.iter_mut().chain(&mut second).zip(randomness) {
        *target = source;
    }
    (first, second)
}

/// `EncryptedPrivateKeyInfo` of RFC 5958, section 3.
struct EncryptedKey<'a> {
    scheme: EncryptionScheme,
    data: &'a OctetStringRef,
}

impl<'a> DecodeValue<'a> for EncryptedKey<'a> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, _: Header) -> Result<Self, der::Error> {
        Ok(Self { scheme: EncryptionScheme::decode(reader)?, data: <&OctetStringRef>::decode(reader)? })
    }
}

impl EncodeValue for EncryptedKey<'_> {
    fn value_len(&self) -> Result<Length, der::Error> {
        self.scheme.encoded_len()? + self.data.encoded_len()?
    }

    fn encode_value(&self, writer: &mut impl Writer) -> Result<(), der::Error> {
        self.scheme.encode(writer)?;
        self.data.encode(writer)
    }
}

impl<'a> Sequence<'a> for EncryptedKey<'a> {}

#[cfg(test)]
mod tests;
