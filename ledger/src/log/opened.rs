//! Leaves whose checks that need no order have been made.

use super::{Refusal, ReplayError};
use crate::{
    digest::Digest,
    leaf::Leaf,
    transaction::{Envelope, Transaction},
};

/// A leaf whose encoding, chain and signature have been checked; what is left depends on the leaves before it.
///
/// These checks cost most of a replay and can be made for many leaves at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedLeaf {
    pub(super) leaf: Leaf,
    pub(super) transaction: Transaction,
}

impl OpenedLeaf {
    /// Decodes a leaf and checks its transaction's signature.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Malformed`] or [`ReplayError::Refused`].
    pub fn open(bytes: &[u8], chain: &Digest) -> Result<Self, ReplayError> {
        let leaf = Leaf::from_bytes(bytes).map_err(ReplayError::Malformed)?;
        let opened = Envelope::open(&leaf.envelope, chain);
        let transaction = opened.map_err(|error| ReplayError::Refused(Refusal::Envelope(error)))?;
        Ok(Self { leaf, transaction })
    }

    /// The leaf.
    pub const fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The transaction inside it.
    pub const fn transaction(&self) -> &Transaction {
        &self.transaction
    }
}
