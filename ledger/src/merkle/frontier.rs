//! The state that an append needs: the complete subtrees along the right edge, at most 64 hashes.
//!
//! Also known as a compact range: a log of 0b1101 entries is described by the roots of its subtrees of 8, 4 and 1.

use serde::{Deserialize, Serialize};

use super::{NodeId, empty_root, node_hash};
use crate::Digest;

/// Largest size of a log, in entries. It keeps sizes within a signed 64-bit integer, which other languages' readers of
/// checkpoints use, and the counter from wrapping: no replica appends another 2^63 entries.
pub const LOG_SIZE_MAX: u64 = u64::MAX >> 1;

/// The complete subtrees of a log, one for each bit set in its size; the largest first, which is from left to right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Frontier {
    size: u64,
    nodes: Vec<Digest>,
}

/// A size and nodes that are no frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// The size exceeds [`LOG_SIZE_MAX`].
    #[error("a log of {size} entries is larger than the {LOG_SIZE_MAX} allowed")]
    TooLarge {
        /// Size found, in entries.
        size: u64,
    },
    /// The number of nodes does not fit the size.
    #[error("a log of {size} entries has {expected} complete subtrees, found {found}")]
    NodeCount {
        /// Size of the log, in entries.
        size: u64,
        /// Bits set in the size.
        expected: usize,
        /// Nodes found.
        found: usize,
    },
}

impl Frontier {
    /// The frontier of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frontier of a log of `size` entries, from its complete subtrees, the largest first.
    ///
    /// # Errors
    ///
    /// [`FrontierError`]. The hashes themselves cannot be checked here; compare [`Frontier::root`] with a signed root.
    pub fn from_parts(size: u64, nodes: Vec<Digest>) -> Result<Self, FrontierError> {
        if size > LOG_SIZE_MAX {
            return Err(FrontierError::TooLarge { size });
        }
        let expected = size.count_ones() as usize;
        if nodes.len() != expected {
            return Err(FrontierError::NodeCount { size, expected, found: nodes.len() });
        }
        Ok(Self { size, nodes })
    }

    /// Appends an entry by its leaf hash.
    ///
    /// Returns every subtree that it completes, the leaf itself first: these nodes are final and are to be stored.
    pub fn append(&mut self, leaf: Digest) -> Vec<(NodeId, Digest)> {
        let index = self.size;
        let merged = index.trailing_ones() as usize;
        let mut completed = Vec::with_capacity(merged + 1);
        completed.push((NodeId::leaf(index), leaf));
        let mut hash = leaf;
        // There is a node for each bit set in the size, so at least as many as it has trailing ones.
        let kept = self.nodes.len() - merged;
        for (level, left) in (1u8..).zip(self.nodes.drain(kept..).rev()) {
            hash = node_hash(&left, &hash);
            completed.push((NodeId { level, index: index >> level }, hash));
        }
        self.nodes.push(hash);
        self.size += 1;
        completed
    }

    /// Entries in the log.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, the largest first.
    pub fn nodes(&self) -> &[Digest] {
        &self.nodes
    }

    /// The root of the log.
    pub fn root(&self) -> Digest {
        let nodes = self.nodes.iter().rev().copied();
        nodes.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }
}

/// A frontier as encoded, before it is checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    size: u64,
    nodes: Vec<Digest>,
}

impl TryFrom<Parts> for Frontier {
    type Error = FrontierError;

    fn try_from(parts: Parts) -> Result<Self, FrontierError> {
        Self::from_parts(parts.size, parts.nodes)
    }
}

impl From<Frontier> for Parts {
    fn from(frontier: Frontier) -> Self {
        Self { size: frontier.size, nodes: frontier.nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, merkle::leaf_hash};

    fn frontier_of(size: u64) -> Frontier {
        let mut frontier = Frontier::new();
        for index in 0..size {
            frontier.append(leaf_hash(&index.to_be_bytes()));
        }
        frontier
    }

    #[test]
    fn an_append_reports_every_subtree_that_it_completes() {
        let mut frontier = frontier_of(11);
        let before = frontier.nodes().to_vec();
        let completed = frontier.append(leaf_hash(b"twelfth"));
        let pair = node_hash(&before[2], &leaf_hash(b"twelfth"));
        let expected = [
            (NodeId { level: 0, index: 11 }, leaf_hash(b"twelfth")),
            (NodeId { level: 1, index: 5 }, pair),
            (NodeId { level: 2, index: 2 }, node_hash(&before[1], &pair)),
        ];
        assert_eq!(completed, expected);
    }

    #[test]
    fn a_frontier_survives_encoding_and_parts() {
        for size in 0..70 {
            let frontier = frontier_of(size);
            let bytes = codec::encode(&frontier);
            assert_eq!(codec::decode(&bytes, 4096), Ok(frontier.clone()), "size {size}");
            assert_eq!(Frontier::from_parts(size, frontier.nodes().to_vec()), Ok(frontier));
        }
    }

    #[test]
    fn a_wrong_number_of_nodes_is_refused_also_by_the_decoder() {
        let error = FrontierError::NodeCount { size: 5, expected: 2, found: 3 };
        assert_eq!(Frontier::from_parts(5, vec![Digest::default(); 3]), Err(error));
        let bytes = codec::encode(&Parts { size: 5, nodes: vec![Digest::default(); 3] });
        let decoded = codec::decode::<Frontier>(&bytes, 4096).unwrap_err();
        assert!(decoded.to_string().contains(&error.to_string()), "{decoded}");
    }

    #[test]
    fn the_size_is_bounded_so_that_it_cannot_wrap() {
        let size = LOG_SIZE_MAX + 1;
        assert_eq!(Frontier::from_parts(size, vec![Digest::default()]), Err(FrontierError::TooLarge { size }));
        let mut largest = Frontier::from_parts(LOG_SIZE_MAX, vec![Digest::default(); 63]).unwrap();
        assert_eq!(largest.append(Digest::default()).len(), 64);
        assert_eq!((largest.size(), largest.nodes().len()), (1 << 63, 1));
    }
}
