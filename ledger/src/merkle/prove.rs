//! Proofs about the log, from the complete subtrees that were stored as it grew.

use std::iter;

use super::{NodeId, Path, empty_root, node_hash};
use crate::Digest;

/// A proof that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E> {
    /// The log has no such entry.
    #[error("entry {index} is not in a log of {size} entries")]
    IndexOutOfRange {
        /// Index asked for.
        index: u64,
        /// Size of the log, in entries.
        size: u64,
    },
    /// The earlier size is the larger one.
    #[error("a log of {old} entries cannot have grown to {new} entries")]
    SizesOutOfOrder {
        /// Earlier size, in entries.
        old: u64,
        /// Later size, in entries.
        new: u64,
    },
    /// A node of the log could not be read.
    #[error("cannot read a node of the log: {0}")]
    Fetch(#[source] E),
}

/// Proves that the entry at `index` is in the log of the first `size` entries (RFC 6962, section 2.1.1).
///
/// The proof lists siblings from the leaf to the root. `fetch` is asked for nodes that are complete at `size` only, at
/// most 64 on the path and 64 for the right edge.
///
/// # Errors
///
/// [`ProofError`]; errors of `fetch` are passed on.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    mut fetch: impl FnMut(NodeId) -> Result<Digest, E>,
) -> Result<Vec<Digest>, ProofError<E>> {
    let path = Path::of_leaf(index, size).ok_or(ProofError::IndexOutOfRange { index, size })?;
    let mut proof = Vec::with_capacity(path.len());
    push_siblings(&mut proof, path, 0, size, &mut fetch).map_err(ProofError::Fetch)?;
    Ok(proof)
}

/// Proves that the log of `old` entries is the beginning of the log of `new` entries (RFC 6962, section 2.1.2).
///
/// The proof is empty if both sizes are equal, and if `old` is 0, where there is nothing to prove.
///
/// # Errors
///
/// [`ProofError`]; errors of `fetch` are passed on.
pub fn consistency_proof<E>(
    old: u64,
    new: u64,
    mut fetch: impl FnMut(NodeId) -> Result<Digest, E>,
) -> Result<Vec<Digest>, ProofError<E>> {
    if old > new {
        return Err(ProofError::SizesOutOfOrder { old, new });
    }
    if old == new {
        return Ok(Vec::new());
    }
    let Some(path) = old.checked_sub(1).and_then(|last| Path::of_leaf(last, new)) else {
        return Ok(Vec::new());
    };
    // The proof starts at the smallest complete subtree of the old log. If that is all of it, its root is known.
    let level = old.trailing_zeros();
    let mut proof = Vec::with_capacity(path.len() + 1);
    if !old.is_power_of_two() {
        let start = NodeId { level: level as u8, index: path.index >> level };
        proof.push(fetch(start).map_err(ProofError::Fetch)?);
    }
    push_siblings(&mut proof, path, level, new, &mut fetch).map_err(ProofError::Fetch)?;
    Ok(proof)
}

/// The root of the log of the first `size` entries, for any size that the log has had.
///
/// # Errors
///
/// Those of `fetch`.
pub fn root_at<E>(size: u64, mut fetch: impl FnMut(NodeId) -> Result<Digest, E>) -> Result<Digest, E> {
    range_root(0, size, &mut fetch)
}

/// Appends the siblings along the path of a leaf, from `level` upwards.
fn push_siblings<E>(
    proof: &mut Vec<Digest>,
    path: Path,
    level: u32,
    size: u64,
    fetch: &mut impl FnMut(NodeId) -> Result<Digest, E>,
) -> Result<(), E> {
    for level in level..u64::BITS {
        let index = path.index >> level;
        if level < path.inner || index & 1 == 1 {
            proof.push(subtree_root(level, index ^ 1, size, fetch)?);
        }
    }
    Ok(())
}

/// The root of the subtree at a level and index, cut off at `size` if the right edge runs through it.
fn subtree_root<E>(
    level: u32,
    index: u64,
    size: u64,
    fetch: &mut impl FnMut(NodeId) -> Result<Digest, E>,
) -> Result<Digest, E> {
    if index < size >> level {
        fetch(NodeId { level: level as u8, index })
    } else {
        range_root(index << level, size, fetch)
    }
}

/// The root over entries `begin..end`, where a perfect subtree that starts at `begin` could hold them all.
fn range_root<E>(begin: u64, end: u64, fetch: &mut impl FnMut(NodeId) -> Result<Digest, E>) -> Result<Digest, E> {
    let mut root = None;
    for node in complete_subtrees(begin, end) {
        let left = fetch(node)?;
        root = Some(root.map_or(left, |right| node_hash(&left, &right)));
    }
    Ok(root.unwrap_or_else(empty_root))
}

/// The perfect subtrees that make up `begin..end`, from right to left, which is from the smallest to the largest.
fn complete_subtrees(begin: u64, end: u64) -> impl Iterator<Item = NodeId> {
    let (mut rest, mut end) = (end - begin, end);
    iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let level = rest.trailing_zeros();
        end -= 1 << level;
        rest -= 1 << level;
        Some(NodeId { level: level as u8, index: end >> level })
    })
}
