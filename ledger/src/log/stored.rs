//! Reading what the log has stored: leaves, and the nodes of the tree over them.

use crate::{
    digest::Digest,
    merkle::{NodeId, root_at},
    storage::{Column, LogStorage, StorageError},
};

/// The bytes of the leaf at `index`, or of the genesis file at 0.
///
/// # Errors
///
/// [`StorageError::Corrupt`] where it is missing.
pub fn read_leaf<S: LogStorage + ?Sized>(storage: &S, index: u64) -> Result<Vec<u8>, StorageError> {
    let missing = || StorageError::Corrupt(format!("leaf {index} is missing"));
    storage.get(Column::Leaf, &index.to_be_bytes())?.ok_or_else(missing)
}

/// The root of a complete subtree, for proofs.
///
/// # Errors
///
/// [`StorageError::Corrupt`] where it is missing.
pub fn read_node<S: LogStorage + ?Sized>(storage: &S, node: NodeId) -> Result<Digest, StorageError> {
    let missing = || StorageError::Corrupt(format!("tree node {node:?} is missing"));
    let bytes = storage.get(Column::Node, &node.to_key())?.ok_or_else(missing)?;
    bytes.try_into().map(Digest::from_bytes).map_err(|_| missing())
}

/// The root of the first `size` entries of a stored log, which has at least as many.
///
/// # Errors
///
/// [`StorageError::Corrupt`] where a node is missing.
pub fn read_root<S: LogStorage + ?Sized>(storage: &S, size: u64) -> Result<Digest, StorageError> {
    root_at(size, |node| read_node(storage, node))
}
