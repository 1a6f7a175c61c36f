//! Metrics of several hospitals in one number each.
//!
//! The area under the curve keeps an interval. Hospitals evaluate on different people, so the errors of their areas are
//! independent, and the variance of the weighted mean is the weighted sum of their variances. Those are told by the reported
//! intervals, which are symmetric on the scale of the logit.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{METRIC_SCALE, as_numbers};
use crate::{
    metrics::{AUC, AUC_HIGH, AUC_LOW, GroupMetrics, Metrics, NORMAL_QUANTILE, is_interval_end},
    records::EvaluationRecord,
};

/// The mean over the hospitals that report a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupMeans {
    /// Examples of the group, of all these hospitals.
    pub examples: u64,
    /// Mean of each metric, weighted by examples.
    pub metrics: BTreeMap<String, f64>,
}

/// A report's examples and its metrics.
type Weighted<'a> = (u64, &'a Metrics);

/// The mean of each metric, weighted by examples, over the evaluations that report it; and, where all of them that report an
/// area under the curve report its interval, the 95 % confidence interval of the mean area.
pub fn mean_metrics<'a>(evaluations: impl Iterator<Item = &'a EvaluationRecord>) -> BTreeMap<String, f64> {
    let reports: Vec<Weighted<'_>> = evaluations.map(|report| (report.examples, &report.metrics)).collect();
    means(&reports)
}

/// The same for each group, by its name.
pub fn mean_groups<'a>(evaluations: impl Iterator<Item = &'a EvaluationRecord>) -> BTreeMap<String, GroupMeans> {
    let mut groups = BTreeMap::<&String, Vec<Weighted<'_>>>::new();
    for (name, GroupMetrics { examples, metrics }) in evaluations.flat_map(|report| &report.groups) {
        groups.entry(name).or_default().push((*examples, metrics));
    }
    let mean_of = |reports: Vec<Weighted<'_>>| GroupMeans {
        examples: reports.iter().fold(0, |sum, (examples, _)| sum.saturating_add(*examples)),
        metrics: means(&reports),
    };
    groups.into_iter().map(|(name, reports)| (name.clone(), mean_of(reports))).collect()
}

fn means(reports: &[Weighted<'_>]) -> BTreeMap<String, f64> {
    // What one hospital says needs no arithmetic.
    if let [(1.., metrics)] = reports {
        return as_numbers(metrics);
    }
    let mut sums = BTreeMap::<&str, (f64, f64)>::new();
    for (examples, metrics) in reports {
        for (name, millionths) in metrics.iter().filter(|(name, _)| !is_interval_end(name)) {
            let (sum, weight) = sums.entry(name).or_default();
            *sum += *millionths as f64 * *examples as f64;
            *weight += *examples as f64;
        }
    }
    let weighted = sums.into_iter().filter(|(_, (_, weight))| *weight > 0.0);
    let mut means: BTreeMap<String, f64> =
        weighted.map(|(name, (sum, weight))| (name.to_owned(), sum / weight / METRIC_SCALE)).collect();
    let area = means.get(AUC).copied();
    if let Some((low, high)) = area.and_then(|area| mean_interval(area, reports)) {
        means.insert(AUC_LOW.to_owned(), low);
        means.insert(AUC_HIGH.to_owned(), high);
    }
    means
}

/// The interval of a mean area; none where a report has an area without one.
fn mean_interval(area: f64, reports: &[Weighted<'_>]) -> Option<(f64, f64)> {
    let (mut variance, mut weight) = (0.0, 0.0);
    for (examples, metrics) in reports.iter().filter(|(_, metrics)| metrics.contains_key(AUC)) {
        let examples = *examples as f64;
        variance += (examples * standard_error(metrics)?).powi(2);
        weight += examples;
    }
    area_interval(area, variance.sqrt() / weight)
}

/// The standard error of an area, from the half of its interval that does not end at 0 or 1.
fn standard_error(metrics: &Metrics) -> Option<f64> {
    let number = |name| metrics.get(name).map(|millionths| *millionths as f64 / METRIC_SCALE);
    let (low, area, high) = (number(AUC_LOW)?, number(AUC)?, number(AUC_HIGH)?);
    let halves = [logit(area) - logit(low), logit(high) - logit(area)];
    let half = halves.into_iter().filter(|half| half.is_finite()).reduce(f64::max)?;
    Some(half / NORMAL_QUANTILE * area * (1.0 - area))
}

/// The 95 % confidence interval around an area with this standard error, symmetric on the scale of the logit, so that it does
/// not reach beyond 0 and 1 (Pepe 2003, The Statistical Evaluation of Medical Tests, section 5.2). None where the error is 0:
/// where the sample separates the classes, it does not tell how far the area may be from 1.
pub fn area_interval(area: f64, standard_error: f64) -> Option<(f64, f64)> {
    let half = NORMAL_QUANTILE * standard_error / (area * (1.0 - area));
    let end = |half: f64| 1.0 / (1.0 + (-(logit(area) + half)).exp());
    (half.is_finite() && half > 0.0).then(|| (end(-half), end(half)))
}

fn logit(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(auc: i64, interval: Option<(i64, i64)>) -> Metrics {
        let ends = interval.into_iter().flat_map(|(low, high)| [(AUC_LOW, low), (AUC_HIGH, high)]);
        ends.chain([(AUC, auc)]).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 2e-6, "{found} is not {expected}");
    }

    #[test]
    fn one_report_keeps_its_own_interval() {
        let metrics = report(800_000, Some((700_001, 870_000)));
        let means = means(&[(10, &metrics)]);
        assert_eq!((means[AUC_LOW], means[AUC_HIGH]), (0.700_001, 0.87));
    }

    #[test]
    fn the_interval_of_a_mean_follows_from_those_of_the_hospitals() {
        // Standard errors of 0.04 and 0.03, at 100 and 300 rows: the mean of 0.8 and 0.9 is 0.875, its standard error
        // sqrt((100 * 0.04)^2 + (300 * 0.03)^2) / 400 = 0.024622. Intervals by Python from the formula of `area_interval`.
        let (first, second) = (report(800_000, Some((710_189, 867_184))), report(900_000, Some((824_031, 945_347))));
        let means = means(&[(100, &first), (300, &second)]);
        near(means[AUC], 0.875);
        near(means[AUC_LOW], 0.818_273);
        near(means[AUC_HIGH], 0.915_841);
        assert!(means[AUC_HIGH] - means[AUC_LOW] < 0.945_347 - 0.824_031, "more people tell more");
    }

    #[test]
    fn where_one_hospital_tells_no_interval_the_mean_has_none() {
        let (first, second) = (report(800_000, Some((710_189, 867_184))), report(1_000_000, None));
        let means = means(&[(100, &first), (300, &second)]);
        near(means[AUC], 0.95);
        assert!(!means.contains_key(AUC_LOW) && !means.contains_key(AUC_HIGH));
    }

    #[test]
    fn an_end_that_was_rounded_to_one_does_not_matter() {
        let (whole, rounded) = (report(999_000, Some((990_000, 999_900))), report(999_000, Some((990_000, 1_000_000))));
        let found = means(&[(10, &whole), (10, &rounded)])[AUC_LOW];
        near(found, means(&[(10, &whole), (10, &whole)])[AUC_LOW]);
    }

    #[test]
    fn nothing_that_can_be_on_the_ledger_makes_a_mean_that_is_no_number() {
        for (auc, ends) in [(0, (0, 0)), (1_000_000, (1_000_000, 1_000_000)), (500_000, (0, 1_000_000)), (1, (0, 1))] {
            let metrics = report(auc, Some(ends));
            let means = means(&[(1, &metrics), (u64::MAX, &metrics), (0, &metrics)]);
            assert!(means.values().all(|mean| (0.0..=1.0).contains(mean)), "{auc}: {means:?}");
        }
    }
}
