//! Copying a blob's bytes to or from a stream, chunk by chunk.

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::BlobError;
use crate::wire::frame;

/// Bytes that are held of one transfer at a time. Large enough that a file is written in few calls.
const CHUNK_BYTES: usize = 256 * 1024;

/// Copies exactly `size` bytes from the stream to the writer and checks that they are those of `digest`.
pub(super) async fn receive<S, W>(stream: &mut S, writer: &mut W, size: u64, digest: Digest) -> Result<(), BlobError>
where
    S: futures::AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; chunk_bytes(size)];
    let mut received = 0;
    while received < size {
        let wanted = chunk_bytes(size - received);
        let mut filled = 0;
        while filled < wanted {
            let room = chunk.get_mut(filled..wanted).unwrap_or_default();
            let read = frame::read_some(stream, room).await?;
            if read == 0 {
                return Err(BlobError::Truncated { received: received + filled as u64, size });
            }
            filled += read;
        }
        let filled = chunk.get(..wanted).unwrap_or_default();
        hasher.update(filled);
        writer.write_all(filled).await.map_err(BlobError::Local)?;
        received += filled.len() as u64;
    }
    writer.flush().await.map_err(BlobError::Local)?;
    let found = Digest::from_bytes(hasher.finalize().into());
    if found == digest { Ok(()) } else { Err(BlobError::WrongContent { expected: digest, found }) }
}

/// Copies exactly `size` bytes from the reader to the stream.
pub(super) async fn send<R, S>(reader: &mut R, stream: &mut S, size: u64) -> Result<(), BlobError>
where
    R: AsyncRead + Unpin,
    S: futures::AsyncWrite + Unpin,
{
    let mut chunk = vec![0; chunk_bytes(size)];
    let mut sent = 0;
    while sent < size {
        let room = chunk.get_mut(..chunk_bytes(size - sent)).unwrap_or_default();
        let read = reader.read(room).await.map_err(BlobError::Local)?;
        if read == 0 {
            return Err(BlobError::SourceTooShort { read: sent, size });
        }
        frame::write_all(stream, chunk.get(..read).unwrap_or_default()).await?;
        sent += read as u64;
    }
    frame::flush(stream).await?;
    Ok(())
}

fn chunk_bytes(rest: u64) -> usize {
    usize::try_from(rest).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
}
