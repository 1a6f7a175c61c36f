//! What a trainer says: its results in `metrics.json`, and its progress on standard output.

use fedledger_federation::{
    Rejection, check_metrics,
    command::Metrics,
    data_description::{SkippedRows, are_skipped_rows},
    limits::METRICS_MAX,
};
use serde::Deserialize;

use super::text::plain;
use crate::evaluation::MILLIONTHS;

/// Largest `metrics.json`, in bytes.
pub const RESULTS_SIZE_BYTES_MAX: u64 = 64 * 1024;

/// Longest message of a progress line, in characters.
const MESSAGE_LENGTH_MAX: usize = 200;

/// Largest absolute value of a metric: in millionths, a 64-bit float still tells integers apart.
const METRIC_MAX: f64 = 9e9;

/// What a trainer reports of a training or an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// Examples trained or evaluated on.
    pub examples: u64,
    /// Metrics, in millionths.
    pub metrics: Metrics,
    /// Records that it skipped because they cannot be read, by reason.
    pub skipped_rows: SkippedRows,
}

/// What a trainer may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Most examples that can be weighed.
    pub examples_max: u64,
    /// Fewest examples of which the site lets an update leave.
    pub examples_min: u64,
    /// Rows that there are, as far as the node knows them.
    pub rows: Option<u64>,
    /// Most records that may be skipped.
    pub bad_rows_max: u64,
}

/// Why results are of no use.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResultsError {
    /// The file is longer than [`RESULTS_SIZE_BYTES_MAX`].
    #[error("metrics.json is larger than {RESULTS_SIZE_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not what it should be.
    #[error("metrics.json is not {{\"examples\": N, \"metrics\": {{\"loss\": 0.1}}}}: {0}")]
    Malformed(String),
    /// No examples, or more than the plan can weigh.
    #[error("metrics.json says {found} examples: 1 to {allowed} are allowed")]
    Examples {
        /// Examples found.
        found: u64,
        /// Most that are allowed.
        allowed: u64,
    },
    /// Fewer examples than the site's policy wants behind an update.
    #[error("metrics.json says {found} examples: policy.toml of this site wants at least {needed} (examples_min)")]
    TooFewExamples {
        /// Examples found.
        found: u64,
        /// Fewest that are allowed.
        needed: u64,
    },
    /// More examples than there are.
    #[error("metrics.json says {found} examples, but there are {rows}: count each example once, whatever the passes")]
    MoreThanRows {
        /// Examples found.
        found: u64,
        /// Rows that there are.
        rows: u64,
    },
    /// Skipped records without a known reason, or more than the plan lets be skipped.
    #[error(
        "skipped_rows in metrics.json must be counts by the reasons that configuration.json lists, {0} at most in all"
    )]
    SkippedRows(u64),
    /// A number that cannot stand on the ledger.
    #[error("metric {name:?} in metrics.json is {value}: use numbers between -9e9 and 9e9")]
    Value {
        /// The metric.
        name: String,
        /// The number.
        value: f64,
    },
    /// A name or number that the ledger refuses.
    #[error("the metrics in metrics.json cannot stand on the ledger: {0}")]
    Refused(Box<Rejection>),
}

/// `metrics.json`, as the trainer writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    examples: u64,
    #[serde(default)]
    metrics: std::collections::BTreeMap<String, f64>,
    #[serde(default)]
    skipped_rows: SkippedRows,
}

impl ResultsError {
    /// What is wrong, as it stands on the ledger: nothing that the program wrote is in it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge | Self::Malformed(_) => "malformed_metrics",
            Self::Examples { .. } => "wrong_examples",
            Self::TooFewExamples { .. } => "too_few_examples",
            Self::MoreThanRows { .. } => "more_examples_than_rows",
            Self::SkippedRows(_) => "wrong_skipped_rows",
            Self::Value { .. } | Self::Refused(_) => "invalid_metrics",
        }
    }
}

/// Reads results. `bytes` may be cut after [`RESULTS_SIZE_BYTES_MAX`] and one more.
///
/// # Errors
///
/// [`ResultsError`].
pub fn parse(bytes: &[u8], allowed: &Allowed) -> Result<Results, ResultsError> {
    if bytes.len() as u64 > RESULTS_SIZE_BYTES_MAX {
        return Err(ResultsError::TooLarge);
    }
    let malformed = |error: serde_json::Error| ResultsError::Malformed(plain(&error.to_string(), MESSAGE_LENGTH_MAX));
    let Written { examples, metrics, skipped_rows } = serde_json::from_slice(bytes).map_err(malformed)?;
    if !(1..=allowed.examples_max).contains(&examples) {
        return Err(ResultsError::Examples { found: examples, allowed: allowed.examples_max });
    }
    if examples < allowed.examples_min {
        return Err(ResultsError::TooFewExamples { found: examples, needed: allowed.examples_min });
    }
    if let Some(rows) = allowed.rows.filter(|rows| examples > *rows) {
        return Err(ResultsError::MoreThanRows { found: examples, rows });
    }
    if !are_skipped_rows(&skipped_rows, allowed.bad_rows_max) {
        return Err(ResultsError::SkippedRows(allowed.bad_rows_max));
    }
    // Before anything of theirs is shown.
    if metrics.len() > METRICS_MAX {
        return Err(ResultsError::Refused(Box::new(Rejection::InvalidMetrics(metrics.len()))));
    }
    let mut millionths = Metrics::new();
    for (name, value) in metrics {
        if !(-METRIC_MAX..=METRIC_MAX).contains(&value) {
            return Err(ResultsError::Value { name: plain(&name, MESSAGE_LENGTH_MAX), value });
        }
        millionths.insert(name, (value * MILLIONTHS as f64).round() as i64);
    }
    check_metrics(&millionths).map_err(|rejection| ResultsError::Refused(Box::new(rejection)))?;
    Ok(Results { examples, metrics: millionths, skipped_rows })
}

/// How far a trainer says that it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// From 0 to 100.
    pub percent: u8,
    /// What it says beside, without control characters; often empty.
    pub message: String,
}

/// A progress line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressLine {
    progress: f64,
    #[serde(default)]
    message: String,
}

/// The progress that a line of standard output tells of; none of any other line.
pub fn progress(line: &[u8]) -> Option<Progress> {
    let ProgressLine { progress, message } = serde_json::from_slice(line).ok()?;
    // A cast saturates.
    let percent = (progress.clamp(0.0, 1.0) * 100.0) as u8;
    Some(Progress { percent, message: plain(&message, MESSAGE_LENGTH_MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowed = Allowed { examples_max: 1024, examples_min: 1, rows: None, bad_rows_max: 3 };

    fn read(text: &str) -> Result<Results, ResultsError> {
        parse(text.as_bytes(), &ALLOWED)
    }

    #[test]
    fn examples_are_held_against_the_policy_and_the_rows() {
        let read = |examples: u64, allowed| parse(format!("{{\"examples\": {examples}}}").as_bytes(), &allowed);
        let strict = Allowed { examples_min: 50, rows: Some(60), ..ALLOWED };
        assert_eq!(read(3, strict), Err(ResultsError::TooFewExamples { found: 3, needed: 50 }));
        assert_eq!(read(50, strict).unwrap().examples, 50);
        assert_eq!(read(60, strict).unwrap().examples, 60);
        assert_eq!(read(61, strict), Err(ResultsError::MoreThanRows { found: 61, rows: 60 }));
    }

    #[test]
    fn skipped_rows_are_counted_by_known_reasons_up_to_the_limit() {
        let read = |skipped: &str| read(&format!("{{\"examples\": 9, \"skipped_rows\": {skipped}}}"));
        let results = read(r#"{"not_a_number": 2, "missing_label": 1}"#).unwrap();
        let counts = [("not_a_number", 2), ("missing_label", 1)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(results.skipped_rows, counts.into());
        for wrong in [r#"{"not_a_number": 4}"#, r#"{"not_a_number": 0}"#, r#"{"Jane Doe": 1}"#] {
            let error = read(wrong).unwrap_err();
            assert_eq!(error, ResultsError::SkippedRows(3));
            assert!(!error.to_string().contains("Jane"));
        }
    }

    #[test]
    fn numbers_become_millionths() {
        let text = r#"{"examples": 40, "metrics": {"loss": 0.1, "accuracy": 1, "epochs": 3, "drift": -2.5e-7}}"#;
        let results = read(text).unwrap();
        let metrics = [("loss", 100_000), ("accuracy", 1_000_000), ("epochs", 3_000_000), ("drift", 0)];
        assert_eq!(results.metrics, metrics.map(|(name, value)| (name.to_owned(), value)).into());
        assert_eq!(results.examples, 40);
        assert_eq!(
            read(r#"{"examples": 1}"#),
            Ok(Results { examples: 1, metrics: Metrics::new(), skipped_rows: SkippedRows::new() })
        );
    }

    #[test]
    fn what_cannot_stand_on_the_ledger_is_named() {
        for text in ["", "{}", "[]", r#"{"examples": -1}"#, r#"{"examples": 1.5}"#, r#"{"examples": 1, "loss": 2}"#] {
            assert!(matches!(read(text), Err(ResultsError::Malformed(_))), "{text}");
        }
        let nan = r#"{"examples": 1, "metrics": {"loss": NaN}}"#;
        assert!(matches!(read(nan), Err(ResultsError::Malformed(_))));
        assert_eq!(read(r#"{"examples": 0}"#), Err(ResultsError::Examples { found: 0, allowed: 1024 }));
        assert_eq!(read(r#"{"examples": 1025}"#), Err(ResultsError::Examples { found: 1025, allowed: 1024 }));
        let huge = r#"{"examples": 1, "metrics": {"loss": 1e10}}"#;
        assert_eq!(read(huge), Err(ResultsError::Value { name: "loss".to_owned(), value: 1e10 }));
        for metrics in [r#""Loss!": 1"#, r#""accuracy": 1.1"#, r#""loss": -1"#, "\"a\\u001bb\": 1"] {
            let text = format!(r#"{{"examples": 1, "metrics": {{{metrics}}}}}"#);
            assert!(matches!(read(&text), Err(ResultsError::Refused(_))), "{text}");
        }
        let many: Vec<String> = (0..=METRICS_MAX).map(|index| format!("\"m{index}\": 1")).collect();
        let text = format!(r#"{{"examples": 1, "metrics": {{{}}}}}"#, many.join(","));
        assert!(matches!(read(&text), Err(ResultsError::Refused(_))));
        let long = vec![b' '; RESULTS_SIZE_BYTES_MAX as usize + 1];
        assert_eq!(parse(&long, &ALLOWED), Err(ResultsError::TooLarge));
        assert!(matches!(read(&"[".repeat(60_000)), Err(ResultsError::Malformed(_))));
    }

    #[test]
    fn progress_is_told_apart_from_other_output() {
        let told = progress(br#"{"progress": 0.4, "message": "epoch 2"}"#).unwrap();
        assert_eq!((told.percent, told.message.as_str()), (40, "epoch 2"));
        let percent = |text: &str| progress(text.as_bytes()).map(|told| told.percent);
        assert_eq!(percent(r#"{"progress": 7}"#), Some(100));
        assert_eq!(percent(r#"{"progress": -1}"#), Some(0));
        for text in ["", "epoch 2", "{}", r#"{"progress": "half"}"#, r#"{"progress": 1, "loss": 2}"#, "\u{1b}[0m"] {
            assert_eq!(percent(text), None, "{text:?}");
        }
        let told = progress(b"{\"progress\": 1, \"message\": \"\\u001b[31mred\\u001b[0m\\n\"}").unwrap();
        assert!(!told.message.contains(char::is_control), "{:?}", told.message);
    }
}
