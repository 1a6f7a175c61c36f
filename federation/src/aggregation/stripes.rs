//! The next version's files from files, in memory that does not depend on the size of the model.
//!
//! The coordinates are worked through in stripes: while the sums of one become new values, the next one is read and the one
//! before is written, so that hashing what is read, arithmetic and hashing what is written share the processors. Where the
//! updates' sum was not formed while they arrived, their files are read side by side, a stripe of each at a time.

use std::{
    io::{self, Read, Seek, Write},
    mem,
    ops::Range,
};

use super::{
    Aggregation, AggregationError, StateFileError,
    blocks::{self, BLOCK_ELEMENTS, Coordinates},
    finish::WeightedMean,
    running::RunningSum,
    sources::{BaseReaders, UpdateReaders},
    targets::Targets,
};
use crate::{
    command::OutputFiles,
    tensors::{FileError, Input},
};

/// Elements of a stripe: several blocks for several threads, and few megabytes in all.
pub(super) const STRIPE_ELEMENTS: usize = 16 * BLOCK_ELEMENTS;

/// Most update files that are read side by side, so that neither open files nor memory run out. The sum of more is formed
/// first.
pub const UPDATE_FILES_MAX: usize = 64;

/// The files of the base version.
#[derive(Debug)]
pub struct BaseInputs<R> {
    /// Its weights.
    pub weights: Input<R>,
    /// Its optimiser state, opened as often as the rule keeps [moments](super::Rule::moments); empty for a version without,
    /// and then all moments are zero.
    pub optimizer_state: Vec<Input<R>>,
}

/// Where the sum of the updates comes from.
#[derive(Debug)]
pub enum Sums<'a, R> {
    /// It was formed while they arrived.
    Running(&'a RunningSum),
    /// The updates, at most [`UPDATE_FILES_MAX`], each with its number of examples.
    Files(Vec<(u64, Input<R>)>),
}

/// Where the files of the new version go. They are of no use if an error is returned.
#[derive(Debug)]
pub struct Destination<W, S> {
    /// The weights; written from beginning to end.
    pub weights: W,
    /// The optimiser state, if the rule keeps any; first and second moments are written side by side, and the second ones
    /// read again at the end, because a digest is formed from beginning to end.
    pub optimizer_state: Option<S>,
}

/// Why there is no new version.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A file cannot be read, or is not the one that the ledger names.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the new version cannot be written.
    #[error("a file of the new version could not be written: {0}")]
    Write(#[source] io::Error),
    /// What the files hold cannot be aggregated; every one of them is the one that the ledger names.
    #[error(transparent)]
    Aggregation(#[from] AggregationError),
}

/// One stripe on its way from reading to writing.
#[derive(Debug, Default)]
pub(super) struct Stripe {
    pub(super) elements: Range<usize>,
    /// Empty where a running sum is at hand.
    pub(super) sums: Vec<i64>,
    pub(super) base: Vec<u8>,
    pub(super) new: Vec<u8>,
    pub(super) moments: [Vec<u8>; 2],
}

/// Computes the next version's files, with at most `threads` threads of the current rayon pool. The bytes are those of
/// [`aggregate`](super::aggregate).
///
/// # Errors
///
/// [`StreamError`]. A damaged file is reported as such, whatever its content led to.
pub fn aggregate_files<R, W, S>(
    aggregation: &Aggregation,
    base: BaseInputs<R>,
    sums: Sums<'_, R>,
    destination: Destination<W, S>,
    threads: usize,
) -> Result<OutputFiles, StreamError>
where
    R: Read + Send,
    W: Write + Send,
    S: Read + Write + Seek + Send,
{
    let (running, files) = match sums {
        Sums::Running(sum) => (Some(sum), Vec::new()),
        Sums::Files(files) => (None, files),
    };
    let mut updates = UpdateReaders::open(aggregation, files, threads)?;
    let example_count = match running {
        Some(sum) if sum.aggregation() != aggregation => return Err(AggregationError::OtherAggregation.into()),
        Some(sum) => sum.terms().iter().flatten().map(|term| term.example_count).sum(),
        None => updates.example_count(),
    };
    if example_count == 0 {
        return Err(AggregationError::NoContributions.into());
    }
    let mut base = BaseReaders::open(aggregation, base)?;
    let mut targets = Targets::begin(aggregation, destination).map_err(StreamError::Write)?;
    let arithmetic =
        Arithmetic { aggregation, mean: WeightedMean::new(aggregation.fixed_point(), example_count), running, threads };
    match arithmetic.run(&mut base, &mut updates, &mut targets) {
        Ok(()) => {
            updates.finish()?;
            base.finish()?;
            targets.finish().map_err(StreamError::Write)
        }
        Err(error @ StreamError::Aggregation(_)) => {
            // Only if no file is damaged is this what everybody finds.
            updates.drain()?;
            base.drain()?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// What happens to the stripes.
struct Arithmetic<'a> {
    aggregation: &'a Aggregation,
    mean: WeightedMean,
    running: Option<&'a RunningSum>,
    threads: usize,
}

impl Arithmetic<'_> {
    fn run<R, W, S>(
        &self,
        base: &mut BaseReaders<R>,
        updates: &mut UpdateReaders<R>,
        targets: &mut Targets<W, S>,
    ) -> Result<(), StreamError>
    where
        R: Read + Send,
        W: Write + Send,
        S: Read + Write + Seek + Send,
    {
        let element_count = self.aggregation.weights_layout().element_count();
        let stripes = element_count.div_ceil(STRIPE_ELEMENTS);
        let [mut incoming, mut current, mut outgoing] = <[Stripe; 3]>::default();
        // In step `n`, stripe `n` is read, stripe `n - 1` computed and stripe `n - 2` written.
        for step in 0..stripes.saturating_add(2) {
            let first = step.saturating_mul(STRIPE_ELEMENTS).min(element_count);
            incoming.elements = first..first.saturating_add(STRIPE_ELEMENTS).min(element_count);
            let (read, (computed, written)) = join(
                self.threads,
                || updates.fill(self.aggregation, &mut incoming).and_then(|()| base.fill(&mut incoming)),
                || join(self.threads, || self.compute(&mut current), || targets.write(&outgoing)),
            );
            written.map_err(StreamError::Write)?;
            computed?;
            read?;
            mem::swap(&mut outgoing, &mut current);
            mem::swap(&mut current, &mut incoming);
        }
        Ok(())
    }

    fn compute(&self, stripe: &mut Stripe) -> Result<(), AggregationError> {
        let Stripe { elements, sums, base, new, moments: [first_moment, second_moment] } = stripe;
        new.resize(base.len(), 0);
        let whole = Coordinates {
            first: elements.start,
            base: base.as_chunks().0,
            new: new.as_chunks_mut().0,
            first_moment: first_moment.as_chunks_mut().0,
            second_moment: second_moment.as_chunks_mut().0,
        };
        blocks::compute(self.aggregation, self.mean, whole, self.threads, |block, into| {
            match self.running {
                Some(sum) => sum.copy_to(block.elements.start, into),
                None => {
                    let from = block.elements.start.saturating_sub(elements.start);
                    into.copy_from_slice(sums.get(from..from.saturating_add(into.len())).unwrap_or_default());
                }
            }
            Ok(())
        })
    }
}

/// What the base says where its files do not fit.
pub(super) fn of_base(error: FileError, kind: impl Fn(crate::tensors::ReadError) -> StateFileError) -> StreamError {
    match error {
        FileError::Content { source, .. } => AggregationError::Base(kind(source)).into(),
        error => error.into(),
    }
}

fn join<A: Send, B: Send>(threads: usize, one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    if threads > 1 { rayon::join(one, other) } else { (one(), other()) }
}
