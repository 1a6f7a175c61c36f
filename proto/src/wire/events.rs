//! `/fedledger/events/1`: following the log.

use serde::{Deserialize, Serialize};

use super::{Protocol, Subscription};

/// Asks for every leaf from an index on, those that are there and those to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsRequest {
    /// Index of the first leaf wanted.
    pub from: u64,
}

/// Says that leaves will follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAccepted {
    /// Index of the next leaf that will be committed; leaves below it are there already.
    pub next: u64,
}

/// One leaf. Indices are consecutive from the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFrame {
    /// Its place in the log.
    pub index: u64,
    /// The leaf: envelope and outcome.
    #[serde(with = "serde_bytes")]
    pub leaf: Vec<u8>,
}

impl Subscription for EventsRequest {
    const PROTOCOL: Protocol = Protocol::Events;
    type Accepted = EventsAccepted;
    type Frame = EventFrame;
}
