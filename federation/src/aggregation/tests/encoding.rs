//! Encoding against a reference in exact integer arithmetic.

use proptest::prelude::*;

use super::*;
use crate::aggregation::encode::Direction;
use crate::aggregation::{
    encode::{COHORT_MAX, EXAMPLE_SCALE_MAX, ValueError},
    finish::WeightedMean,
};

/// round_ties_even(value * n * 2^40 / N) with integers only; `None` above 2^100.
fn reference(value: f32, example_count: u64, example_scale: u64) -> Option<i128> {
    let bits = value.to_bits();
    let exponent = ((bits >> 23) & 0xff) as i32;
    let fraction = i128::from(bits & 0x007f_ffff);
    let (significand, exponent) = if exponent == 0 { (fraction, -149) } else { (fraction | 1 << 23, exponent - 150) };
    let product = significand * i128::from(example_count);
    let shift = exponent + 40 - example_scale.trailing_zeros() as i32;
    let magnitude = if shift >= 0 {
        if shift > 46 && product != 0 {
            return None;
        }
        product << shift.min(46)
    } else if shift < -100 {
        0
    } else {
        let half = 1_i128 << (-shift - 1);
        let (floor, rest) = (product >> -shift, product & (2 * half - 1));
        floor + i128::from(rest > half || (rest == half && floor % 2 == 1))
    };
    Some(if value.is_sign_negative() { -magnitude } else { magnitude })
}

/// Any bits, and magnitudes as updates have them, in equal parts.
fn any_value() -> impl Strategy<Value = f32> {
    let with_exponent = |exponents: std::ops::Range<u32>| {
        (exponents, any::<u32>()).prop_map(|(e, bits)| f32::from_bits(bits & 0x807f_ffff | e << 23))
    };
    prop_oneof![any::<u32>().prop_map(f32::from_bits), with_exponent(80..150), with_exponent(80..128)]
}

fn any_encoder() -> impl Strategy<Value = Encoder> {
    (0..=29_u32, 1..=COHORT_MAX, any::<u64>()).prop_map(|(log_scale, cohort, count)| {
        let scale = 1 << log_scale;
        FixedPoint::new(scale, cohort).unwrap().encoder(1 + count % scale).unwrap()
    })
}

#[test]
fn ties_go_to_even() {
    let encoder = FixedPoint::new(1, 1).unwrap().encoder(1).unwrap();
    let half_unit = 2_f32.powi(-41);
    let encoded: Vec<_> =
        [0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 5.0].map(|x| encoder.encode(x * half_unit).unwrap()).to_vec();
    assert_eq!(encoded, [0, 0, 0, 0, 2, -2, 2]);
    assert_eq!(encoder.encode(1.0), Ok(1 << 40));
}

#[test]
fn the_largest_magnitude_is_accepted_and_the_next_is_not() {
    for (cohort, bits) in [(1, 62), (2, 61), (3, 60), (4, 60), (1000, 52), (COHORT_MAX, 46)] {
        let fixed_point = FixedPoint::new(8, cohort).unwrap();
        assert_eq!(fixed_point.magnitude_max(), 1 << bits);
        let encoder = fixed_point.encoder(8).unwrap();
        let largest = 2_f32.powi(bits - 40);
        for sign in [1.0, -1.0] {
            assert_eq!(encoder.encode(sign * largest), Ok(sign as i64 * (1 << bits)));
            assert_eq!(encoder.encode(sign * largest.next_up()), Err(ValueError::TooLarge));
        }
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    for found in [0, 3, 2 * EXAMPLE_SCALE_MAX] {
        assert_eq!(FixedPoint::new(found, 1), Err(EncodeError::ExampleScale { found }));
    }
    for found in [0, COHORT_MAX + 1] {
        assert_eq!(FixedPoint::new(1, found), Err(EncodeError::Cohort { found }));
    }
    let fixed_point = FixedPoint::new(EXAMPLE_SCALE_MAX, COHORT_MAX).unwrap();
    assert_eq!(fixed_point.encoder(0), Err(EncodeError::NoExamples));
    let too_many = EncodeError::TooManyExamples { found: EXAMPLE_SCALE_MAX + 1, example_scale: EXAMPLE_SCALE_MAX };
    assert_eq!(fixed_point.encoder(EXAMPLE_SCALE_MAX + 1), Err(too_many));
    assert!(fixed_point.encoder(EXAMPLE_SCALE_MAX).is_ok());
}

#[test]
fn the_sum_of_a_whole_cohort_at_the_maximum_does_not_wrap() {
    for cohort in [1, 3, 5, COHORT_MAX] {
        let magnitude = FixedPoint::new(1, cohort).unwrap().magnitude_max();
        assert!(magnitude as u128 * cohort as u128 <= 1 << 62);
    }
}

#[test]
fn the_mean_is_the_written_formula() {
    // 3 * 2^40 units of N = 4 among 6 examples: 3 * 4 / 6.
    let mean = WeightedMean::new(&FixedPoint::new(4, 2).unwrap(), 6);
    assert_eq!(mean.delta(3 << 40), 2.0);
    assert_eq!(mean.delta(-(3 << 40)), -2.0);
    // A sum that an f64 cannot hold is rounded to nearest once.
    assert_eq!(WeightedMean::new(&FixedPoint::new(1, 1).unwrap(), 1).delta((1 << 53) + 1), 2_f64.powi(13));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn encoding_rounds_the_exact_product(value in any_value(), encoder in any_encoder()) {
        let fixed_point = encoder.fixed_point();
        let exact = reference(value, encoder.example_count(), fixed_point.example_scale());
        let expected = match exact {
            _ if !value.is_finite() => Err(ValueError::NotFinite),
            Some(q) if q.unsigned_abs() <= u128::from(fixed_point.magnitude_max()) => Ok(q as i64),
            _ => Err(ValueError::TooLarge),
        };
        prop_assert_eq!(encoder.encode(value), expected);
    }

    #[test]
    fn whole_runs_are_encoded_as_single_values(
        run in prop::collection::vec(any_value(), 1..40),
        encoder in any_encoder(),
        start in any::<i64>(),
    ) {
        let bytes: Vec<u8> = run.iter().flat_map(|v| v.to_le_bytes()).collect();
        let single: Vec<_> = run.iter().map(|v| encoder.encode(*v)).collect();
        let first_error = single.iter().enumerate().find_map(|(i, r)| r.err().map(|error| (i, error)));
        prop_assert_eq!(encoder.check(Dtype::F32, &bytes).err(), first_error);

        let good: Vec<_> = run.iter().filter(|v| encoder.encode(**v).is_ok()).collect();
        let bytes: Vec<u8> = good.iter().flat_map(|v| v.to_le_bytes()).collect();
        let expected: Vec<_> = good.iter().map(|v| start.wrapping_add(encoder.encode(**v).unwrap())).collect();
        let mut sums = vec![start; good.len()];
        prop_assert!(encoder.check(Dtype::F32, &bytes).is_ok());
        prop_assert!(encoder.accumulate(Direction::Add, Dtype::F32, &bytes, &mut sums).is_ok());
        prop_assert_eq!(sums, expected);
    }

    #[test]
    fn the_mean_is_within_its_error_bound(
        contributions in prop::collection::vec((1_u64..=1024, -8.0_f32..8.0), 1..200),
    ) {
        let fixed_point = FixedPoint::new(1024, contributions.len()).unwrap();
        let (mut sum, mut examples, mut weighted) = (0_i64, 0, 0.0_f64);
        for (n, x) in &contributions {
            sum += fixed_point.encoder(*n).unwrap().encode(*x).unwrap();
            examples += n;
            weighted += *n as f64 * f64::from(*x);
        }
        let reference = weighted / examples as f64;
        // Half a unit for each contribution, divided by the sum of weights; and the f64 roundings of both sides.
        let total_weight = examples as f64 / 1024.0;
        let bound = contributions.len() as f64 * 2_f64.powi(-41) / total_weight + 8.0 * 200.0 * f64::EPSILON;
        let error = (WeightedMean::new(&fixed_point, examples).delta(sum) - reference).abs();
        prop_assert!(error <= bound, "error {error:e}, bound {bound:e}");
    }
}
