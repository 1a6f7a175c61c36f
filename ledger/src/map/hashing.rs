//! Positions and hashes: all that the root depends on.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Begins the input of a record's hash.
const LEAF_TAG: &[u8] = b"fedledger/v1/state/leaf\n";

/// Begins the input of an inner node's hash.
const INNER_TAG: &[u8] = b"fedledger/v1/state/node\n";

/// The whole input of the root of a map without records.
const EMPTY_TAG: &[u8] = b"fedledger/v1/state/empty\n";

/// Where a record stands: SHA-256 of its key, so that nobody chooses where his records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position(Digest);

impl Position {
    /// The position of the record under `key`.
    pub(super) fn of(key: &[u8]) -> Self {
        Self(Digest::of(key))
    }

    /// A position of a test's choice, for which no key is known.
    #[cfg(test)]
    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// The bit at `index`, counted from the most significant one of the first byte.
    pub(super) fn bit(&self, index: u8) -> bool {
        // Never out of range: an eighth of a `u8` is below 32.
        let byte = self.0.as_bytes()[usize::from(index >> 3)];
        byte & (0x80 >> (index & 7)) != 0
    }

    /// The first bit in which the positions differ.
    pub(super) fn first_difference(&self, other: &Self) -> Option<u8> {
        let bytes = self.0.as_bytes().iter().zip(other.0.as_bytes()).map(|(one, other)| one ^ other);
        let (index, difference) = (0u8..).zip(bytes).find(|(_, difference)| *difference != 0)?;
        // A byte that is not zero has at most seven leading zeros.
        Some((index << 3) | (difference.leading_zeros() as u8))
    }
}

/// The hash of the record at `position` whose value has the digest `value`.
pub(super) fn leaf_hash(position: &Position, value: &Digest) -> Digest {
    Digest::of_parts(&[LEAF_TAG, position.0.as_bytes(), value.as_bytes()])
}

/// The hash of records that differ first in `bit`.
pub(super) fn inner_hash(bit: u8, left: &Digest, right: &Digest) -> Digest {
    Digest::of_parts(&[INNER_TAG, &[bit], left.as_bytes(), right.as_bytes()])
}

/// The root of a map without records.
pub(super) fn empty_root() -> Digest {
    Digest::of(EMPTY_TAG)
}
