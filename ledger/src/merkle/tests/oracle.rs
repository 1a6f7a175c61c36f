//! The definitions of the RFCs, followed to the letter and without regard to cost.

use crate::{
    Digest,
    merkle::{empty_root, node_hash},
};

/// On which side of a path a sibling stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// The largest power of two below `count`, which must exceed 1.
fn split(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// MTH of RFC 6962, section 2.1, over leaf hashes.
pub fn tree_hash(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&tree_hash(left), &tree_hash(right))
        }
    }
}

/// PATH of RFC 6962, section 2.1.1.
pub fn audit_path(index: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) =
        if index < middle { (audit_path(index, left), right) } else { (audit_path(index - middle, right), left) };
    path.push(tree_hash(sibling));
    path
}

/// PROOF of RFC 6962, section 2.1.2, for `old` of at least 1.
pub fn consistency_path(old: usize, leaves: &[Digest]) -> Vec<Digest> {
    subproof(old, leaves, true)
}

/// SUBPROOF of RFC 6962, section 2.1.2.
fn subproof(old: usize, leaves: &[Digest], whole: bool) -> Vec<Digest> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![tree_hash(leaves)] };
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) =
        if old <= middle { (subproof(old, left, whole), right) } else { (subproof(old - middle, right, false), left) };
    path.push(tree_hash(sibling));
    path
}

/// The sides of the siblings along the path of a leaf, from the leaf upwards.
pub fn sides(index: u64, size: u64) -> Vec<Side> {
    if size == 1 {
        return Vec::new();
    }
    let middle = 1 << (size - 1).ilog2();
    let (mut path, side) = if index < middle {
        (sides(index, middle), Side::Right)
    } else {
        (sides(index - middle, size - middle), Side::Left)
    };
    path.push(side);
    path
}

/// The root that the loop of RFC 9162, section 2.1.3.2, computes; `None` where it fails.
pub fn climb_rfc_9162(index: u64, size: u64, leaf: Digest, proof: &[Digest]) -> Option<Digest> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}
