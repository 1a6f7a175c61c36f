//! Plan and schema as people read them: every line with what it means.

use std::path::Path;

use fedledger_federation::limits::EXAMPLE_SCALE_MAX;
use fedledger_participant::table::{
    Column, Feature, Inspection, Missing, Normalize, PositiveWhen, Schema, Split, Suggestion,
};

use super::Model;

/// How many times as large as this site the largest one may be, before the plan must be changed.
const LARGEST_SITE: u64 = 4;

/// Records of a batch, at least and at most; in between, an eighth of the records.
const BATCH: (u64, u64) = (4, 32);

/// Passes through the records in a round: with more than one, the losses of the first and the last tell something.
const PASSES: u64 = 2;

/// Where comments begin, if there is room.
const COMMENT_COLUMN: usize = 31;

/// Values of a column that a comment lists.
const VALUES_SHOWN: usize = 6;

/// What a plan is made from.
pub(super) struct PlanDraft<'a> {
    pub data: &'a Path,
    pub name: String,
    pub model: Model,
    pub features: u32,
    /// Rows to train on.
    pub rows: u64,
}

impl PlanDraft<'_> {
    /// The plan.
    pub(super) fn text(&self) -> String {
        let Self { features, rows, .. } = self;
        let batch = (rows / 8).clamp(BATCH.0, BATCH.1);
        let steps = rows.div_ceil(batch).max(1).saturating_mul(PASSES);
        let scale = rows.saturating_mul(LARGEST_SITE).min(EXAMPLE_SCALE_MAX).next_power_of_two();
        format!(
            r#"# A plan for {data}, written by `fedledger plan init`. It is a beginning: read it and change what you know better.
# Try a round:              fedledger participant --check --dir DIR --plan FILE
# Put it before everybody:  fedledger plan propose FILE
# Numbers with fractions are written as text, because the ledger holds no floats.
name = {name}
description = ""               # what it is for: the hospitals read it before they consent
branch = "main"                # the branch that the versions extend
seed = 42                      # of initial weights and batch order
rounds = 10

[architecture]
{model}
{features}# as many as schema.toml yields, every category counted; alike at every site

[training]                     # what each site does in a round
{steps}# optimiser steps, of one batch each: {PASSES} passes through this site's records
{batch}# records per batch

[training.optimizer]
{optimizer}

[aggregation]
{scale}# a power of two, at least the records of the largest site; sites with more decline
update_dtype = "f32"           # or "f16", "bf16": updates of half the size

[aggregation.rule]
kind = "fed_avg"               # the mean of the updates, weighted by records; or fed_avg_m, fed_adam, fed_yogi, ...
server_learning_rate = "1"

[participation]
minimum_participants = 2       # contributions below which a round does not count
required_members = []          # without whom it does not count either, in alphabetical order
round_duration_ms = 600000     # a round closes earlier when everybody has contributed
attempts = 10                  # attempts at one round before the plan stops

# [early_stopping]             # finish before all rounds are done
# metric = "accuracy"          # accuracy, auc or loss, as the hospitals report them of each version
# goal = "max"
# patience = 5                 # after so many rounds in a row without an improvement
"#,
            data = comment(&self.data.display().to_string()),
            name = quoted(&self.name),
            model = self.model.architecture(batch),
            features = padded(&format!("features = {features}")),
            steps = padded(&format!("steps = {steps}")),
            batch = padded(&format!("batch_size = {batch}")),
            optimizer = self.model.optimizer(),
            scale = padded(&format!("example_scale = {scale}")),
        )
    }
}

impl Model {
    fn architecture(self, batch: u64) -> String {
        match self {
            Self::LogisticRegression => {
                "kind = \"logistic_regression\"   # or \"multilayer_perceptron\" with hidden = [16]".to_owned()
            }
            Self::MultilayerPerceptron => format!(
                "kind = \"multilayer_perceptron\" # or \"logistic_regression\" without hidden layers\n{}# units of each \
                 hidden layer; people look first at layers wider than a batch",
                padded(&format!("hidden = [{}]", (batch / 2).max(1)))
            ),
        }
    }

    const fn optimizer(self) -> &'static str {
        match self {
            Self::LogisticRegression => "kind = \"sgd\"                   # or \"adam\"\nlearning_rate = \"0.1\"",
            Self::MultilayerPerceptron => {
                "kind = \"adam\"                  # or \"sgd\" with learning_rate alone\nlearning_rate = \"0.01\"\n\
                 beta1 = \"0.9\"\nbeta2 = \"0.999\"\nepsilon = \"0.00000001\""
            }
        }
    }
}

/// The schema.
pub(super) fn schema(data: &Path, table: &Inspection, suggestion: &Suggestion) -> String {
    let Schema { delimiter, missing_markers, missing, normalize, label, .. } = &suggestion.schema;
    let column = |name: &str| table.columns.iter().find(|column| column.name == name);
    let described = |name: &str| column(name).map(described).unwrap_or_default();
    let markers: Vec<String> = missing_markers.iter().map(|marker| quoted(marker)).collect();
    // Nothing else is suggested.
    let missing = match missing {
        Missing::DropRow => "drop_row",
        Missing::Mean => "mean",
        Missing::Error | Missing::Constant(_) => "error",
    };
    let normalize = match normalize {
        Normalize::Site => "site",
        Normalize::None | Normalize::Plan(_) => "none",
    };
    let positive = match label.as_ref().and_then(|label| label.positive_when.as_ref()) {
        Some(PositiveWhen::GreaterThan(threshold)) => format!("{{ greater_than = {} }}", quoted(threshold.as_str())),
        Some(PositiveWhen::Equals(texts)) => {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("{{ equals = [{}] }}", texts.join(", "))
        }
        None => String::new(),
    };
    let label = label.as_ref().map_or("", |label| &label.column);
    let mut text = format!(
        r#"# What the columns of {data} mean, guessed by `fedledger plan init` from its {rows} rows. Read every line: it decides
# what is trained on. This file stays here; all sites of a plan must describe the same features in the same order.
delimiter = {delimiter}
# Texts that stand for a missing value:
missing_markers = [{markers}]
{missing}# "drop_row", "mean" (of the training rows) or "error"; {incomplete} rows have gaps
{normalize}# mean 0 and deviation 1 over this site's training rows, or "none"

[label]                        # what is predicted
{label}# {of_label}
# Is it this way round? Or {{ greater_than = "0" }}, {{ equals = ["no"] }}:
positive_when = {positive}
"#,
        data = comment(&data.display().to_string()),
        rows = table.rows,
        delimiter = quoted(&delimiter.to_string()),
        markers = markers.join(", "),
        missing = padded(&format!("missing = \"{missing}\"")),
        normalize = padded(&format!("normalize = \"{normalize}\"")),
        incomplete = table.rows.saturating_sub(table.complete_rows),
        label = padded(&format!("column = {}", quoted(label))),
        of_label = described(label),
    );
    for feature in &suggestion.schema.features {
        text += &feature_text(feature, &described(feature.column()));
    }
    for (name, why) in &suggestion.left_out {
        text += &format!("\n# Column {} is no feature: {}.\n", comment(&quoted(name)), why.reason());
    }
    if let Split::TestFraction { fraction, seed } = &suggestion.schema.split {
        text += &format!(
            "\n[split]                        # rows that are kept for evaluation\nkind = \"test_fraction\"\nfraction = {}\nseed = \
             {seed}\n",
            quoted(fraction.as_str())
        );
    }
    text
}

fn feature_text(feature: &Feature, described: &str) -> String {
    match feature {
        Feature::Numeric { column } => {
            let column = padded(&format!("column = {}", quoted(column)));
            format!("\n[[features]]\nkind = \"numeric\"\n{column}# {described}\n")
        }
        Feature::OneHot { column, categories, drop_first } => {
            let categories: Vec<String> = categories.iter().map(|category| quoted(category)).collect();
            let (column, categories) = (padded(&format!("column = {}", quoted(column))), categories.join(", "));
            let drop_first = padded(&format!("drop_first = {drop_first}"));
            format!(
                "\n[[features]]\nkind = \"one_hot\"\n{column}# {described}\n# Every text that any site has there:\n\
                 categories = [{categories}]\n{drop_first}# whether the first is told by zeros in the others\n"
            )
        }
    }
}

/// What stands in a column, for a comment.
fn described(column: &Column) -> String {
    let missing = if column.missing > 0 { format!(", {} missing", column.missing) } else { String::new() };
    match (&column.values, column.range) {
        (Some(values), range) if values.len() <= VALUES_SHOWN => {
            let values: Vec<String> = values.iter().map(|(text, count)| format!("{text}: {count}")).collect();
            let codes = if range.is_some() { "; codes of something should be one_hot" } else { "" };
            comment(&format!("{}{missing}{codes}", values.join(", ")))
        }
        (_, Some((least, most))) => format!("{least} to {most}{missing}"),
        (Some(values), None) => format!("{} different texts{missing}", values.len()),
        (None, None) => format!("text{missing}"),
    }
}

/// A line up to its comment.
fn padded(line: &str) -> String {
    let line = format!("{line} ");
    format!("{line:<COMMENT_COLUMN$}")
}

/// A text as TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A text within a comment, which ends with its line and knows no control characters.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use fedledger_federation::plan::Plan;
    use fedledger_participant::table::{Wishes, inspect, suggest};

    use super::*;

    #[test]
    fn plans_of_all_sizes_can_be_carried_out() {
        for rows in [1, 5, 100, 303, 1 << 20, u64::MAX] {
            for model in [Model::LogisticRegression, Model::MultilayerPerceptron] {
                let draft =
                    PlanDraft { data: Path::new("a\nb.csv"), name: "heart".to_owned(), model, features: 9, rows };
                let text = draft.text();
                let plan = toml::from_str::<Plan>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                let training = plan.training.as_ref().unwrap();
                if rows < 1 << 30 {
                    assert_eq!(plan.check(), Ok(()), "{text}");
                    assert!(plan.aggregation.example_scale >= rows);
                    assert!(u64::from(training.batch_size) * training.steps >= rows, "a pass through the rows");
                    assert!(plan.architecture.widest_layer().unwrap().units <= training.batch_size.into());
                }
            }
        }
    }

    #[test]
    fn whatever_stands_in_a_table_can_be_read_back() {
        let strange =
            "\"a \"\"b\"\"\",c # d,e=f,label\n\"x\"\"\",1,é\u{7f},\"y,\"\n'''],2,\\,n\n\"x\"\"\",1,é\u{7f},\"y,\"\n";
        let table = inspect(strange.as_bytes()).unwrap();
        let suggestion = suggest(&table, Wishes::default()).unwrap();
        let text = schema(Path::new("strange\r\n.csv"), &table, &suggestion);
        assert_eq!(Schema::from_toml(&text).unwrap_or_else(|error| panic!("{error}: {text}")), suggestion.schema);
        assert!(fedledger_participant::table::read(strange.as_bytes(), &suggestion.schema, None).is_ok());
    }
}
