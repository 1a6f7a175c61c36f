//! The service `fedledger.v1.Blobs`.

use std::sync::Arc;

use bytes::BytesMut;
use fedledger_ledger::Digest;
use fedledger_proto::api::{
    ApiCode, Refused,
    limits::BLOB_CHUNK_SIZE_BYTES,
    v1::{self, blobs_server::Blobs},
};
use futures::{
    TryStreamExt as _,
    stream::{self, BoxStream},
};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    access::{Access, Admitted, stopping},
    backend::{Backend, Blob},
};

/// Answers from a replica's blob store.
pub(super) struct BlobsService<B> {
    access: Arc<Access<B>>,
}

impl<B: Backend> BlobsService<B> {
    /// Answers those who have access.
    pub fn new(access: Arc<Access<B>>) -> Self {
        Self { access }
    }

    async fn opened(&self, digest: &Digest, admitted: Admitted) -> Result<Chunks, Refused> {
        if self.access.backend.is_raw_update(digest) {
            admitted.may_read_raw_updates()?;
        }
        let blob = self.access.backend.blob(digest).await?;
        let blob = blob.ok_or_else(|| {
            Refused::new(ApiCode::NotFound, format!("this replica does not hold blob {digest}: ask another one"))
        })?;
        Ok(Chunks::new(blob, self.access.stopping.clone(), admitted))
    }

    async fn held(&self, digests: &[Digest]) -> Result<Vec<bool>, Refused> {
        let mut held = Vec::with_capacity(digests.len());
        for digest in digests {
            held.push(self.access.backend.has_blob(digest).await?);
        }
        Ok(held)
    }
}

#[tonic::async_trait]
impl<B: Backend> Blobs for BlobsService<B> {
    type GetStream = BoxStream<'static, Result<v1::BlobChunk, Status>>;

    async fn get(&self, request: Request<v1::GetBlobRequest>) -> Result<Response<Self::GetStream>, Status> {
        let admitted = self.access.stream(&request).await?;
        let digest = request.get_ref().digest().map_err(malformed)?;
        let known = admitted.known;
        let chunks = self.opened(&digest, admitted).await?;
        let stream =
            stream::try_unfold(chunks, |mut chunks| async { Ok(chunks.next().await?.map(|chunk| (chunk, chunks))) });
        let stream: Self::GetStream = Box::pin(stream.map_err(|refused: Refused| refused.into()));
        Ok(self.access.answer(known, stream).await?)
    }

    async fn has(&self, request: Request<v1::HasBlobsRequest>) -> Result<Response<v1::HasBlobsResponse>, Status> {
        let call = self.access.call(&request).await?;
        let digests = request.get_ref().digests().map_err(malformed)?;
        let held = self.held(&digests).await?;
        Ok(self.access.answer(call.known, v1::HasBlobsResponse { held }).await?)
    }
}

fn malformed(error: impl std::fmt::Display) -> Refused {
    Refused::new(ApiCode::Malformed, error)
}

/// A blob in pieces. It holds at most one, and reads the next when the client has room for it.
struct Chunks {
    blob: Blob,
    /// Bytes that have not been read.
    remaining: u64,
    /// The size, until it has been announced.
    unannounced: Option<u64>,
    stopping: CancellationToken,
    _admitted: Admitted,
}

impl Chunks {
    fn new(blob: Blob, stopping: CancellationToken, admitted: Admitted) -> Self {
        Self { remaining: blob.size, unannounced: Some(blob.size), blob, stopping, _admitted: admitted }
    }

    async fn next(&mut self) -> Result<Option<v1::BlobChunk>, Refused> {
        let size = self.unannounced.take();
        if self.remaining == 0 && size.is_none() {
            return Ok(None);
        }
        let length = self.remaining.min(BLOB_CHUNK_SIZE_BYTES as u64);
        let stopped = self.stopping.clone();
        let data = tokio::select! {
            () = stopped.cancelled() => return Err(stopping()),
            data = self.read(length) => data?,
        };
        self.remaining -= length;
        Ok(Some(v1::BlobChunk { size, data: data.freeze() }))
    }

    /// Exactly `length` bytes.
    async fn read(&mut self, length: u64) -> Result<BytesMut, Refused> {
        let mut data = BytesMut::with_capacity(usize::try_from(length).unwrap_or(BLOB_CHUNK_SIZE_BYTES));
        let mut part = (&mut self.blob.reader).take(length);
        while (data.len() as u64) < length {
            match part.read_buf(&mut data).await {
                Ok(0) => return Err(unreadable("it ends too early")),
                Ok(_) => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(data)
    }
}

fn unreadable(error: impl std::fmt::Display) -> Refused {
    tracing::error!(%error, "a blob cannot be read");
    Refused::new(ApiCode::Internal, "this replica cannot read the blob, its log says why: ask another one")
}
