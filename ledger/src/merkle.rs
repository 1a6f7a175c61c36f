//! The Merkle tree over the entries of the log (RFC 6962, section 2.1; RFC 9162 defines the same tree).
//!
//! A log of `size` entries is split at the largest power of two below `size`, again and again. So every subtree left of
//! the right edge is perfect and, once complete, never changes: its root can be stored for good under its [`NodeId`].
//! Only the hashes along the right edge change with each entry; they are never stored but computed from the complete
//! subtrees.
//!
//! ```text
//!           root of 7              o      level 3: right edge, computed
//!                           /             \
//!                      *                    o
//!                  /       \            /       \
//!                *           *         *         |     level 1
//!              /   \       /   \     /   \       |
//!             0     1     2     3   4     5      6     level 0: leaf hashes
//! ```
//!
//! Proofs are verified in the pure form of the RFC, without shortcuts. Everything here is total: any `u64` may be
//! passed as a size or an index.

mod frontier;
mod leaf_hashes;
mod prove;
#[cfg(test)]
mod tests;
mod verify;

pub use frontier::{Frontier, LOG_SIZE_MAX};
pub use leaf_hashes::LeafHashes;
pub use prove::{ProofError, consistency_proof, inclusion_proof, root_at};
pub use verify::{ProofMismatch, verify_consistency, verify_inclusion};

use crate::Digest;

/// Prefix of a hashed leaf: no leaf can be presented as an inner node, nor the reverse (RFC 6962, section 2.1).
const LEAF_PREFIX: u8 = 0x00;

/// Prefix of a hashed pair of nodes.
const NODE_PREFIX: u8 = 0x01;

/// The hash of one entry.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::of_parts(&[&[LEAF_PREFIX], entry])
}

/// The hash of two subtrees that stand side by side.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest::of_parts(&[&[NODE_PREFIX], left.as_bytes(), right.as_bytes()])
}

/// The root of a log without entries: the digest of nothing.
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// A perfect subtree: the `2^level` entries from `index * 2^level` on.
///
/// Nodes are ordered by level, then from left to right; their keys are ordered alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Height above the leaves, which have level 0; at most 63.
    pub level: u8,
    /// Position among the nodes of the level, from 0.
    pub index: u64,
}

impl NodeId {
    /// The leaf of the entry at `index`.
    pub const fn leaf(index: u64) -> Self {
        Self { level: 0, index }
    }

    /// The storage key: the level, then the index in big-endian order.
    pub fn to_key(self) -> [u8; 9] {
        let mut key = [0; 9];
        let (level, index) = key.split_at_mut(1);
        level.copy_from_slice(&[self.level]);
        index.copy_from_slice(&self.index.to_be_bytes());
        key
    }
}

/// The way from a node to the root, in a tree that need not be perfect.
///
/// For `inner` levels it follows the bits of the node's index, with a sibling on either side. From there it runs along
/// the right edge of the tree, where only the levels whose index bit is set have a sibling, always on the left.
#[derive(Clone, Copy)]
struct Path {
    /// Position of the node among those of its level.
    index: u64,
    /// Levels climbed before the right edge is reached, each with a sibling.
    inner: u32,
    /// Siblings along the right edge.
    border: u32,
}

impl Path {
    /// The path of the leaf at `index` in a tree of `size` leaves; `None` if it is not in the tree.
    fn of_leaf(index: u64, size: u64) -> Option<Self> {
        let last = size.checked_sub(1).filter(|last| index <= *last)?;
        let inner = u64::BITS - (index ^ last).leading_zeros();
        let border = index.checked_shr(inner).unwrap_or(0).count_ones();
        Some(Self { index, inner, border })
    }

    /// The rest of the path, from the node `level` levels up; the first `level` siblings must be within `inner`.
    fn above(self, level: u32) -> Self {
        Self { index: self.index >> level, inner: self.inner - level, border: self.border }
    }

    /// Number of siblings, which is the length of a proof.
    fn len(&self) -> usize {
        (self.inner + self.border) as usize
    }

    /// Whether the sibling at `step` of a proof stands on the left.
    fn is_left(&self, step: usize) -> bool {
        step >= self.inner as usize || self.index >> step & 1 == 1
    }
}
