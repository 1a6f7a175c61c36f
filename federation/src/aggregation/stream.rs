//! Aggregation of updates that arrive one after another, in chunks.
//!
//! A contribution is staged while it arrives: hashed, compared with the layout and checked value by value, in one pass
//! over bytes that are in the cache. Only a complete [`Contribution`] can be added to the sum, and adding it cannot
//! fail half-way, so a rejected one leaves no trace. Any number may be staged at the same time.

use std::mem;

use fedledger_ledger::Digest;

use super::{
    Aggregation, AggregationError, Base, ContributionError, EncodeError, Encoder, Outputs,
    blocks::{self, BLOCK_ELEMENTS},
    ring::Accumulator,
};
use crate::tensors::{TensorLayout, UpdateReader};

/// The running sum of a round.
#[derive(Debug, Clone)]
pub struct Aggregator {
    aggregation: Aggregation,
    accumulator: Accumulator,
    contribution_count: usize,
    example_count: u64,
    /// The memory of the contribution added last, for the next one: fresh pages cost as much as hashing.
    spare: Vec<u8>,
}

/// One update on its way in.
#[derive(Debug)]
pub struct ContributionStream {
    encoder: Encoder,
    layout: TensorLayout,
    reader: UpdateReader,
    payload: Vec<u8>,
}

/// One complete update whose header and values were checked.
#[derive(Debug)]
pub struct Contribution {
    encoder: Encoder,
    layout: TensorLayout,
    payload: Vec<u8>,
    digest: Digest,
}

impl ContributionStream {
    /// A stream for an update with `example_count` examples.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NoExamples`] or [`EncodeError::TooManyExamples`].
    pub fn new(aggregation: &Aggregation, example_count: u64) -> Result<Self, EncodeError> {
        Self::with_memory(aggregation, example_count, Vec::new())
    }

    /// Like [`new`](Self::new), with an empty vector whose capacity is used.
    fn with_memory(aggregation: &Aggregation, example_count: u64, payload: Vec<u8>) -> Result<Self, EncodeError> {
        let layout = aggregation.update_layout().clone();
        Ok(Self {
            encoder: aggregation.fixed_point().encoder(example_count)?,
            reader: UpdateReader::new(layout.clone()),
            payload,
            layout,
        })
    }

    /// Takes the next bytes of the update file.
    ///
    /// # Errors
    ///
    /// Why the contribution is refused; the stream is of no further use.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ContributionError> {
        let Self { encoder, layout, reader, payload } = self;
        reader.push(chunk, |run| {
            encoder
                .check(run.dtype, run.bytes)
                .map_err(|(index, error)| error.at(&layout.tensors()[run.tensor].name, run.first + index))?;
            // Only on the first run, and only after the header has been found to match: the size is the plan's.
            payload.reserve_exact(layout.payload_size_bytes() - payload.len());
            payload.extend_from_slice(run.bytes);
            Ok(())
        })
    }

    /// The contribution, if it is complete.
    ///
    /// # Errors
    ///
    /// [`ReadError::Truncated`](crate::tensors::ReadError::Truncated) if bytes are missing,
    /// [`ReadError::GivenUp`](crate::tensors::ReadError::GivenUp) after an earlier error.
    pub fn finish(self) -> Result<Contribution, ContributionError> {
        let Self { encoder, layout, reader, payload } = self;
        Ok(Contribution { digest: reader.finish()?, encoder, layout, payload })
    }
}

impl Contribution {
    /// SHA-256 of the update file, to compare with the ledger before the contribution is added.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Number of examples.
    pub fn example_count(&self) -> u64 {
        self.encoder.example_count()
    }
}

impl Aggregator {
    /// An empty sum.
    pub fn new(aggregation: Aggregation) -> Self {
        let accumulator = Accumulator::new(aggregation.update_layout().element_count());
        Self { aggregation, accumulator, contribution_count: 0, example_count: 0, spare: Vec::new() }
    }

    /// A stream for an update with `example_count` examples; independent of this sum until it is added.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NoExamples`] or [`EncodeError::TooManyExamples`].
    pub fn begin(&mut self, example_count: u64) -> Result<ContributionStream, EncodeError> {
        ContributionStream::with_memory(&self.aggregation, example_count, mem::take(&mut self.spare))
    }

    /// Adds a contribution.
    ///
    /// # Errors
    ///
    /// [`AggregationError::OtherAggregation`] or [`AggregationError::TooManyContributions`]; then nothing was added.
    pub fn add(&mut self, contribution: Contribution) -> Result<(), AggregationError> {
        let layout = self.aggregation.update_layout();
        let same_encoding = contribution.encoder.fixed_point() == *self.aggregation.fixed_point();
        if !same_encoding || contribution.layout != *layout {
            return Err(AggregationError::OtherAggregation);
        }
        self.expect_room(1)?;
        let sums = self.accumulator.sums_mut();
        for block in layout.blocks(0..layout.element_count(), BLOCK_ELEMENTS) {
            let bytes = &contribution.payload[block.bytes];
            // It was checked when it was staged, so there is no error to pass on.
            let added = contribution.encoder.add(block.dtype, bytes, &mut sums[block.elements]);
            debug_assert_eq!(added, Ok(()), "checked values are added");
        }
        self.contribution_count += 1;
        self.example_count += contribution.example_count();
        self.spare = contribution.payload;
        self.spare.clear();
        Ok(())
    }

    /// Adds all contributions of another sum of the same round.
    ///
    /// # Errors
    ///
    /// [`AggregationError::OtherAggregation`] or [`AggregationError::TooManyContributions`]; then nothing was added.
    pub fn merge(&mut self, other: &Self) -> Result<(), AggregationError> {
        if self.aggregation != other.aggregation {
            return Err(AggregationError::OtherAggregation);
        }
        self.expect_room(other.contribution_count)?;
        self.accumulator.merge(&other.accumulator).map_err(|_| AggregationError::OtherAggregation)?;
        self.contribution_count += other.contribution_count;
        self.example_count += other.example_count;
        Ok(())
    }

    /// Contributions in the sum.
    pub fn contribution_count(&self) -> usize {
        self.contribution_count
    }

    /// Examples of all contributions in the sum.
    pub fn example_count(&self) -> u64 {
        self.example_count
    }

    /// The sum itself.
    pub fn accumulator(&self) -> &Accumulator {
        &self.accumulator
    }

    /// The next version's files, with at most `threads` threads of the current rayon pool.
    ///
    /// # Errors
    ///
    /// [`AggregationError::NoContributions`], [`AggregationError::Base`] or [`AggregationError::NotFinite`].
    pub fn finish(&self, base: Base<'_>, threads: usize) -> Result<Outputs, AggregationError> {
        blocks::finish(&self.aggregation, base, self.example_count, threads, |block, sums| {
            sums.copy_from_slice(&self.accumulator.sums()[block.elements.clone()]);
            Ok(())
        })
    }

    /// Checks that `more` contributions fit the encoding's cohort.
    fn expect_room(&self, more: usize) -> Result<(), AggregationError> {
        let cohort = self.aggregation.fixed_point().cohort();
        let found = self.contribution_count + more;
        if found > cohort { Err(AggregationError::TooManyContributions { found, cohort }) } else { Ok(()) }
    }
}
