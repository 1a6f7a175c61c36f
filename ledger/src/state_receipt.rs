//! Receipts of records: proof in one file of what a key of the replicated state held at a seal, or that it held nothing.
//!
//! A seal's leaf fixes the root of the [state map](crate::map). So the leaf, a [receipt](crate::receipt) of it under a
//! head that is final, and a [state proof](crate::map::StateProof) under that root show a record to whoever can judge the
//! head, without a network and without the log: that a branch points at a version, say, or that a key is not revoked.
//! What it shows holds for the time of the seal and says nothing about later.
//!
//! [`StateReceipt::to_bytes`] is canonical DAG-CBOR, the list
//! `[domain, version, seal's leaf, receipt, state proof, key, value or null]`.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    codec::{self, CodecError},
    digest::shortened,
    leaf::Leaf,
    map::{StateProof, StateProofError},
    policy::{Accepted, Policy},
    receipt::{Receipt, ReceiptError},
    seal::Seal,
};

/// Largest receipt of a record, in bytes: a record of up to 16 MiB and what proves it.
pub const STATE_RECEIPT_SIZE_BYTES_MAX: usize = 17 * 1024 * 1024;

/// What the names of files with receipts of records end with.
pub const STATE_RECEIPT_FILE_EXTENSION: &str = "state-proof";

/// The version of the format that this code writes and reads.
const STATE_RECEIPT_VERSION: u64 = 1;

/// What the encoding begins with, so that it is taken for nothing else.
const DOMAIN: &str = "fedledger/v1/state-receipt";

/// Proof of what a key held at a seal, not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateReceipt {
    /// The leaf of the seal.
    pub leaf: Vec<u8>,
    /// Receipt of that leaf. Without extra data.
    pub receipt: Receipt,
    /// Proof of the record under the seal's state root.
    pub proof: StateProof,
    /// The record's key.
    pub key: Vec<u8>,
    /// The record's value; none if the key held nothing.
    pub value: Option<Vec<u8>>,
}

/// Bytes that are no receipt of a record, or one that does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateReceiptError {
    /// Bytes that cannot be read.
    #[error("the receipt of a record cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// Something else, or another version of the format.
    #[error("expected {DOMAIN} in version {STATE_RECEIPT_VERSION}, found {domain:?} in version {version}")]
    Format {
        /// What it says it is.
        domain: String,
        /// Version found.
        version: u64,
    },
    /// The leaf cannot be read.
    #[error("the leaf of the seal is malformed: {0}")]
    Leaf(CodecError),
    /// The leaf is no seal that took effect.
    #[error("the leaf is no seal")]
    NoSeal,
    /// The receipt is of another entry than the leaf.
    #[error("the receipt is of entry {receipt}, the seal is entry {leaf}")]
    Index {
        /// Index in the leaf.
        leaf: u64,
        /// Index in the receipt.
        receipt: u64,
    },
    /// The receipt carries data that nothing protects.
    #[error("the receipt of the seal has extra data, which is not allowed here")]
    Extra,
    /// The receipt cannot be read, or its head is not accepted, or the seal is not under it.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The proof cannot be read, or does not show this record under the seal's state root.
    #[error("the record is not shown: {0}")]
    Proof(#[from] StateProofError),
}

/// What a receipt of a record shows, beside the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownAt {
    /// Index of the seal: the state is that after the entries before it.
    pub index: u64,
    /// The seal.
    pub seal: Seal,
    /// The head under which the seal stands, and who vouches for it.
    pub accepted: Accepted,
}

impl StateReceipt {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = self.value.clone().map(ByteBuf::from);
        let [leaf, proof, key] = [self.leaf.clone(), self.proof.to_bytes(), self.key.clone()].map(ByteBuf::from);
        let receipt = self.receipt.to_string();
        codec::encode(&Tuple(DOMAIN.to_owned(), STATE_RECEIPT_VERSION, leaf, receipt, proof, key, value))
    }

    /// Reads a receipt of a record; nothing is verified.
    ///
    /// # Errors
    ///
    /// [`StateReceiptError`] for everything that [`StateReceipt::to_bytes`] would not write in exactly this way.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateReceiptError> {
        let Tuple(domain, version, leaf, receipt, proof, key, value) =
            codec::decode(bytes, STATE_RECEIPT_SIZE_BYTES_MAX)?;
        if domain != DOMAIN || version != STATE_RECEIPT_VERSION {
            return Err(StateReceiptError::Format { domain: shortened(&domain), version });
        }
        let receipt = Receipt::parse(&receipt)?;
        if receipt.extra().is_some() {
            return Err(StateReceiptError::Extra);
        }
        let proof = StateProof::from_bytes(&proof)?;
        let (leaf, key, value) = (leaf.into_vec(), key.into_vec(), value.map(ByteBuf::into_vec));
        Ok(Self { leaf, receipt, proof, key, value })
    }

    /// Whether bytes are meant to be a receipt of a record: what they begin with.
    pub fn is_meant_by(bytes: &[u8]) -> bool {
        codec::begins_with_domain(bytes, DOMAIN)
    }

    /// Checks that at the seal the key held exactly the value, or nothing, in a log that satisfies the policy.
    ///
    /// # Errors
    ///
    /// [`StateReceiptError`] if that is not shown.
    pub fn verify(&self, policy: &Policy) -> Result<ShownAt, StateReceiptError> {
        let leaf = Leaf::from_bytes(&self.leaf).map_err(StateReceiptError::Leaf)?;
        let seal = leaf.seal.ok_or(StateReceiptError::NoSeal)?;
        if self.receipt.extra().is_some() {
            return Err(StateReceiptError::Extra);
        }
        if leaf.index != self.receipt.index() {
            return Err(StateReceiptError::Index { leaf: leaf.index, receipt: self.receipt.index() });
        }
        let accepted = self.receipt.verify(policy, &self.leaf)?;
        self.proof.verify(&seal.state_root, &self.key, self.value.as_deref())?;
        Ok(ShownAt { index: leaf.index, seal, accepted })
    }
}

#[derive(Serialize, Deserialize)]
struct Tuple(String, u64, ByteBuf, String, ByteBuf, ByteBuf, Option<ByteBuf>);
