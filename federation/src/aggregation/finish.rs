//! From integers back to floats: the weighted mean of the updates.

use super::encode::{FRACTION_BITS, FixedPoint};

/// Turns sums of encoded updates into the weighted mean update, delta = (S * N) / (2^40 * sum of n).
///
/// S is rounded once to `f64`; its product with N and the divisor are exact (N is a power of two, and the sum of at
/// most 2^16 counts up to 2^29 has at most 45 bits); the division rounds once more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightedMean {
    example_scale: f64,
    divisor: f64,
}

impl WeightedMean {
    /// The mean over contributions with `example_count` examples together.
    pub fn new(fixed_point: &FixedPoint, example_count: u64) -> Self {
        let one = (1_u64 << FRACTION_BITS) as f64;
        Self { example_scale: fixed_point.example_scale() as f64, divisor: one * example_count as f64 }
    }

    /// The mean of one element whose encoded values sum to `sum`.
    pub fn delta(&self, sum: i64) -> f64 {
        (to_f64(sum) * self.example_scale) / self.divisor
    }
}

/// The nearest `f64`, ties to even: `value as f64`, in steps that exist as vector instructions on every x86-64.
///
/// Both halves and the upper half's product are exact, so the addition's rounding is the only one.
fn to_f64(value: i64) -> f64 {
    const TWO_TO_32: f64 = (1_u64 << 32) as f64;
    let (upper, lower) = ((value >> 32) as i32, value as u32);
    f64::from(upper) * TWO_TO_32 + f64::from(lower)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::to_f64;

    #[test]
    fn extremes_are_converted_like_a_cast() {
        for value in [0, 1, -1, i64::MAX, i64::MIN, (1 << 53) + 1, (1 << 53) + 3, -(1 << 53) - 1, u32::MAX.into()] {
            assert_eq!(to_f64(value).to_bits(), (value as f64).to_bits(), "{value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn integers_are_converted_like_a_cast(value in any::<i64>(), shift in 0..64) {
            let value = value >> shift;
            prop_assert_eq!(to_f64(value).to_bits(), (value as f64).to_bits());
        }
    }
}
