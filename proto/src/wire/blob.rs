//! `/fedledger/blob/1`: files named by their SHA-256 digest.
//!
//! - **get**: [`BlobGet`]; [`Answer`](super::Answer) of [`BlobHeader`]; if found, exactly `size - offset` raw bytes.
//! - **put**: [`BlobPut`]; [`Answer`](super::Answer) of [`PutDecision`], so that a body that is not wanted is never
//!   sent; the raw bytes from the offset on; [`Answer`](super::Answer) of [`BlobStored`] once they are verified and
//!   stored.
//!
//! The offsets leave room for resuming a transfer. This version sends 0 and refuses anything else.

use fedledger_ledger::Digest;
use serde::{Deserialize, Serialize};

/// What the opener of a stream wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobRequest {
    /// To receive a blob.
    Get(BlobGet),
    /// To send a blob.
    Put(BlobPut),
}

/// Asks for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobGet {
    /// The SHA-256 digest of the whole blob.
    pub digest: Digest,
    /// Largest size that is of use to the asker, in bytes.
    pub size_max: u64,
    /// How many of its first bytes are not needed.
    pub offset: u64,
}

/// The answer to a [`BlobGet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobHeader {
    /// The blob follows.
    Found {
        /// Size of the whole blob, in bytes.
        size: u64,
    },
    /// The blob is not here.
    NotFound,
    /// The blob is here, but larger than the asker allows. Nothing follows.
    TooLarge {
        /// Size of the whole blob, in bytes.
        size: u64,
    },
}

/// Announces a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPut {
    /// The SHA-256 digest of the whole blob.
    pub digest: Digest,
    /// Size of the whole blob, in bytes.
    pub size: u64,
    /// How many of its first bytes the sender would leave out.
    pub offset: u64,
}

/// The answer to a [`BlobPut`], before the body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutDecision {
    /// Send the body.
    Send {
        /// Number of bytes to leave out at the start.
        offset: u64,
    },
    /// The blob is here already; the transfer is complete.
    Have,
}

/// The body arrived, its digest is right, and it will survive a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStored {
    /// Size of the stored blob, in bytes.
    pub size: u64,
}
