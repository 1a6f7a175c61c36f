//! The transaction envelope: what an author signs.
//!
//! An [`Envelope`] carries the canonical bytes of a [`Transaction`] and one signature over them. The bytes are kept and
//! verified as received, never encoded again. The ledger knows authors, order and expiry; what `kind` and `payload` mean is
//! the state machine's business.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    digest::Digest,
    keys::{BadSignature, PublicKey, SecretKey, Signature},
    limits::{ENVELOPE_SIZE_BYTES_MAX, KIND_LENGTH_MAX},
};

/// The version of the envelope that this code writes and reads.
pub const TRANSACTION_VERSION: u64 = 1;

/// Domain of transaction signatures; the chain id follows it, so that no signature is valid on two chains.
const DOMAIN: &[u8] = b"fedledger/v1/tx\n";

/// Sixteen bytes chosen by the author, unique per author while the transaction can be applied.
///
/// Submitting the same nonce with the same bytes again returns the first outcome; with other bytes it is rejected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 16]);

/// What an author asks the ledger to record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "TransactionTuple", try_from = "TransactionTuple")]
pub struct Transaction {
    /// The chain that the transaction is for: the digest of the genesis file.
    pub chain: Digest,
    /// The key that signs.
    pub author: PublicKey,
    /// Unique per author.
    pub nonce: Nonce,
    /// The last log index at which the transaction may still be applied.
    pub not_after_index: u64,
    /// The name of what the payload is.
    pub kind: String,
    /// Canonical bytes whose meaning the kind gives.
    pub payload: Vec<u8>,
}

/// A transaction as it travels and as it is stored: signed bytes and the signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "EnvelopeTuple", from = "EnvelopeTuple")]
pub struct Envelope {
    body: Vec<u8>,
    signature: Signature,
}

/// Bytes that are no valid transaction of this chain. Such bytes never become a leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The envelope is not canonically encoded, or too large.
    #[error("the transaction envelope is malformed: {0}")]
    Envelope(CodecError),
    /// The signed body is not a canonically encoded transaction.
    #[error("the transaction body is malformed: {0}")]
    Body(CodecError),
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Made for another consortium.
    #[error("the transaction is for chain {found}, this ledger is chain {expected}: check which genesis file was used")]
    Chain {
        /// Chain of this ledger.
        expected: Digest,
        /// Chain named in the transaction.
        found: Digest,
    },
}

impl Transaction {
    /// Signs the transaction.
    ///
    /// The author must be the public half of `key`; otherwise nobody will accept the envelope.
    pub fn sign(&self, key: &SecretKey) -> Envelope {
        let body = codec::encode(self);
        let signature = key.sign(&domain(&self.chain), &body);
        Envelope { body, signature }
    }
}

impl Envelope {
    /// The canonical bytes, as submitted and stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes and checks everything that can be checked without the ledger's state: encoding, size, chain, signature.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`]: the bytes are no transaction of `chain`; the sender must correct and sign it anew.
    pub fn open(bytes: &[u8], chain: &Digest) -> Result<Transaction, EnvelopeError> {
        let (envelope, transaction) = Self::parse(bytes)?;
        if transaction.chain != *chain {
            return Err(EnvelopeError::Chain { expected: *chain, found: transaction.chain });
        }
        transaction.author.verify(&domain(chain), &envelope.body, &envelope.signature)?;
        Ok(transaction)
    }

    /// Decodes without checking chain and signature, for bytes whose check is already on record.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError::Envelope`] or [`EnvelopeError::Body`].
    pub fn open_unverified(bytes: &[u8]) -> Result<Transaction, EnvelopeError> {
        Self::parse(bytes).map(|(_, transaction)| transaction)
    }

    fn parse(bytes: &[u8]) -> Result<(Self, Transaction), EnvelopeError> {
        let envelope: Self = codec::decode(bytes, ENVELOPE_SIZE_BYTES_MAX).map_err(EnvelopeError::Envelope)?;
        let transaction = codec::decode(&envelope.body, ENVELOPE_SIZE_BYTES_MAX).map_err(EnvelopeError::Body)?;
        Ok((envelope, transaction))
    }
}

fn domain(chain: &Digest) -> Vec<u8> {
    [DOMAIN, chain.as_bytes()].concat()
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// The encoded forms are arrays, not maps: a transaction is written millions of times and its fields never grow without a
// new version.

#[derive(Serialize, Deserialize)]
struct TransactionTuple(
    u64,
    Digest,
    PublicKey,
    serde_bytes::ByteArray<16>,
    u64,
    String,
    #[serde(with = "serde_bytes")] Vec<u8>,
);

impl From<Transaction> for TransactionTuple {
    fn from(t: Transaction) -> Self {
        Self(
            TRANSACTION_VERSION,
            t.chain,
            t.author,
            serde_bytes::ByteArray::new(t.nonce.0),
            t.not_after_index,
            t.kind,
            t.payload,
        )
    }
}

impl TryFrom<TransactionTuple> for Transaction {
    type Error = String;

    fn try_from(tuple: TransactionTuple) -> Result<Self, String> {
        let TransactionTuple(version, chain, author, nonce, not_after_index, kind, payload) = tuple;
        if version != TRANSACTION_VERSION {
            return Err(format!("transaction version {version}, this software knows {TRANSACTION_VERSION}"));
        }
        if kind.is_empty() || kind.len() > KIND_LENGTH_MAX {
            return Err(format!("kind of {} bytes, expected 1 to {KIND_LENGTH_MAX}", kind.len()));
        }
        Ok(Self { chain, author, nonce: Nonce(nonce.into_array()), not_after_index, kind, payload })
    }
}

#[derive(Serialize, Deserialize)]
struct EnvelopeTuple(#[serde(with = "serde_bytes")] Vec<u8>, Signature);

impl From<Envelope> for EnvelopeTuple {
    fn from(envelope: Envelope) -> Self {
        Self(envelope.body, envelope.signature)
    }
}

impl From<EnvelopeTuple> for Envelope {
    fn from(EnvelopeTuple(body, signature): EnvelopeTuple) -> Self {
        Self { body, signature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed([1; 32])
    }

    fn chain() -> Digest {
        Digest::of(b"genesis")
    }

    fn transaction() -> Transaction {
        Transaction {
            chain: chain(),
            author: key().public(),
            nonce: Nonce([2; 16]),
            not_after_index: 100,
            kind: "Contribute".into(),
            payload: vec![0xa0],
        }
    }

    #[test]
    fn what_is_signed_opens() {
        let bytes = transaction().sign(&key()).to_bytes();
        assert_eq!(Envelope::open(&bytes, &chain()), Ok(transaction()));
    }

    #[test]
    fn the_encoding_is_pinned() {
        // Changing this digest changes the ledger's format.
        let bytes = transaction().sign(&key()).to_bytes();
        assert_eq!(bytes.len(), 171);
        assert_eq!(Digest::of(&bytes).to_string(), "2b1681328bd02af6e20cc276186a706a58cec98fcb138935c4b991fe5d79d466");
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = transaction().sign(&key()).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Envelope::open(&flipped, &chain()).is_err(), "bit {bit} was not noticed");
        }
    }

    #[test]
    fn another_chain_is_named() {
        let bytes = transaction().sign(&key()).to_bytes();
        let other = Digest::of(b"other");
        assert_eq!(Envelope::open(&bytes, &other), Err(EnvelopeError::Chain { expected: other, found: chain() }));
    }

    #[test]
    fn a_signature_by_another_key_is_refused() {
        let bytes = transaction().sign(&SecretKey::from_seed([9; 32])).to_bytes();
        assert!(matches!(Envelope::open(&bytes, &chain()), Err(EnvelopeError::Signature(_))));
    }
}
