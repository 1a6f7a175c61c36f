//! `/fedledger/blob/1`: files named by their SHA-256 digest, resumable at every chunk.
//!
//! - **get**: [`BlobGet`]; [`Answer`](super::Answer) of [`BlobHeader`], perhaps after some that tell to wait; if found, the chunks that follow what the asker
//!   holds.
//! - **put**: [`BlobPut`]; [`Answer`](super::Answer) of [`PutDecision`], likewise, so that a body that is not wanted is never
//!   sent; [`BlobStart`]; the chunks from there on; [`Answer`](super::Answer) of [`BlobStored`] once they are verified
//!   and stored.
//!
//! A body is a run of chunks of [`CHUNK_BYTES`], the last of which may be shorter. Each is preceded by its **mark**: the
//! SHA-256 of the whole blob up to and including this chunk, as the sender recorded it when it took the blob in. So the
//! receiver keeps one running hash, finds damage within a chunk of where it is, and both sides can compare what they hold
//! of a blob by one digest before anything is sent. The last mark is the blob's own digest: it decides in the end.

use fedledger_ledger::Digest;
use serde::{Deserialize, Serialize};

/// Bytes of a chunk. It is verified before it is kept, so it is what a transfer holds in memory, and what an interruption
/// costs at most.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// What the opener of a stream wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobRequest {
    /// To receive a blob.
    Get(BlobGet),
    /// To send a blob.
    Put(BlobPut),
}

/// The first bytes of a blob, as somebody holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPrefix {
    /// How many bytes: a multiple of [`CHUNK_BYTES`], and not 0.
    pub size: u64,
    /// Their SHA-256 digest.
    pub digest: Digest,
}

/// Asks for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobGet {
    /// The SHA-256 digest of the whole blob.
    pub digest: Digest,
    /// Largest size that is of use to the asker, in bytes.
    pub size_max: u64,
    /// What the asker holds already, if anything.
    pub held: Option<BlobPrefix>,
    /// Whether the asker was given a damaged copy by this very node before. The node looks at its own copy then, before
    /// it gives it away again.
    pub doubted: bool,
}

/// The answer to a [`BlobGet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobHeader {
    /// Other transfers come first. Another answer follows.
    Wait,
    /// The rest of the blob follows.
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
    /// The blob is here, but it does not begin with what the asker holds. Nothing follows.
    Differs,
}

/// Announces a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPut {
    /// The SHA-256 digest of the whole blob.
    pub digest: Digest,
    /// Size of the whole blob, in bytes.
    pub size: u64,
}

/// The answer to a [`BlobPut`], before the body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutDecision {
    /// Other transfers come first. Another answer follows.
    Wait,
    /// Send the body.
    Send {
        /// What of it is here already, from an earlier transfer.
        held: Option<BlobPrefix>,
    },
    /// The blob is here already; the transfer is complete.
    Have,
}

/// Stands before the body of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStart {
    /// Where the body begins: at the end of what the receiver holds, or at 0 if the blob does not begin with that.
    pub offset: u64,
}

/// The body arrived, its digest is right, and it will survive a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStored {
    /// Size of the stored blob, in bytes.
    pub size: u64,
}
