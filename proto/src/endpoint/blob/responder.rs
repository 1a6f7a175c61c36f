//! The serving side of blob transfers.

use fedledger_ledger::Digest;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::inbound::{Served, close},
    BlobError, transfer,
};
use crate::wire::{Answer, BlobGet, BlobHeader, BlobPut, BlobStored, FrameError, PutDecision, Refusal, RefusalCode};

/// The means to serve a blob to a peer.
#[derive(Debug)]
pub struct BlobGetResponder {
    served: Served,
    request: BlobGet,
}

impl BlobGetResponder {
    pub(in crate::endpoint) const fn new(served: Served, request: BlobGet) -> Self {
        Self { served, request }
    }

    /// The blob that is wanted.
    pub const fn digest(&self) -> Digest {
        self.request.digest
    }

    /// Sends the blob, of which `reader` gives the `size` bytes. A blob that is larger than the peer allows is only
    /// announced.
    ///
    /// # Errors
    ///
    /// [`BlobError`] if the peer is gone or too slow, or the reader fails or ends early; the peer then sees a transfer
    /// that ended early.
    pub async fn send<R: AsyncRead + Unpin>(mut self, size: u64, reader: &mut R) -> Result<(), BlobError> {
        if size > self.request.size_max {
            return Ok(self.served.finish(&Answer::Granted(BlobHeader::TooLarge { size })).await?);
        }
        self.served.answer(&Answer::Granted(BlobHeader::Found { size })).await?;
        transfer::send(reader, &mut self.served.stream, size).await?;
        Ok(close(&mut self.served.stream).await?)
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
    request: BlobPut,
}

impl BlobPutResponder {
    pub(in crate::endpoint) const fn new(served: Served, request: BlobPut) -> Self {
        Self { served, request }
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

    /// Takes the body into `writer`, verifying it on the way. The peer waits for the receipt to be used.
    ///
    /// # Errors
    ///
    /// [`BlobError`]; the peer was told, and what was written must be discarded.
    pub async fn receive<W: AsyncWrite + Unpin>(mut self, writer: &mut W) -> Result<BlobReceipt, BlobError> {
        self.served.answer(&Answer::Granted(PutDecision::Send { offset: 0 })).await?;
        let BlobPut { digest, size, .. } = self.request;
        let Err(error) = transfer::receive(&mut self.served.stream, writer, size, digest).await else {
            return Ok(BlobReceipt { served: self.served, size });
        };
        let code = match error {
            BlobError::WrongContent { .. } => Some(RefusalCode::WrongContent),
            BlobError::Local(_) => Some(RefusalCode::Storage),
            _ => None,
        };
        if let Some(code) = code {
            // What went wrong here matters more than that the peer cannot be told.
            self.served.refuse(Refusal::new(code, &error)).await.ok();
        }
        Err(error)
    }
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
