//! Metrics: what hospitals report of a version on their own test rows, by name, in millionths.
//!
//! | name | value | range in millionths |
//! |---|---|---|
//! | `accuracy` | share of rows predicted correctly | 0 to 1,000,000 |
//! | `loss` | mean cross-entropy, in nats | 0 to [`LOSS_MILLIONTHS_MAX`] |
//! | `auc` | area under the receiver operating characteristic | 0 to 1,000,000 |
//! | `auc_low`, `auc_high` | its 95 % confidence interval, which encloses it | 0 to 1,000,000 |
//! | `f1` | F1 score | 0 to 1,000,000 |
//! | `calibration_error` | expected calibration error | 0 to 1,000,000 |
//! | `loss_first`, `loss_last` | mean loss of the first and last pass of a training | as `loss` |
//!
//! Other metrics may be reported beside them, under names of their own, with any value. Everything is an integer, so that every
//! replica compares and averages alike.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::limits::{LOSS_MILLIONTHS_MAX, NAME_LENGTH_MAX};

/// One, in the fixed-point numbers of metrics.
pub const MILLIONTHS: i64 = 1_000_000;

/// Share of rows predicted correctly.
pub const ACCURACY: &str = "accuracy";

/// Mean cross-entropy, in nats.
pub const LOSS: &str = "loss";

/// Area under the receiver operating characteristic.
pub const AUC: &str = "auc";

/// Lower end of the area's 95 % confidence interval.
pub const AUC_LOW: &str = "auc_low";

/// Upper end of the area's 95 % confidence interval.
pub const AUC_HIGH: &str = "auc_high";

/// F1 score.
pub const F1: &str = "f1";

/// Expected calibration error.
pub const CALIBRATION_ERROR: &str = "calibration_error";

/// Mean loss of the first pass of a training through the rows.
pub const LOSS_FIRST: &str = "loss_first";

/// Mean loss of the last pass of a training through the rows.
pub const LOSS_LAST: &str = "loss_last";

/// The 0.975 quantile of the standard normal distribution: how many standard errors a 95 % confidence interval reaches to
/// either side.
pub const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// Metrics by name. Fixed-point: one is 1,000,000.
pub type Metrics = BTreeMap<String, i64>;

/// Metrics of the rows of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMetrics {
    /// Examples of the group.
    pub examples: u64,
    /// Metrics, in millionths.
    pub metrics: Metrics,
}

/// The values that a metric of this name can have, in millionths; none of a name that says nothing about them.
pub fn range(name: &str) -> Option<RangeInclusive<i64>> {
    match name {
        ACCURACY | AUC | AUC_LOW | AUC_HIGH | F1 | CALIBRATION_ERROR => Some(0..=MILLIONTHS),
        LOSS | LOSS_FIRST | LOSS_LAST => Some(0..=LOSS_MILLIONTHS_MAX),
        _ => None,
    }
}

/// Whether a metric is an end of an interval. Means of such ends are the ends of nothing.
pub fn is_interval_end(name: &str) -> bool {
    matches!(name, AUC_LOW | AUC_HIGH)
}

/// Whether a group of rows can be called so: what stands in a column of a table, 1 to [`NAME_LENGTH_MAX`] bytes without
/// control characters.
pub fn is_group_name(name: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_called_what_a_column_holds() {
        for name in ["0", "Weiblich", ">= 65", &"x".repeat(NAME_LENGTH_MAX)] {
            assert!(is_group_name(name), "{name}");
        }
        for name in ["", "a\nb", "\u{1b}[31m", &"x".repeat(NAME_LENGTH_MAX + 1), &"ä".repeat(NAME_LENGTH_MAX)] {
            assert!(!is_group_name(name), "{name}");
        }
    }
}
