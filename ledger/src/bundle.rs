//! Bundles: a history in one file, for whoever checks it without a network.
//!
//! A bundle is a canonical container with no slack: every bit of it is covered by the strict decoder, by the entries'
//! own digests and signatures, or by the digest at its end. The same history has exactly one bundle.
//!
//! ```text
//! "fedledger bundle 2\n"                          the format and its version
//! 01  length: u32  genesis file                   once
//! 02  length: u32  chain of epochs                once
//! 03  length: u32  signed checkpoint note         any number
//! 04  length: u32  leaf                           from index 1 on, in order
//! 05  length: u32  trust policy                   at most once
//! 06  SHA-256: 32 bytes  length: u64  file        by rising digest
//! 00  SHA-256 of everything before                then the file ends
//! ```
//!
//! Numbers are big-endian. Kinds never fall, so sections stand in this order: what a reader needs in order to judge the
//! entries comes before them. Another kind of section takes another version of the format. The
//! [chain](crate::epoch::EpochChain) leads from the epoch of the genesis file to the last one that is vouched for; the
//! policy is that of the largest head that is final, for other tools. Tiles are not stored: they follow from the entries.
//! Reader and writer stream: neither holds more than one item, and of files only a chunk.

mod index;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

pub use self::{
    index::{BlobExtent, BundleIndex, BundledLeaves, BundledNote, BundledPart},
    reader::{BundleReader, Item},
    writer::{BundleWriteError, BundleWriter},
};
use crate::{
    Digest,
    epoch::{EPOCH_CHAIN_SIZE_BYTES_MAX, EPOCH_LINKS_MAX},
    leaf::Leaf,
    limits::GENESIS_SIZE_BYTES_MAX,
    note::NOTE_SIZE_BYTES_MAX,
    policy::POLICY_SIZE_BYTES_MAX,
};

/// What a bundle of this version begins with.
pub const BUNDLE_MAGIC: &[u8] = b"fedledger bundle 2\n";

/// What a bundle of any version begins with.
const MAGIC_STEM: &[u8] = b"fedledger bundle ";

/// Most checkpoint notes of a bundle: one per epoch, and a few about its end.
pub const BUNDLE_NOTES_MAX: usize = 2 * EPOCH_LINKS_MAX;

/// Most bytes of all checkpoint notes together: they are held in memory while a history is replayed.
pub const BUNDLE_NOTES_SIZE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most files of a bundle: their places are held in memory.
pub const BUNDLE_BLOBS_MAX: usize = 1 << 20;

/// Largest file of a bundle, in bytes: far more than any model, and small enough that offsets never wrap.
pub const BUNDLE_BLOB_SIZE_BYTES_MAX: u64 = 1 << 48;

/// What the item behind a kind byte is. The order is that of the sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Genesis = 1,
    Epochs = 2,
    Note = 3,
    Leaf = 4,
    Policy = 5,
    Blob = 6,
}

/// The kind byte of the end.
const END: u8 = 0;

impl Kind {
    const fn to_byte(self) -> u8 {
        self as u8
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Genesis),
            2 => Some(Self::Epochs),
            3 => Some(Self::Note),
            4 => Some(Self::Leaf),
            5 => Some(Self::Policy),
            6 => Some(Self::Blob),
            _ => None,
        }
    }

    /// Whether an item of this kind may follow one of the kind `previous`; none stands before the genesis file.
    fn may_follow(self, previous: Option<Self>) -> bool {
        match (self, previous) {
            (Self::Genesis, previous) => previous.is_none(),
            (Self::Epochs, previous) => previous == Some(Self::Genesis),
            (_, None | Some(Self::Genesis)) => false,
            (Self::Policy, Some(previous)) => previous < Self::Policy,
            (kind, Some(previous)) => previous <= kind,
        }
    }

    /// Largest size of an item's bytes.
    const fn size_bytes_max(self) -> u64 {
        match self {
            Self::Genesis => GENESIS_SIZE_BYTES_MAX as u64,
            Self::Leaf => Leaf::size_bytes_max(1) as u64,
            Self::Epochs => EPOCH_CHAIN_SIZE_BYTES_MAX as u64,
            Self::Note => NOTE_SIZE_BYTES_MAX as u64,
            Self::Policy => POLICY_SIZE_BYTES_MAX as u64,
            Self::Blob => BUNDLE_BLOB_SIZE_BYTES_MAX,
        }
    }
}

/// Why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The system could not read it.
    #[error("the bundle could not be read: {0}")]
    Io(#[from] io::Error),
    /// It is no bundle, or a damaged one.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Bytes that no bundle has at this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {defect}")]
pub struct Malformed {
    /// Where, in bytes from the beginning.
    pub offset: u64,
    /// What is wrong there.
    pub defect: Defect,
}

/// What is wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// It does not begin as bundles do.
    #[error("this is no bundle")]
    NotABundle,
    /// A version of the format that this software does not know.
    #[error("this bundle has another version than the one that this software reads")]
    UnknownVersion,
    /// The file ends too early.
    #[error("the bundle ends too early")]
    Truncated,
    /// A kind byte without meaning.
    #[error("items of kind {0} are not known")]
    UnknownKind(u8),
    /// An item where none of its kind may stand.
    #[error("the item is out of place: genesis file, epochs, notes, leaves, policy and files stand in this order")]
    OutOfPlace,
    /// An item above its bound.
    #[error("the item has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Size that the item claims, in bytes.
        size: u64,
        /// Largest size allowed, in bytes.
        limit: u64,
    },
    /// More items than allowed.
    #[error("the bundle has more than {limit} items of this kind")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// Notes that are too large together.
    #[error("the checkpoint notes have more than {BUNDLE_NOTES_SIZE_BYTES_MAX} bytes together")]
    NotesTooLarge,
    /// A note that is not UTF-8.
    #[error("the checkpoint note is not text")]
    NotText,
    /// Files out of order or twice.
    #[error("the file {0} does not follow the one before it in the order of digests")]
    BlobOrder(Digest),
    /// The digest at the end is not that of the bytes before.
    #[error("the bundle has the SHA-256 {found}, its end says {expected}: at least one bit was changed")]
    Checksum {
        /// The digest at the end.
        expected: Digest,
        /// The digest of the bytes before.
        found: Digest,
    },
    /// Bytes behind the end.
    #[error("the bundle goes on behind its end")]
    TrailingBytes,
}
