//! Stopping a plan early: when no further round is worth its while.
//!
//! The condition is about one metric that the hospitals report of each version. What a version is worth is the mean over
//! the reports of the members whose updates made it, weighted by the examples that each has evaluated on, in millionths and
//! in integers. No report weighs more than the plan's example scale, as no update does. It is computed from what is on
//! record alone, so `apply` finds for itself whether it holds.
//!
//! A plan that was finished early can be started again. Its condition is then held against versions made since alone, or it
//! would hold at once.

use fedledger_ledger::{Digest, machine::WriteSet};
use serde::{Deserialize, Serialize};

use crate::{
    Federation, VersionId,
    decimal::Decimal,
    limits::ROUNDS_MAX,
    member::{MemberId, is_name},
    metrics::is_interval_end,
    records::{PlanRecord, VersionRecord},
};

/// When a plan is finished before all of its rounds are done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// The metric, as the hospitals report it, such as `accuracy`.
    pub metric: String,
    /// Whether more or less of it is better.
    pub goal: Goal,
    /// The plan is finished once a version is at least as good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Decimal>,
    /// The plan is finished after so many rounds in a row without an improvement on the best version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// By how much a version must be better than the best so far to count as an improvement; any more by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_improvement: Option<Decimal>,
}

/// Whether more or less of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// More is better, as of an accuracy.
    Max,
    /// Less is better, as of a loss.
    Min,
}

/// A condition that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EarlyStoppingError {
    /// No metric has this name.
    #[error("{0:?} is no name of a metric: use what evaluations report, such as accuracy, auc or loss")]
    Metric(String),
    /// An end of an interval, whose mean over hospitals would be the end of none.
    #[error("{0} is an end of an interval: use auc")]
    IntervalEnd(String),
    /// Nothing would ever be compared.
    #[error("give a target, a patience, or both")]
    Never,
    /// No such number of rounds.
    #[error("patience is {0}: use 1 to {ROUNDS_MAX} rounds")]
    Patience(u64),
    /// An improvement of which nobody asks anything.
    #[error("minimum_improvement says what breaks a patience: give a patience as well")]
    NoPatience,
    /// Not a number that metrics can be compared with.
    #[error("{field} is {found}: metrics have six digits after the point, use no more")]
    Decimal {
        /// The field.
        field: &'static str,
        /// Value found.
        found: Decimal,
    },
    /// A step backwards.
    #[error("minimum_improvement is {0}: use a number that is not negative")]
    Negative(Decimal),
}

/// Why a plan was finished early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The version is as good as was wanted.
    TargetReached,
    /// The last versions brought no improvement.
    NoImprovement,
}

/// How a plan was finished early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyStop {
    /// The version after which the condition held.
    pub version: VersionId,
    /// Which part of it.
    pub cause: Cause,
    /// What the version is worth, in millionths.
    pub value: i64,
    /// The best version of the plan.
    pub best: VersionId,
    /// What that one is worth, in millionths.
    pub best_value: i64,
}

/// How the versions of a plan have developed up to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trend {
    /// The best version so far.
    pub best: VersionId,
    /// What that one is worth, in millionths.
    pub best_value: i64,
    /// Versions since without an improvement on it.
    pub since_best: u64,
}

impl EarlyStopping {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// [`EarlyStoppingError`].
    pub fn check(&self) -> Result<(), EarlyStoppingError> {
        if !is_name(&self.metric.replace('_', "-")) {
            return Err(EarlyStoppingError::Metric(self.metric.chars().take(80).collect()));
        }
        if is_interval_end(&self.metric) {
            return Err(EarlyStoppingError::IntervalEnd(self.metric.clone()));
        }
        for (field, value) in [("target", &self.target), ("minimum_improvement", &self.minimum_improvement)] {
            if let Some(found) = value.as_ref().filter(|value| value.millionths().is_none()) {
                return Err(EarlyStoppingError::Decimal { field, found: found.clone() });
            }
        }
        if let Some(least) = self.minimum_improvement.as_ref().filter(|least| least.ratio().0 < 0) {
            return Err(EarlyStoppingError::Negative(least.clone()));
        }
        match self.patience {
            Some(rounds) if !(1..=ROUNDS_MAX).contains(&rounds) => Err(EarlyStoppingError::Patience(rounds)),
            None if self.minimum_improvement.is_some() => Err(EarlyStoppingError::NoPatience),
            None if self.target.is_none() => Err(EarlyStoppingError::Never),
            _ => Ok(()),
        }
    }

    /// Whether one value is better than another by the improvement that is asked for.
    fn improves(&self, value: i64, on: i64) -> bool {
        let least = self.minimum_improvement.as_ref().and_then(Decimal::millionths).unwrap_or(0);
        let gain = self.gain(value, on);
        gain > 0 && gain >= i128::from(least)
    }

    fn reaches_target(&self, value: i64) -> bool {
        let target = self.target.as_ref().and_then(Decimal::millionths);
        target.is_some_and(|target| self.gain(value, target) >= 0)
    }

    /// By how much a value is better than another.
    fn gain(&self, value: i64, than: i64) -> i128 {
        let gain = i128::from(value) - i128::from(than);
        match self.goal {
            Goal::Max => gain,
            Goal::Min => -gain,
        }
    }

    /// How the versions have developed with another one.
    fn trend(&self, before: Option<Trend>, version: VersionId, value: i64) -> Trend {
        match before {
            Some(before) if !self.improves(value, before.best_value) => {
                Trend { since_best: before.since_best.saturating_add(1), ..before }
            }
            _ => Trend { best: version, best_value: value, since_best: 0 },
        }
    }

    /// How a version that is worth this much ends a plan; none if it does not.
    fn verdict(&self, version: VersionId, value: i64, trend: &Trend) -> Option<EarlyStop> {
        let cause = if self.reaches_target(value) {
            Cause::TargetReached
        } else if self.patience.is_some_and(|patience| trend.since_best >= patience) {
            Cause::NoImprovement
        } else {
            return None;
        };
        Some(EarlyStop { version, cause, value, best: trend.best, best_value: trend.best_value })
    }
}

/// How the head of a plan's branch, by the evaluations on record, ends the plan early; none if it does not.
///
/// Only versions of this plan's rounds count, and of these only those from which the head descends: what was rolled back
/// is no part of the comparison. Versions that nobody has evaluated are passed over.
pub fn verdict(state: &Federation, plan: &Digest) -> Option<EarlyStop> {
    let record = state.plans().get(plan)?;
    let condition = record.plan.early_stopping.as_ref()?;
    let (head, version) = own_head(state, plan, record)?;
    // The head itself must be worth something: an older version has been judged before.
    let value = mean(state, &head, version, record)?;
    condition.verdict(head, value, &condition.trend(trend_before(state, plan, record, version), head, value))
}

/// Takes note of what later versions are held against, when a round trains on a version: looking back at every version of a
/// plan in every round would take ever longer. Reports that come later no longer change it.
pub(crate) fn note_trend(state: &mut Federation, plan: &Digest, base: &VersionId, writes: &mut WriteSet) {
    let Some(record) = state.plans().get(plan) else { return };
    let condition = record.plan.early_stopping.as_ref().filter(|condition| condition.patience.is_some());
    let version = state.versions().get(base).filter(|version| is_judged(plan, record, version));
    let (Some(condition), Some(version)) = (condition, version) else { return };
    let before = trend_before(state, plan, record, version);
    let trend = match mean(state, base, version, record) {
        Some(value) => Some(condition.trend(before, *base, value)),
        // A version that nobody has evaluated is passed over.
        None => before,
    };
    if trend != version.trend {
        state.versions.update(base, writes, |version| version.trend = trend);
    }
}

/// How the versions have developed from which this one was made, as far as the plan's condition is held against them.
fn trend_before(state: &Federation, plan: &Digest, record: &PlanRecord, version: &VersionRecord) -> Option<Trend> {
    let parent = state.versions().get(version.manifest.parents.first()?)?;
    parent.trend.filter(|_| is_judged(plan, record, parent))
}

/// Members whose reports of the head are still to come before a plan with such a condition goes on: those whose updates
/// made it and that still consent. Who has said that there is nothing to report is not waited for.
pub fn awaited(state: &Federation, plan: &Digest) -> Vec<MemberId> {
    let Some(record) = state.plans().get(plan).filter(|record| record.plan.early_stopping.is_some()) else {
        return Vec::new();
    };
    let Some((head, version)) = own_head(state, plan, record) else { return Vec::new() };
    let contributors = version.manifest.contributions.iter().map(|contribution| &contribution.member);
    contributors.filter(|member| is_to_report(state, record, &head, member)).cloned().collect()
}

/// Whether a plan with such a condition waits for a member's report of a version, if that is the head.
pub fn awaits(state: &Federation, version: &VersionId, member: &MemberId) -> bool {
    let Some(found) = state.versions().get(version) else { return false };
    let plan = &found.manifest.plan;
    let Some(record) = state.plans().get(plan).filter(|record| record.plan.early_stopping.is_some()) else {
        return false;
    };
    let contributed = found.manifest.contributions.iter().any(|contribution| contribution.member == *member);
    contributed && is_judged(plan, record, found) && is_to_report(state, record, version, member)
}

fn is_to_report(state: &Federation, record: &PlanRecord, version: &VersionId, member: &MemberId) -> bool {
    record.consents.contains_key(member) && state.evaluation(version, member).is_none()
}

/// The head of the plan's branch, if the plan's condition is held against it.
fn own_head<'a>(state: &'a Federation, plan: &Digest, record: &PlanRecord) -> Option<(VersionId, &'a VersionRecord)> {
    let (id, version) = state.head(&record.plan.branch)?;
    is_judged(plan, record, version).then_some((*id, version))
}

/// Whether one of the plan's rounds led to a version, and since it was last finished early.
fn is_judged(plan: &Digest, record: &PlanRecord, version: &VersionRecord) -> bool {
    version.manifest.plan == *plan && version.manifest.round > 0 && version.created_index > record.judged_from
}

/// The mean of the plan's metric over the reports of a version's contributors, weighted by their examples up to the plan's
/// example scale, rounded down.
fn mean(state: &Federation, id: &VersionId, version: &VersionRecord, record: &PlanRecord) -> Option<i64> {
    let metric = &record.plan.early_stopping.as_ref()?.metric;
    let scale = record.plan.aggregation.example_scale;
    let (mut sum, mut weight) = (0_i128, 0_i128);
    for contribution in &version.manifest.contributions {
        let Some(report) = state.evaluation(id, &contribution.member) else { continue };
        let Some(value) = report.metrics.get(metric) else { continue };
        let examples = i128::from(report.examples.min(scale));
        sum += i128::from(*value) * examples;
        weight += examples;
    }
    if weight == 0 { None } else { i64::try_from(sum.div_euclid(weight)).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(goal: Goal, target: Option<&str>, patience: Option<u64>, least: Option<&str>) -> EarlyStopping {
        let decimal = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let metric = "accuracy".to_owned();
        EarlyStopping { metric, goal, target: decimal(target), patience, minimum_improvement: decimal(least) }
    }

    fn outcome(condition: &EarlyStopping, values: &[i64]) -> Option<(Cause, i64)> {
        let version = |value: &i64| (VersionId::of_manifest(Digest::of(&value.to_be_bytes())), *value);
        let mut trend = None;
        let mut last = None;
        for (version, value) in values.iter().map(version) {
            let developed = condition.trend(trend, version, value);
            last = condition.verdict(version, value, &developed);
            trend = Some(developed);
        }
        last.map(|stop| (stop.cause, stop.best_value))
    }

    #[test]
    fn a_target_is_reached_in_the_direction_of_the_goal() {
        let most = condition(Goal::Max, Some("0.8"), None, None);
        assert_eq!(outcome(&most, &[799_999]), None);
        assert_eq!(outcome(&most, &[700_000, 800_000]), Some((Cause::TargetReached, 800_000)));
        let least = condition(Goal::Min, Some("0.3"), None, None);
        assert_eq!(outcome(&least, &[300_001]), None);
        assert_eq!(outcome(&least, &[300_000]), Some((Cause::TargetReached, 300_000)));
        // Only the head counts: an older version that was better has been judged before.
        assert_eq!(outcome(&most, &[900_000, 700_000]), None);
    }

    #[test]
    fn patience_ends_with_rounds_that_bring_too_little() {
        let patient = condition(Goal::Max, None, Some(2), Some("0.01"));
        assert_eq!(outcome(&patient, &[500_000]), None);
        assert_eq!(outcome(&patient, &[500_000, 505_000]), None);
        assert_eq!(outcome(&patient, &[500_000, 505_000, 509_999]), Some((Cause::NoImprovement, 500_000)));
        assert_eq!(outcome(&patient, &[500_000, 505_000, 510_000]), None, "0.01 better than the best is enough");
        let any = condition(Goal::Min, None, Some(1), None);
        assert_eq!(outcome(&any, &[500_000, 499_999]), None);
        assert_eq!(outcome(&any, &[500_000, 500_000]), Some((Cause::NoImprovement, 500_000)));
        assert_eq!(outcome(&any, &[i64::MIN, i64::MAX]), Some((Cause::NoImprovement, i64::MIN)), "nothing overflows");
    }

    #[test]
    fn conditions_that_mean_nothing_are_refused() {
        assert_eq!(condition(Goal::Max, Some("0.9"), Some(3), Some("0")).check(), Ok(()));
        assert_eq!(condition(Goal::Max, None, None, None).check(), Err(EarlyStoppingError::Never));
        assert_eq!(condition(Goal::Max, None, Some(0), None).check(), Err(EarlyStoppingError::Patience(0)));
        let idle = condition(Goal::Max, Some("0.9"), None, Some("0.1"));
        assert_eq!(idle.check(), Err(EarlyStoppingError::NoPatience));
        let backwards = condition(Goal::Max, None, Some(1), Some("-0.1"));
        assert!(matches!(backwards.check(), Err(EarlyStoppingError::Negative(_))));
        let fine = condition(Goal::Max, Some("0.1234567"), None, None);
        assert!(matches!(fine.check(), Err(EarlyStoppingError::Decimal { field: "target", .. })));
        let nameless = EarlyStopping { metric: "Not a name".to_owned(), ..condition(Goal::Max, Some("1"), None, None) };
        assert!(matches!(nameless.check(), Err(EarlyStoppingError::Metric(_))));
        for (metric, accepted) in [("auc", true), ("f1", true), ("calibration_error", true), ("auc_low", false)] {
            let of = EarlyStopping { metric: metric.to_owned(), ..condition(Goal::Max, Some("1"), None, None) };
            assert_eq!(of.check().is_ok(), accepted, "{metric}");
        }
    }
}
