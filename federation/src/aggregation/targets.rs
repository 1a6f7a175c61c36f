//! The files of a new version, written stripe by stripe.

use std::io::{self, Read, Seek, SeekFrom, Write};

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    Aggregation,
    stripes::{Destination, Stripe},
};
use crate::{
    command::{FileRef, OutputFiles},
    tensors::{HashingWriter, TensorLayout},
};

/// Bytes that are read and hashed at a time.
const PIECE_SIZE_BYTES: usize = 128 * 1024;

/// Weights and optimiser state of the new version.
#[derive(Debug)]
pub(super) struct Targets<W, S> {
    weights: HashingWriter<W>,
    state: Option<StateWriter<S>>,
}

impl<W: Write, S: Read + Write + Seek> Targets<W, S> {
    /// Writes the headers.
    pub(super) fn begin(aggregation: &Aggregation, destination: Destination<W, S>) -> io::Result<Self> {
        let Destination { weights, optimizer_state } = destination;
        let mut weights = HashingWriter::new(weights);
        weights.write_all(aggregation.weights_layout().header())?;
        let state = match aggregation.optimizer_state_layout() {
            Some(layout) => {
                let nowhere = "the rule keeps an optimizer state, but there is no place to write it to";
                let file = optimizer_state.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, nowhere))?;
                Some(StateWriter::begin(file, layout, aggregation.rule().moments())?)
            }
            None => None,
        };
        Ok(Self { weights, state })
    }

    /// Writes new weights and moments of a stripe.
    pub(super) fn write(&mut self, stripe: &Stripe) -> io::Result<()> {
        self.weights.write_all(&stripe.new)?;
        self.state.as_mut().map_or(Ok(()), |state| state.write(&stripe.moments))
    }

    /// Digests and sizes of the files.
    pub(super) fn finish(self) -> io::Result<OutputFiles> {
        let optimizer_state = self.state.map(StateWriter::finish).transpose()?;
        Ok(OutputFiles { weights: self.weights.finish()?, optimizer_state })
    }
}

/// A file of moments. Its digest is formed from beginning to end, so the second ones are hashed when all have been written.
#[derive(Debug)]
struct StateWriter<S> {
    file: S,
    /// Of header and first moments.
    hasher: Sha256,
    /// Where the next first and second moments go.
    next: [u64; 2],
    second_begins: u64,
    size: u64,
}

impl<S: Read + Write + Seek> StateWriter<S> {
    fn begin(mut file: S, layout: &TensorLayout, kinds: usize) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(layout.header())?;
        let header = layout.header().len() as u64;
        let second_begins = header.saturating_add((layout.payload_size_bytes() / kinds.max(1)) as u64);
        let mut hasher = Sha256::new();
        hasher.update(layout.header());
        Ok(Self { file, hasher, next: [header, second_begins], second_begins, size: layout.file_size_bytes() as u64 })
    }

    fn write(&mut self, moments: &[Vec<u8>; 2]) -> io::Result<()> {
        for (moments, next) in moments.iter().zip(&mut self.next).filter(|(moments, _)| !moments.is_empty()) {
            self.file.seek(SeekFrom::Start(*next))?;
            self.file.write_all(moments)?;
            *next = next.saturating_add(moments.len() as u64);
        }
        let [first, _] = moments;
        self.hasher.update(first);
        Ok(())
    }

    fn finish(mut self) -> io::Result<FileRef> {
        self.file.flush()?;
        self.file.seek(SeekFrom::Start(self.second_begins))?;
        let mut piece = vec![0; PIECE_SIZE_BYTES];
        let mut left = self.size.saturating_sub(self.second_begins);
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_SIZE_BYTES);
            let piece = piece.get_mut(..wanted).unwrap_or_default();
            self.file.read_exact(piece)?;
            self.hasher.update(&*piece);
            left = left.saturating_sub(wanted as u64);
        }
        Ok(FileRef { digest: Digest::from_bytes(self.hasher.finalize().into()), size: self.size })
    }
}
