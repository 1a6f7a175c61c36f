//! Downloading blobs, each verified against its digest.

use bytes::Bytes;
use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{ApiClient, ApiError, limits::READ_TIMEOUT, v1};

impl ApiClient {
    /// Downloads a blob of at most `size_max` bytes into `target` and returns its size. Only after success do the
    /// written bytes have the digest asked for.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: among others `not_found` if the replica lacks the blob, `not_permitted` if it is a raw update and
    /// the member is neither replica nor auditor.
    pub async fn download(
        &self,
        digest: &Digest,
        size_max: u64,
        target: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, ApiError> {
        let mut chunks = self.open_blob(digest).await?;
        let store = |source| ApiError::Store { url: self.url().to_owned(), source };
        let (mut hasher, mut declared, mut received) = (Sha256::new(), None, 0u64);
        while let Some(chunk) = self.next_chunk(&mut chunks).await? {
            let size = match declared {
                Some(size) => size,
                None => *declared.insert(self.declared_size(&chunk, size_max)?),
            };
            received = received.saturating_add(chunk.data.len() as u64);
            if received > size {
                return Err(self.invalid("a blob is larger than announced"));
            }
            hasher.update(&chunk.data);
            target.write_all(&chunk.data).await.map_err(store)?;
        }
        if declared != Some(received) || Digest::from_bytes(hasher.finalize().into()) != *digest {
            return Err(self.invalid("a blob is not the one with the digest asked for"));
        }
        target.flush().await.map_err(store)?;
        Ok(received)
    }

    /// Downloads a blob of at most `size_max` bytes into memory.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::download`].
    pub async fn fetch(&self, digest: &Digest, size_max: u64) -> Result<Bytes, ApiError> {
        let mut bytes = Vec::new();
        self.download(digest, size_max, &mut bytes).await?;
        Ok(bytes.into())
    }

    async fn next_chunk(
        &self,
        chunks: &mut tonic::Streaming<v1::BlobChunk>,
    ) -> Result<Option<v1::BlobChunk>, ApiError> {
        let late = |_| ApiError::TimedOut { url: self.url().to_owned(), after: READ_TIMEOUT };
        let received = timeout(READ_TIMEOUT, chunks.message()).await.map_err(late)?;
        received.map_err(|status| self.failed(&status, READ_TIMEOUT))
    }

    /// The size that the first chunk announces.
    fn declared_size(&self, first: &v1::BlobChunk, size_max: u64) -> Result<u64, ApiError> {
        match first.size {
            Some(size) if size <= size_max => Ok(size),
            Some(_) => Err(self.invalid("a blob is larger than what was asked for can be")),
            None => Err(self.invalid("the size of a blob is missing")),
        }
    }
}
