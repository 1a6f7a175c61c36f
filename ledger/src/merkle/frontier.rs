//! The state that an append needs: the complete subtrees along the right edge, at most 64 hashes.
//!
//! Also known as a compact range: a log of 0b1101 entries is described by the roots of its subtrees of 8, 4 and 1.

use super::{NodeId, empty_root, node_hash};
use crate::Digest;

/// Largest size of a log, in entries. It keeps sizes within a signed 64-bit integer, which other languages' readers of
/// checkpoints use, and the counter from wrapping: no replica appends another 2^63 entries.
pub const LOG_SIZE_MAX: u64 = u64::MAX >> 1;

/// The complete subtrees of a log, one for each bit set in its size; the largest first, which is from left to right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Digest>,
}

impl Frontier {
    /// The frontier of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frontier of a log of `size` entries whose nodes are stored.
    ///
    /// # Errors
    ///
    /// Those of `fetch`.
    pub fn read<E>(size: u64, mut fetch: impl FnMut(NodeId) -> Result<Digest, E>) -> Result<Self, E> {
        let levels = (0..u64::BITS as u8).rev().filter(|level| size >> level & 1 == 1);
        // Left of the subtree for this bit lie as many entries as the bits above it say.
        let nodes =
            levels.map(|level| fetch(NodeId { level, index: (size >> level) - 1 })).collect::<Result<_, E>>()?;
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use super::*;
    use crate::merkle::leaf_hash;

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
    fn a_frontier_is_read_from_the_nodes_that_its_appends_reported() {
        let (mut frontier, mut nodes) = (Frontier::new(), BTreeMap::new());
        for index in 0..70_u64 {
            assert_eq!(Frontier::read(index, |node| nodes.get(&node).copied().ok_or(node)), Ok(frontier.clone()));
            nodes.extend(frontier.append(leaf_hash(&index.to_be_bytes())));
        }
        assert_eq!(
            Frontier::read(72, |node| nodes.get(&node).copied().ok_or(node)),
            Err(NodeId { level: 3, index: 8 })
        );
    }

    #[test]
    fn the_largest_log_takes_one_more_entry_without_wrapping() {
        let mut largest = Frontier::read(LOG_SIZE_MAX, |_| Ok::<_, Infallible>(Digest::default())).unwrap();
        assert_eq!(largest.nodes().len(), 63);
        assert_eq!(largest.append(Digest::default()).len(), 64);
        assert_eq!((largest.size(), largest.nodes().len()), (1 << 63, 1));
    }
}
