//! The area under the receiver operating characteristic, and how far chance may have moved it.
//!
//! The area is the share of pairs of a positive and a negative row in which the positive one has the higher score, ties
//! counting one half (Mann and Whitney 1947). Its variance is that of DeLong, DeLong and Clarke-Pearson (1988), by the ranks of
//! Sun and Xu (2014, Fast implementation of DeLong's algorithm, IEEE Signal Processing Letters 21): one sort instead of a
//! look at every pair. Both come from counts, so they are exact up to the last division.

use fedledger_federation::audit::area_interval;

use super::millionths;

/// An area and its variance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    /// Twice the number of pairs in the right order, ties counting one half.
    doubled_wins: u128,
    /// Pairs of a positive and a negative row.
    pairs: u128,
    /// DeLong's estimate of the area's variance; none with fewer than two rows of a class.
    variance: Option<f64>,
}

/// For each row of a class, twice the number of rows of the other class that lie on the right side of it: their squares.
#[derive(Debug, Default)]
struct Squares {
    positive: u128,
    negative: u128,
}

impl Area {
    /// The area for rows with their scores, and whether they are positive; none unless there are rows of both kinds. Scores
    /// are not NaN.
    pub(super) fn of(mut rows: Vec<(f64, bool)>) -> Option<Self> {
        rows.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
        let positives = count_positive(&rows);
        let negatives = rows.len() as u128 - positives;
        if positives == 0 || negatives == 0 {
            return None;
        }
        let (mut doubled_wins, mut squares) = (0u128, Squares::default());
        let (mut positives_before, mut negatives_before) = (0u128, 0u128);
        // Equality and not bits: 0.0 and -0.0 are one score. The total order puts them side by side.
        for tied in rows.chunk_by(|left, right| left.0 == right.0) {
            let positive = count_positive(tied);
            let negative = tied.len() as u128 - positive;
            let below = 2 * negatives_before + negative;
            let above = 2 * (positives - positives_before) - positive;
            doubled_wins += positive * below;
            squares.positive += positive * below.pow(2);
            squares.negative += negative * above.pow(2);
            positives_before += positive;
            negatives_before += negative;
        }
        let variance = squares.variance(doubled_wins, positives, negatives);
        Some(Self { doubled_wins, pairs: positives * negatives, variance })
    }

    pub(super) fn value(&self) -> f64 {
        self.doubled_wins as f64 / (2 * self.pairs) as f64
    }

    /// The area in millionths, rounded to the nearest.
    pub(super) fn millionths(&self) -> i64 {
        millionths::ratio(self.doubled_wins, 2 * self.pairs)
    }

    /// The 95 % confidence interval, in millionths. None where the variance is 0 or cannot be told.
    pub(super) fn interval(&self) -> Option<(i64, i64)> {
        let (low, high) = area_interval(self.value(), self.variance?.sqrt())?;
        let area = self.millionths();
        Some((millionths::of(low).min(area), millionths::of(high).max(area)))
    }
}

impl Squares {
    /// The sum of the variances of the mean of both classes' shares: with m positive rows, of which each beats a/2n of the n
    /// negative ones, `(m Σa² - (Σa)²) / (m² (m - 1) 4n²)` for the one, and alike for the other. Σa is the same for both. None
    /// where there are more rows than 128 bits can tell apart, which no table has.
    fn variance(&self, doubled_wins: u128, positives: u128, negatives: u128) -> Option<f64> {
        let square_of_sum = doubled_wins.checked_pow(2)?;
        let of_class = |squares: u128, own: u128, other: u128| {
            let spread = own.checked_mul(squares)?.checked_sub(square_of_sum)?;
            let divisor = own.checked_pow(2)?.checked_mul(own - 1)? as f64 * 4.0 * (other as f64).powi(2);
            (own > 1).then(|| spread as f64 / divisor)
        };
        Some(of_class(self.positive, positives, negatives)? + of_class(self.negative, negatives, positives)?)
    }
}

fn count_positive(rows: &[(f64, bool)]) -> u128 {
    rows.iter().filter(|(_, positive)| *positive).count() as u128
}

#[cfg(test)]
mod tests;
