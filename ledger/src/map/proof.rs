//! Proofs of what is recorded under a key, checked with nothing but the root.

use serde::{Deserialize, Serialize};

use super::{
    hashing::{Position, empty_root, inner_hash, leaf_hash},
    tree::{Node, Subtree},
};
use crate::{
    Digest,
    codec::{self, CodecError},
};

/// Size of the largest proof, in bytes: a record and a step for each of the 256 bits.
pub const STATE_PROOF_SIZE_BYTES_MAX: usize = 9_531;

/// Shows under one state root that a key has a certain value, or none.
///
/// For a root and a key there is exactly one proof, and it has exactly one encoding. In a map of 100,000 records it has
/// about 690 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateProof(Parts);

/// The proof as it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    /// Position and value digest of the record at which the key's way ends; none if the map is empty.
    leaf: Option<(Position, Digest)>,
    /// From the root on, the bit at which the way divides and the hash of the side that it does not take.
    path: Vec<(u8, Digest)>,
}

/// Bytes that are no proof, or a proof that does not show what is claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateProofError {
    /// Not the encoding of a proof.
    #[error("not a state proof: {0}")]
    Encoding(#[from] CodecError),
    /// A way that divides at a bit which it has passed already.
    #[error("not a state proof: it divides at bit {bit} after bit {previous}, but bits must rise from the root on")]
    Order {
        /// Bit of the earlier step.
        previous: u8,
        /// Bit of the step after it.
        bit: u8,
    },
    /// A way to no record.
    #[error("not a state proof: it has {steps} steps but no record, which only the empty state lacks")]
    StepsWithoutRecord {
        /// Number of steps.
        steps: usize,
    },
    /// The proof belongs to another state, or was changed.
    #[error("the proof leads to state root {computed}, expected was {expected}")]
    Root {
        /// Root that follows from the proof.
        computed: Digest,
        /// Root that was to be reached.
        expected: Digest,
    },
    /// The proof was made for another key.
    #[error("the proof follows another key, whose way leaves that of this one at bit {bit}: ask for one of this key")]
    OtherKey {
        /// Bit at which the ways part.
        bit: u8,
    },
    /// A value was claimed, but the proof shows that there is none.
    #[error("the state has no record under this key")]
    Absent,
    /// Absence was claimed, but the proof shows a value.
    #[error("the state has a record under this key, its value has digest {0}")]
    Present(Digest),
    /// Another value was claimed than the proof shows.
    #[error("the value under this key has digest {recorded}, that of the given one is {given}")]
    Value {
        /// SHA-256 of the recorded value.
        recorded: Digest,
        /// SHA-256 of the value that was claimed.
        given: Digest,
    },
}

impl StateProof {
    /// The proof that a map without records has none under any key.
    pub(super) fn of_empty_map() -> Self {
        Self(Parts { leaf: None, path: Vec::new() })
    }

    /// The proof of what stands at `position` in the map of these records.
    pub(super) fn along(root: &Subtree, position: &Position) -> Self {
        let (mut subtree, mut path) = (root, Vec::new());
        let leaf = loop {
            match &subtree.node {
                Node::Leaf(leaf) => break (leaf.position, leaf.value),
                Node::Inner(inner) => {
                    let bit = position.bit(inner.bit);
                    path.push((inner.bit, inner.side(!bit).hash()));
                    subtree = inner.side(bit);
                }
            }
        };
        Self(Parts { leaf: Some(leaf), path })
    }

    /// The encoding of the proof, at most [`STATE_PROOF_SIZE_BYTES_MAX`] long.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&self.0)
    }

    /// Reads a proof. Nothing that it says may be relied on before [`StateProof::verify`] has accepted it.
    ///
    /// # Errors
    ///
    /// [`StateProofError::Encoding`], [`StateProofError::Order`] or [`StateProofError::StepsWithoutRecord`] if no map
    /// has such a proof, or it would be encoded otherwise.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateProofError> {
        let parts: Parts = codec::decode(bytes, STATE_PROOF_SIZE_BYTES_MAX)?;
        for ((previous, _), (bit, _)) in parts.path.iter().zip(parts.path.iter().skip(1)) {
            if previous >= bit {
                return Err(StateProofError::Order { previous: *previous, bit: *bit });
            }
        }
        if parts.leaf.is_none() && !parts.path.is_empty() {
            return Err(StateProofError::StepsWithoutRecord { steps: parts.path.len() });
        }
        Ok(Self(parts))
    }

    /// Checks that in the state with this root `key` has exactly `value`, or for `None` that it has no value.
    ///
    /// `root` must come from a source that is trusted for itself, such as a seal below a co-signed checkpoint.
    ///
    /// # Errors
    ///
    /// [`StateProofError`] if the proof does not show that. If it is [`StateProofError::Absent`],
    /// [`StateProofError::Present`] or [`StateProofError::Value`], the proof shows that the claim is false; otherwise
    /// it shows nothing about the key.
    pub fn verify(&self, root: &Digest, key: &[u8], value: Option<&[u8]>) -> Result<(), StateProofError> {
        self.verify_at(root, &Position::of(key), value.map(Digest::of))
    }

    /// [`StateProof::verify`], given the digests of key and value.
    pub(super) fn verify_at(
        &self,
        root: &Digest,
        position: &Position,
        value: Option<Digest>,
    ) -> Result<(), StateProofError> {
        let computed = self.root();
        if computed != *root {
            return Err(StateProofError::Root { computed, expected: *root });
        }
        match (self.recorded(position)?, value) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(StateProofError::Absent),
            (Some(recorded), None) => Err(StateProofError::Present(recorded)),
            (Some(recorded), Some(given)) if recorded == given => Ok(()),
            (Some(recorded), Some(given)) => Err(StateProofError::Value { recorded, given }),
        }
    }

    /// The root of the map from which the proof comes.
    fn root(&self) -> Digest {
        let Some((end, value)) = &self.0.leaf else { return empty_root() };
        self.0.path.iter().rev().fold(leaf_hash(end, value), |hash, (bit, other)| {
            if end.bit(*bit) { inner_hash(*bit, other, &hash) } else { inner_hash(*bit, &hash, other) }
        })
    }

    /// What the proof, if its root is right, says about the value at `position`.
    fn recorded(&self, position: &Position) -> Result<Option<Digest>, StateProofError> {
        let Some((end, value)) = &self.0.leaf else { return Ok(None) };
        // The proof follows the way of the record at its end; for other keys it speaks only if theirs is the same.
        match self.0.path.iter().find(|(bit, _)| end.bit(*bit) != position.bit(*bit)) {
            Some((bit, _)) => Err(StateProofError::OtherKey { bit: *bit }),
            None => Ok((end == position).then_some(*value)),
        }
    }
}
