//! The tree in memory: nodes that snapshots share, changed in place where nobody else holds them.

use std::sync::{Arc, OnceLock};

use super::hashing::{Position, inner_hash, leaf_hash};
use crate::Digest;

/// A set of one or more records.
///
/// The hash stands here, not in the node, so that a change finds the hashes of both sides of every inner node on its way
/// without a visit to the side that it leaves alone: half of the memory accesses.
#[derive(Clone)]
pub(super) struct Subtree {
    pub(super) node: Node,
    /// Empty from a change until somebody asks.
    hash: OnceLock<Digest>,
}

#[derive(Clone)]
pub(super) enum Node {
    /// A single record.
    Leaf(Arc<Leaf>),
    /// Several records.
    Inner(Arc<Inner>),
}

/// A record, by the digests of its key and value.
pub(super) struct Leaf {
    pub(super) position: Position,
    pub(super) value: Digest,
}

/// The records that agree in all bits before `bit`, and not in that one.
#[derive(Clone)]
pub(super) struct Inner {
    pub(super) bit: u8,
    left: Subtree,
    right: Subtree,
}

/// Where the way of a position ends.
pub(super) struct Nearest<'a> {
    /// The record at the position, if there is one; else another that agrees with it wherever the way divides.
    pub(super) leaf: &'a Leaf,
    /// Bit of the last division on the way; none if there is a single record.
    parent_bit: Option<u8>,
}

impl Subtree {
    /// The hash of the records, computed once after a change. Nodes nest at most 256 deep.
    pub(super) fn hash(&self) -> Digest {
        *self.hash.get_or_init(|| match &self.node {
            Node::Leaf(leaf) => leaf_hash(&leaf.position, &leaf.value),
            Node::Inner(inner) => inner_hash(inner.bit, &inner.left.hash(), &inner.right.hash()),
        })
    }

    /// Follows the bits of `position` to a record.
    pub(super) fn nearest(&self, position: &Position) -> Nearest<'_> {
        let (mut subtree, mut parent_bit) = (self, None);
        loop {
            match &subtree.node {
                Node::Leaf(leaf) => return Nearest { leaf, parent_bit },
                Node::Inner(inner) => {
                    parent_bit = Some(inner.bit);
                    subtree = inner.side(position.bit(inner.bit));
                }
            }
        }
    }

    fn of(node: Node) -> Self {
        Self { node, hash: OnceLock::new() }
    }

    fn leaf(position: Position, value: Digest) -> Self {
        Self::of(Node::Leaf(Arc::new(Leaf { position, value })))
    }

    /// The records of both, which differ first in `bit`; `one` are those that have a one there.
    fn joined(bit: u8, zero: Self, one: Self) -> Self {
        Self::of(Node::Inner(Arc::new(Inner { bit, left: zero, right: one })))
    }
}

impl Inner {
    /// The records that have this value of the bit.
    pub(super) fn side(&self, bit: bool) -> &Subtree {
        if bit { &self.right } else { &self.left }
    }

    fn side_mut(&mut self, bit: bool) -> &mut Subtree {
        if bit { &mut self.right } else { &mut self.left }
    }
}

/// Writes the record at `position`; says whether it is new.
pub(super) fn put(root: &mut Option<Subtree>, position: Position, value: Digest) -> bool {
    let Some(root) = root else {
        *root = Some(Subtree::leaf(position, value));
        return true;
    };
    let nearest = root.nearest(&position).leaf;
    if let Some(bit) = nearest.position.first_difference(&position) {
        let place = change(root, &position, Some(bit));
        let (rest, leaf) = (place.clone(), Subtree::leaf(position, value));
        *place = if position.bit(bit) { Subtree::joined(bit, rest, leaf) } else { Subtree::joined(bit, leaf, rest) };
        return true;
    }
    // A value that stays as it was leaves all hashes as they are.
    if nearest.value != value {
        *change(root, &position, None) = Subtree::leaf(position, value);
    }
    false
}

/// Removes the record at `position`; says whether there was one.
pub(super) fn remove(root: &mut Option<Subtree>, position: &Position) -> bool {
    let Some(subtree) = root else { return false };
    let nearest = subtree.nearest(position);
    if nearest.leaf.position != *position {
        return false;
    }
    let Some(bit) = nearest.parent_bit else {
        *root = None;
        return true;
    };
    // The other side of the last division takes its place.
    let place = change(subtree, position, Some(bit));
    if let Node::Inner(inner) = &place.node {
        *place = inner.side(!position.bit(bit)).clone();
    }
    true
}

/// The first subtree on the way of `position` that divides at `end` or later, or at no bit at all, about to be replaced:
/// those above it forget their hashes, and nodes that a snapshot holds as well are copied.
fn change<'a>(mut subtree: &'a mut Subtree, position: &Position, end: Option<u8>) -> &'a mut Subtree {
    while let Node::Inner(inner) = &subtree.node
        && end.is_none_or(|end| inner.bit < end)
        && let Node::Inner(ref mut inner) = subtree.node
    {
        subtree.hash.take();
        let inner = Arc::make_mut(inner);
        subtree = inner.side_mut(position.bit(inner.bit));
    }
    subtree
}
