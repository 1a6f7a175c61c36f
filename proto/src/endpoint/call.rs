//! Asking a peer: one answer, or many frames.

use std::{marker::PhantomData, time::Duration};

use fedledger_ledger::{PublicKey, codec};
use libp2p::Stream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{limits::Permit, open::Opener};
use crate::wire::{
    Answer, Call, FrameError, Protocol, Refusal, Subscription,
    frame::{self, FrameReader, STALL_TIMEOUT},
};

/// A request that was not served.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection to the peer now.
    #[error("peer {0} is not connected")]
    NotConnected(PublicKey),
    /// The peer does not speak this protocol.
    #[error("the peer does not speak {0}")]
    NotSupported(Protocol),
    /// No answer came in time. Whether the request was served is unknown.
    #[error("no answer in time")]
    TimedOut,
    /// The peer closed the stream without answering. Whether the request was served is unknown.
    #[error("the peer closed the stream without an answer")]
    NoAnswer,
    /// The peer has too much to do; nothing was done.
    #[error("the peer is busy, try again later or ask another")]
    Busy,
    /// The peer will not serve this.
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    /// The peer answered something that the protocol does not allow here.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The stream failed, or carried something else than the expected message.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl<T> Answer<T> {
    /// What was granted.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`] or [`CallError::Refused`].
    pub(super) fn granted(self) -> Result<T, CallError> {
        match self {
            Self::Granted(granted) => Ok(granted),
            Self::Busy => Err(CallError::Busy),
            Self::Refused(refusal) => Err(CallError::Refused(refusal)),
        }
    }
}

/// Sends a request and waits for its first answer.
pub(super) async fn ask<Req, T>(stream: &mut Stream, protocol: Protocol, request: &Req) -> Result<T, CallError>
where
    Req: Serialize,
    T: Serialize + DeserializeOwned,
{
    let written = frame::write_message(stream, request, protocol.request_size_bytes_max()).await;
    if let Err(error @ FrameError::TooLarge { .. }) = written {
        return Err(error.into());
    }
    // A busy peer may answer and close before it has read the request, so that writing fails; its answer counts.
    match (written, read_answer(stream, protocol).await) {
        (Err(error), Err(CallError::NoAnswer | CallError::Frame(_))) => Err(error.into()),
        (_, answer) => answer,
    }
}

/// Reads an answer that must come.
pub(super) async fn read_answer<T, R>(reader: &mut R, protocol: Protocol) -> Result<T, CallError>
where
    T: Serialize + DeserializeOwned,
    R: futures::AsyncRead + Unpin,
{
    let answer = frame::read_message::<Answer<T>, _>(reader, protocol.answer_size_bytes_max()).await?;
    answer.ok_or(CallError::NoAnswer)?.granted()
}

/// See [`Endpoint::call`](super::Endpoint::call).
pub(super) async fn call<C: Call>(
    opener: &Opener,
    peer: PublicKey,
    request: &C,
    patience: Duration,
) -> Result<C::Response, CallError> {
    let exchange = async {
        let (mut stream, _permit) = opener.open(peer, C::PROTOCOL).await?;
        ask(&mut stream, C::PROTOCOL, request).await
    };
    timeout(patience, exchange).await.map_err(|_| CallError::TimedOut)?
}

/// See [`Endpoint::subscribe`](super::Endpoint::subscribe).
pub(super) async fn subscribe<S: Subscription>(
    opener: &Opener,
    peer: PublicKey,
    request: &S,
) -> Result<(S::Accepted, FrameStream<S::Frame>), CallError> {
    let exchange = async {
        let (mut stream, permit) = opener.open(peer, S::PROTOCOL).await?;
        let accepted = ask(&mut stream, S::PROTOCOL, request).await?;
        let limit = S::PROTOCOL.answer_size_bytes_max();
        Ok((
            accepted,
            FrameStream { stream, reader: FrameReader::default(), limit, _permit: permit, frames: PhantomData },
        ))
    };
    timeout(STALL_TIMEOUT, exchange).await.map_err(|_| CallError::TimedOut)?
}

/// Frames that a peer pushes. Dropping it tells the peer to stop.
#[derive(Debug)]
pub struct FrameStream<T> {
    stream: Stream,
    reader: FrameReader,
    limit: usize,
    _permit: Permit,
    frames: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> FrameStream<T> {
    /// The next frame, however long it takes; `None` when the peer ended the subscription.
    ///
    /// While nobody calls this, the peer is held back. Cancellation safe.
    ///
    /// # Errors
    ///
    /// [`CallError::Frame`] when the connection is lost or the peer sent something else; the stream is of no further
    /// use.
    pub async fn next(&mut self) -> Result<Option<T>, CallError> {
        let Some(frame) = self.reader.next(&mut self.stream, self.limit).await? else { return Ok(None) };
        Ok(Some(codec::decode(&frame, self.limit).map_err(FrameError::Message)?))
    }
}
