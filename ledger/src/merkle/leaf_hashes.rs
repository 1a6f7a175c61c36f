//! The tree of a log that was replayed in memory, for making proofs without a storage.

use std::convert::Infallible;

use super::{NodeId, ProofError, consistency_proof, inclusion_proof, node_hash, root_at};
use crate::Digest;

/// The hashes of all entries, in order: 32 bytes each.
///
/// Making a proof hashes all of them again, which takes some milliseconds for 100,000 entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeafHashes(Vec<Digest>);

impl LeafHashes {
    /// Adds the [hash](super::leaf_hash) of the next entry.
    pub fn push(&mut self, hash: Digest) {
        self.0.push(hash);
    }

    /// The hash of the entry at `index`, if it is there.
    pub fn get(&self, index: u64) -> Option<Digest> {
        self.0.get(usize::try_from(index).ok()?).copied()
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.0.len() as u64
    }

    /// The root of the log of the first `size` entries; none if there are fewer.
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        if size > self.size() {
            return None;
        }
        root_at(size, |node| Ok::<_, Infallible>(self.node(node))).ok()
    }

    /// Proves that the entry at `index` is in the log of the first `size` entries; see [`inclusion_proof`].
    ///
    /// # Errors
    ///
    /// [`ProofError::IndexOutOfRange`] if the log of `size` entries, or this one, does not have the entry.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, ProofError<Infallible>> {
        if size > self.size() {
            return Err(ProofError::IndexOutOfRange { index: size - 1, size: self.size() });
        }
        inclusion_proof(index, size, |node| Ok(self.node(node)))
    }

    /// Proves that the log of the first `new_size` entries begins with that of `old_size`; see [`consistency_proof`].
    ///
    /// # Errors
    ///
    /// [`ProofError`] if there are not so many entries, or `old_size` is the larger one.
    pub fn consistency(&self, old_size: u64, new_size: u64) -> Result<Vec<Digest>, ProofError<Infallible>> {
        if new_size > self.size() {
            return Err(ProofError::IndexOutOfRange { index: new_size - 1, size: self.size() });
        }
        consistency_proof(old_size, new_size, |node| Ok(self.node(node)))
    }

    /// The root of a complete subtree, which callers ask for only if it is there.
    fn node(&self, node: NodeId) -> Digest {
        let width = 1_usize.checked_shl(node.level.into()).unwrap_or(usize::MAX);
        let begin = usize::try_from(node.index).unwrap_or(usize::MAX).saturating_mul(width);
        let leaves = self.0.get(begin..begin.saturating_add(width)).unwrap_or_default();
        subtree(leaves)
    }
}

/// The root over a power of two of hashes.
fn subtree(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => super::empty_root(),
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len() / 2);
            node_hash(&subtree(left), &subtree(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Frontier, leaf_hash, verify_consistency, verify_inclusion};

    #[test]
    fn roots_and_proofs_are_those_of_the_log_as_it_grew() {
        let (mut hashes, mut frontier) = (LeafHashes::default(), Frontier::new());
        for size in 1..=40_u64 {
            let hash = leaf_hash(&size.to_be_bytes());
            hashes.push(hash);
            frontier.append(hash);
            assert_eq!(hashes.root_at(size), Some(frontier.root()));
        }
        for size in 1..=40 {
            let root = hashes.root_at(size).unwrap();
            for index in 0..size {
                let proof = hashes.inclusion(index, size).unwrap();
                let leaf = leaf_hash(&(index + 1).to_be_bytes());
                assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
            }
            assert!(hashes.inclusion(size, size).is_err());
            for old_size in 1..=size {
                let proof = hashes.consistency(old_size, size).unwrap();
                let old = hashes.root_at(old_size).unwrap();
                assert_eq!(verify_consistency(old_size, &old, size, &root, &proof), Ok(()));
            }
        }
        assert!(hashes.inclusion(0, 41).is_err());
        assert!(hashes.consistency(1, 41).is_err() && hashes.consistency(3, 2).is_err());
        assert_eq!(hashes.root_at(41), None);
    }
}
