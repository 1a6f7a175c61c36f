//! What reports of metrics must be like: means are made of them, and people compare them.

use super::check_code;
use crate::{
    Rejection,
    command::Evaluate,
    limits::{GROUPS_MAX, METRICS_MAX},
    metrics::{AUC, AUC_HIGH, AUC_LOW, Metrics, is_group_name, range},
};

/// Refuses an evaluation with impossible metrics, or groups that cannot be parts of its examples.
pub(super) fn check_evaluation(report: &Evaluate) -> Result<(), Rejection> {
    check_metrics_of(report.examples, &report.metrics)?;
    let groups = &report.groups;
    if groups.len() > GROUPS_MAX || !groups.keys().all(|name| is_group_name(name)) {
        return Err(Rejection::InvalidGroups(groups.len()));
    }
    let mut left = report.examples;
    for group in groups.values() {
        if group.examples == 0 {
            return Err(Rejection::MetricsOfNothing);
        }
        check_metrics(&group.metrics)?;
        left = left.checked_sub(group.examples).ok_or(Rejection::GroupsTooLarge(report.examples))?;
    }
    Ok(())
}

/// Refuses metrics with other than valid names, values that a metric of a known name cannot have, and an interval without the
/// area that it is around.
///
/// # Errors
///
/// [`Rejection::InvalidMetrics`], [`Rejection::ImpossibleMetric`] or [`Rejection::InvalidInterval`].
pub fn check_metrics(metrics: &Metrics) -> Result<(), Rejection> {
    let names_valid = metrics.keys().all(|name| check_code(name).is_ok());
    if metrics.len() > METRICS_MAX || !names_valid {
        return Err(Rejection::InvalidMetrics(metrics.len()));
    }
    for (name, millionths) in metrics {
        if range(name).is_some_and(|range| !range.contains(millionths)) {
            return Err(Rejection::ImpossibleMetric { name: name.clone(), millionths: *millionths });
        }
    }
    match (metrics.get(AUC_LOW), metrics.get(AUC), metrics.get(AUC_HIGH)) {
        (None, _, None) => Ok(()),
        (Some(low), Some(auc), Some(high)) if low <= auc && auc <= high => Ok(()),
        _ => Err(Rejection::InvalidInterval),
    }
}

fn check_metrics_of(examples: u64, metrics: &Metrics) -> Result<(), Rejection> {
    if examples == 0 && !metrics.is_empty() {
        return Err(Rejection::MetricsOfNothing);
    }
    check_metrics(metrics)
}
