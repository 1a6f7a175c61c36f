//! The public keys of note signers, in the text form that transparency-log tools read ("vkey").
//!
//! `<name>+<key id in hexadecimal>+<base64 of type and key>`, as `note.NewVerifier` of `golang.org/x/mod/sumdb/note`
//! takes it.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{
    Digest,
    digest::{fixed_hex, shortened},
    keys::PublicKey,
};

/// Longest text form of a key, in bytes; a name has what is left of it.
const VERIFIER_KEY_SIZE_BYTES_MAX: usize = 1024;

/// The kinds of signature that are understood, with the byte that C2SP signed-note assigns to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SignatureType {
    /// Ed25519 over the text of the note: how a log signs.
    Ed25519 = 0x01,
    /// Ed25519 over the text of a checkpoint and the time: how a witness co-signs (C2SP tlog-cosignature, version 1).
    CosignatureV1 = 0x04,
}

impl SignatureType {
    /// The identifier byte.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The type with this identifier byte, if it is understood.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::CosignatureV1),
            _ => None,
        }
    }
}

/// Four bytes that name a key, short because they only select it: whoever verifies knows the key itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// The id of a key under a name, for one type of signature.
    pub fn of(name: &str, kind: SignatureType, key: &PublicKey) -> Self {
        let digest = Digest::of_parts(&[name.as_bytes(), b"\n", &[kind.to_byte()], key.as_bytes()]);
        let [a, b, c, d, ..] = *digest.as_bytes();
        Self([a, b, c, d])
    }

    /// An id as it stands in a signature line.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes.
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key together with its name and the type of its signatures; written and read as a vkey.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    kind: SignatureType,
    key: PublicKey,
}

/// Text that is no verifier key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierKeyError {
    /// A name that the format does not allow.
    #[error("the key name {0:?} is empty, too long or contains spaces, control characters or a plus sign")]
    Name(String),
    /// Not of the form name, key id, type and key.
    #[error("a verifier key has the form name+id+base64, found {0:?}")]
    Malformed(String),
    /// A type of signature that is not understood.
    #[error("signatures of type {0:#04x} are not supported")]
    UnknownType(u8),
    /// The id is not that of the name and key that stand beside it.
    #[error("the key has the id {expected}, found {found}: its text is damaged")]
    WrongId {
        /// Id that follows from the name and key.
        expected: KeyId,
        /// Id that was found.
        found: KeyId,
    },
}

impl VerifierKey {
    /// A key for signatures of type [`SignatureType::Ed25519`], known under `name`.
    ///
    /// # Errors
    ///
    /// [`VerifierKeyError::Name`] if the name is not allowed.
    pub fn ed25519(name: &str, key: PublicKey) -> Result<Self, VerifierKeyError> {
        Self::new(name, SignatureType::Ed25519, key)
    }

    /// A key for signatures of type [`SignatureType::CosignatureV1`], known under `name`.
    ///
    /// # Errors
    ///
    /// [`VerifierKeyError::Name`] if the name is not allowed.
    pub fn cosignature_v1(name: &str, key: PublicKey) -> Result<Self, VerifierKeyError> {
        Self::new(name, SignatureType::CosignatureV1, key)
    }

    fn new(name: &str, kind: SignatureType, key: PublicKey) -> Result<Self, VerifierKeyError> {
        let verifier = Self { name: name.to_owned(), kind, key };
        let short = is_key_name(name) && verifier.to_string().len() <= VERIFIER_KEY_SIZE_BYTES_MAX;
        if short { Ok(verifier) } else { Err(VerifierKeyError::Name(shortened(name))) }
    }

    /// Name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type of the signatures that the key verifies.
    pub fn kind(&self) -> SignatureType {
        self.kind
    }

    /// The key itself.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The id that the key's signature lines carry.
    pub fn key_id(&self) -> KeyId {
        KeyId::of(&self.name, self.kind, &self.key)
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || VerifierKeyError::Malformed(shortened(text));
        if text.len() > VERIFIER_KEY_SIZE_BYTES_MAX {
            return Err(malformed());
        }
        // Base64 may contain plus signs, names and ids may not.
        let (name, rest) = text.split_once('+').ok_or_else(malformed)?;
        let (id, encoded) = rest.split_once('+').ok_or_else(malformed)?;
        let found = fixed_hex(id).map(KeyId).ok_or_else(malformed)?;
        let bytes = BASE64.decode(encoded).map_err(|_| malformed())?;
        let (&kind, key) = bytes.split_first().ok_or_else(malformed)?;
        // The length of a key depends on its type, so the type comes first.
        let kind = SignatureType::from_byte(kind).ok_or(VerifierKeyError::UnknownType(kind))?;
        let key = match kind {
            SignatureType::Ed25519 | SignatureType::CosignatureV1 => key.try_into().map(PublicKey::from_bytes),
        };
        let verifier = Self::new(name, kind, key.map_err(|_| malformed())?)?;
        let expected = verifier.key_id();
        if found == expected { Ok(verifier) } else { Err(VerifierKeyError::WrongId { expected, found }) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[self.kind.to_byte()], self.key.as_bytes().as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, self.key_id(), BASE64.encode(bytes))
    }
}

/// Whether C2SP signed-note allows a key of this name.
pub(super) fn is_key_name(name: &str) -> bool {
    let allowed = |c: char| c >= ' ' && c != '+' && !c.is_whitespace();
    !name.is_empty() && name.chars().all(allowed)
}
