//! A plan as people read it: every line with what it means.

use std::path::Path;

use fedledger_federation::limits::EXAMPLE_SCALE_MAX;

/// How many times as large as this site the largest one may be, before the plan must be changed.
const LARGEST_SITE: u64 = 4;

/// Records of a batch, at least and at most; in between, an eighth of the records.
const BATCH: (u64, u64) = (4, 32);

/// Passes through the records in a round: with more than one, the losses of the first and the last tell something.
const PASSES: u64 = 2;

/// Where comments begin, if there is room.
const COMMENT_COLUMN: usize = 31;

/// The numbers of Adam, beside its learning rate.
pub(super) const ADAM: &str = "beta1 = \"0.9\"\nbeta2 = \"0.999\"\nepsilon = \"0.00000001\"";

/// What a plan is made from.
pub(super) struct PlanDraft<'a> {
    pub source: &'a Path,
    pub name: &'a str,
    /// What records are called in the comments.
    pub records: &'static str,
    /// The section on data, with an empty line behind it; empty where every site's schema describes them.
    pub data: String,
    /// The lines of the architecture.
    pub architecture: String,
    /// Those of the optimiser.
    pub optimizer: String,
    /// Records to train on.
    pub rows: u64,
    /// How long a round may take.
    pub round_duration_ms: u64,
}

impl PlanDraft<'_> {
    /// The plan.
    pub(super) fn text(&self) -> String {
        let Self { records, data, architecture, optimizer, rows, .. } = self;
        let batch = batch(*rows);
        let steps = rounded_up(rows.div_ceil(batch).max(1).saturating_mul(PASSES));
        let scale = rows.saturating_mul(LARGEST_SITE).min(EXAMPLE_SCALE_MAX).next_power_of_two();
        format!(
            r#"# A plan for {source}, written by `fedledger plan init`. It is a beginning: read it and change what you know better.
# Try a round:              fedledger participant --check --dir DIR --plan FILE
# Put it before everybody:  fedledger plan propose FILE
# Numbers with fractions are written as text, because the ledger holds no floats.
name = {name}
description = ""               # what it is for: the hospitals read it before they consent
branch = "main"                # the branch that the versions extend
seed = 42                      # of initial weights and batch order
rounds = 10

{data}[architecture]
{architecture}
[training]                     # what each site does in a round
{steps}# optimiser steps, of one batch each: about {PASSES} passes through this site's {records}
{batch}# {records} per batch

[training.optimizer]
{optimizer}

[aggregation]
{scale}# a power of two, at least the {records} of the largest site; sites with more decline
update_dtype = "f32"           # or "f16", "bf16": updates of half the size

[aggregation.rule]
kind = "fed_avg"               # the mean of the updates, weighted by {records}; or fed_avg_m, fed_adam, fed_yogi, ...
server_learning_rate = "1"

[participation]
minimum_participants = 2       # contributions below which a round does not count
required_members = []          # without whom it does not count either, in alphabetical order
{duration}# a round closes earlier when everybody has contributed
attempts = 10                  # attempts at one round before the plan stops

# [early_stopping]             # finish before all rounds are done
# metric = "accuracy"          # or auc, calibration_error, f1, loss, as the hospitals report them of each version
# goal = "max"
# patience = 5                 # after so many rounds in a row without an improvement
"#,
            source = comment(&self.source.display().to_string()),
            name = quoted(self.name),
            steps = padded(&format!("steps = {steps}")),
            batch = padded(&format!("batch_size = {batch}")),
            scale = padded(&format!("example_scale = {scale}")),
            duration = padded(&format!("round_duration_ms = {}", self.round_duration_ms)),
        )
    }
}

/// A number of at most three significant binary digits that is not smaller: how many records there are exactly is nobody else's
/// business.
const fn rounded_up(number: u64) -> u64 {
    let digits = u64::BITS - number.leading_zeros();
    let unit = 1u64 << digits.saturating_sub(3);
    match number.checked_next_multiple_of(unit) {
        Some(rounded) => rounded,
        None => number,
    }
}

/// Records of a batch, where there are so many to train on.
pub(super) fn batch(rows: u64) -> u64 {
    (rows / 8).clamp(BATCH.0, BATCH.1)
}

/// A line up to its comment.
pub(super) fn padded(line: &str) -> String {
    let line = format!("{line} ");
    format!("{line:<COMMENT_COLUMN$}")
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A text within a comment, which ends with its line and knows no control characters.
pub(super) fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use fedledger_federation::plan::Plan;

    use super::{
        super::{Model, table},
        *,
    };

    #[test]
    fn numbers_are_rounded_to_three_digits() {
        let rounded = [0, 1, 7, 8, 9, 10, 15, 17, 100, 1000].map(rounded_up);
        assert_eq!(rounded, [0, 1, 7, 8, 10, 10, 16, 20, 112, 1024]);
        assert_eq!(rounded_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn plans_of_all_sizes_can_be_carried_out() {
        for rows in [1, 5, 100, 303, 1 << 20, u64::MAX] {
            for (model, classes) in [
                (Model::LogisticRegression, None),
                (Model::LogisticRegression, Some(3)),
                (Model::MultilayerPerceptron, None),
                (Model::MultilayerPerceptron, Some(4)),
            ] {
                let draft = PlanDraft {
                    source: Path::new("a\nb.csv"),
                    name: "heart",
                    records: "records",
                    data: String::new(),
                    architecture: table::architecture(model, 9, classes, rows).unwrap(),
                    optimizer: table::optimizer(model),
                    rows,
                    round_duration_ms: 600_000,
                };
                let text = draft.text();
                let plan = toml::from_str::<Plan>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                let training = plan.training.as_ref().unwrap();
                assert_eq!(plan.architecture.class_logits(), classes);
                if rows < 1 << 30 {
                    assert_eq!(plan.check(), Ok(()), "{text}");
                    assert!(plan.aggregation.example_scale >= rows);
                    assert!(u64::from(training.batch_size) * training.steps >= rows, "a pass through the rows");
                    assert!(plan.architecture.widest_layer().unwrap().units <= training.batch_size.into());
                }
            }
        }
    }
}
