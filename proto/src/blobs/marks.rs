//! The marks of a blob's chunks.

use std::io::{self, Read};

use fedledger_ledger::Digest;

use super::Progress;
use crate::wire::{BlobPrefix, CHUNK_BYTES};

/// Size of a mark in a file of marks.
const MARK_BYTES: usize = 32;

/// For each chunk of a blob the SHA-256 of the blob up to its end; none for the empty blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks(Vec<Digest>);

impl Marks {
    /// Marks that were made before.
    pub const fn new(marks: Vec<Digest>) -> Self {
        Self(marks)
    }

    /// The marks of everything that a reader gives, and its digest and size.
    ///
    /// # Errors
    ///
    /// Those of the reader.
    pub fn of<R: Read>(mut reader: R) -> io::Result<(Self, Digest, u64)> {
        let mut progress = Progress::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let filled = fill(&mut reader, &mut chunk)?;
            let Some(bytes) = chunk.get(..filled).filter(|bytes| !bytes.is_empty()) else { break };
            progress.take(progress.step(bytes));
        }
        let (digest, size) = (progress.digest(), progress.bytes());
        Ok((progress.into_marks(), digest, size))
    }

    /// Marks from a file, if they can be those of this blob: their number is right, and the last is its digest.
    pub fn parse(bytes: &[u8], digest: &Digest, size: u64) -> Option<Self> {
        let (marks, rest) = bytes.as_chunks::<MARK_BYTES>();
        let marks: Vec<Digest> = marks.iter().map(|mark| Digest::from_bytes(*mark)).collect();
        let is_theirs = rest.is_empty() && marks.len() as u64 == chunks(size) && marks.last() == Some(digest);
        is_theirs.then_some(Self(marks))
    }

    /// How many chunks there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether these are the marks of the empty blob.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they stand in a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|mark| *mark.as_bytes()).collect()
    }

    /// The mark of the chunk that begins at `offset`.
    pub fn at(&self, offset: u64) -> Option<Digest> {
        self.0.get(usize::try_from(offset / CHUNK_BYTES as u64).ok()?).copied()
    }

    /// Whether the blob begins with this.
    pub fn begin_with(&self, prefix: &BlobPrefix) -> bool {
        let last_chunk = prefix.size.checked_sub(CHUNK_BYTES as u64);
        last_chunk.and_then(|offset| self.at(offset)) == Some(prefix.digest)
    }
}

/// Chunks of a blob of this size.
pub const fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES as u64)
}

/// Reads until the buffer is full or there is no more; how many bytes.
pub fn fill<R: Read>(reader: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
