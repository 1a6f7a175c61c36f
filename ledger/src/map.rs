//! The authenticated map over the replicated records: its root is the state root.
//!
//! Every replica and every offline verifier computes the root at each seal; whoever holds a root can check with a
//! [`StateProof`] alone that a record has a value, or that there is none. The root depends on the records only, not on
//! the order or history of the writes.
//!
//! # Construction
//!
//! A record stands at the *position* SHA-256(key), read as 256 bits from the most significant bit of the first byte (bit
//! 0) to the least significant of the last (bit 255). The map is the binary PATRICIA tree (D. R. Morrison, J. ACM 15(4),
//! 1968) over the positions: a set of records with more than one position is split at the first bit in which any two of
//! them differ; those with 0 there are its left side, those with 1 its right side. So every set of records has exactly
//! one tree, every inner node has two sides, and the bits rise along every way from the root.
//!
//! ```text
//! position of a record = SHA-256(key)
//! hash of one record   = SHA-256("fedledger/v1/state/leaf\n" || position || SHA-256(value))
//! hash of several      = SHA-256("fedledger/v1/state/node\n" || bit, one byte || hash of left || hash of right)
//! hash of none         = SHA-256("fedledger/v1/state/empty\n")
//! ```
//!
//! The root is the hash of all records. The inputs of the three kinds of hash begin differently and have one length
//! each (88, 89 and 25 bytes), so no node can be presented as one of another kind, nor its parts be divided otherwise.
//!
//! # Proofs
//!
//! A proof for a key holds the record at which the way of the key ends, and the bit and other side's hash of every inner
//! node on the way. At each of them the key goes where its own bit says, so a root leaves no choice of where its way
//! ends: at the key's own record, or at another one, which shows that the key has none. Hence no root, honest or not, has
//! proofs both of presence and of absence of one key, unless SHA-256 collides. `docs/formats/state-proof.md` describes
//! the bytes of a proof, for whoever writes a verifier.

mod hashing;
mod proof;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

pub use self::proof::{STATE_PROOF_SIZE_BYTES_MAX, StateProof, StateProofError};
use self::{
    hashing::{Position, empty_root},
    tree::Subtree,
};
use crate::Digest;

/// The hashes of all records, by key. The values themselves are not kept.
///
/// A clone costs one reference count and shares all nodes: taken at a seal it goes on proving that state while the
/// original changes. A record takes about 220 bytes of memory; a clone that is kept takes about 1 KB more for every key
/// that was changed since. Hashes are computed when a root or a proof is asked for, each node's once, however often the
/// records below it were written since the last time.
#[derive(Clone, Default)]
pub struct StateMap {
    root: Option<Subtree>,
    len: usize,
}

impl StateMap {
    /// Applies changes in their order: `Some` writes the value of a key, `None` removes the key, if it is there.
    ///
    /// It takes the writes of a [`WriteSet`](crate::machine::WriteSet) as they come, and any number of them in a row.
    pub fn apply<K: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, changes: impl IntoIterator<Item = (K, Option<V>)>) {
        for (key, value) in changes {
            let position = Position::of(key.as_ref());
            match value {
                Some(value) => self.put(position, Digest::of(value.as_ref())),
                None => self.remove(&position),
            }
        }
    }

    /// The state root. After changes it costs some ten hashes for each of them, again nothing.
    pub fn root(&self) -> Digest {
        self.root.as_ref().map_or_else(empty_root, Subtree::hash)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// SHA-256 of the value of `key`, if there is a record.
    pub fn value_digest(&self, key: &[u8]) -> Option<Digest> {
        let position = Position::of(key);
        let leaf = self.root.as_ref()?.nearest(&position).leaf;
        (leaf.position == position).then_some(leaf.value)
    }

    /// The proof of what is recorded under `key`: its value, or that there is none.
    pub fn prove(&self, key: &[u8]) -> StateProof {
        self.prove_at(&Position::of(key))
    }

    fn prove_at(&self, position: &Position) -> StateProof {
        self.root.as_ref().map_or_else(StateProof::of_empty_map, |root| StateProof::along(root, position))
    }

    fn put(&mut self, position: Position, value: Digest) {
        if tree::put(&mut self.root, position, value) {
            self.len += 1;
        }
    }

    fn remove(&mut self, position: &Position) {
        if tree::remove(&mut self.root, position) {
            self.len -= 1;
        }
    }
}

impl fmt::Debug for StateMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMap").field("root", &self.root()).field("len", &self.len).finish()
    }
}
