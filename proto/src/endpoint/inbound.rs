//! What peers ask of this node, and the means to answer.

use std::marker::PhantomData;

use fedledger_ledger::PublicKey;
use futures::{
    AsyncReadExt as _, AsyncWriteExt as _,
    io::{ReadHalf, WriteHalf},
};
use libp2p::Stream;
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};

use super::{
    blob::{BlobGetResponder, BlobPutResponder},
    limits::Permit,
};
use crate::wire::{
    Answer, CheckpointRequest, CheckpointResponse, EventFrame, EventsAccepted, EventsRequest, FrameError, Protocol,
    Refusal, RefusalCode, SubmitRequest, SubmitResponse,
    frame::{self, STALL_TIMEOUT},
};

/// Everything that comes in from peers. Requests and Raft frames may be taken by different tasks.
///
/// Dropping a receiver refuses what would have come through it.
#[derive(Debug)]
pub struct Incoming {
    /// Requests that wait for an answer.
    pub requests: mpsc::Receiver<InboundRequest>,
    /// Raft frames, each peer's in the order in which it sent them.
    pub raft: mpsc::Receiver<PeerFrame>,
    /// Heads that peers have signed, each the text of a note.
    pub heads: mpsc::Receiver<PeerFrame>,
}

/// A frame from a peer, opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFrame {
    /// Who sent it, authenticated.
    pub peer: PublicKey,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A well-formed request of an admitted peer. Whether that peer may ask for this is for the receiver to decide.
#[derive(Debug)]
pub struct InboundRequest {
    /// Who asks, authenticated.
    pub peer: PublicKey,
    /// What it asks.
    pub kind: RequestKind,
}

/// What a peer asks, with the means to answer. Dropping a responder closes the stream without an answer.
#[derive(Debug)]
pub enum RequestKind {
    /// A transaction to be submitted.
    Submit(SubmitRequest, Responder<SubmitResponse>),
    /// A checkpoint asked for or offered.
    Checkpoint(CheckpointRequest, Responder<CheckpointResponse>),
    /// Leaves from an index on.
    Events(EventsRequest, EventsResponder),
    /// A blob that the peer wants to have.
    BlobGet(BlobGetResponder),
    /// A blob that the peer wants to store here.
    BlobPut(BlobPutResponder),
}

/// A stream that a peer opened, with its place among the streams that it may have open.
#[derive(Debug)]
pub(super) struct Served {
    pub stream: Stream,
    pub protocol: Protocol,
    pub permit: Permit,
}

impl Served {
    /// Sends an answer; the stream stays open.
    pub async fn answer<T: Serialize>(&mut self, answer: &Answer<T>) -> Result<(), FrameError> {
        frame::write_message(&mut self.stream, answer, self.protocol.answer_size_bytes_max()).await
    }

    /// Sends the only or last answer.
    pub async fn finish<T: Serialize>(mut self, answer: &Answer<T>) -> Result<(), FrameError> {
        self.answer(answer).await?;
        close(&mut self.stream).await
    }

    /// Refuses what was asked.
    pub async fn refuse(self, refusal: Refusal) -> Result<(), FrameError> {
        self.finish(&Answer::<()>::Refused(refusal)).await
    }
}

/// Ends the own side of a stream, so that what was written arrives before the end.
pub(super) async fn close<W: futures::AsyncWrite + Unpin>(writer: &mut W) -> Result<(), FrameError> {
    timeout(STALL_TIMEOUT, writer.close()).await.map_err(|_| FrameError::Stalled)?.map_err(FrameError::Io)
}

/// The means to answer a request once.
#[derive(Debug)]
pub struct Responder<T> {
    served: Served,
    response: PhantomData<fn(T)>,
}

impl<T: Serialize> Responder<T> {
    pub(super) const fn new(served: Served) -> Self {
        Self { served, response: PhantomData }
    }

    /// Answers.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone, or takes nothing for [`STALL_TIMEOUT`].
    pub async fn send(self, response: T) -> Result<(), FrameError> {
        self.served.finish(&Answer::Granted(response)).await
    }

    /// Refuses.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn refuse(self, refusal: Refusal) -> Result<(), FrameError> {
        self.served.refuse(refusal).await
    }

    /// Says that this node has too much to do.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn busy(self) -> Result<(), FrameError> {
        self.served.finish(&Answer::<T>::Busy).await
    }
}

/// The means to accept a subscription to the log, or not.
#[derive(Debug)]
pub struct EventsResponder(pub(super) Served);

impl EventsResponder {
    /// Accepts, and says which leaf will be committed next.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn accept(mut self, next: u64) -> Result<EventSender, FrameError> {
        self.0.answer(&Answer::Granted(EventsAccepted { next })).await?;
        let limit = self.0.protocol.answer_size_bytes_max();
        let (reader, writer) = self.0.stream.split();
        Ok(EventSender { reader, writer, limit, _permit: self.0.permit })
    }

    /// Refuses.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn refuse(self, refusal: Refusal) -> Result<(), FrameError> {
        self.0.refuse(refusal).await
    }
}

/// Pushes leaves to a follower.
#[derive(Debug)]
pub struct EventSender {
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    limit: usize,
    _permit: Permit,
}

impl EventSender {
    /// Sends a leaf, as soon as the follower takes it.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the follower is gone, or takes nothing for [`STALL_TIMEOUT`].
    pub async fn send(&mut self, frame: &EventFrame) -> Result<(), FrameError> {
        frame::write_message(&mut self.writer, frame, self.limit).await
    }

    /// Completes when the follower is gone, so that nobody waits for leaves on its behalf.
    pub async fn closed(&mut self) {
        // A follower has nothing to say; whatever it sends ends the subscription as its silence would.
        self.reader.read_exact(&mut [0]).await.ok();
    }

    /// Ends the subscription after everything that was sent.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the follower is gone.
    pub async fn finish(mut self) -> Result<(), FrameError> {
        close(&mut self.writer).await
    }
}

/// The refusal that tells a peer what was wrong with its frame.
pub(super) fn refusal_of(error: &FrameError) -> Refusal {
    let code = match error {
        FrameError::TooLarge { .. } => RefusalCode::TooLarge,
        FrameError::Message(_) | FrameError::Truncated | FrameError::Stalled | FrameError::Io(_) => {
            RefusalCode::Malformed
        }
    };
    Refusal::new(code, error)
}
