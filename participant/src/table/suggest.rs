//! A schema for a table that somebody has looked at: a beginning for people, who know what the columns mean.

use std::collections::BTreeMap;

use fedledger_federation::decimal::Decimal;

use super::{
    Column, Feature, Inspection, Label, Missing, Normalize, PositiveWhen, Schema, Split,
    inspect::{USUAL_MISSING_MARKERS, VALUES_MAX},
};

/// What the column of labels is called where people do not say otherwise.
pub const LABEL_NAMES: [&str; 2] = ["label", "target"];

/// Names of columns that tell who or which record it is, in small letters. Nothing can be learnt from them, and a model
/// should not be able to remember them.
const IDENTIFIER_NAMES: [&str; 15] = [
    "id",
    "uid",
    "uuid",
    "mrn",
    "name",
    "surname",
    "firstname",
    "lastname",
    "patient",
    "subject",
    "case",
    "record",
    "row",
    "index",
    "ssn",
];

/// How the name of such a column may end.
const IDENTIFIER_ENDS: [&str; 6] = ["_id", "-id", " id", "_name", "-name", " name"];

/// Rows from which on texts that mostly stand in one row each are taken for free text, however few they are.
const TELLING_ROWS_MIN: u64 = 20;

/// Rows are left out where something is missing if at least this share of them is complete, in percent; else means are put
/// in.
const COMPLETE_PERCENT_MIN: u64 = 80;

/// What people say that cannot be seen in a table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// The column to predict.
    pub label: Option<&'a str>,
    /// Which of its texts count as positive; guessed if empty.
    pub positive: &'a [String],
    /// Whether each of its texts is a class of its own.
    pub classes: bool,
}

/// A schema, and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// The schema.
    pub schema: Schema,
    /// Columns that are not among the features, and why.
    pub left_out: Vec<(String, LeftOut)>,
}

/// Why a column is no feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Its name says that it tells who or which record it is.
    Identifier,
    /// It is the same in every row, or always missing.
    Constant,
    /// It has too many different texts.
    FreeText,
}

/// Why no schema can be suggested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuggestError {
    /// There is nothing below the header.
    #[error("the table has no rows below its header")]
    NoRows,
    /// No column is called as labels are, or several are.
    #[error("it is not clear which column is to be predicted: name one of {}", .columns.join(", "))]
    NoLabel {
        /// The columns.
        columns: Vec<String>,
    },
    /// There is no such column.
    #[error("there is no column {name:?} to predict: name one of {}", .columns.join(", "))]
    UnknownLabel {
        /// What was asked for.
        name: String,
        /// The columns.
        columns: Vec<String>,
    },
    /// The label is always the same.
    #[error("column {label:?} is the same in every row: there is nothing to predict")]
    OneClass {
        /// The column.
        label: String,
    },
    /// The label has too many values to be classes.
    #[error("column {label:?} has more than {VALUES_MAX} values: say which of them count as positive")]
    Classes {
        /// The column.
        label: String,
    },
    /// A text that is to count as positive does not stand there.
    #[error("{text:?} does not stand in column {label:?}, so it cannot count as positive")]
    NotThere {
        /// The column.
        label: String,
        /// The text.
        text: String,
    },
    /// No column is left to predict from.
    #[error("no column is left to predict from")]
    NoFeatures,
}

impl LeftOut {
    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Identifier => "it seems to tell who or which record it is",
            Self::Constant => "it is the same in every row",
            Self::FreeText => "it has too many different texts for categories",
        }
    }
}

/// Suggests a schema: numbers as they are, few texts as categories, everything scaled to this site's mean and deviation, and
/// a fifth of the rows kept for testing.
///
/// # Errors
///
/// [`SuggestError`] where only people can tell.
pub fn suggest(table: &Inspection, wishes: Wishes<'_>) -> Result<Suggestion, SuggestError> {
    if table.rows == 0 {
        return Err(SuggestError::NoRows);
    }
    let label = label_column(table, wishes.label)?;
    let predicted = predicted(label, wishes)?;
    let (mut features, mut left_out) = (Vec::new(), Vec::new());
    for column in table.columns.iter().filter(|column| column.name != label.name) {
        match feature(column, table.rows) {
            Ok(feature) => features.push(feature),
            Err(why) => left_out.push((column.name.clone(), why)),
        }
    }
    if features.is_empty() {
        return Err(SuggestError::NoFeatures);
    }
    let complete = table.complete_rows.saturating_mul(100) >= table.rows.saturating_mul(COMPLETE_PERCENT_MIN);
    // A label cannot be made up.
    let missing = if complete || label.missing > 0 { Missing::DropRow } else { Missing::Mean };
    let schema = Schema {
        delimiter: table.delimiter,
        row_filter: None,
        missing_markers: USUAL_MISSING_MARKERS.map(str::to_owned).to_vec(),
        missing,
        normalize: Normalize::Site,
        label: Some(predicted),
        features,
        format: None,
        columns: BTreeMap::new(),
        group: None,
        bad_rows_max: 0,
        images: None,
        split: Split::TestFraction { fraction: decimal("0.2"), seed: 7 },
    };
    Ok(Suggestion { schema, left_out })
}

fn label_column<'a>(table: &'a Inspection, wished: Option<&str>) -> Result<&'a Column, SuggestError> {
    let columns = || table.columns.iter().map(|column| column.name.clone()).collect();
    if let Some(name) = wished {
        let found = table.columns.iter().find(|column| column.name == name);
        return found.ok_or_else(|| SuggestError::UnknownLabel { name: name.to_owned(), columns: columns() });
    }
    let is_called_so = |column: &&Column| LABEL_NAMES.contains(&column.name.to_lowercase().as_str());
    let mut called_so = table.columns.iter().filter(is_called_so);
    match (called_so.next(), called_so.next()) {
        (Some(column), None) => Ok(column),
        _ => Err(SuggestError::NoLabel { columns: columns() }),
    }
}

/// Of two values the greater one is positive, or the later one in the alphabet; of several numbers from 0 on, whatever is
/// above 0. Several values of other kinds are as many classes, and so are all where that is wished for.
fn predicted(label: &Column, wishes: Wishes<'_>) -> Result<Label, SuggestError> {
    let column = || label.name.clone();
    let positive = |when| Ok(Label { column: column(), positive_when: Some(when), classes: None });
    let values = label.values.as_ref();
    if !wishes.positive.is_empty() {
        let is_there = |text: &&String| values.is_none_or(|values| values.contains_key(*text));
        return match wishes.positive.iter().find(|text| !is_there(text)) {
            Some(text) => Err(SuggestError::NotThere { label: column(), text: text.clone() }),
            None => positive(PositiveWhen::Equals(wishes.positive.to_vec())),
        };
    }
    let sorted = values.map(|values| sorted(values.keys(), label.is_numeric()));
    match sorted.as_deref() {
        Some([] | [_]) => Err(SuggestError::OneClass { label: column() }),
        Some([_, later]) if !wishes.classes => positive(PositiveWhen::Equals(vec![later.clone()])),
        _ if !wishes.classes && label.range.is_some_and(|(least, _)| least == 0.0) => {
            positive(PositiveWhen::GreaterThan(decimal("0")))
        }
        Some(texts) => Ok(Label { column: column(), positive_when: None, classes: Some(texts.to_vec()) }),
        None => Err(SuggestError::Classes { label: column() }),
    }
}

/// Texts in the order of the alphabet, or of the numbers that they are.
fn sorted<'a>(texts: impl Iterator<Item = &'a String>, are_numbers: bool) -> Vec<String> {
    let mut texts: Vec<String> = texts.cloned().collect();
    let number = |text: &String| text.parse::<f32>().unwrap_or_default();
    if are_numbers {
        texts.sort_by(|a, b| number(a).total_cmp(&number(b)));
    } else {
        texts.sort_unstable();
    }
    texts
}

fn feature(column: &Column, rows: u64) -> Result<Feature, LeftOut> {
    let name = column.name.to_lowercase();
    if IDENTIFIER_NAMES.contains(&name.as_str()) || IDENTIFIER_ENDS.iter().any(|end| name.ends_with(end)) {
        return Err(LeftOut::Identifier);
    }
    match (&column.values, column.range) {
        (Some(values), _) if values.len() < 2 => Err(LeftOut::Constant),
        (_, Some(_)) => Ok(Feature::Numeric { column: column.name.clone() }),
        (Some(values), _) if rows >= TELLING_ROWS_MIN && values.len() as u64 > rows / 2 => Err(LeftOut::FreeText),
        (Some(values), None) => Ok(Feature::OneHot {
            column: column.name.clone(),
            categories: values.keys().cloned().collect(),
            drop_first: values.len() == 2,
        }),
        (None, None) => Err(LeftOut::FreeText),
    }
}

fn decimal(text: &str) -> Decimal {
    #[expect(clippy::expect_used, reason = "the texts stand in this file, and the tests below use them all")]
    text.parse().expect("a decimal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{inspect, read};

    const CSV: &str = "patient_id,age,sex,pain,ward,note,label\n\
        p1,61,f,none,a,aa,0\np2,40.5,m,mild,a,ab,1\np3,?,f,severe,a,ac,0\np4,70,m,none,a,ad,1\np5,33,f,none,a,ae,0\n";

    fn suggested(csv: &str, wishes: Wishes<'_>) -> Result<Suggestion, SuggestError> {
        suggest(&inspect(csv.as_bytes()).unwrap(), wishes)
    }

    #[test]
    fn columns_are_taken_for_what_they_look_like() {
        let many: String = (0..40).map(|row| format!("q{row},50,m,mild,a,t{row},1\n")).collect();
        let csv = format!("{CSV}{many}");
        let Suggestion { schema, left_out } = suggested(&csv, Wishes::default()).unwrap();
        let expected = [("patient_id", LeftOut::Identifier), ("ward", LeftOut::Constant), ("note", LeftOut::FreeText)];
        assert_eq!(left_out, expected.map(|(name, why)| (name.to_owned(), why)));
        assert_eq!(
            schema.description().unwrap().feature_names(),
            ["age", "sex=m", "pain=mild", "pain=none", "pain=severe"]
        );
        assert_eq!(schema.label.as_ref().unwrap().positive_when, Some(PositiveWhen::Equals(vec!["1".to_owned()])));
        assert_eq!(schema.missing, Missing::DropRow, "few rows have gaps");
        let table = read(csv.as_bytes(), &schema, None).unwrap();
        assert_eq!((table.manifest.train_rows, table.manifest.test_rows, table.manifest.dropped_rows), (35, 9, 1));
    }

    #[test]
    fn what_tells_who_somebody_is_is_no_category() {
        let rows: String = (0..24).map(|row| format!("n{row},{},t{row},{}\n", row % 7, row % 2)).collect();
        let csv = format!("given_name,age,town,label\n{rows}");
        let Suggestion { schema, left_out } = suggested(&csv, Wishes::default()).unwrap();
        assert_eq!(schema.description().unwrap().feature_names(), ["age"]);
        let expected = [("given_name", LeftOut::Identifier), ("town", LeftOut::FreeText)];
        assert_eq!(left_out, expected.map(|(name, why)| (name.to_owned(), why)));
    }

    #[test]
    fn means_are_put_in_where_many_rows_have_gaps() {
        let csv = "a,b,target\n1,?,no\n?,2,yes\n3,4,no\n1,2,yes\n";
        let suggestion = suggested(csv, Wishes::default()).unwrap();
        assert_eq!(suggestion.schema.missing, Missing::Mean);
        assert_eq!(suggestion.schema.label.unwrap().positive_when, Some(PositiveWhen::Equals(vec!["yes".to_owned()])));
        let gaps = suggested("a,b,target\n1,?,no\n?,2,\n3,4,no\n1,2,yes\n", Wishes::default()).unwrap();
        assert_eq!(gaps.schema.missing, Missing::DropRow, "labels cannot be made up");
    }

    #[test]
    fn the_label_is_asked_for_unless_its_name_says_it() {
        use SuggestError::{Classes, NoFeatures, NoLabel, NoRows, NotThere, OneClass, UnknownLabel};

        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = |label| Wishes { label: Some(label), ..Wishes::default() };
        let all_of = |label| Wishes { label: Some(label), classes: true, ..Wishes::default() };
        let classes = |csv, wishes| suggested(csv, wishes).unwrap().schema.label.unwrap().classes;
        let csv = "age,num\n1,0\n2,4\n3,2\n";
        assert_eq!(suggested(csv, Wishes::default()), Err(NoLabel { columns: names(&["age", "num"]) }));
        let unknown = UnknownLabel { name: "nmu".to_owned(), columns: names(&["age", "num"]) };
        assert_eq!(suggested(csv, of("nmu")), Err(unknown));
        let above = suggested(csv, of("num")).unwrap().schema.label.unwrap().positive_when.unwrap();
        assert_eq!(above, PositiveWhen::GreaterThan("0".parse().unwrap()));
        let two = suggested("label,target,x\n0,1,1\n1,0,2\n", Wishes::default());
        assert!(matches!(two, Err(NoLabel { .. })), "two columns are called so");

        let stage = "x,stage\n1,i\n2,ii\n3,iii\n";
        assert_eq!(classes(stage, of("stage")), Some(names(&["i", "ii", "iii"])), "several texts are classes");
        assert_eq!(classes("x,grade\n1,10\n2,9\n3,8\n", of("grade")), Some(names(&["8", "9", "10"])));
        assert_eq!(classes(csv, all_of("num")), Some(names(&["0", "2", "4"])), "in place of what is above 0");
        assert_eq!(classes("x,label\n1,no\n2,yes\n", all_of("label")), Some(names(&["no", "yes"])));
        let doses: String = (0..=VALUES_MAX).map(|row| format!("{row},{}.5\n", row + 1)).collect();
        let measured = suggested(&format!("x,dose\n{doses}"), of("dose"));
        assert_eq!(measured, Err(Classes { label: "dose".to_owned() }));
        let late = [names(&["ii", "iii"]), names(&["ii", "iv"])];
        let wishes = |positive| Wishes { label: Some("stage"), positive, classes: false };
        assert_eq!(
            suggested(stage, wishes(&late[0])).unwrap().schema.label.unwrap().positive_when.unwrap(),
            PositiveWhen::Equals(late[0].clone())
        );
        let not_there = NotThere { label: "stage".to_owned(), text: "iv".to_owned() };
        assert_eq!(suggested(stage, wishes(&late[1])), Err(not_there));

        assert_eq!(suggested("x,label\n1,1\n2,1\n", Wishes::default()), Err(OneClass { label: "label".to_owned() }));
        assert_eq!(suggested("id,label\n1,1\n2,0\n", Wishes::default()), Err(NoFeatures));
        assert_eq!(suggested("x,label\n", Wishes::default()), Err(NoRows));
        let minus =
            suggested("x,label\n1,-1\n2,1\n", Wishes::default()).unwrap().schema.label.unwrap().positive_when.unwrap();
        assert_eq!(minus, PositiveWhen::Equals(vec!["1".to_owned()]));
    }
}
