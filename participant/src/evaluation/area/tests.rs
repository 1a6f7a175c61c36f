use fedledger_federation::metrics::NORMAL_QUANTILE;
use proptest::prelude::*;

use super::*;

/// Area and variance as DeLong and others define them, from every pair.
fn by_pairs(rows: &[(f64, bool)]) -> (f64, f64) {
    let of_class = |class| rows.iter().filter(move |row| row.1 == class).map(|row| row.0);
    let wins = |positive: f64, negative: f64| match positive.total_cmp(&negative) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let of_mean = |shares: &[f64]| {
        let squares = shares.iter().map(|share| (share - mean(shares)).powi(2)).sum::<f64>();
        squares / (shares.len() - 1) as f64 / shares.len() as f64
    };
    let positives: Vec<f64> =
        of_class(true).map(|p| mean(&of_class(false).map(|n| wins(p, n)).collect::<Vec<_>>())).collect();
    let negatives: Vec<f64> =
        of_class(false).map(|n| mean(&of_class(true).map(|p| wins(p, n)).collect::<Vec<_>>())).collect();
    (mean(&positives), of_mean(&positives) + of_mean(&negatives))
}

fn rows(positives: &[f64], negatives: &[f64]) -> Vec<(f64, bool)> {
    let negatives = negatives.iter().map(|&score| (score, false));
    positives.iter().map(|&score| (score, true)).chain(negatives).collect()
}

#[test]
fn ties_count_one_half_and_one_class_has_no_area() {
    assert_eq!(Area::of(rows(&[1.0], &[1.0])).unwrap().millionths(), 500_000);
    assert_eq!(Area::of(rows(&[0.0], &[-0.0])).unwrap().millionths(), 500_000);
    assert_eq!(Area::of(rows(&[1.0, 2.0], &[])), None);
    assert_eq!(Area::of(rows(&[], &[1.0])), None);
}

#[test]
fn where_the_rows_do_not_tell_how_far_the_area_may_be_off_there_is_no_interval() {
    for (positives, negatives) in [
        (&[1.0, 2.0][..], &[0.0, -1.0][..]),
        (&[0.0, -1.0], &[1.0, 2.0]),
        (&[1.0, 1.0], &[1.0, 1.0]),
        (&[1.0], &[0.0, 2.0]),
        (&[1.0, 2.0], &[1.5]),
    ] {
        assert_eq!(Area::of(rows(positives, negatives)).unwrap().interval(), None, "{positives:?} {negatives:?}");
    }
}

#[test]
fn rows_beyond_all_tables_have_an_area_and_at_worst_no_interval() {
    let squares = Squares { positive: u128::MAX, negative: 1 };
    assert_eq!(squares.variance(1, 2, 2), None);
}

/// Random numbers in (0, 1), the same on every run: SplitMix64 (Steele and others 2014).
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 4.0
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -self.next().ln() * mean
    }
}

/// Exponential scores with means 9 and 1 have an area of exactly 0.9.
#[test]
fn nineteen_of_twenty_intervals_of_small_sites_hold_the_truth_where_plain_ones_do_not() {
    let mut uniform = Uniform(7);
    let (mut drawn, mut held, mut held_by_plain) = (0.0, 0.0, 0.0);
    for _ in 0..4000 {
        let positives: Vec<f64> = (0..20).map(|_| uniform.exponential(9.0)).collect();
        let negatives: Vec<f64> = (0..20).map(|_| uniform.exponential(1.0)).collect();
        let area = Area::of(rows(&positives, &negatives)).unwrap();
        let Some((low, high)) = area.interval() else { continue };
        drawn += 1.0;
        held += f64::from(u8::from((low..=high).contains(&900_000)));
        let error = area.variance.unwrap().sqrt();
        held_by_plain += f64::from(u8::from((area.value() - 0.9).abs() <= NORMAL_QUANTILE * error));
    }
    let (share, plain) = (held / drawn, held_by_plain / drawn);
    assert!((0.935..0.965).contains(&share), "{share}");
    assert!(plain < 0.9, "{plain}");
}

proptest! {
    #[test]
    fn area_and_variance_are_those_of_the_definition(
        drawn in prop::collection::vec((-4i8..4, any::<bool>()), 2..40)
    ) {
        let drawn: Vec<(f64, bool)> = drawn.iter().map(|(score, positive)| (f64::from(*score), *positive)).collect();
        let positives = drawn.iter().filter(|row| row.1).count();
        let negatives = drawn.len() - positives;
        match Area::of(drawn.clone()) {
            None => prop_assert!(positives == 0 || negatives == 0),
            Some(area) => {
                let (value, variance) = by_pairs(&drawn);
                prop_assert!((area.value() - value).abs() < 1e-12);
                prop_assert!((area.millionths() as f64 / 1e6 - value).abs() <= 0.5e-6 + 1e-12);
                if positives > 1 && negatives > 1 {
                    prop_assert!((area.variance.unwrap() - variance).abs() < 1e-12);
                } else {
                    prop_assert_eq!(area.variance, None);
                }
                if let Some((low, high)) = area.interval() {
                    prop_assert!(0 <= low && low <= area.millionths() && area.millionths() <= high && high <= 1_000_000);
                }
            }
        }
    }
}
