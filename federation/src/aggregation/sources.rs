//! The files that a version is made from, read stripe by stripe.

use std::{io::Read, mem, ops::Range};

use fedledger_ledger::Digest;
use rayon::prelude::*;

use super::{
    Aggregation, AggregationError, ContributionError, StateFileError,
    encode::{Direction, Encoder},
    stripes::{BaseInputs, STRIPE_ELEMENTS, StreamError, Stripe, UPDATE_FILES_MAX, of_base},
};
use crate::tensors::{FileError, Input, PayloadReader, TensorLayout};

/// Size of a moment, in bytes.
const MOMENT_SIZE_BYTES: usize = size_of::<f64>();

/// Weights and moments of the base version.
#[derive(Debug)]
pub(super) struct BaseReaders<R> {
    weights: PayloadReader<R>,
    /// One for each kind of moments, each at its own place in the same file; empty where they begin with zeros.
    moments: Vec<PayloadReader<R>>,
    /// For each kind but the last, the digest of the file up to its end. Only the last reader sees the whole file.
    prefixes: Vec<Digest>,
    /// Kinds of moments that the rule keeps.
    moment_count: usize,
}

impl<R: Read> BaseReaders<R> {
    /// Reads the headers and goes to the first values.
    pub(super) fn open(aggregation: &Aggregation, base: BaseInputs<R>) -> Result<Self, StreamError> {
        let BaseInputs { weights, optimizer_state } = base;
        let layout = aggregation.weights_layout();
        let weights = PayloadReader::open(weights, layout).map_err(|e| of_base(e, StateFileError::Weights))?;
        let moment_count = aggregation.rule().moments();
        let (mut moments, mut prefixes) = (Vec::new(), Vec::new());
        if let Some(state) = aggregation.optimizer_state_layout() {
            let region = layout.element_count().saturating_mul(MOMENT_SIZE_BYTES);
            for input in optimizer_state.into_iter().take(moment_count) {
                let mut reader = Self::open_state(input, state)?;
                prefixes.clear();
                for _ in 0..moments.len() {
                    reader.skip(region).map_err(|e| of_base(e, StateFileError::OptimizerState))?;
                    prefixes.push(reader.prefix());
                }
                moments.push(reader);
            }
        } else if !optimizer_state.is_empty() {
            return Err(AggregationError::Base(StateFileError::UnexpectedOptimizerState).into());
        }
        Ok(Self { weights, moments, prefixes, moment_count })
    }

    fn open_state(input: Input<R>, layout: &TensorLayout) -> Result<PayloadReader<R>, StreamError> {
        PayloadReader::open(input, layout).map_err(|e| of_base(e, StateFileError::OptimizerState))
    }

    /// Reads weights and moments of a stripe.
    pub(super) fn fill(&mut self, stripe: &mut Stripe) -> Result<(), StreamError> {
        let count = stripe.elements.len();
        stripe.base.resize(count.saturating_mul(size_of::<f32>()), 0);
        self.weights.read(&mut stripe.base).map_err(|e| of_base(e, StateFileError::Weights))?;
        let mut readers = self.moments.iter_mut();
        for moments in stripe.moments.iter_mut().take(self.moment_count) {
            moments.resize(count.saturating_mul(MOMENT_SIZE_BYTES), 0);
            match readers.next() {
                Some(reader) => reader.read(moments).map_err(|e| of_base(e, StateFileError::OptimizerState))?,
                None => moments.fill(0),
            }
        }
        Ok(())
    }

    /// Checks that everything that was read is what the ledger names.
    pub(super) fn finish(mut self) -> Result<(), StreamError> {
        self.weights.finish().map_err(|e| of_base(e, StateFileError::Weights))?;
        let last = self.moments.pop();
        for (mut reader, prefix) in self.moments.into_iter().zip(self.prefixes) {
            // The last reader will show that what it saw was right; if this one saw something else, its digest tells.
            if reader.prefix() != prefix {
                reader.drain()?;
            }
        }
        let finished = last.map_or(Ok(()), PayloadReader::finish);
        finished.map_err(|e| of_base(e, StateFileError::OptimizerState))
    }

    /// Reads the files to their ends and checks their digests.
    pub(super) fn drain(&mut self) -> Result<(), FileError> {
        self.weights.drain()?;
        self.moments.iter_mut().try_for_each(PayloadReader::drain)
    }
}

/// The updates of a round, read side by side.
#[derive(Debug)]
pub(super) struct UpdateReaders<R> {
    groups: Vec<Group<R>>,
}

/// Updates that one thread reads, and their sum over a stripe.
#[derive(Debug)]
struct Group<R> {
    files: Vec<UpdateFile<R>>,
    sums: Vec<i64>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct UpdateFile<R> {
    /// Its position among the updates given.
    index: usize,
    encoder: Encoder,
    reader: PayloadReader<R>,
}

impl<R: Read + Send> UpdateReaders<R> {
    /// Reads the headers.
    pub(super) fn open(
        aggregation: &Aggregation,
        files: Vec<(u64, Input<R>)>,
        threads: usize,
    ) -> Result<Self, StreamError> {
        let (found, cohort) = (files.len(), aggregation.fixed_point().cohort().min(UPDATE_FILES_MAX));
        if found > cohort {
            return Err(AggregationError::TooManyContributions { found, cohort }.into());
        }
        let mut opened = Vec::with_capacity(found);
        for (index, (example_count, input)) in files.into_iter().enumerate() {
            let encoder = aggregation.fixed_point().encoder(example_count).map_err(|e| refused(index, e.into()))?;
            let reader =
                PayloadReader::open(input, aggregation.update_layout()).map_err(|error| of_update(index, error))?;
            opened.push(UpdateFile { index, encoder, reader });
        }
        let group_size = found.div_ceil(threads.max(1)).max(1);
        let mut groups = Vec::new();
        while !opened.is_empty() {
            let rest = opened.split_off(group_size.min(opened.len()));
            groups.push(Group { files: mem::replace(&mut opened, rest), sums: Vec::new(), bytes: Vec::new() });
        }
        Ok(Self { groups })
    }

    /// Examples of all updates together.
    pub(super) fn example_count(&self) -> u64 {
        self.files().map(|file| file.encoder.example_count()).sum()
    }

    /// Sums the updates over a stripe.
    pub(super) fn fill(&mut self, aggregation: &Aggregation, stripe: &mut Stripe) -> Result<(), StreamError> {
        let elements = stripe.elements.clone();
        let fill = |group: &mut Group<R>| group.fill(aggregation, &elements);
        let filled: Vec<_> = match self.groups.as_mut_slice() {
            [] => return Ok(()),
            [one] => vec![fill(one)],
            several => several.par_iter_mut().map(fill).collect(),
        };
        // In the order of the updates, so that the error reported does not depend on which thread was first.
        filled.into_iter().collect::<Result<(), _>>()?;
        stripe.sums.clear();
        stripe.sums.resize(elements.len(), 0);
        for group in &self.groups {
            for (sum, part) in stripe.sums.iter_mut().zip(&group.sums) {
                *sum = sum.wrapping_add(*part);
            }
        }
        Ok(())
    }

    /// Checks that everything that was read is what the ledger names.
    pub(super) fn finish(self) -> Result<(), StreamError> {
        let files = self.groups.into_iter().flat_map(|group| group.files);
        files.into_iter().try_for_each(|file| file.reader.finish().map_err(|error| of_update(file.index, error)))
    }

    /// Reads the files to their ends and checks their digests.
    pub(super) fn drain(&mut self) -> Result<(), FileError> {
        let files = self.groups.iter_mut().flat_map(|group| &mut group.files);
        files.into_iter().try_for_each(|file| file.reader.drain())
    }

    fn files(&self) -> impl Iterator<Item = &UpdateFile<R>> {
        self.groups.iter().flat_map(|group| &group.files)
    }
}

impl<R: Read> Group<R> {
    fn fill(&mut self, aggregation: &Aggregation, elements: &Range<usize>) -> Result<(), StreamError> {
        let Self { files, sums, bytes } = self;
        let layout = aggregation.update_layout();
        sums.clear();
        sums.resize(elements.len(), 0);
        for UpdateFile { index, encoder, reader } in files {
            for block in layout.blocks(elements.clone(), STRIPE_ELEMENTS) {
                bytes.resize(block.bytes.len(), 0);
                reader.read(bytes).map_err(|error| of_update(*index, error))?;
                let from = block.elements.start.saturating_sub(elements.start);
                let sums = sums.get_mut(from..from.saturating_add(block.elements.len())).unwrap_or_default();
                let added = encoder.accumulate(Direction::Add, block.dtype, bytes, sums);
                added.map_err(|(at, error)| {
                    let name = layout.tensors().get(block.tensor).map_or("", |tensor| tensor.name.as_str());
                    refused(*index, error.at(name, block.first_in_tensor.saturating_add(at)).into())
                })?;
            }
        }
        Ok(())
    }
}

fn refused(index: usize, source: ContributionError) -> StreamError {
    AggregationError::Contribution { index, source }.into()
}

fn of_update(index: usize, error: FileError) -> StreamError {
    match error {
        FileError::Content { source, .. } => refused(index, source.into()),
        error => error.into(),
    }
}
