//! Files of any size, named and verified by their SHA-256 digest, in bounded memory.
//!
//! Bodies travel in one direction per stream, and the receiving side never waits for its own writing to the peer, so no
//! number of transfers in both directions can block each other.

use std::{io, pin::pin, time::Duration};

use fedledger_ledger::{Digest, PublicKey};
use futures::{AsyncReadExt as _, future::Either};
use libp2p::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    CallError,
    call::{ask, read_answer},
    inbound::{RequestKind, Served},
    open::Opener,
};
use crate::wire::{
    BlobGet, BlobHeader, BlobPut, BlobRequest, BlobStored, FrameError, Protocol, PutDecision, Refusal, RefusalCode,
};

mod responder;
mod transfer;

pub use responder::{BlobGetResponder, BlobPutResponder, BlobReceipt};

/// How long the peer may take to say whether it has or wants a blob.
const DECISION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the peer may take to make a blob durable that it has received.
const STORE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long to wait for the reason after the peer stopped reading a body.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// A transfer that failed. What the local writer received must be discarded.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The peer does not have the blob.
    #[error("the peer does not have blob {0}")]
    NotFound(Digest),
    /// The blob is larger than the caller allows; nothing was transferred.
    #[error("blob {digest} has {size} bytes, at most {limit} are allowed here")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its announced size, in bytes.
        size: u64,
        /// Largest size allowed, in bytes.
        limit: u64,
    },
    /// The bytes are not those of the blob.
    #[error("received bytes with digest {found}, expected {expected}")]
    WrongContent {
        /// The digest that was asked for or announced.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// The peer stopped before the end.
    #[error("the transfer ended after {received} of {size} bytes")]
    Truncated {
        /// Bytes that came.
        received: u64,
        /// Bytes that were announced.
        size: u64,
    },
    /// The local file ended before the size that was announced for it.
    #[error("the local blob ended after {read} of {size} bytes")]
    SourceTooShort {
        /// Bytes that could be read.
        read: u64,
        /// Bytes that were announced.
        size: u64,
    },
    /// The local file could not be read or written.
    #[error("the local copy of the blob failed: {0}")]
    Local(#[source] io::Error),
    /// The peer did not serve the request, or the stream failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<FrameError> for BlobError {
    fn from(error: FrameError) -> Self {
        Self::Call(CallError::Frame(error))
    }
}

/// How a blob came to be at the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// It was sent and stored.
    Stored,
    /// It was there already; nothing was sent.
    AlreadyThere,
}

/// See [`Endpoint::get_blob`](super::Endpoint::get_blob).
pub(super) async fn get<W: AsyncWrite + Unpin>(
    opener: &Opener,
    peer: PublicKey,
    digest: Digest,
    size_max: u64,
    writer: &mut W,
) -> Result<u64, BlobError> {
    let (mut stream, _permit) = opener.open(peer, Protocol::Blob).await?;
    let request = BlobRequest::Get(BlobGet { digest, size_max, offset: 0 });
    match decision(&mut stream, &request).await? {
        BlobHeader::NotFound => Err(BlobError::NotFound(digest)),
        BlobHeader::Found { size } if size <= size_max => {
            transfer::receive(&mut stream, writer, size, digest).await?;
            Ok(size)
        }
        BlobHeader::Found { size } | BlobHeader::TooLarge { size } => {
            Err(BlobError::TooLarge { digest, size, limit: size_max })
        }
    }
}

/// See [`Endpoint::put_blob`](super::Endpoint::put_blob).
pub(super) async fn put<R: AsyncRead + Unpin>(
    opener: &Opener,
    peer: PublicKey,
    digest: Digest,
    size: u64,
    reader: &mut R,
) -> Result<PutOutcome, BlobError> {
    let (mut stream, _permit) = opener.open(peer, Protocol::Blob).await?;
    let request = BlobRequest::Put(BlobPut { digest, size, offset: 0 });
    match decision(&mut stream, &request).await? {
        PutDecision::Have => Ok(PutOutcome::AlreadyThere),
        PutDecision::Send { offset: 0 } => send_body(stream, reader, size).await.map(|()| PutOutcome::Stored),
        PutDecision::Send { .. } => {
            Err(CallError::Protocol("asked for a part of a blob that was offered whole").into())
        }
    }
}

async fn decision<T>(stream: &mut Stream, request: &BlobRequest) -> Result<T, CallError>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    timeout(DECISION_TIMEOUT, ask(stream, Protocol::Blob, request)).await.map_err(|_| CallError::TimedOut)?
}

/// Sends the body while listening for the peer's verdict, which may come early if it is a refusal.
async fn send_body<R: AsyncRead + Unpin>(stream: Stream, reader: &mut R, size: u64) -> Result<(), BlobError> {
    let (mut answers, mut body) = stream.split();
    let sending = pin!(transfer::send(reader, &mut body, size));
    let verdict = pin!(read_answer::<BlobStored, _>(&mut answers, Protocol::Blob));
    let stored = match futures::future::select(sending, verdict).await {
        Either::Left((Ok(()), verdict)) => timeout(STORE_TIMEOUT, verdict).await.map_err(|_| CallError::TimedOut)??,
        Either::Left((Err(error @ BlobError::Call(_)), verdict)) => match timeout(REASON_TIMEOUT, verdict).await {
            Ok(Err(reason @ (CallError::Refused(_) | CallError::Busy))) => return Err(reason.into()),
            _ => return Err(error),
        },
        Either::Left((Err(error), _)) => return Err(error),
        Either::Right((Err(CallError::NoAnswer | CallError::Frame(_)), sending)) => {
            // The peer is gone; sending says how far it got, or fails as well.
            sending.await?;
            return Err(CallError::NoAnswer.into());
        }
        Either::Right((Err(error), _)) => return Err(error.into()),
        Either::Right((Ok(_), _)) => return Err(CallError::Protocol("stored a blob before it had it all").into()),
    };
    if stored.size == size { Ok(()) } else { Err(CallError::Protocol("stored another size than was sent").into()) }
}

/// Why this version does not serve a request, if it does not.
pub(super) fn refusal_of(request: &BlobRequest) -> Option<Refusal> {
    let (BlobRequest::Get(BlobGet { offset, .. }) | BlobRequest::Put(BlobPut { offset, .. })) = request;
    (*offset != 0).then(|| Refusal::new(RefusalCode::NotSupported, "transfers start at offset 0"))
}

/// What a peer asks for, with the means to serve it.
pub(super) const fn request_kind(request: BlobRequest, served: Served) -> RequestKind {
    match request {
        BlobRequest::Get(get) => RequestKind::BlobGet(BlobGetResponder::new(served, get)),
        BlobRequest::Put(put) => RequestKind::BlobPut(BlobPutResponder::new(served, put)),
    }
}
