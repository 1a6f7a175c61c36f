//! Leaves, as peers and bundles give them.

use fedledger_ledger::{leaf::Leaf, limits::LEAF_SIZE_BYTES_MAX};

use super::envelope;

/// Decodes the bytes as a leaf, and the envelope in it.
pub fn run(data: &[u8]) {
    let Ok(leaf) = Leaf::from_bytes(data) else { return };
    assert!(data.len() <= LEAF_SIZE_BYTES_MAX);
    assert_eq!(leaf.to_bytes(), data, "a leaf has one encoding");
    envelope::run(&leaf.envelope);
}
