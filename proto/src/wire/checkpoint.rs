//! `/fedledger/checkpoint/1`: signed heads of the log, as C2SP notes.

use serde::{Deserialize, Serialize};

use super::{Call, Protocol};

/// Asks for a checkpoint, or hands one over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointRequest {
    /// The latest checkpoint with the co-signatures that are known.
    Latest,
    /// Here is a checkpoint with at least one co-signature.
    Offer {
        /// The text of the note.
        note: String,
    },
}

/// The answer to a [`CheckpointRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointResponse {
    /// The latest checkpoint.
    Latest {
        /// The text of the note; none before the first seal.
        note: Option<String>,
    },
    /// The offered checkpoint was verified and its co-signatures are kept.
    Taken,
}

impl Call for CheckpointRequest {
    const PROTOCOL: Protocol = Protocol::Checkpoint;
    type Response = CheckpointResponse;
}
