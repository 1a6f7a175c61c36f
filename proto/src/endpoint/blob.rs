//! Files of any size, named and verified by their SHA-256 digest, in bounded memory.
//!
//! Bodies travel in one direction per stream, and the receiving side never waits for its own writing to the peer, so no
//! number of transfers in both directions can block each other.

use std::{io, pin::pin, sync::Arc, time::Duration};

use fedledger_ledger::{Digest, PublicKey};
use futures::{AsyncReadExt as _, future::Either};
use libp2p::Stream;
use tokio::time::timeout;

use super::{
    CallError,
    bandwidth::Bandwidth,
    call::{ask, read_answer},
    inbound::{RequestKind, Served},
    limits::Permit,
    open::Opener,
    slots::Slot,
};
use crate::{
    blobs::{BlobSink, BlobSource},
    wire::{
        BlobGet, BlobHeader, BlobPut, BlobRequest, BlobStart, BlobStored, CHUNK_BYTES, FrameError, Protocol,
        PutDecision, Refusal, RefusalCode, frame,
    },
};

mod pace;
mod responder;
mod transfer;

pub use responder::{BlobGetResponder, BlobPutResponder, BlobReceipt};
use transfer::Transfer;

/// How long the peer may take to say whether it has or wants a blob, or that other transfers still come first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a peer is told that other transfers still come first: it would give up otherwise.
const WAIT_INTERVAL: Duration = Duration::from_secs(2);

/// How long a peer may say so, in all, before it is left, if there is no other to go to: many large files may come first.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long the peer may take to make a blob durable that it has received.
const STORE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long to wait for the reason after the peer stopped reading a body.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// A transfer that failed. What the local sink holds then has been verified chunk by chunk, and another transfer may go on
/// from there.
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
    /// The peer has the blob, but it does not begin with what is held of it here: one of the two is damaged, or was made up
    /// by whoever sent it.
    #[error("blob {0} does not begin at the peer with what is held of it here")]
    Differs(Digest),
    /// A chunk is not what the peer itself has recorded of it. The chunks before it stay.
    #[error("received a chunk at offset {offset} with mark {found}, announced as {expected}")]
    WrongChunk {
        /// Where it begins.
        offset: u64,
        /// The mark that was announced.
        expected: Digest,
        /// The mark of what came.
        found: Digest,
    },
    /// The bytes are not those of the blob, although every chunk was what had been announced. Nothing that only this peer
    /// has sent is kept.
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
    /// The peer went on so slowly that it was left: below 16 KiB/s over half a minute of waiting for it, or without a single
    /// chunk in two minutes. Another one may be asked for the rest.
    #[error("the transfer was given up after {done} of {size} bytes: it is too slow")]
    TooSlow {
        /// Bytes that are behind it.
        done: u64,
        /// Size of the whole blob, in bytes.
        size: u64,
    },
    /// The peer began to send elsewhere than where it was asked to.
    #[error("the peer began to send at offset {0}, where it was not asked to")]
    WrongStart(u64),
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

impl BlobError {
    /// Whether the peer's copy is damaged or made up, so that another peer is to be asked.
    pub const fn blames_peer(&self) -> bool {
        matches!(self, Self::WrongChunk { .. } | Self::WrongContent { .. } | Self::TooLarge { .. })
    }

    /// Whether this node's own copy may be damaged, or gone: it is to be [verified](crate::blobs::BlobStore::verify).
    pub fn doubts_own_copy(&self) -> bool {
        match self {
            Self::Local(_) | Self::SourceTooShort { .. } => true,
            Self::Call(CallError::Refused(refusal)) => refusal.code == RefusalCode::WrongContent,
            _ => false,
        }
    }
}

/// A blob that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedBlob {
    /// The SHA-256 digest of the whole blob.
    pub digest: Digest,
    /// Largest size that is taken, in bytes.
    pub size_max: u64,
    /// Whether the peer has given a damaged copy before, so that it is to look at its own first.
    pub doubted: bool,
}

/// Which part a transfer has among others.
#[derive(Debug)]
pub struct Turn {
    /// Its slot among those that this node begins at a time. It is given up as soon as the peer is slow, or has the transfer
    /// wait.
    pub slot: Slot,
    /// How long the peer may take to begin, waiting for its other transfers included. Whoever can ask another peer should not
    /// wait long for this one.
    pub patience: Duration,
}

impl Default for Turn {
    /// Beside all others, and with much patience.
    fn default() -> Self {
        Self { slot: Slot::default(), patience: WAIT_MAX }
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

/// See [`Endpoint::get_blob_in_turn`](super::Endpoint::get_blob_in_turn).
pub(super) async fn get<S: BlobSink>(
    opener: &Opener,
    bandwidth: &Bandwidth,
    (peer, turn): (PublicKey, Turn),
    wanted: WantedBlob,
    mut sink: S,
) -> Result<S, BlobError> {
    let WantedBlob { digest, size_max, doubted } = wanted;
    let held = sink.progress().prefix();
    let request = BlobRequest::Get(BlobGet { digest, size_max, held, doubted });
    let Begun { mut stream, decision, slot, _permit } =
        begin(opener, (peer, turn), &request, |header| *header == BlobHeader::Wait).await?;
    match decision {
        BlobHeader::Wait => Err(BlobError::Call(CallError::TimedOut)),
        BlobHeader::NotFound => Err(BlobError::NotFound(digest)),
        BlobHeader::Differs => Err(BlobError::Differs(digest)),
        BlobHeader::Found { size } if size <= size_max => {
            if held.is_some_and(|held| held.size > size) {
                return Err(CallError::Protocol("found a file smaller than its beginning").into());
            }
            transfer::receive(Transfer { bandwidth, digest, size }, &mut stream, sink, slot).await
        }
        BlobHeader::Found { size } | BlobHeader::TooLarge { size } => {
            Err(BlobError::TooLarge { digest, size, limit: size_max })
        }
    }
}

/// See [`Endpoint::put_blob_in_turn`](super::Endpoint::put_blob_in_turn).
pub(super) async fn put<S: BlobSource>(
    opener: &Opener,
    bandwidth: &Bandwidth,
    (peer, turn): (PublicKey, Turn),
    digest: Digest,
    source: S,
) -> Result<PutOutcome, BlobError> {
    let size = source.size();
    let request = BlobRequest::Put(BlobPut { digest, size });
    let Begun { stream, decision, slot, _permit } =
        begin(opener, (peer, turn), &request, |decision| *decision == PutDecision::Wait).await?;
    match decision {
        PutDecision::Wait => Err(BlobError::Call(CallError::TimedOut)),
        PutDecision::Have => Ok(PutOutcome::AlreadyThere),
        PutDecision::Send { held } => {
            // What the peer holds may be the beginning of something else; then it gets everything.
            let offset = held.filter(|held| source.marks().begin_with(held)).map_or(0, |held| held.size);
            let body = Body { transfer: Transfer { bandwidth, digest, size }, source, offset, slot };
            send_body(stream, body).await.map(|()| PutOutcome::Stored)
        }
    }
}

/// A transfer that the peer has decided on.
struct Begun<T> {
    stream: Stream,
    decision: T,
    slot: Slot,
    _permit: Permit,
}

/// Asks the peer, and waits until it is this transfer's turn there: without its slot here if that takes long, and not for
/// longer than it has patience. A peer that says to wait must not keep any other transfer from beginning.
async fn begin<T>(
    opener: &Opener,
    (peer, turn): (PublicKey, Turn),
    request: &BlobRequest,
    is_wait: fn(&T) -> bool,
) -> Result<Begun<T>, CallError>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let Turn { mut slot, patience } = turn;
    let asked = slot.hold_while(async {
        let (mut stream, permit) = opener.open(peer, Protocol::Blob).await?;
        let decision = decision(&mut stream, request, is_wait).await?;
        Ok::<_, CallError>((stream, permit, decision))
    });
    let (stream, permit, decision) = timeout(patience, asked).await.map_err(|_| CallError::TimedOut)??;
    slot.complete_chunk();
    Ok(Begun { stream, decision, slot, _permit: permit })
}

/// What the peer says in the end.
async fn decision<T>(stream: &mut Stream, request: &BlobRequest, is_wait: fn(&T) -> bool) -> Result<T, CallError>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let asked = timeout(ANSWER_TIMEOUT, ask(stream, Protocol::Blob, request));
    let mut decision = asked.await.map_err(|_| CallError::TimedOut)??;
    while is_wait(&decision) {
        let answered = timeout(ANSWER_TIMEOUT, read_answer(&mut *stream, Protocol::Blob));
        decision = answered.await.map_err(|_| CallError::TimedOut)??;
    }
    Ok(decision)
}

/// What is sent of a blob.
struct Body<'a, S> {
    transfer: Transfer<'a>,
    source: S,
    offset: u64,
    slot: Slot,
}

/// Sends the body while listening for the peer's verdict, which may come early if it is a refusal.
async fn send_body<S: BlobSource>(stream: Stream, body: Body<'_, S>) -> Result<(), BlobError> {
    let Body { transfer, source, offset, slot } = body;
    let size = transfer.size;
    let (mut answers, mut writer) = stream.split();
    let sending = pin!(async {
        let limit = Protocol::Blob.request_size_bytes_max();
        frame::write_message(&mut writer, &BlobStart { offset }, limit).await?;
        transfer::send(transfer, &mut writer, source, offset, slot).await.map(drop)
    });
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

/// Why a request is not served, whoever asks.
pub(super) fn refusal_of(request: &BlobRequest) -> Option<Refusal> {
    let BlobRequest::Get(BlobGet { held: Some(held), .. }) = request else { return None };
    let is_whole = held.size > 0 && held.size.is_multiple_of(CHUNK_BYTES as u64);
    (!is_whole).then(|| Refusal::new(RefusalCode::Malformed, "what is held of a blob ends within a chunk"))
}

/// What a peer asks for, with the means to serve it.
pub(super) fn request_kind(request: BlobRequest, served: Served, bandwidth: Arc<Bandwidth>) -> RequestKind {
    match request {
        BlobRequest::Get(get) => RequestKind::BlobGet(BlobGetResponder::new(served, bandwidth, get)),
        BlobRequest::Put(put) => RequestKind::BlobPut(BlobPutResponder::new(served, bandwidth, put)),
    }
}
