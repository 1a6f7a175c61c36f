//! `/fedledger/tx/1`: submitting a signed transaction.

use fedledger_ledger::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Call, Protocol};

/// Asks a replica to bring a transaction onto the ledger. Sending the same envelope again is safe: it has one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitRequest {
    /// The signed envelope, as it was signed.
    #[serde(with = "serde_bytes")]
    pub envelope: Vec<u8>,
}

/// What became of a submitted transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubmitResponse {
    /// It is committed. Whether it was accepted or rejected stands in the leaf.
    Outcome {
        /// Its place in the log.
        index: u64,
        /// The leaf: envelope and outcome.
        #[serde(with = "serde_bytes")]
        leaf: Vec<u8>,
    },
    /// It is not on the ledger and will not get there as it stands.
    Refused {
        /// The kind of refusal, for programs.
        code: String,
        /// The reason, for people.
        message: String,
    },
    /// This replica does not take transactions now.
    Redirect {
        /// The transport key of the replica to ask instead, if one is known.
        leader: Option<PublicKey>,
    },
}

impl Call for SubmitRequest {
    const PROTOCOL: Protocol = Protocol::Transaction;
    type Response = SubmitResponse;
}
