//! What a plan and a schema say of a table.

use std::path::Path;

use fedledger_participant::table::{
    Column, Feature, Group, Label, Missing, Normalize, PositiveWhen, Schema, Split, TableDescription,
};
use serde::Serialize;

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
        format!("{}# as many as [data.label] lists\n", padded(&format!("classes = {classes}")))
    });
    Some(format!("{kind}{features}# as many as [data] yields, every category counted\n{classes}"))
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

/// The section on data in a plan. It says nothing of what this site's records are, but for the texts of its categories.
pub(super) fn data(description: &TableDescription) -> String {
    // Nothing else is suggested; a schema that was given may say more.
    let missing = match &description.missing {
        Missing::DropRow => "missing = \"drop_row\"".to_owned(),
        Missing::Mean => "missing = \"mean\"".to_owned(),
        Missing::Error => "missing = \"error\"".to_owned(),
        other @ Missing::Constant(_) => format!("missing = {}", inline(other)),
    };
    let normalize = match &description.normalize {
        Normalize::Site => "normalize = \"site\"".to_owned(),
        Normalize::None => "normalize = \"none\"".to_owned(),
        other @ Normalize::Plan(_) => format!("normalize = {}", inline(other)),
    };
    let mut text = format!(
        r#"[data]                         # what is done to records, at every site alike
kind = "table"
{missing}# "drop_row", "mean" (of the site's training rows) or "error"
{normalize}# mean 0 and deviation 1 over the site's training rows, or "none"
{bad_rows_max}# most rows that a site may skip because they cannot be read

[data.label]                   # what is predicted
{label}
{predicted}
"#,
        missing = padded(&missing),
        normalize = padded(&normalize),
        bad_rows_max = padded(&format!("bad_rows_max = {}", description.bad_rows_max)),
        label = format_args!("column = {}", quoted(&description.label.column)),
        predicted = predicted(&description.label),
    );
    for feature in &description.features {
        text += &feature_text(feature);
    }
    if let Some(Group { column, categories }) = &description.group {
        let categories: Vec<String> = categories.iter().map(|category| quoted(category)).collect();
        text += &format!(
            "\n[data.group]                   # metrics are reported for these as well\ncolumn = {}\ncategories = [{}]\n",
            quoted(column),
            categories.join(", ")
        );
    }
    text += "\n";
    text
}

/// A value within a line of TOML.
fn inline(value: &impl Serialize) -> String {
    toml::Value::try_from(value).map(|value| value.to_string()).unwrap_or_default()
}

/// The schema of a site whose plans describe their data: how its file is written, and which rows it keeps for evaluation.
pub(super) fn schema(data: &Path, suggested: &Schema) -> String {
    let Schema { delimiter, missing_markers, split, .. } = suggested;
    let markers: Vec<String> = missing_markers.iter().map(|marker| quoted(marker)).collect();
    let mut text = format!(
        r#"# How {data} is written, guessed by `fedledger plan init`. What its columns mean for a model, the plan says.
delimiter = {delimiter}
# Texts that stand for a missing value:
missing_markers = [{markers}]
# columns = {{ age = "alter" }}   # what this file calls columns that plans call otherwise
"#,
        data = comment(&data.display().to_string()),
        delimiter = quoted(&delimiter.to_string()),
        markers = markers.join(", "),
    );
    if let Split::TestFraction { fraction, seed } = split {
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

fn feature_text(feature: &Feature) -> String {
    match feature {
        Feature::Numeric { column } => {
            format!("\n[[data.features]]\nkind = \"numeric\"\ncolumn = {}\n", quoted(column))
        }
        Feature::OneHot { column, categories, drop_first } => {
            let categories: Vec<String> = categories.iter().map(|category| quoted(category)).collect();
            let (column, categories) = (quoted(column), categories.join(", "));
            let drop_first = padded(&format!("drop_first = {drop_first}"));
            format!(
                "\n[[data.features]]\nkind = \"one_hot\"\ncolumn = {column}\n# Every text that any site has there:\n\
                 categories = [{categories}]\n{drop_first}# whether the first is told by zeros in the others\n"
            )
        }
    }
}

/// What stands in a column. It is for people of the site: counts go into no file.
pub(super) fn described(column: &Column) -> String {
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
    use std::collections::BTreeMap;

    use fedledger_federation::data_description::DataDescription;
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
            let text = schema(Path::new("strange\r\n.csv"), &suggestion.schema);
            let site = Schema::from_toml(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!((site.delimiter, &site.split), (suggestion.schema.delimiter, &suggestion.schema.split));
            assert_eq!(site.missing_markers, suggestion.schema.missing_markers);
            assert!(site.description().is_none());
            let description = suggestion.schema.description().unwrap();
            let text = data(&description);
            let plan: BTreeMap<String, DataDescription> =
                toml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(plan["data"], DataDescription::Table(description));
            assert!(fedledger_participant::table::read(csv.as_bytes(), &suggestion.schema, None).is_ok());
        }
    }
}
