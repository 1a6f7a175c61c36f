//! What came of a simulation, with how far it may be off.

use std::{fmt, time::Duration};

use fedledger_ledger::Digest;
use fedledger_participant::evaluation::{Interval, MILLIONTHS, Scores};
use serde::Serialize;

/// Half the width of a 95 % interval, in standard deviations of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// What a simulation led to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the plan.
    pub name: String,
    /// The plan.
    pub plan: Digest,
    /// Digest of the description of the data, as contributions declare it.
    pub data: Digest,
    /// Training images of each hospital.
    pub hospitals: Vec<u64>,
    /// Test images.
    pub test_images: u64,
    /// The versions; the first has the initial weights.
    pub rounds: Vec<RoundReport>,
    /// SHA-256 of the last version's weights file.
    pub weights: Digest,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundReport {
    /// The round that it was made in; 0 for the initial weights.
    pub round: u64,
    /// Mean loss of the hospitals' last passes through their images, weighted by images; none of the initial weights.
    pub training_loss: Option<f64>,
    /// Mean cross-entropy on the test images, in nats.
    pub loss: f64,
    /// Share of test images predicted correctly, with the 95 % interval of Wilson (1927).
    pub accuracy: Estimate,
    /// Area under the receiver operating characteristic, with the interval that hospitals report: of two classes only.
    pub auc: Option<Estimate>,
    /// Expected calibration error.
    pub calibration_error: f64,
    /// F1 score.
    pub f1: Option<f64>,
    /// Time of training and testing, in seconds.
    pub seconds: f64,
}

/// A figure, and between which it is with a confidence of 95 %, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The interval's lower end.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
}

impl RoundReport {
    pub(super) fn new(round: u64, training_loss: Option<f64>, scores: &Scores, took: Duration) -> Self {
        Self {
            round,
            training_loss,
            loss: one(scores.loss_millionths),
            accuracy: Estimate::share(scores.correct, scores.examples),
            auc: scores.auc_millionths.map(|area| Estimate::area(area, scores.auc_interval)),
            calibration_error: one(scores.calibration_error_millionths),
            f1: scores.f1_millionths.map(one),
            seconds: took.as_secs_f64(),
        }
    }

    /// What the columns of its text are called.
    pub const HEADINGS: &'static str =
        "round  training loss  test loss  accuracy                AUC                     calibration  F1        s";
}

impl Estimate {
    /// A share, with the interval of Wilson (1927), which stays between 0 and 1.
    pub fn share(part: u64, whole: u64) -> Self {
        let (part, whole) = (part as f64, whole.max(1) as f64);
        let share = part / whole;
        let middle = share + Z * Z / (2.0 * whole);
        let half = Z * (share * (1.0 - share) / whole + Z * Z / (4.0 * whole * whole)).sqrt();
        let scale = 1.0 + Z * Z / whole;
        let [low, high] = [middle - half, middle + half].map(|end| Some((end / scale).clamp(0.0, 1.0)));
        Self { value: share, low, high }
    }

    fn area(area: i64, interval: Option<Interval>) -> Self {
        let end = |of: fn(Interval) -> i64| interval.map(of).map(one);
        Self {
            value: one(area),
            low: end(|interval| interval.low_millionths),
            high: end(|interval| interval.high_millionths),
        }
    }
}

fn one(millionths: i64) -> f64 {
    millionths as f64 / MILLIONTHS as f64
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = self.low.zip(self.high).map(|(low, high)| format!(" [{low:.4}..{high:.4}]"));
        f.pad(&format!("{:.4}{}", self.value, interval.unwrap_or_default()))
    }
}

impl fmt::Display for RoundReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let area = self.auc.map_or_else(|| "-".to_owned(), |area| area.to_string());
        write!(
            f,
            "{:>5}  {:>13}  {:>9.4}  {:<22}  {area:<22}  {:>11.4}  {:<6} {:>4.0}",
            self.round,
            number(self.training_loss),
            self.loss,
            self.accuracy,
            self.calibration_error,
            number(self.f1),
            self.seconds
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.hospitals.iter().min(), self.hospitals.iter().max());
        writeln!(
            f,
            "{} hospitals of {} to {} images, tested on {} that none of them has; {:.0} s",
            self.hospitals.len(),
            least.unwrap_or(&0),
            most.unwrap_or(&0),
            self.test_images,
            self.seconds
        )?;
        if let Some(last) = self.rounds.last() {
            let area = last.auc.map_or_else(|| "-".to_owned(), |area| area.to_string());
            writeln!(f, "after round {}: accuracy {}, AUC {area}", last.round, last.accuracy)?;
        }
        write!(f, "weights {}", self.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_wilsons_interval() {
        // Ends computed from the formula in another language.
        let share = Estimate::share(522, 624);
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 5e-4;
        assert!((share.value - 0.8365).abs() < 1e-4);
        assert!(near(share.low, 0.8055) && near(share.high, 0.8635), "{share}");
        let (none, all) = (Estimate::share(0, 9), Estimate::share(9, 9));
        assert!(near(none.low, 0.0) && near(none.high, 0.2991) && near(all.low, 0.7009) && near(all.high, 1.0));
        assert_eq!(Estimate::share(0, 0).value, 0.0);
    }
}
