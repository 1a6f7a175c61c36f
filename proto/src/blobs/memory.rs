//! Small blobs that need no file.

use std::io;

use bytes::Bytes;
use fedledger_ledger::Digest;

use super::{BlobSink, BlobSource, Marks, Progress, marks};
use crate::wire::CHUNK_BYTES;

/// A blob in memory, to be sent.
#[derive(Debug, Clone)]
pub struct MemoryBlob {
    bytes: Bytes,
    marks: Marks,
    digest: Digest,
}

impl MemoryBlob {
    /// A blob of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let mut progress = Progress::default();
        bytes.chunks(CHUNK_BYTES).for_each(|chunk| progress.take(progress.step(chunk)));
        let digest = progress.digest();
        Self { bytes, marks: progress.into_marks(), digest }
    }

    /// Its digest.
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl BlobSource for MemoryBlob {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn marks(&self) -> &Marks {
        &self.marks
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = self.bytes.get(offset..).unwrap_or_default();
        match marks::fill(&mut rest, buffer)? {
            filled if filled == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A blob that is received into memory.
#[derive(Debug, Default)]
pub struct MemorySink {
    bytes: Vec<u8>,
    progress: Progress,
}

impl MemorySink {
    /// What was received.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl BlobSink for MemorySink {
    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}
