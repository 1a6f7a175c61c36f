//! The leaf: one transaction, its place and its fate, as hashed into the Merkle log.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    digest::Digest,
    limits::{GENESIS_SIZE_BYTES_MAX, LEAF_SIZE_BYTES_MAX},
    seal::Seal,
};

/// The version of the leaf that this code writes and reads.
pub const LEAF_VERSION: u64 = 2;

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Accepted,
    /// It was refused by the state machine and changed nothing; the code says why.
    Rejected(String),
}

/// One entry of the log. Index 0 is the genesis file itself and has no leaf structure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "LeafTuple", try_from = "LeafTuple")]
pub struct Leaf {
    /// Position in the log; the genesis file is 0.
    pub index: u64,
    /// Position of the transaction in the replicated Raft log. It rises with `index` and lets a replica that received
    /// leaves from a peer recognise entries that it has already applied.
    pub raft_index: u64,
    /// The signed envelope, as received.
    pub envelope: Vec<u8>,
    /// The transaction's fate.
    pub outcome: Outcome,
    /// Digest of everything that the transaction changed in the replicated state; see
    /// [`WriteSet::digest`](crate::machine::WriteSet::digest).
    pub write_set: Digest,
    /// What the entry fixes, if it is a seal that took effect.
    pub seal: Option<Seal>,
}

impl Leaf {
    /// The canonical bytes that the Merkle log hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a leaf.
    ///
    /// # Errors
    ///
    /// [`CodecError`] for anything but a canonical leaf of at most [`LEAF_SIZE_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, LEAF_SIZE_BYTES_MAX)
    }

    /// The largest size in bytes of what may stand at `index`.
    pub const fn size_bytes_max(index: u64) -> usize {
        if index == 0 { GENESIS_SIZE_BYTES_MAX } else { LEAF_SIZE_BYTES_MAX }
    }
}

impl Outcome {
    /// `accepted`, or the rejection's code.
    pub fn code(&self) -> &str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected(code) => code,
        }
    }

    /// Whether the transaction took effect.
    pub const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted)
    }
}

#[derive(Serialize, Deserialize)]
struct LeafTuple(u64, u64, u64, #[serde(with = "serde_bytes")] Vec<u8>, Option<String>, Digest, Option<Seal>);

impl From<Leaf> for LeafTuple {
    fn from(leaf: Leaf) -> Self {
        let code = match leaf.outcome {
            Outcome::Accepted => None,
            Outcome::Rejected(code) => Some(code),
        };
        Self(LEAF_VERSION, leaf.index, leaf.raft_index, leaf.envelope, code, leaf.write_set, leaf.seal)
    }
}

impl TryFrom<LeafTuple> for Leaf {
    type Error = String;

    fn try_from(tuple: LeafTuple) -> Result<Self, String> {
        let LeafTuple(version, index, raft_index, envelope, code, write_set, seal) = tuple;
        if version != LEAF_VERSION {
            return Err(format!("leaf version {version}, this software knows {LEAF_VERSION}"));
        }
        let outcome = code.map_or(Outcome::Accepted, Outcome::Rejected);
        if seal.is_some() && !outcome.is_accepted() {
            return Err("a seal that did not take effect fixes nothing".to_owned());
        }
        Ok(Self { index, raft_index, envelope, outcome, write_set, seal })
    }
}
