//! What a plan and a schema say of a table.

use std::path::Path;

use fedledger_participant::table::{
    Column, Feature, Inspection, Label, Missing, Normalize, PositiveWhen, Schema, Split, Suggestion,
};

use super::{
    Model,
    text::{ADAM, batch, comment, padded, quoted},
};

/// Values of a column that a comment lists.
const VALUES_SHOWN: usize = 6;

/// The model in a plan, for rows of so many features and as many classes as have a logit each; none for a model of images.
pub(super) fn architecture(model: Model, features: u64, classes: Option<u32>, rows: u64) -> Option<String> {
    let kind = match model {
        Model::LogisticRegression => {
            "kind = \"logistic_regression\"   # or \"multilayer_perceptron\" with hidden = [16]\n".to_owned()
        }
        Model::MultilayerPerceptron => format!(
            "kind = \"multilayer_perceptron\" # or \"logistic_regression\" without hidden layers\n{}# units of each hidden \
             layer; people look first at layers wider than a batch\n",
            padded(&format!("hidden = [{}]", (batch(rows) / 2).max(1)))
        ),
        Model::Convolutional | Model::Residual => return None,
    };
    let features = padded(&format!("features = {features}"));
    let classes = classes.map_or_else(String::new, |classes| {
        format!("{}# as many as schema.toml lists\n", padded(&format!("classes = {classes}")))
    });
    Some(format!(
        "{kind}{features}# as many as schema.toml yields, every category counted; alike at every site\n{classes}"
    ))
}

/// The optimiser in a plan.
pub(super) fn optimizer(model: Model) -> String {
    match model {
        Model::LogisticRegression => {
            "kind = \"sgd\"                   # or \"adam\"\nlearning_rate = \"0.1\"".to_owned()
        }
        _ => format!(
            "kind = \"adam\"                  # or \"sgd\" with learning_rate alone\nlearning_rate = \"0.01\"\n{ADAM}"
        ),
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
    let column_of_label = label.as_ref().map(|label| label.column.as_str()).unwrap_or_default();
    let predicted = label.as_ref().map(predicted).unwrap_or_default();
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
{predicted}
"#,
        data = comment(&data.display().to_string()),
        rows = table.rows,
        delimiter = quoted(&delimiter.to_string()),
        markers = markers.join(", "),
        missing = padded(&format!("missing = \"{missing}\"")),
        normalize = padded(&format!("normalize = \"{normalize}\"")),
        incomplete = table.rows.saturating_sub(table.complete_rows),
        label = padded(&format!("column = {}", quoted(column_of_label))),
        of_label = described(column_of_label),
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

/// What the column means, for a model.
fn predicted(label: &Label) -> String {
    let list = |texts: &[String]| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ");
    let round = "# Is it this way round? Or { greater_than = \"0\" }, { equals = [\"no\"] }; or classes = [\"a\", \"b\", \"c\"]:";
    match (&label.positive_when, &label.classes) {
        (Some(PositiveWhen::GreaterThan(threshold)), _) => {
            format!("{round}\npositive_when = {{ greater_than = {} }}", quoted(threshold.as_str()))
        }
        (Some(PositiveWhen::Equals(texts)), _) => format!("{round}\npositive_when = {{ equals = [{}] }}", list(texts)),
        (None, classes) => format!(
            "# Every text that any site has there; or positive_when = {{ equals = [...] }}, for two classes:\nclasses = [{}]",
            list(classes.as_deref().unwrap_or_default())
        ),
    }
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

#[cfg(test)]
mod tests {
    use fedledger_participant::table::{Wishes, inspect, suggest};

    use super::*;

    #[test]
    fn whatever_stands_in_a_table_can_be_read_back() {
        let strange =
            "\"a \"\"b\"\"\",c # d,e=f,label\n\"x\"\"\",1,é\u{7f},\"y,\"\n'''],2,\\,n\n\"x\"\"\",1,é\u{7f},\"y,\"\n";
        let several = strange.replace("'''],2,\\,n\n", "'''],2,\\,n\nz,2,\\,\"m\"\"\"\n");
        assert_ne!(several, strange);
        for csv in [strange, &several] {
            let table = inspect(csv.as_bytes()).unwrap();
            let suggestion = suggest(&table, Wishes::default()).unwrap();
            let classes = suggestion.schema.label.as_ref().unwrap().classes.as_ref().map(Vec::len);
            assert_eq!(classes, (csv != strange).then_some(3));
            let text = schema(Path::new("strange\r\n.csv"), &table, &suggestion);
            assert_eq!(Schema::from_toml(&text).unwrap_or_else(|error| panic!("{error}: {text}")), suggestion.schema);
            assert!(fedledger_participant::table::read(csv.as_bytes(), &suggestion.schema, None).is_ok());
        }
    }
}
