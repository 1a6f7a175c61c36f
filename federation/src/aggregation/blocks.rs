//! The work, cut into blocks of coordinates.
//!
//! All contributions are summed over one block before the next is touched, so that the sums stay in the cache and each
//! update is read once. Threads take contiguous parts of the coordinates, cut at block boundaries. Coordinates do not
//! influence each other, so neither bytes nor errors depend on how many parts there are.

use rayon::prelude::*;

use super::{
    Aggregation, AggregationError, Base, ContributionError, Outputs, StateFileError,
    encode::{Direction, Encoder},
    finish::WeightedMean,
    server_optimizer::Step,
};
use crate::tensors::{Block, TensorLayout, payload_of};

/// Elements of one block: input, sums and deltas of a block fit the second-level cache together.
pub(super) const BLOCK_ELEMENTS: usize = 16 * 1024;

/// The next version's files from the base version and `contributions`, pairs of example count and update file.
///
/// The coordinates are divided among at most `threads` threads of the current rayon pool; the result has the same bytes
/// for every number of threads and every order of the contributions.
///
/// # Errors
///
/// An [`AggregationError`]; of several, the one that comes first in the files.
pub fn aggregate<B: AsRef<[u8]> + Sync>(
    aggregation: &Aggregation,
    base: Base<'_>,
    contributions: &[(u64, B)],
    threads: usize,
) -> Result<Outputs, AggregationError> {
    let cohort = aggregation.fixed_point().cohort();
    if contributions.len() > cohort {
        return Err(AggregationError::TooManyContributions { found: contributions.len(), cohort });
    }
    let updates = contributions
        .iter()
        .enumerate()
        .map(|(index, (example_count, file))| {
            Update::new(aggregation, *example_count, file.as_ref())
                .map_err(|source| AggregationError::Contribution { index, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let example_count = updates.iter().map(|update| update.encoder.example_count()).sum();
    finish(aggregation, base, example_count, threads, |block, sums| {
        for (index, update) in updates.iter().enumerate() {
            update
                .add_block(aggregation.update_layout(), block, sums)
                .map_err(|source| AggregationError::Contribution { index, source })?;
        }
        Ok(())
    })
}

/// One contribution in memory, its header checked but not its values.
struct Update<'a> {
    encoder: Encoder,
    payload: &'a [u8],
}

impl<'a> Update<'a> {
    fn new(aggregation: &Aggregation, example_count: u64, file: &'a [u8]) -> Result<Self, ContributionError> {
        let encoder = aggregation.fixed_point().encoder(example_count)?;
        Ok(Self { encoder, payload: payload_of(file, aggregation.update_layout())? })
    }

    fn add_block(&self, layout: &TensorLayout, block: &Block, sums: &mut [i64]) -> Result<(), ContributionError> {
        let bytes = &self.payload[block.bytes.clone()];
        self.encoder.accumulate(Direction::Add, block.dtype, bytes, sums).map_err(|(index, error)| {
            error.at(&layout.tensors()[block.tensor].name, block.first_in_tensor + index).into()
        })
    }
}

/// Finishes every block whose sums `add_sums` adds to the zeros it is given.
pub(super) fn finish<F>(
    aggregation: &Aggregation,
    base: Base<'_>,
    example_count: u64,
    threads: usize,
    add_sums: F,
) -> Result<Outputs, AggregationError>
where
    F: Fn(&Block, &mut [i64]) -> Result<(), AggregationError> + Sync,
{
    if example_count == 0 {
        return Err(AggregationError::NoContributions);
    }
    let layout = aggregation.weights_layout();
    let base_payload = payload_of(base.weights, layout).map_err(StateFileError::Weights)?;
    let mut weights = zero_file(layout);
    let mut optimizer_state = initial_state(aggregation, base.optimizer_state)?;

    let header_end = layout.header().len();
    let moments = match aggregation.optimizer_state_layout() {
        Some(layout) => optimizer_state.as_deref_mut().unwrap_or_default().split_at_mut(layout.header().len()).1,
        None => &mut [],
    };
    // `m.` sorts before `v.`, so all first moments come first, each kind in the order of the weights.
    let moments = moments.as_chunks_mut().0;
    let (first_moment, second_moment) = moments.split_at_mut(layout.element_count().min(moments.len()));
    let whole = Coordinates {
        first: 0,
        base: base_payload.as_chunks().0,
        new: weights.split_at_mut(header_end).1.as_chunks_mut().0,
        first_moment,
        second_moment,
    };
    compute(aggregation, WeightedMean::new(aggregation.fixed_point(), example_count), whole, threads, add_sums)?;
    Ok(Outputs { weights, optimizer_state })
}

/// Computes new weights and moments of `whole`, whose sums `add_sums` adds block by block to the zeros it is given.
pub(super) fn compute<F>(
    aggregation: &Aggregation,
    mean: WeightedMean,
    whole: Coordinates<'_>,
    threads: usize,
    add_sums: F,
) -> Result<(), AggregationError>
where
    F: Fn(&Block, &mut [i64]) -> Result<(), AggregationError> + Sync,
{
    let parts = whole.split(threads);
    let run = |part: Coordinates<'_>| part.run(aggregation, mean, &add_sums);
    let results: Vec<_> =
        if parts.len() <= 1 { parts.into_iter().map(run).collect() } else { parts.into_par_iter().map(run).collect() };
    // In the order of the parts, so that the error reported does not depend on which thread was first.
    results.into_iter().collect()
}

/// The state file to update in place: the base version's, or zeros.
fn initial_state(aggregation: &Aggregation, base: Option<&[u8]>) -> Result<Option<Vec<u8>>, StateFileError> {
    match (aggregation.optimizer_state_layout(), base) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(StateFileError::UnexpectedOptimizerState),
        (Some(layout), None) => Ok(Some(zero_file(layout))),
        (Some(layout), Some(file)) => {
            payload_of(file, layout).map_err(StateFileError::OptimizerState)?;
            Ok(Some(file.to_vec()))
        }
    }
}

/// The file of `layout` with zeros for all elements.
fn zero_file(layout: &TensorLayout) -> Vec<u8> {
    // Zeroed at allocation, so that no page is touched before its values are known.
    let mut file = vec![0; layout.file_size_bytes()];
    file[..layout.header().len()].copy_from_slice(layout.header());
    file
}

/// A contiguous part of the coordinates.
pub(super) struct Coordinates<'a> {
    /// Index of the first element in the file, a multiple of [`BLOCK_ELEMENTS`].
    pub(super) first: usize,
    pub(super) base: &'a [[u8; 4]],
    pub(super) new: &'a mut [[u8; 4]],
    /// Empty for a rule that does not keep it, like the next one.
    pub(super) first_moment: &'a mut [[u8; 8]],
    pub(super) second_moment: &'a mut [[u8; 8]],
}

/// Takes up to `count` items from the front of `rest`.
fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let count = count.min(rest.len());
    rest.split_off_mut(..count).unwrap_or_default()
}

impl<'a> Coordinates<'a> {
    /// Cuts them into at most `threads` parts at multiples of [`BLOCK_ELEMENTS`].
    fn split(mut self, threads: usize) -> Vec<Coordinates<'a>> {
        let count = self.base.len();
        let part_elements = count.div_ceil(threads.max(1)).next_multiple_of(BLOCK_ELEMENTS).max(BLOCK_ELEMENTS);
        self.base
            .chunks(part_elements)
            .zip(self.new.chunks_mut(part_elements))
            .enumerate()
            .map(|(index, (base, new))| Coordinates {
                first: self.first + index * part_elements,
                base,
                new,
                first_moment: take(&mut self.first_moment, part_elements),
                second_moment: take(&mut self.second_moment, part_elements),
            })
            .collect()
    }

    fn run<F>(mut self, aggregation: &Aggregation, mean: WeightedMean, add_sums: &F) -> Result<(), AggregationError>
    where
        F: Fn(&Block, &mut [i64]) -> Result<(), AggregationError>,
    {
        let mut sums = vec![0_i64; BLOCK_ELEMENTS];
        let mut deltas = vec![0_f64; BLOCK_ELEMENTS];
        let elements = self.first..self.first + self.base.len();
        for block in aggregation.update_layout().blocks(elements, BLOCK_ELEMENTS) {
            let count = block.elements.len();
            let (sums, deltas) = (&mut sums[..count], &mut deltas[..count]);
            sums.fill(0);
            add_sums(&block, sums)?;
            for (delta, sum) in deltas.iter_mut().zip(&*sums) {
                *delta = mean.delta(*sum);
            }
            self.step(aggregation, &block, deltas)?;
        }
        Ok(())
    }

    fn step(&mut self, aggregation: &Aggregation, block: &Block, deltas: &[f64]) -> Result<(), AggregationError> {
        let here = block.elements.start - self.first..block.elements.end - self.first;
        let base = &self.base[here.clone()];
        let new = &mut self.new[here.clone()];
        // A rule that does not keep a moment has an empty slice for it.
        let first_moment = self.first_moment.get_mut(here.clone()).unwrap_or_default();
        let second_moment = self.second_moment.get_mut(here).unwrap_or_default();
        aggregation.rule().step(Step {
            deltas,
            base,
            new: &mut *new,
            first_moment: &mut *first_moment,
            second_moment: &mut *second_moment,
        });
        let broken = position_not_finite(new, f32::from_le_bytes, f32::is_finite)
            .or_else(|| position_not_finite(first_moment, f64::from_le_bytes, f64::is_finite))
            .or_else(|| position_not_finite(second_moment, f64::from_le_bytes, f64::is_finite));
        broken.map_or(Ok(()), |index| {
            let tensor = aggregation.update_layout().tensors()[block.tensor].name.clone();
            Err(AggregationError::NotFinite { tensor, element: block.first_in_tensor + index })
        })
    }
}

/// Index of the first NaN or infinity.
fn position_not_finite<const N: usize, T>(
    items: &[[u8; N]],
    decode: impl Fn([u8; N]) -> T,
    is_finite: impl Fn(T) -> bool,
) -> Option<usize> {
    // First without an early exit, because that vectorises and usually there is none.
    let broken = items.iter().fold(0_u32, |broken, item| broken | u32::from(!is_finite(decode(*item))));
    if broken == 0 { None } else { items.iter().position(|item| !is_finite(decode(*item))) }
}
