//! `/fedledger/checkpoint/1`: signed heads of the log, as C2SP notes.

use fedledger_ledger::Digest;
use serde::{Deserialize, Serialize};

use super::{Call, Protocol};

/// Asks for a checkpoint, or hands one over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointRequest {
    /// The latest final checkpoint with the co-signatures that are known; the latest signed one where none is final yet.
    Latest {
        /// The text of the last note that the asker has seen.
        known: Option<String>,
    },
    /// The checkpoint by which the replicas of the epoch before have vouched for an epoch, answered as a latest one.
    Vouched {
        /// Number of the epoch.
        epoch: u64,
    },
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
        /// The text of the note; none before the first entry.
        note: Option<String>,
        /// Proof that it extends the head that the asker knows (RFC 6962, section 2.1.2); none where the asker knows none,
        /// or one of a longer log.
        consistency: Option<Vec<Digest>>,
    },
    /// The offered checkpoint was verified and its co-signatures are kept.
    Taken {
        /// The text of the newest note that the taker has signed, if it signs any.
        note: Option<String>,
        /// Proof that it extends the offered head (RFC 6962, section 2.1.2), where it is of more entries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        consistency: Option<Vec<Digest>>,
    },
}

impl Call for CheckpointRequest {
    const PROTOCOL: Protocol = Protocol::Checkpoint;
    type Response = CheckpointResponse;
}
