//! The serving side of blob transfers.

use std::{pin::pin, sync::Arc};

use fedledger_ledger::Digest;
use futures::AsyncReadExt as _;
use libp2p::Stream;
use tokio::time::timeout;

use super::{
    super::{
        bandwidth::Bandwidth,
        inbound::{Served, close},
        slots::Slot,
    },
    BlobError, WAIT_INTERVAL,
    transfer::{self, Transfer},
};
use crate::{
    blobs::{BlobSink, BlobSource, Progress},
    wire::{
        Answer, BlobGet, BlobHeader, BlobPut, BlobStart, BlobStored, CHUNK_BYTES, FrameError, PutDecision, Refusal,
        RefusalCode,
        frame::{self, STALL_TIMEOUT},
    },
};

/// The means to serve a blob to a peer.
#[derive(Debug)]
pub struct BlobGetResponder {
    served: Served,
    bandwidth: Arc<Bandwidth>,
    request: BlobGet,
}

impl BlobGetResponder {
    pub(in crate::endpoint) const fn new(served: Served, bandwidth: Arc<Bandwidth>, request: BlobGet) -> Self {
        Self { served, bandwidth, request }
    }

    /// The blob that is wanted.
    pub const fn digest(&self) -> Digest {
        self.request.digest
    }

    /// Whether the peer says that a copy it was given from here was damaged.
    pub const fn is_doubted(&self) -> bool {
        self.request.doubted
    }

    /// Sends what the peer does not hold of the blob. One that is larger than the peer allows is only announced, and so is
    /// one that does not begin with what the peer holds.
    ///
    /// # Errors
    ///
    /// [`BlobError`] if the peer is gone or too slow, or the source fails or ends early; the peer then sees a transfer
    /// that ended early.
    pub async fn send<S: BlobSource>(mut self, source: S) -> Result<(), BlobError> {
        let size = source.size();
        if size > self.request.size_max {
            return Ok(self.served.finish(&Answer::Granted(BlobHeader::TooLarge { size })).await?);
        }
        let held = self.request.held;
        if held.is_some_and(|held| !source.marks().begin_with(&held)) {
            return Ok(self.served.finish(&Answer::Granted(BlobHeader::Differs)).await?);
        }
        let offset = held.map_or(0, |held| held.size);
        let slot = turn(&mut self.served, &self.bandwidth, size.saturating_sub(offset), BlobHeader::Wait).await?;
        self.served.answer(&Answer::Granted(BlobHeader::Found { size })).await?;
        let transfer = Transfer { bandwidth: &self.bandwidth, digest: self.request.digest, size };
        let slot = transfer::send(transfer, &mut self.served.stream, source, offset, slot).await?;
        close(&mut self.served.stream).await?;
        // What was written is in memory until the peer has it.
        slot.until(end_of(&mut self.served.stream)).await;
        Ok(())
    }

    /// Says that the blob is not here.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn not_found(self) -> Result<(), FrameError> {
        self.served.finish(&Answer::Granted(BlobHeader::NotFound)).await
    }

    /// Refuses.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn refuse(self, refusal: Refusal) -> Result<(), FrameError> {
        self.served.refuse(refusal).await
    }
}

/// The means to take a blob from a peer, or not.
#[derive(Debug)]
pub struct BlobPutResponder {
    served: Served,
    bandwidth: Arc<Bandwidth>,
    request: BlobPut,
}

impl BlobPutResponder {
    pub(in crate::endpoint) const fn new(served: Served, bandwidth: Arc<Bandwidth>, request: BlobPut) -> Self {
        Self { served, bandwidth, request }
    }

    /// The blob that is offered.
    pub const fn digest(&self) -> Digest {
        self.request.digest
    }

    /// Its announced size, in bytes. Decide by it before taking the body.
    pub const fn size(&self) -> u64 {
        self.request.size
    }

    /// Says that the blob is here already.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn have(self) -> Result<(), FrameError> {
        self.served.finish(&Answer::Granted(PutDecision::Have)).await
    }

    /// Refuses; the body is not sent.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn refuse(self, refusal: Refusal) -> Result<(), FrameError> {
        self.served.refuse(refusal).await
    }

    /// Takes what `sink` does not hold of the body, verifying it on the way. The peer waits for the receipt to be used.
    ///
    /// # Errors
    ///
    /// [`BlobError`]; the peer was told. What the sink holds then has been verified, as far as that is possible before
    /// the last chunk.
    pub async fn receive<S: BlobSink>(mut self, mut sink: S) -> Result<(BlobReceipt, S), BlobError> {
        let held = sink.progress().prefix();
        let rest = self.request.size.saturating_sub(sink.progress().bytes());
        let slot = turn(&mut self.served, &self.bandwidth, rest, PutDecision::Wait).await?;
        self.served.answer(&Answer::Granted(PutDecision::Send { held })).await?;
        match self.take_body(sink, slot).await {
            Ok(sink) => Ok((BlobReceipt { served: self.served, size: self.request.size }, sink)),
            Err(error) => {
                let code = match error {
                    BlobError::WrongContent { .. } | BlobError::WrongChunk { .. } => Some(RefusalCode::WrongContent),
                    BlobError::Local(_) => Some(RefusalCode::Storage),
                    BlobError::WrongStart(_) => Some(RefusalCode::Malformed),
                    _ => None,
                };
                if let Some(code) = code {
                    // What went wrong here matters more than that the peer cannot be told.
                    self.served.refuse(Refusal::new(code, &error)).await.ok();
                }
                Err(error)
            }
        }
    }

    async fn take_body<S: BlobSink>(&mut self, mut sink: S, slot: Slot) -> Result<S, BlobError> {
        let (stream, limit) = (&mut self.served.stream, self.served.protocol.request_size_bytes_max());
        let start = timeout(STALL_TIMEOUT, frame::read_message::<BlobStart, _>(stream, limit)).await;
        let start = start.map_err(|_| FrameError::Stalled)??;
        let BlobStart { offset } = start.ok_or(BlobError::Truncated { received: 0, size: self.request.size })?;
        let held = sink.progress().bytes();
        if offset == 0 && held > 0 {
            sink.clear().map_err(BlobError::Local)?;
            *sink.progress() = Progress::default();
        } else if offset != held {
            return Err(BlobError::WrongStart(offset));
        }
        let transfer = Transfer { bandwidth: &self.bandwidth, digest: self.request.digest, size: self.request.size };
        transfer::receive(transfer, stream, sink, slot).await
    }
}

/// Waits until it is this transfer's turn, and has the peer wait as well. The last chunk of a blob needs no turn: it is in
/// memory anyway while it is verified.
async fn turn<T>(served: &mut Served, bandwidth: &Bandwidth, rest: u64, wait: T) -> Result<Slot, FrameError>
where
    T: serde::Serialize + Copy,
{
    if rest <= CHUNK_BYTES as u64 {
        return Ok(Slot::default());
    }
    let mut acquired = pin!(bandwidth.served.acquire(rest));
    loop {
        match timeout(WAIT_INTERVAL, &mut acquired).await {
            Ok(slot) => return Ok(slot),
            Err(_) => served.answer(&Answer::Granted(wait)).await?,
        }
    }
}

/// The peer's end of a stream, which it closes when it has what it asked for.
async fn end_of(stream: &mut Stream) {
    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
}

/// A blob that arrived whole. Tell the peer once it is safe.
#[derive(Debug)]
#[must_use = "the peer waits for the verdict"]
pub struct BlobReceipt {
    served: Served,
    size: u64,
}

impl BlobReceipt {
    /// Says that the blob is durable here.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn stored(self) -> Result<(), FrameError> {
        let stored = BlobStored { size: self.size };
        self.served.finish(&Answer::Granted(stored)).await
    }

    /// Says that the blob could not be kept.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the peer is gone.
    pub async fn refuse(self, refusal: Refusal) -> Result<(), FrameError> {
        self.served.refuse(refusal).await
    }
}
