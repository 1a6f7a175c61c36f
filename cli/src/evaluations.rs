//! Metrics as people read them.

use std::collections::BTreeMap;

use fedledger_federation::{
    audit::as_numbers,
    metrics::{ACCURACY, AUC, AUC_HIGH, AUC_LOW, CALIBRATION_ERROR, F1, LOSS, Metrics, is_interval_end},
    records::EvaluationRecord,
};

use crate::output::{Table, list, number};

/// The metrics that have a column in a table of groups.
const COLUMNS: [&str; 5] = [ACCURACY, AUC, CALIBRATION_ERROR, F1, LOSS];

/// What members say of a version.
pub(crate) type Evaluations<'a> = BTreeMap<&'a String, &'a EvaluationRecord>;

/// Metrics by name, in one cell; an area under the curve with its interval.
pub(crate) fn metrics(metrics: &BTreeMap<String, f64>) -> String {
    let shown = metrics.keys().filter(|name| !is_interval_end(name));
    list(shown.map(|name| format!("{name}={}", metric(name, |name| metrics.get(name).copied()))))
}

/// The same for metrics as they stand on the ledger.
pub(crate) fn recorded(recorded: &Metrics) -> String {
    metrics(&as_numbers(recorded))
}

/// A metric's value, and its interval where there is one.
pub(crate) fn metric(name: &str, value_of: impl Fn(&str) -> Option<f64>) -> String {
    let interval = (name == AUC).then(|| value_of(AUC_LOW).zip(value_of(AUC_HIGH))).flatten();
    let interval = interval.map_or_else(String::new, |(low, high)| format!("[{low:.4}..{high:.4}]"));
    number(value_of(name)) + &interval
}

/// A line for each member.
pub(crate) fn lines(evaluations: &Evaluations<'_>) -> Vec<String> {
    let line = |(member, report): (&&String, &&EvaluationRecord)| match report.examples {
        0 => format!("evaluated    {member}: nothing to report"),
        examples => format!("evaluated    {member}: {examples} examples, {}", recorded(&report.metrics)),
    };
    evaluations.iter().map(line).collect()
}

/// Metrics by member and group; none if nobody reports any group.
pub(crate) fn groups(evaluations: &Evaluations<'_>) -> Option<Table> {
    let mut table = Table::new(&["member", "group", "examples", "accuracy", "auc", "calibration_error", "f1", "loss"]);
    let mut rows = 0;
    for (member, report) in evaluations {
        for (name, group) in &report.groups {
            let values = as_numbers(&group.metrics);
            let mut row = vec![(*member).clone(), name.clone(), group.examples.to_string()];
            row.extend(COLUMNS.map(|column| metric(column, |name| values.get(name).copied())));
            table.row(row);
            rows += 1;
        }
    }
    (rows > 0).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_shown_with_its_interval_and_not_beside_it() {
        let values = [("accuracy", 0.75), ("auc", 0.8), ("auc_low", 0.7), ("auc_high", 0.9)];
        let values: BTreeMap<String, f64> = values.map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(metrics(&values), "accuracy=0.7500,auc=0.8000[0.7000..0.9000]");
        assert_eq!(metrics(&[("auc".to_owned(), 0.8)].into()), "auc=0.8000");
        assert_eq!(metrics(&BTreeMap::new()), "-");
    }
}
