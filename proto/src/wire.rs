//! What nodes say to each other over libp2p: protocols, their bounds, and the messages of each.
//!
//! Every protocol runs over streams of its own, and every message is one frame ([`frame`]): a length and that many
//! bytes of strict DAG-CBOR. Envelopes, leaves and notes are opaque bytes here; whoever uses them decodes and verifies
//! them.
//!
//! | protocol | who opens the stream | then |
//! |---|---|---|
//! | `/fedledger/raft/1` | the sender | frames, one way, for as long as the connection lasts |
//! | `/fedledger/heads/1` | the replica that has signed | frames, one way: notes, each as its text |
//! | `/fedledger/tx/1` | the submitter | [`SubmitRequest`], [`Answer`] of [`SubmitResponse`] |
//! | `/fedledger/checkpoint/1` | whoever asks or offers | [`CheckpointRequest`], [`Answer`] of [`CheckpointResponse`] |
//! | `/fedledger/events/1` | the follower | [`EventsRequest`], [`Answer`] of [`EventsAccepted`], [`EventFrame`]s |
//! | `/fedledger/blob/1` | either side | [`BlobRequest`], then as [`blob`] says |

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub mod blob;
pub mod checkpoint;
pub mod events;
pub mod frame;
pub mod transaction;

pub use blob::{
    BlobGet, BlobHeader, BlobPrefix, BlobPut, BlobRequest, BlobStart, BlobStored, CHUNK_BYTES, PutDecision,
};
pub use checkpoint::{CheckpointRequest, CheckpointResponse};
pub use events::{EventFrame, EventsAccepted, EventsRequest};
pub use frame::FrameError;
pub use transaction::{SubmitRequest, SubmitResponse};

/// Longest explanation in a [`Refusal`], in bytes; longer ones are cut.
pub const REFUSAL_MESSAGE_BYTES_MAX: usize = 512;

/// A protocol that nodes speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Raft messages between replicas, opaque here.
    Raft,
    /// Heads of the log that a replica has co-signed, told to another as soon as they are.
    Heads,
    /// Submitting a signed transaction to a replica.
    Transaction,
    /// Asking for the latest checkpoint, or offering a co-signed one.
    Checkpoint,
    /// Following the log from an index.
    Events,
    /// Fetching and storing content-addressed files of any size.
    Blob,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 6] = [Self::Raft, Self::Heads, Self::Transaction, Self::Checkpoint, Self::Events, Self::Blob];

    /// Whether the opener of a stream sends frames that nobody answers.
    pub const fn is_pushed(self) -> bool {
        matches!(self, Self::Raft | Self::Heads)
    }

    /// The name that is negotiated; its last part is the protocol's version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "/fedledger/raft/1",
            Self::Heads => "/fedledger/heads/1",
            Self::Transaction => "/fedledger/tx/1",
            Self::Checkpoint => "/fedledger/checkpoint/1",
            Self::Events => "/fedledger/events/1",
            Self::Blob => "/fedledger/blob/1",
        }
    }

    /// Largest frame that the opener of a stream may send, in bytes.
    pub const fn request_size_bytes_max(self) -> usize {
        match self {
            // Consensus cuts messages at 1 MiB of entries; the last entry may exceed the cut, and headers are added.
            Self::Raft => 2 * 1024 * 1024,
            // An envelope (56 KiB) and its wrapping.
            Self::Transaction => 60 * 1024,
            // A note with one signature line per co-signer, and its wrapping.
            Self::Heads | Self::Checkpoint => 64 * 1024 + 1024,
            Self::Events | Self::Blob => 1024,
        }
    }

    /// Largest frame that the other side may answer, in bytes.
    pub const fn answer_size_bytes_max(self) -> usize {
        match self {
            Self::Raft | Self::Heads => 0,
            // A leaf (65,535 bytes) and its wrapping.
            Self::Transaction | Self::Events => 72 * 1024,
            // A note and a consistency proof.
            Self::Checkpoint => 64 * 1024 + 4096,
            Self::Blob => 2 * 1024,
        }
    }
}

impl AsRef<str> for Protocol {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first frame that the accepting side of a stream sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<T> {
    /// The request was served.
    Granted(T),
    /// Too many requests are being served; nothing was done, try again later or elsewhere.
    Busy,
    /// The request will not be served as it stands.
    Refused(Refusal),
}

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The kind of refusal, for programs.
    pub code: RefusalCode,
    /// The reason, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal; the message is cut at [`REFUSAL_MESSAGE_BYTES_MAX`].
    pub fn new(code: RefusalCode, message: impl fmt::Display) -> Self {
        let mut message = message.to_string();
        message.truncate(message.floor_char_boundary(REFUSAL_MESSAGE_BYTES_MAX));
        Self { code, message }
    }
}

/// The kinds of [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RefusalCode {
    /// The request is not a canonical encoding of a request of this protocol.
    #[error("malformed request")]
    Malformed,
    /// A frame or file is larger than allowed.
    #[error("too large")]
    TooLarge,
    /// The peer may not ask this.
    #[error("not permitted")]
    NotPermitted,
    /// The bytes are not those that were announced.
    #[error("wrong content")]
    WrongContent,
    /// This part of the protocol is not supported by this node.
    #[error("not supported")]
    NotSupported,
    /// The node cannot store or read what was asked for.
    #[error("storage failed")]
    Storage,
    /// The node does not serve this now, for example because it is stopping.
    #[error("unavailable")]
    Unavailable,
}

/// A request that is answered with one frame.
pub trait Call: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The protocol that carries it.
    const PROTOCOL: Protocol;
    /// What a served request is answered with.
    type Response: Serialize + DeserializeOwned + Send + 'static;
}

/// A request that is answered with any number of frames.
pub trait Subscription: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The protocol that carries it.
    const PROTOCOL: Protocol;
    /// The first answer, which says that frames will follow.
    type Accepted: Serialize + DeserializeOwned + Send + 'static;
    /// Every further frame.
    type Frame: Serialize + DeserializeOwned + Send + 'static;
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::codec;

    use super::*;

    #[test]
    fn a_refusal_fits_into_every_answer_however_long_its_reason() {
        let refusal = Refusal::new(RefusalCode::Storage, "\u{1F9EA}".repeat(1000));
        assert_eq!(refusal.message.len(), REFUSAL_MESSAGE_BYTES_MAX);
        let size = codec::encode(&Answer::<BlobStored>::Refused(refusal)).len();
        for protocol in Protocol::ALL.into_iter().filter(|protocol| !protocol.is_pushed()) {
            assert!(size <= protocol.answer_size_bytes_max(), "{protocol}");
        }
    }

    #[test]
    fn the_largest_envelope_and_leaf_fit_into_their_frames() {
        use fedledger_ledger::limits::{ENVELOPE_SIZE_BYTES_MAX, LEAF_SIZE_BYTES_MAX};
        let request = SubmitRequest { envelope: vec![0; ENVELOPE_SIZE_BYTES_MAX] };
        assert!(codec::encode(&request).len() <= SubmitRequest::PROTOCOL.request_size_bytes_max());
        let leaf = vec![0; LEAF_SIZE_BYTES_MAX];
        let answer = Answer::Granted(SubmitResponse::Outcome { index: u64::MAX, leaf: leaf.clone() });
        assert!(codec::encode(&answer).len() <= SubmitRequest::PROTOCOL.answer_size_bytes_max());
        let event = EventFrame { index: u64::MAX, leaf };
        assert!(codec::encode(&event).len() <= EventsRequest::PROTOCOL.answer_size_bytes_max());
    }

    #[test]
    fn every_message_decodes_to_itself() {
        fn check<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
            assert_eq!(codec::decode::<T>(&codec::encode(&value), 4096).unwrap(), value);
        }
        let digest = fedledger_ledger::Digest::of(b"blob");
        check(SubmitRequest { envelope: vec![1, 2, 3] });
        check(Answer::Granted(SubmitResponse::Outcome { index: 7, leaf: vec![4] }));
        check(Answer::Granted(SubmitResponse::Refused { code: "expired".into(), message: "too late".into() }));
        check(Answer::Granted(SubmitResponse::Redirect { leader: None }));
        check(Answer::<SubmitResponse>::Busy);
        check(Answer::<SubmitResponse>::Refused(Refusal::new(RefusalCode::Malformed, "no")));
        check(CheckpointRequest::Latest { known: Some("note".into()) });
        check(CheckpointRequest::Offer { note: "note".into() });
        check(CheckpointRequest::Vouched { epoch: 3 });
        check(CheckpointResponse::Latest { note: None, consistency: Some(vec![digest]) });
        check(CheckpointResponse::Taken { note: None, consistency: None });
        check(EventsRequest { from: 3 });
        check(EventsAccepted { next: 3 });
        check(EventFrame { index: 3, leaf: vec![] });
        let held = Some(BlobPrefix { size: CHUNK_BYTES as u64, digest });
        check(BlobRequest::Get(BlobGet { digest, size_max: u64::MAX, held, doubted: true }));
        check(BlobRequest::Get(BlobGet { digest, size_max: 1, held: None, doubted: false }));
        check(BlobRequest::Put(BlobPut { digest, size: 5 }));
        check(BlobHeader::Wait);
        check(BlobHeader::Found { size: 5 });
        check(BlobHeader::NotFound);
        check(BlobHeader::TooLarge { size: 6 });
        check(BlobHeader::Differs);
        check(PutDecision::Send { held });
        check(PutDecision::Send { held: None });
        check(BlobStart { offset: u64::MAX });
        check(PutDecision::Have);
        check(PutDecision::Wait);
        check(Answer::Granted(BlobStored { size: 5 }));
    }
}
