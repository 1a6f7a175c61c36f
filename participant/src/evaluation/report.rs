//! What a site says of a version on the ledger: its metrics, less those that would tell of few people.
//!
//! Three rules keep small counts at home, and none depends on what the model says, so the same is left out of the report of
//! every version on the same rows:
//!
//! - A group with fewer rows than the policy's `suppress_below` is left out. Since the report tells the number of all rows and
//!   means over them, the groups that are left out could be computed together from those that are not. So as many others are
//!   left out, smallest first, until they are at least two and have together as many rows as are asked for (complementary
//!   suppression, as statistical offices do it).
//! - AUC and F1 follow from counts by class, and so do accuracy and calibration error where a model takes every row for one
//!   class, as untrained ones do. They are left out where there are fewer rows than that of a class; and the groups that are
//!   reported without them are complemented in the same way, by class.
//! - Where all rows together are fewer, there is nothing to report.

use std::collections::BTreeMap;

use fedledger_federation::{
    VersionId,
    command::{Evaluate, GroupMetrics, Metrics},
    metrics::{ACCURACY, AUC, AUC_HIGH, AUC_LOW, CALIBRATION_ERROR, F1, LOSS},
};

use super::{Evaluation, Scores};

/// What a site says of a version, leaving out what would tell of fewer than `suppress_below` rows; without an evaluation,
/// that there is nothing to report.
pub fn report(version: VersionId, evaluation: Option<&Evaluation>, suppress_below: u64) -> Evaluate {
    let evaluation = evaluation.filter(|evaluation| evaluation.all.examples >= suppress_below);
    let Some(Evaluation { all, groups }) = evaluation else {
        return Evaluate { version, examples: 0, metrics: Metrics::new(), groups: BTreeMap::new() };
    };
    let by_class = all.class_examples.iter().all(|&examples| examples >= suppress_below);
    let parts: Vec<&Scores> = groups.values().collect();
    let whole = with_complement(parts.iter().map(|part| vec![part.examples]).collect(), suppress_below, |_| false);
    let classes = parts.iter().map(|part| part.class_examples.clone()).collect();
    let without_classes =
        with_complement(classes, suppress_below, |part| whole.get(part).copied().unwrap_or(true) || !by_class);
    let reported = groups.iter().zip(whole.iter().zip(&without_classes)).filter(|(_, (left_out, _))| !**left_out);
    let groups = reported.map(|((name, scores), (_, without_classes))| {
        let metrics = scores.metrics(!without_classes);
        (name.clone(), GroupMetrics { examples: scores.examples, metrics })
    });
    Evaluate { version, examples: all.examples, metrics: all.metrics(by_class), groups: groups.collect() }
}

/// What a site says of a version that a program of its own has evaluated. Nobody else knows its counts by class, so the program
/// is to leave out by itself what would tell of few rows; of fewer than `suppress_below` altogether nothing is said.
pub fn report_of_program(version: VersionId, examples: u64, metrics: &Metrics, suppress_below: u64) -> Evaluate {
    if examples < suppress_below {
        return report(version, None, suppress_below);
    }
    Evaluate { version, examples, metrics: metrics.clone(), groups: BTreeMap::new() }
}

impl Scores {
    /// By the names under which they stand on the ledger; what may follow from counts by class only `by_class`.
    pub fn metrics(&self, by_class: bool) -> Metrics {
        let interval = self.auc_interval;
        let of_classes = [
            (AUC, self.auc_millionths),
            (AUC_LOW, interval.map(|interval| interval.low_millionths)),
            (AUC_HIGH, interval.map(|interval| interval.high_millionths)),
            (F1, self.f1_millionths),
            (ACCURACY, Some(self.accuracy_millionths)),
            (CALIBRATION_ERROR, Some(self.calibration_error_millionths)),
        ];
        let of_classes = of_classes.into_iter().filter(|_| by_class).filter_map(|(name, value)| Some((name, value?)));
        of_classes.chain([(LOSS, self.loss_millionths)]).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// For each part, each told by its counts, whether it is left out: if it is to be anyway, if a count is below the bound, or
/// since the others that are left out could be computed without it.
fn with_complement(parts: Vec<Vec<u64>>, below: u64, anyway: impl Fn(usize) -> bool) -> Vec<bool> {
    let smallest = |counts: &[u64]| counts.iter().copied().min().unwrap_or(0);
    let mut left_out: Vec<bool> =
        parts.iter().enumerate().map(|(part, counts)| anyway(part) || smallest(counts) < below).collect();
    while !is_safe(&parts, &left_out, below) {
        let kept = parts.iter().zip(&mut left_out).filter(|(_, left_out)| !**left_out);
        match kept.min_by_key(|(counts, _)| (smallest(counts), counts.iter().fold(0, |a: u64, b| a.saturating_add(*b))))
        {
            Some((_, next)) => *next = true,
            None => break,
        }
    }
    left_out
}

/// Whether nothing is left out, or at least two parts whose counts together reach the bound.
fn is_safe(parts: &[Vec<u64>], left_out: &[bool], below: u64) -> bool {
    let hidden = || parts.iter().zip(left_out).filter(|(_, left_out)| **left_out).map(|(counts, _)| counts);
    let classes = parts.first().map_or(0, Vec::len);
    let total = |class: usize| {
        let counts = hidden().filter_map(|counts| counts.get(class));
        counts.fold(0, |sum: u64, count| sum.saturating_add(*count))
    };
    match hidden().count() {
        0 => true,
        1 => false,
        _ => (0..classes).all(|class| total(class) >= below),
    }
}

#[cfg(test)]
mod tests;
