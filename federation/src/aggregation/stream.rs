//! One update on its way in: checked, but not kept.

use fedledger_ledger::Digest;

use super::{Aggregation, ContributionError, EncodeError, Encoder};
use crate::tensors::{TensorLayout, UpdateReader};

/// Checks one update while it arrives: hashed, compared with the layout and checked value by value, in one pass over bytes
/// that are in the cache.
#[derive(Debug)]
pub struct ContributionStream {
    encoder: Encoder,
    layout: TensorLayout,
    reader: UpdateReader,
}

impl ContributionStream {
    /// A stream for an update with `example_count` examples.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NoExamples`] or [`EncodeError::TooManyExamples`].
    pub fn new(aggregation: &Aggregation, example_count: u64) -> Result<Self, EncodeError> {
        let layout = aggregation.update_layout().clone();
        let encoder = aggregation.fixed_point().encoder(example_count)?;
        Ok(Self { encoder, reader: UpdateReader::new(layout.clone()), layout })
    }

    /// Takes the next bytes of the update file.
    ///
    /// # Errors
    ///
    /// Why the contribution is refused; the stream is of no further use.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ContributionError> {
        let Self { encoder, layout, reader } = self;
        reader.push(chunk, |run| {
            encoder.check(run.dtype, run.bytes).map_err(|(index, error)| {
                let name = layout.tensors().get(run.tensor).map_or("", |tensor| tensor.name.as_str());
                error.at(name, run.first + index).into()
            })
        })
    }

    /// SHA-256 of the update file, if it is complete, to compare with the ledger.
    ///
    /// # Errors
    ///
    /// [`ReadError::Truncated`](crate::tensors::ReadError::Truncated) if bytes are missing,
    /// [`ReadError::GivenUp`](crate::tensors::ReadError::GivenUp) after an earlier error.
    pub fn finish(self) -> Result<Digest, ContributionError> {
        Ok(self.reader.finish()?)
    }
}
