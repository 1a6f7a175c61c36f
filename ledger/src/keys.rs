//! Ed25519 keys and signatures (RFC 8032), with domain separation and strict verification.
//!
//! Every signature covers `domain || message`, where the domain is a distinct ASCII prefix per kind of object, so that a
//! signature over one kind of object can never be presented as one over another. Verification is `verify_strict`
//! everywhere: one acceptance rule, or replicas could disagree on which transactions exist.

use std::{fmt, str::FromStr};

use ed25519_dalek::Signer as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{ParseDigestError, deserialize_fixed, fixed_hex, serialize_fixed, shortened};

/// An Ed25519 public key; it also serves as the key's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// An Ed25519 secret key. Its bytes are wiped when it is dropped and never printed.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

/// A signature that does not verify, or a key that is no point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify with key {0}")]
pub struct BadSignature(pub PublicKey);

impl SecretKey {
    /// The key that belongs to a 32-byte seed drawn by the caller from the operating system.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// The seed, for writing the key to a file of its owner.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `domain || message`.
    pub fn sign(&self, domain: &[u8], message: &[u8]) -> Signature {
        Signature(self.0.sign(&[domain, message].concat()).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl PublicKey {
    /// A key from its 32 bytes; whether they are a point of the curve shows when something is verified.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature over `domain || message`.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] where strict verification (RFC 8032 with small-order and non-canonical points refused) fails.
    pub fn verify(&self, domain: &[u8], message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature(*self))?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&[domain, message].concat(), &signature).map_err(|_| BadSignature(*self))
    }
}

impl Signature {
    /// A signature from its 64 bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fixed_hex(text).map(Self).ok_or_else(|| ParseDigestError(shortened(text)))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_fixed(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_fixed(deserializer).map(Self)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_fixed(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_fixed(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_8032_test_vector_2_verifies_without_domain() {
        let seed = fixed_hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SecretKey::from_seed(seed);
        assert_eq!(key.public().to_string(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(format!("{:?}", key.sign(b"", &[0x72])), expected);
    }

    #[test]
    fn a_signature_of_one_domain_is_none_of_another() {
        let key = SecretKey::from_seed([7; 32]);
        let signature = key.sign(b"fedledger/v1/tx\n", b"message");
        assert_eq!(key.public().verify(b"fedledger/v1/tx\n", b"message", &signature), Ok(()));
        let refused = key.public().verify(b"fedledger/v1/note\n", b"message", &signature);
        assert_eq!(refused, Err(BadSignature(key.public())));
    }

    #[test]
    fn a_small_order_key_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let key = PublicKey::from_bytes(identity);
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(key.verify(b"", b"anything", &Signature::from_bytes(signature)).is_err());
    }
}
