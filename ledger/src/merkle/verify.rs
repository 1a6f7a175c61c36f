//! Verification of proofs by someone who has nothing but the proof and the roots (RFC 9162, sections 2.1.3.2, 2.1.4.2).
//!
//! The RFC words verification as a loop that shifts two numbers; here the same path is taken in closed form, so that
//! the one possible length of the proof is known before anything is hashed. The tests hold both forms against each
//! other.
//!
//! A proof binds an entry to a root, not to a size: where several sizes give the path the same shape, the proof
//! verifies with each of them. The size is bound to the root by the signature of a checkpoint; verify that first and
//! pass its size.

use super::{Path, empty_root, node_hash};
use crate::Digest;

/// A proof that does not show what it claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofMismatch {
    /// The log has no such entry.
    #[error("entry {index} is not in a log of {size} entries")]
    IndexOutOfRange {
        /// Index claimed.
        index: u64,
        /// Size of the log, in entries.
        size: u64,
    },
    /// The earlier size is the larger one: the log has shrunk.
    #[error("a log of {old} entries cannot have become one of {new} entries")]
    SizesOutOfOrder {
        /// Earlier size, in entries.
        old: u64,
        /// Later size, in entries.
        new: u64,
    },
    /// A proof for this place has exactly one possible length.
    #[error("the proof must have {expected} hashes, found {found}")]
    Length {
        /// Hashes needed.
        expected: usize,
        /// Hashes found.
        found: usize,
    },
    /// The proof leads to another root than that of the log.
    #[error("the proof leads to root {computed}, the log has root {expected}")]
    Root {
        /// Root that follows from the proof.
        computed: Digest,
        /// Root that was to be reached.
        expected: Digest,
    },
    /// The proof leads to another root than that of the earlier log.
    #[error("the proof leads to root {computed}, the earlier log has root {expected}")]
    OldRoot {
        /// Root that follows from the proof.
        computed: Digest,
        /// Root that was to be reached.
        expected: Digest,
    },
}

/// Checks that the entry at `index` with hash `leaf_hash` is in the log of `size` entries with root `root`.
///
/// # Errors
///
/// [`ProofMismatch`] if that is not shown. `size` must come from the same signed checkpoint as `root`; see above.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf_hash: &Digest,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofMismatch> {
    let path = Path::of_leaf(index, size).ok_or(ProofMismatch::IndexOutOfRange { index, size })?;
    check_length(path.len(), proof)?;
    check_root(climb(path, *leaf_hash, proof), root)
}

/// Checks that the log of `old_size` entries is the beginning of the log of `new_size` entries, given both roots.
///
/// An empty log is the beginning of every log: with `old_size` 0 nothing is learnt about `new_root`.
///
/// # Errors
///
/// [`ProofMismatch`] if that is not shown. By itself this is no evidence of a fork: anyone can make a wrong proof.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Digest,
    new_size: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), ProofMismatch> {
    if old_size > new_size {
        return Err(ProofMismatch::SizesOutOfOrder { old: old_size, new: new_size });
    }
    if old_size == 0 {
        check_old_root(empty_root(), old_root)?;
    }
    if old_size == new_size {
        check_length(0, proof)?;
        return check_root(*old_root, new_root);
    }
    // Only the empty log has no last entry.
    let Some(path) = old_size.checked_sub(1).and_then(|last| Path::of_leaf(last, new_size)) else {
        return check_length(0, proof);
    };
    // From the smallest complete subtree of the old log, which is its last, the way leads to both roots: siblings on
    // the left belong to both logs, those on the right to the new one only. As the new log has entries to the right of
    // this subtree, the subtree lies below the end of the inner path.
    let path = path.above(old_size.trailing_zeros());
    let (start, siblings) = if old_size.is_power_of_two() {
        check_length(path.len(), proof)?;
        (old_root, proof)
    } else {
        let expected = path.len() + 1;
        check_length(expected, proof)?;
        proof.split_first().ok_or(ProofMismatch::Length { expected, found: 0 })?
    };
    check_old_root(climb_left(path, *start, siblings), old_root)?;
    check_root(climb(path, *start, siblings), new_root)
}

/// The root over all siblings, starting from the node at the path's begin.
fn climb(path: Path, start: Digest, siblings: &[Digest]) -> Digest {
    siblings.iter().enumerate().fold(start, |hash, (step, sibling)| {
        if path.is_left(step) { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) }
    })
}

/// The root over the siblings on the left: that of the log which ends with the start node.
fn climb_left(path: Path, start: Digest, siblings: &[Digest]) -> Digest {
    let left = siblings.iter().enumerate().filter(|(step, _)| path.is_left(*step));
    left.fold(start, |hash, (_, sibling)| node_hash(sibling, &hash))
}

fn check_length(expected: usize, proof: &[Digest]) -> Result<(), ProofMismatch> {
    if proof.len() == expected { Ok(()) } else { Err(ProofMismatch::Length { expected, found: proof.len() }) }
}

fn check_root(computed: Digest, expected: &Digest) -> Result<(), ProofMismatch> {
    if computed == *expected { Ok(()) } else { Err(ProofMismatch::Root { computed, expected: *expected }) }
}

fn check_old_root(computed: Digest, expected: &Digest) -> Result<(), ProofMismatch> {
    if computed == *expected { Ok(()) } else { Err(ProofMismatch::OldRoot { computed, expected: *expected }) }
}
