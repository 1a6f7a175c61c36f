//! How far a blob has come: one running hash.

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

use super::Marks;
use crate::wire::{BlobPrefix, CHUNK_BYTES};

/// The verified beginning of a blob: its running SHA-256 and the marks of its chunks.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    hasher: Sha256,
    bytes: u64,
    marks: Vec<Digest>,
}

/// What [`Progress`] becomes with one more chunk.
#[derive(Debug)]
pub struct Step {
    hasher: Sha256,
    bytes: u64,
    mark: Digest,
}

impl Step {
    /// The mark of the chunk.
    pub const fn mark(&self) -> Digest {
        self.mark
    }
}

impl Progress {
    /// How many bytes are verified.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of these bytes.
    pub fn digest(&self) -> Digest {
        self.marks.last().copied().unwrap_or_else(|| Digest::of(b""))
    }

    /// What a peer is told of it; none before the first chunk, and none after the last if that is a short one.
    pub fn prefix(&self) -> Option<BlobPrefix> {
        let whole = self.bytes.is_multiple_of(CHUNK_BYTES as u64);
        self.marks.last().filter(|_| whole).map(|digest| BlobPrefix { size: self.bytes, digest: *digest })
    }

    /// What comes of these bytes as the next chunk.
    pub fn step(&self, chunk: &[u8]) -> Step {
        let mut hasher = self.hasher.clone();
        hasher.update(chunk);
        let mark = Digest::from_bytes(hasher.clone().finalize().into());
        Step { hasher, bytes: self.bytes.saturating_add(chunk.len() as u64), mark }
    }

    /// Takes the step.
    pub fn take(&mut self, step: Step) {
        (self.hasher, self.bytes) = (step.hasher, step.bytes);
        self.marks.push(step.mark);
    }

    /// The marks of the chunks so far.
    pub fn into_marks(self) -> Marks {
        Marks::new(self.marks)
    }
}
