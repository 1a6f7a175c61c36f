//! Intake receipts: a replica's signed word that a transaction will be on the log by a certain index.
//!
//! Whoever submits a transaction and does not wait for it gets one. A replica that takes a transaction and then holds it
//! back has signed what convicts it: no entry of the log up to that index is the transaction. The idea is that of the signed
//! certificate timestamps of RFC 6962, section 3, with entries in place of hours. The transaction is on the replica's disk
//! before the promise is given, so that it is kept through a crash; while a replica is down others may fill the log. Whoever
//! submits the same bytes to another one in time helps it to keep its word.
//!
//! [`IntakeReceipt::to_bytes`] is canonical DAG-CBOR, the list `[domain, version, chain, transaction, by_index, replica,
//! signature]`. The signature covers the domain, a newline, the chain id, and the list `[transaction, by_index]`.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    digest::{Digest, shortened},
    keys::{BadSignature, PublicKey, SecretKey, Signature},
};

/// Entries within which a replica promises to bring a transaction onto the log, counted from the log's size when it was
/// taken: enough for an election in between while thousands of entries come in a second.
pub const INTAKE_ENTRIES: u64 = 5_000;

/// Largest receipt, in bytes.
pub const INTAKE_RECEIPT_SIZE_BYTES_MAX: usize = 512;

/// The version of the format that this code writes and reads.
pub const INTAKE_RECEIPT_VERSION: u64 = 1;

/// What the encoding begins with, and the domain of the signature.
const DOMAIN: &str = "fedledger/v1/intake-receipt";

/// A replica's promise. See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "ReceiptTuple", try_from = "ReceiptTuple")]
pub struct IntakeReceipt {
    /// The chain that the transaction is for.
    pub chain: Digest,
    /// SHA-256 of the transaction's envelope.
    pub transaction: Digest,
    /// The transaction will stand at this index or before it.
    pub by_index: u64,
    /// The key with which the replica signs its transactions.
    pub replica: PublicKey,
    signature: Signature,
}

/// Bytes that are no receipt, or a receipt for something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeReceiptError {
    /// Bytes that cannot be read.
    #[error("the intake receipt cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// It is for another consortium.
    #[error("the intake receipt is for chain {found}, expected {expected}")]
    Chain {
        /// Chain asked for.
        expected: Digest,
        /// Chain in the receipt.
        found: Digest,
    },
    /// It is for another transaction.
    #[error("the intake receipt is for transaction {found}, expected {expected}")]
    Transaction {
        /// SHA-256 of the transaction asked for.
        expected: Digest,
        /// SHA-256 in the receipt.
        found: Digest,
    },
    /// The replica did not sign it.
    #[error("the intake receipt is not genuine: {0}")]
    Signature(#[from] BadSignature),
}

impl IntakeReceipt {
    /// Promises that the transaction with this digest will be on the log by an index.
    pub fn sign(chain: Digest, transaction: Digest, by_index: u64, key: &SecretKey) -> Self {
        let signature = key.sign(&domain(&chain), &body(&transaction, by_index));
        Self { chain, transaction, by_index, replica: key.public(), signature }
    }

    /// Checks that [`Self::replica`] has promised this about the transaction in `envelope`. Whether the key is a replica's
    /// is for the caller to find out: see [`Epoch::replica_of_author`](crate::epoch::Epoch::replica_of_author).
    ///
    /// # Errors
    ///
    /// [`IntakeReceiptError`]; the receipt is worth nothing.
    pub fn verify(&self, chain: &Digest, envelope: &[u8]) -> Result<(), IntakeReceiptError> {
        let (expected, found) = (Digest::of(envelope), self.transaction);
        if expected != found {
            return Err(IntakeReceiptError::Transaction { expected, found });
        }
        self.verify_signature(chain)
    }

    /// Checks that [`Self::replica`] has promised this about the transaction that [`Self::transaction`] names, whichever it is.
    ///
    /// # Errors
    ///
    /// [`IntakeReceiptError`]; the receipt is worth nothing.
    pub fn verify_signature(&self, chain: &Digest) -> Result<(), IntakeReceiptError> {
        let (expected, found) = (*chain, self.chain);
        if expected != found {
            return Err(IntakeReceiptError::Chain { expected, found });
        }
        let body = body(&self.transaction, self.by_index);
        Ok(self.replica.verify(&domain(chain), &body, &self.signature)?)
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a receipt; its signature is not verified.
    ///
    /// # Errors
    ///
    /// [`IntakeReceiptError::Codec`] for everything that [`Self::to_bytes`] would not write in exactly this way.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IntakeReceiptError> {
        Ok(codec::decode(bytes, INTAKE_RECEIPT_SIZE_BYTES_MAX)?)
    }
}

fn domain(chain: &Digest) -> Vec<u8> {
    [DOMAIN.as_bytes(), b"\n", chain.as_bytes()].concat()
}

fn body(transaction: &Digest, by_index: u64) -> Vec<u8> {
    codec::encode(&(*transaction, by_index))
}

/// Domain, version, chain, transaction, index, replica and signature.
#[derive(Serialize, Deserialize)]
struct ReceiptTuple(String, u64, Digest, Digest, u64, PublicKey, Signature);

impl From<IntakeReceipt> for ReceiptTuple {
    fn from(receipt: IntakeReceipt) -> Self {
        let IntakeReceipt { chain, transaction, by_index, replica, signature } = receipt;
        Self(DOMAIN.to_owned(), INTAKE_RECEIPT_VERSION, chain, transaction, by_index, replica, signature)
    }
}

impl TryFrom<ReceiptTuple> for IntakeReceipt {
    type Error = String;

    fn try_from(tuple: ReceiptTuple) -> Result<Self, String> {
        let ReceiptTuple(name, version, chain, transaction, by_index, replica, signature) = tuple;
        if name != DOMAIN || version != INTAKE_RECEIPT_VERSION {
            let found = shortened(&name);
            return Err(format!("{found:?} in version {version}, expected {DOMAIN} in {INTAKE_RECEIPT_VERSION}"));
        }
        Ok(Self { chain, transaction, by_index, replica, signature })
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

    fn receipt() -> IntakeReceipt {
        IntakeReceipt::sign(chain(), Digest::of(b"envelope"), 5_007, &key())
    }

    #[test]
    fn a_receipt_is_read_back_and_holds_for_its_transaction_only() {
        let read = IntakeReceipt::from_bytes(&receipt().to_bytes()).unwrap();
        assert_eq!((read.by_index, read.replica), (5_007, key().public()));
        assert_eq!(read.verify(&chain(), b"envelope"), Ok(()));
        let other = read.verify(&chain(), b"another").unwrap_err();
        assert!(matches!(other, IntakeReceiptError::Transaction { found, .. } if found == Digest::of(b"envelope")));
        let other = read.verify(&Digest::of(b"other"), b"envelope").unwrap_err();
        assert_eq!(other, IntakeReceiptError::Chain { expected: Digest::of(b"other"), found: chain() });
    }

    #[test]
    fn a_promise_cannot_be_put_off_nor_given_to_another_replica() {
        let later = IntakeReceipt { by_index: 5_008, ..receipt() };
        assert!(matches!(later.verify(&chain(), b"envelope"), Err(IntakeReceiptError::Signature(_))));
        let other = IntakeReceipt { replica: SecretKey::from_seed([2; 32]).public(), ..receipt() };
        assert!(matches!(other.verify(&chain(), b"envelope"), Err(IntakeReceiptError::Signature(_))));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = receipt().to_bytes();
        assert!(bytes.len() < INTAKE_RECEIPT_SIZE_BYTES_MAX);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = IntakeReceipt::from_bytes(&flipped);
            assert!(read.and_then(|read| read.verify(&chain(), b"envelope")).is_err(), "bit {bit} was not noticed");
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        // Changing this changes the receipts' format.
        let bytes = receipt().to_bytes();
        let start = [[0x87, 0x78, 0x1b].as_slice(), b"fedledger/v1/intake-receipt", &[0x01, 0x58, 0x20]].concat();
        assert!(bytes.starts_with(&start), "{}", hex::encode(&bytes));
        assert_eq!(bytes.len(), 30 + 1 + 34 + 34 + 3 + 34 + 66);
    }
}
