//! Proof of possession: a signature by every secret key over what its public half is claimed in.
//!
//! Without it, anybody could put the public key of somebody else into a request, and the ledger would hold a key for one
//! member that another one uses.

use std::collections::BTreeMap;

use fedledger_ledger::{Digest, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

/// A signature by each key that a request names, over the digest of the request without these signatures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Possession(BTreeMap<PublicKey, Signature>);

/// A key of which nobody has shown to hold the secret half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PossessionError {
    /// No signature by a key that is named.
    #[error("there is no signature by key {0}: make the request again where its secret half is")]
    Missing(PublicKey),
    /// A signature that does not verify: the request was changed, or the key is somebody else's.
    #[error("the signature by key {0} does not verify: the request was changed, or the key belongs to somebody else")]
    Forged(PublicKey),
    /// A signature by a key that is not named.
    #[error("there is a signature by key {0}, which the request does not name")]
    Unnamed(PublicKey),
}

impl Possession {
    /// Signs with every key.
    pub(super) fn prove<'a>(domain: &[u8], digest: &Digest, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        let sign = |key: &SecretKey| (key.public(), key.sign(domain, digest.as_bytes()));
        Self(keys.into_iter().map(sign).collect())
    }

    /// Checks that there is one signature by each of `keys`, and no other.
    pub(super) fn check(&self, domain: &[u8], digest: &Digest, keys: &[PublicKey]) -> Result<(), PossessionError> {
        if let Some(key) = self.0.keys().find(|key| !keys.contains(key)) {
            return Err(PossessionError::Unnamed(*key));
        }
        for key in keys {
            let signature = self.0.get(key).ok_or(PossessionError::Missing(*key))?;
            key.verify(domain, digest.as_bytes(), signature).map_err(|_| PossessionError::Forged(*key))?;
        }
        Ok(())
    }

    /// Whether there is no signature.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
