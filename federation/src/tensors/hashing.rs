//! Writing and hashing in one pass.

use std::io::{self, Write};

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

use crate::command::FileRef;

/// Bytes that are hashed and then written while they are in the cache.
const PIECE_SIZE_BYTES: usize = 128 * 1024;

/// Hashes what it passes on.
#[derive(Debug)]
pub struct HashingWriter<W> {
    sink: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// A writer at the beginning of a file, which goes to `sink`.
    pub fn new(sink: W) -> Self {
        Self { sink, hasher: Sha256::new(), size: 0 }
    }

    /// Flushes the sink and gives digest and size of what was written.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn finish(mut self) -> io::Result<FileRef> {
        self.sink.flush()?;
        Ok(FileRef { digest: Digest::from_bytes(self.hasher.finalize().into()), size: self.size })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE_SIZE_BYTES)).unwrap_or(bytes);
        let count = self.sink.write(piece)?;
        self.hasher.update(piece.get(..count).unwrap_or(piece));
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
