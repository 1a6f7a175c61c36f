//! The sum of a round's updates, formed while they arrive.
//!
//! Sums are in Z_2^64. Wrapping addition is associative and commutative, so updates may be added in any order and at the
//! same time, and masks that cancel may be added later without changing anything here. It also has an inverse: an update
//! that turns out to be unusable when part of it is in the sum already is taken back by reading that part again. Where that
//! is not possible, because the file has changed meanwhile, the sum is spoilt and says so.
//!
//! Nothing of an update is kept: hashing, comparing with the layout, checking, encoding and adding are one pass over bytes
//! that are in the cache.

use std::{
    collections::{BTreeMap, BTreeSet, TryReserveError},
    io::{self, Read},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fedledger_ledger::Digest;

use super::{
    Aggregation, ContributionError, EncodeError, Encoder,
    encode::{Direction, ValueError},
};
use crate::tensors::{Dtype, ReadError, UpdateReader};

/// Elements under one lock: so few that additions seldom meet, so many that locking costs nothing.
const SEGMENT_ELEMENTS: usize = 8 * 1024;

/// Bytes read at a time when an update is taken back.
const CHUNK_SIZE_BYTES: usize = 256 * 1024;

/// One update in a sum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// Who contributed it. Nobody is in a sum twice.
    pub contributor: String,
    /// SHA-256 of the update file.
    pub digest: Digest,
    /// The examples behind it: its weight.
    pub example_count: u64,
}

/// The sum of the updates of one round; any number of them may be added at the same time.
#[derive(Debug)]
pub struct RunningSum {
    aggregation: Aggregation,
    /// In one allocation, so that all of it goes back to the system.
    segments: Vec<Mutex<[i64; SEGMENT_ELEMENTS]>>,
    terms: Mutex<Terms>,
}

#[derive(Debug, Default)]
struct Terms {
    /// By contributor.
    included: BTreeMap<String, Term>,
    /// Contributors whose updates are being added or removed.
    under_way: BTreeSet<String>,
    /// Part of some update is in the sum and cannot be taken back.
    spoilt: bool,
    /// A version is computed from it: nothing is added or removed any more.
    closed: bool,
}

/// An update on its way into the sum, or out of it. Dropped before it is complete, it spoils the sum.
#[derive(Debug)]
pub struct Addition<'a> {
    sum: &'a RunningSum,
    term: Term,
    direction: Direction,
    encoder: Encoder,
    reader: UpdateReader,
    /// Elements that are in the sum.
    done: usize,
    settled: bool,
}

/// Why an update is not in the sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdditionError {
    /// It cannot be aggregated.
    #[error(transparent)]
    Contribution(#[from] ContributionError),
    /// It is not the update that was named.
    #[error("the file has the SHA-256 {found}")]
    Digest {
        /// SHA-256 of what was added.
        found: Digest,
    },
}

impl RunningSum {
    /// Memory of a sum, in bytes.
    pub fn size_bytes(aggregation: &Aggregation) -> u64 {
        (aggregation.update_layout().element_count() as u64).saturating_mul(size_of::<i64>() as u64)
    }

    /// An empty sum.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new(aggregation: Aggregation) -> Result<Self, TryReserveError> {
        let count = aggregation.update_layout().element_count().div_ceil(SEGMENT_ELEMENTS);
        let mut segments = Vec::new();
        segments.try_reserve_exact(count)?;
        segments.resize_with(count, || Mutex::new([0; SEGMENT_ELEMENTS]));
        Ok(Self { aggregation, segments, terms: Mutex::default() })
    }

    /// How the updates are encoded.
    pub fn aggregation(&self) -> &Aggregation {
        &self.aggregation
    }

    /// The updates in the sum; none while one is on its way, or if the sum is spoilt.
    pub fn terms(&self) -> Option<Vec<Term>> {
        let terms = self.lock_terms();
        let at_rest = terms.under_way.is_empty() && !terms.spoilt;
        at_rest.then(|| terms.included.values().cloned().collect())
    }

    /// Closes the sum for good, if it holds exactly these updates; otherwise it stays as it is, and false.
    pub fn close(&self, wanted: &BTreeSet<Term>) -> bool {
        let mut terms = self.lock_terms();
        let at_rest = terms.under_way.is_empty() && !terms.spoilt;
        let closed = at_rest
            && terms.included.len() == wanted.len()
            && terms.included.values().all(|term| wanted.contains(term));
        terms.closed |= closed;
        closed
    }

    /// Begins to add an update; none if the sum has no place for it: it is spoilt or closed, the cohort is complete, or it
    /// has one of this contributor.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NoExamples`] or [`EncodeError::TooManyExamples`].
    pub fn begin(&self, term: Term) -> Result<Option<Addition<'_>>, EncodeError> {
        let encoder = self.aggregation.fixed_point().encoder(term.example_count)?;
        let mut terms = self.lock_terms();
        let room = terms.included.len() + terms.under_way.len() < self.aggregation.fixed_point().cohort();
        if terms.spoilt || terms.closed || !room || terms.included.contains_key(&term.contributor) {
            return Ok(None);
        }
        if !terms.under_way.insert(term.contributor.clone()) {
            return Ok(None);
        }
        Ok(Some(self.addition(term, Direction::Add, encoder)))
    }

    /// Begins to remove an update; none if it is not in the sum, or the sum is closed.
    pub fn begin_removal(&self, term: &Term) -> Option<Addition<'_>> {
        let encoder = self.aggregation.fixed_point().encoder(term.example_count).ok()?;
        let mut terms = self.lock_terms();
        if terms.spoilt || terms.closed || terms.included.get(&term.contributor) != Some(term) {
            return None;
        }
        terms.included.remove(&term.contributor);
        terms.under_way.insert(term.contributor.clone());
        Some(self.addition(term.clone(), Direction::Subtract, encoder))
    }

    /// Copies the sums of the elements from `first` on.
    pub(super) fn copy_to(&self, first: usize, mut sums: &mut [i64]) {
        let (mut segment, mut offset) = (first / SEGMENT_ELEMENTS, first % SEGMENT_ELEMENTS);
        while let Some(values) = self.segments.get(segment).filter(|_| !sums.is_empty()) {
            let values = values.lock().unwrap_or_else(PoisonError::into_inner);
            let values = values.get(offset..).unwrap_or_default();
            let count = values.len().min(sums.len());
            let (now, later) = sums.split_at_mut(count);
            now.copy_from_slice(values.get(..count).unwrap_or_default());
            sums = later;
            (segment, offset) = (segment + 1, 0);
        }
    }

    fn addition(&self, term: Term, direction: Direction, encoder: Encoder) -> Addition<'_> {
        let reader = UpdateReader::new(self.aggregation.update_layout().clone());
        Addition { sum: self, term, direction, encoder, reader, done: 0, settled: false }
    }

    /// Adds or subtracts a run of elements from `first` on, and counts those in `done`.
    fn apply(
        &self,
        encoder: &Encoder,
        direction: Direction,
        run: (usize, Dtype, &[u8]),
        done: &mut usize,
    ) -> Result<(), (usize, ValueError)> {
        let (first, dtype, mut bytes) = run;
        let mut position = first;
        while !bytes.is_empty() {
            let offset = position % SEGMENT_ELEMENTS;
            let count = (SEGMENT_ELEMENTS - offset).min(bytes.len() / dtype.size_bytes());
            let (now, later) = bytes.split_at(count * dtype.size_bytes());
            let Some(segment) = self.segments.get(position / SEGMENT_ELEMENTS).filter(|_| count > 0) else { break };
            let mut sums = segment.lock().unwrap_or_else(PoisonError::into_inner);
            let sums = sums.get_mut(offset..offset + count).unwrap_or_default();
            encoder
                .accumulate(direction, dtype, now, sums)
                .map_err(|(index, error)| (position - first + index, error))?;
            *done += count;
            position += count;
            bytes = later;
        }
        Ok(())
    }

    fn lock_terms(&self) -> MutexGuard<'_, Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Addition<'_> {
    /// Takes the next bytes of the update file.
    ///
    /// # Errors
    ///
    /// Why the update is refused. What is in the sum of it can be [taken back](Self::take_back).
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ContributionError> {
        let Self { sum, direction, encoder, reader, done, .. } = self;
        let layout = sum.aggregation.update_layout();
        reader.push(chunk, |run| {
            let Some(extent) = layout.extents().get(run.tensor) else { return Ok(()) };
            let elements = (extent.first_element + run.first, run.dtype, run.bytes);
            sum.apply(encoder, *direction, elements, done).map_err(|(index, error)| {
                let name = layout.tensors().get(run.tensor).map_or("", |tensor| tensor.name.as_str());
                ContributionError::Encode(error.at(name, run.first + index))
            })
        })
    }

    /// Counts the update, if it is complete and the one that was named.
    ///
    /// # Errors
    ///
    /// [`AdditionError`]. What is in the sum of it can be [taken back](Self::take_back).
    pub fn finish(&mut self) -> Result<(), AdditionError> {
        let found = self.reader.check_complete().map_err(ContributionError::from)?;
        if found != self.term.digest {
            return Err(AdditionError::Digest { found });
        }
        self.settled = true;
        if self.direction == Direction::Add {
            let mut terms = self.sum.lock_terms();
            terms.included.insert(self.term.contributor.clone(), self.term.clone());
        }
        Ok(())
    }

    /// Undoes what was done, by reading the same bytes again. Otherwise, the sum is spoilt.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn take_back(mut self, reader: impl Read) -> io::Result<()> {
        if self.settled {
            return Ok(());
        }
        let (size, expected) = self.reader.prefix();
        let layout = self.sum.aggregation.update_layout();
        let mut again = UpdateReader::new(layout.clone());
        let mut reader = reader.take(size as u64);
        let mut chunk = vec![0; CHUNK_SIZE_BYTES];
        let mut undone = 0;
        loop {
            let count = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let pushed = again.push(chunk.get(..count).unwrap_or_default(), |run| {
                let left = (self.done - undone).saturating_mul(run.dtype.size_bytes());
                let bytes = run.bytes.get(..run.bytes.len().min(left)).unwrap_or_default();
                let first = layout.extents().get(run.tensor).map_or(0, |extent| extent.first_element + run.first);
                let elements = (first, run.dtype, bytes);
                let undo = self.sum.apply(&self.encoder, self.direction.inverse(), elements, &mut undone);
                undo.map_err(|_| ReadError::GivenUp)
            });
            if pushed.is_err() {
                return Ok(());
            }
        }
        self.settled = undone == self.done && again.prefix() == (size, expected);
        if self.settled && self.direction == Direction::Subtract {
            let mut terms = self.sum.lock_terms();
            terms.included.insert(self.term.contributor.clone(), self.term.clone());
        }
        Ok(())
    }
}

impl Drop for Addition<'_> {
    fn drop(&mut self) {
        let mut terms = self.sum.lock_terms();
        terms.under_way.remove(&self.term.contributor);
        terms.spoilt |= !self.settled && (self.done > 0 || self.direction == Direction::Subtract);
    }
}
