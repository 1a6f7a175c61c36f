//! Sums in Z_2^64.
//!
//! Wrapping addition is associative and commutative, so sums may be formed in any order and grouping, in parallel and
//! from partial sums, and masks that cancel may be added later without changing anything here.

/// One wrapping sum per element of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accumulator {
    sums: Vec<i64>,
}

/// A run of elements that is not inside the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} elements from element {offset} on are not inside a sum of {element_count}")]
pub struct OutOfRange {
    /// Index of the run's first element.
    pub offset: usize,
    /// Length of the run.
    pub count: usize,
    /// Length of the accumulator.
    pub element_count: usize,
}

impl Accumulator {
    /// Zero for each of `element_count` elements.
    pub fn new(element_count: usize) -> Self {
        Self { sums: vec![0; element_count] }
    }

    /// Adds `encoded` to the elements from `offset` on.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`]; then nothing was added.
    pub fn add_encoded(&mut self, offset: usize, encoded: &[i64]) -> Result<(), OutOfRange> {
        let element_count = self.sums.len();
        let sums = offset
            .checked_add(encoded.len())
            .and_then(|end| self.sums.get_mut(offset..end))
            .ok_or(OutOfRange { offset, count: encoded.len(), element_count })?;
        add(sums, encoded);
        Ok(())
    }

    /// Adds another sum of the same elements.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`] if the lengths differ; then nothing was added.
    pub fn merge(&mut self, other: &Self) -> Result<(), OutOfRange> {
        if self.sums.len() != other.sums.len() {
            return Err(OutOfRange { offset: 0, count: other.sums.len(), element_count: self.sums.len() });
        }
        add(&mut self.sums, &other.sums);
        Ok(())
    }

    /// The sums.
    pub fn sums(&self) -> &[i64] {
        &self.sums
    }

    pub(super) fn sums_mut(&mut self) -> &mut [i64] {
        &mut self.sums
    }
}

fn add(sums: &mut [i64], terms: &[i64]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum = sum.wrapping_add(*term);
    }
}
