//! Expected calibration error: how far probabilities are from how often what they are of happens.
//!
//! Rows are put into [`BINS`] bins of equal width by a probability. The error is the mean over rows of the distance, in
//! their bin, between the mean probability and the share of rows in which it came true (Guo and others 2017, On Calibration of
//! Modern Neural Networks, section 2).

/// Bins, as Guo and others use them.
const BINS: usize = 15;

/// What has been added up so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Calibration {
    bins: [Bin; BINS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    probability: f64,
    came_true: f64,
}

impl Calibration {
    /// Adds a row with the probability of something, and whether it came true.
    pub(super) fn add(&mut self, probability: f64, came_true: bool) {
        // A bin holds its upper end and not its lower one; the lowest holds 0 as well.
        let bin = (probability * BINS as f64).ceil() as usize;
        if let Some(bin) = self.bins.get_mut(bin.saturating_sub(1).min(BINS - 1)) {
            bin.probability += probability;
            bin.came_true += f64::from(u8::from(came_true));
        }
    }

    /// The error over this many rows, which are all that were added.
    pub(super) fn error(&self, rows: u64) -> f64 {
        let distances = self.bins.iter().map(|bin| (bin.came_true - bin.probability).abs());
        distances.sum::<f64>() / rows as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(rows: &[(f64, bool)]) -> f64 {
        let mut calibration = Calibration::default();
        rows.iter().for_each(|(probability, came_true)| calibration.add(*probability, *came_true));
        calibration.error(rows.len() as u64)
    }

    #[test]
    fn the_error_is_that_of_a_calculation_by_hand() {
        // 0.61 and 0.65 share the tenth bin, (0.6, 0.666...]: their mean is 0.63, and half came true. 0.2 ends the third.
        let found = error(&[(0.61, true), (0.65, false), (0.2, false), (1.0, true)]);
        assert!((found - (2.0 * 0.13 + 0.2) / 4.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn in_one_bin_rows_make_up_for_each_other_and_beyond_it_they_do_not() {
        assert!(error(&[(0.01, false), (0.02, false), (0.03, true), (0.0, false)]) < 0.236);
        assert_eq!(error(&[(0.0, true), (1.0, false)]), 1.0);
        assert_eq!(error(&[(0.0, false), (1.0, true)]), 0.0);
    }

    #[test]
    fn each_end_of_a_bin_belongs_to_the_bin_below() {
        for bin in 1..BINS {
            let end = bin as f64 / BINS as f64;
            let inside = error(&[(end - 0.01, false), (end, true)]);
            let outside = error(&[(end, true), (end + 0.01, false)]);
            assert!((inside - (1.0 - 2.0 * end + 0.01).abs() / 2.0).abs() < 1e-12, "{bin}");
            assert!((outside - 1.01 / 2.0).abs() < 1e-12, "{bin}");
        }
    }
}
