//! From floats to integers: the only rounding that a sum of updates undergoes.
//!
//! An element x of an update with n examples becomes q = round_ties_even(x * n * 2^40 / N), where N, the example scale,
//! is a power of two fixed by the plan. x has at most 24 significant bits and n at most 29, so the product is exact in
//! an `f64`, and rounding to an integer is the only error: at most half a unit, 2^-41 of the weighted value.

use crate::tensors::{Dtype, widen_bf16, widen_f16};

/// Binary digits behind the point of an encoded value.
pub const FRACTION_BITS: u32 = 40;

/// Largest example scale: n <= N has to fit the 29 bits that an `f32`'s 24 leave in an `f64`.
pub const EXAMPLE_SCALE_MAX: u64 = 1 << 29;

/// Largest cohort. It leaves every member magnitudes up to 2^46, that is weighted values up to 64.
pub const COHORT_MAX: usize = 1 << 16;

/// The sum of a whole cohort stays below 2^`SUM_BITS` in magnitude: one bit below the sign is spare, for range checks
/// of masked sums.
const SUM_BITS: u32 = 62;

/// Up to this magnitude a block is rounded by adding [`ROUNDER`]: below 2^51, with a factor of two to spare.
const SMALL_MAX: f64 = (1_u64 << 50) as f64;

/// 1.5 * 2^52. For |v| < 2^51 the sum v + `ROUNDER` is in [2^52, 2^53), where the unit in the last place is one and
/// `ROUNDER` is even: the addition itself rounds v to the nearest integer, ties to even, and leaves it in the low bits.
/// Unlike `round_ties_even` and a float-to-integer conversion this is one vector instruction on every x86-64.
const ROUNDER: f64 = (3_u64 << 51) as f64;

/// Bits of an `f32` without its sign. As integers they have the order of the magnitudes, infinities and NaNs on top.
const MAGNITUDE_BITS: u32 = 0x7fff_ffff;

/// How the updates of a plan become integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedPoint {
    example_scale: u64,
    cohort: usize,
}

impl FixedPoint {
    /// Encoding with the example scale N for at most `cohort` contributions.
    ///
    /// # Errors
    ///
    /// [`EncodeError::ExampleScale`] or [`EncodeError::Cohort`].
    pub fn new(example_scale: u64, cohort: usize) -> Result<Self, EncodeError> {
        if !example_scale.is_power_of_two() || example_scale > EXAMPLE_SCALE_MAX {
            return Err(EncodeError::ExampleScale { found: example_scale });
        }
        if !(1..=COHORT_MAX).contains(&cohort) {
            return Err(EncodeError::Cohort { found: cohort });
        }
        Ok(Self { example_scale, cohort })
    }

    /// N, the number of examples that has weight one.
    pub fn example_scale(&self) -> u64 {
        self.example_scale
    }

    /// How many contributions may be summed.
    pub fn cohort(&self) -> usize {
        self.cohort
    }

    /// Largest magnitude of an encoded value: 2^(62 - ceil(log2 cohort)).
    pub fn magnitude_max(&self) -> u64 {
        1 << (SUM_BITS - self.cohort.next_power_of_two().trailing_zeros())
    }

    /// The encoder of a contribution with `example_count` examples.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NoExamples`] or [`EncodeError::TooManyExamples`].
    pub fn encoder(&self, example_count: u64) -> Result<Encoder, EncodeError> {
        if example_count == 0 {
            return Err(EncodeError::NoExamples);
        }
        if example_count > self.example_scale {
            return Err(EncodeError::TooManyExamples { found: example_count, example_scale: self.example_scale });
        }
        let unit = 1_u64 << (FRACTION_BITS - self.example_scale.trailing_zeros());
        let factor = (example_count * unit) as f64;
        let magnitude_max = self.magnitude_max() as f64;
        // Halved so that neither this division nor the narrowing to f32 can round it above the true bound.
        let small = (SMALL_MAX.min(magnitude_max / 2.0) / factor) as f32;
        Ok(Encoder { factor, magnitude_max, small_bits: small.to_bits(), fixed_point: *self, example_count })
    }
}

/// Why an example count or a value cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// N is not a power of two up to [`EXAMPLE_SCALE_MAX`].
    #[error("example scale {found} is not a power of two up to {EXAMPLE_SCALE_MAX}")]
    ExampleScale {
        /// What was given.
        found: u64,
    },
    /// The cohort is empty or above [`COHORT_MAX`].
    #[error("cohort of {found}, expected 1 to {COHORT_MAX}")]
    Cohort {
        /// What was given.
        found: usize,
    },
    /// A contribution without examples has no weight.
    #[error("the contribution has no examples")]
    NoExamples,
    /// More examples than the plan's example scale.
    #[error("{found} examples exceed the plan's example scale {example_scale}")]
    TooManyExamples {
        /// The contribution's example count.
        found: u64,
        /// N.
        example_scale: u64,
    },
    /// A NaN or an infinity.
    #[error("tensor {tensor:?} is not finite at element {element}")]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// Row-major index in the tensor.
        element: usize,
    },
    /// A value that does not fit the fixed-point format.
    #[error("tensor {tensor:?} is too large at element {element}: scale or clip the update")]
    TooLarge {
        /// The tensor's name.
        tensor: String,
        /// Row-major index in the tensor.
        element: usize,
    },
}

/// A value that cannot be encoded, before its place is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A NaN or an infinity.
    #[error("the value is not finite")]
    NotFinite,
    /// The encoded magnitude exceeds [`FixedPoint::magnitude_max`].
    #[error("the value is too large")]
    TooLarge,
}

impl ValueError {
    /// This error at an element of a tensor.
    pub(crate) fn at(self, tensor: &str, element: usize) -> EncodeError {
        let tensor = tensor.to_owned();
        match self {
            Self::NotFinite => EncodeError::NotFinite { tensor, element },
            Self::TooLarge => EncodeError::TooLarge { tensor, element },
        }
    }
}

/// Whether an update goes into a sum or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Add,
    Subtract,
}

impl Direction {
    /// What undoes this.
    pub(crate) const fn inverse(self) -> Self {
        match self {
            Self::Add => Self::Subtract,
            Self::Subtract => Self::Add,
        }
    }
}

/// Encodes the values of one contribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoder {
    /// n * 2^40 / N, an integer.
    factor: f64,
    magnitude_max: f64,
    /// Bits of a positive `f32`: every value up to it is small, that is |x * factor| < 2^51 and within the maximum.
    small_bits: u32,
    fixed_point: FixedPoint,
    example_count: u64,
}

impl Encoder {
    /// n.
    pub fn example_count(&self) -> u64 {
        self.example_count
    }

    /// The encoding that this encoder belongs to.
    pub fn fixed_point(&self) -> FixedPoint {
        self.fixed_point
    }

    /// One encoded value.
    ///
    /// # Errors
    ///
    /// A [`ValueError`] for a NaN, an infinity or a magnitude above the maximum.
    pub fn encode(&self, value: f32) -> Result<i64, ValueError> {
        if !value.is_finite() {
            return Err(ValueError::NotFinite);
        }
        let rounded = self.rounded(value);
        if rounded.abs() > self.magnitude_max { Err(ValueError::TooLarge) } else { Ok(rounded as i64) }
    }

    /// Checks that all of `bytes`, little-endian elements of `dtype`, can be encoded.
    ///
    /// # Errors
    ///
    /// Index and kind of the first element that cannot.
    pub(crate) fn check(&self, dtype: Dtype, bytes: &[u8]) -> Result<(), (usize, ValueError)> {
        match dtype {
            Dtype::F32 => self.check_values(bytes.as_chunks().0, f32::from_le_bytes),
            Dtype::F16 => self.check_values(bytes.as_chunks().0, widen_f16),
            Dtype::BF16 => self.check_values(bytes.as_chunks().0, widen_bf16),
            Dtype::F64 => self.check_values(bytes.as_chunks().0, narrow_f64),
        }
    }

    /// Adds the encoded `bytes`, little-endian elements of `dtype`, to `sums`, element by element, or subtracts them.
    ///
    /// # Errors
    ///
    /// Index and kind of the first element that cannot be encoded; then the sums are as before.
    pub(crate) fn accumulate(
        &self,
        direction: Direction,
        dtype: Dtype,
        bytes: &[u8],
        sums: &mut [i64],
    ) -> Result<(), (usize, ValueError)> {
        match direction {
            Direction::Add => self.accumulate_with(dtype, bytes, sums, i64::wrapping_add, i64::wrapping_sub),
            Direction::Subtract => self.accumulate_with(dtype, bytes, sums, i64::wrapping_sub, i64::wrapping_add),
        }
    }

    fn accumulate_with(
        &self,
        dtype: Dtype,
        bytes: &[u8],
        sums: &mut [i64],
        apply: impl Fn(i64, i64) -> i64,
        undo: impl Fn(i64, i64) -> i64,
    ) -> Result<(), (usize, ValueError)> {
        match dtype {
            Dtype::F32 => self.accumulate_values(bytes.as_chunks().0, f32::from_le_bytes, sums, apply, undo),
            Dtype::F16 => self.accumulate_values(bytes.as_chunks().0, widen_f16, sums, apply, undo),
            Dtype::BF16 => self.accumulate_values(bytes.as_chunks().0, widen_bf16, sums, apply, undo),
            Dtype::F64 => self.accumulate_values(bytes.as_chunks().0, narrow_f64, sums, apply, undo),
        }
    }

    fn rounded(&self, value: f32) -> f64 {
        (f64::from(value) * self.factor).round_ties_even()
    }

    /// The encoded value, if it is small; otherwise some integer, the same whenever the value is the same.
    fn encode_small(&self, value: f32) -> i64 {
        let shifted = f64::from(value) * self.factor + ROUNDER;
        (shifted.to_bits() as i64).wrapping_sub(ROUNDER.to_bits() as i64)
    }

    /// Non-negative if and only if the value is finite and at most the value of `small_bits`.
    fn smallness(&self, value: f32) -> i32 {
        // Both are non-negative, so the difference cannot wrap.
        (self.small_bits as i32).wrapping_sub((value.to_bits() & MAGNITUDE_BITS) as i32)
    }

    fn check_values<T: Copy>(&self, values: &[T], widen: impl Fn(T) -> f32) -> Result<(), (usize, ValueError)> {
        // Without branches in the loop, so that it vectorises: the sign bit collects.
        if values.iter().fold(0, |signs, value| signs | self.smallness(widen(*value))) >= 0 {
            return Ok(());
        }
        values
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| self.encode(widen(*value)).map(|_| ()).map_err(|error| (index, error)))
    }

    fn accumulate_values<T: Copy>(
        &self,
        values: &[T],
        widen: impl Fn(T) -> f32,
        sums: &mut [i64],
        apply: impl Fn(i64, i64) -> i64,
        undo: impl Fn(i64, i64) -> i64,
    ) -> Result<(), (usize, ValueError)> {
        // One pass in the expectation that all values are small, as those of usual updates are.
        let mut signs = 0;
        for (sum, value) in sums.iter_mut().zip(values) {
            let value = widen(*value);
            signs |= self.smallness(value);
            *sum = apply(*sum, self.encode_small(value));
        }
        if signs >= 0 {
            return Ok(());
        }
        // Some are not. The ring has inverses: take everything back, and do it again with the exact encoding if there is one.
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = undo(*sum, self.encode_small(widen(*value)));
        }
        self.check_values(values, &widen)?;
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = apply(*sum, self.rounded(widen(*value)) as i64);
        }
        Ok(())
    }
}

/// Only for completeness: an [`Aggregation`](super::Aggregation) of `F64` updates cannot be made.
fn narrow_f64(bytes: [u8; 8]) -> f32 {
    f64::from_le_bytes(bytes) as f32
}
