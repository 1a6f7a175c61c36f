//! The description of a table: which columns are features, what the label is, which rows count.
//!
//! Written by people as TOML, hashed as canonical DAG-CBOR; numbers with fractions are therefore decimal strings.
//!
//! ```toml
//! missing = "drop_row"
//! normalize = "site"
//!
//! [label]
//! column = "num"
//! positive_when = { greater_than = "0" }
//!
//! [[features]]
//! kind = "numeric"
//! column = "age"
//!
//! [[features]]
//! kind = "one_hot"
//! column = "chest_pain"
//! categories = ["1", "2", "3", "4"]
//! drop_first = true
//!
//! [split]
//! kind = "test_fraction"
//! fraction = "0.25"
//! seed = 7
//! ```

use std::collections::BTreeSet;

use fedledger_federation::{
    architecture::FEATURES_MAX,
    decimal::Decimal,
    limits::{GROUPS_MAX, NAME_LENGTH_MAX},
    metrics::is_group_name,
};
use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

use super::lines::{COLUMNS_MAX, FIELD_BYTES_MAX};

/// Most categories of one column.
pub const CATEGORIES_MAX: usize = 1024;

/// Most texts that stand for a missing value.
const MISSING_MARKERS_MAX: usize = 16;

/// How a CSV table becomes numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Character between fields, a comma if not given.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// Rows that belong to the data set; all, if not given.
    #[serde(default)]
    pub row_filter: Option<RowFilter>,
    /// Texts that stand for a missing value; only the empty field, if not given.
    #[serde(default = "only_the_empty_field")]
    pub missing_markers: Vec<String>,
    /// What to do about missing values.
    pub missing: Missing,
    /// How features are scaled.
    pub normalize: Normalize,
    /// What is to be predicted.
    pub label: Label,
    /// What it is to be predicted from, in the order of the model's inputs.
    pub features: Vec<Feature>,
    /// What the rows are grouped by where metrics are reported; nothing, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Which rows are kept for testing; none, if not given.
    #[serde(default)]
    pub split: Split,
}

/// Keeps the rows whose column reads exactly like this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowFilter {
    /// The column.
    pub column: String,
    /// The text that a kept row has there.
    pub equals: String,
}

/// What to do about missing values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Leave the row out.
    DropRow,
    /// Put the mean of the training rows in place of a feature; a missing label is an error.
    Mean,
    /// Refuse the table.
    Error,
}

/// How features are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// To mean 0 and deviation 1 over this site's training rows.
    Site,
    /// Not at all.
    None,
}

/// The label: a column, and what makes it positive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The column.
    pub column: String,
    /// When a row is positive; every other row is negative.
    pub positive_when: PositiveWhen,
}

/// When a label is positive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositiveWhen {
    /// The column holds a number greater than this one.
    GreaterThan(Decimal),
    /// The column reads exactly like one of these texts.
    Equals(Vec<String>),
}

/// One column that is used as input, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Feature {
    /// One value: the number in the column.
    Numeric {
        /// The column.
        column: String,
    },
    /// One value per category: 1 for the category that the column names, 0 for the others.
    OneHot {
        /// The column.
        column: String,
        /// Every text that may stand there. Listed, not collected from the data, so that all sites have the same inputs.
        categories: Vec<String>,
        /// Leave the first category out: it is told by zeros in all others.
        #[serde(default)]
        drop_first: bool,
    },
}

/// The column that says to which group a row belongs. It may be a feature as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The column.
    pub column: String,
    /// Every text that may stand there, and what the group is called.
    pub categories: Vec<String>,
}

/// Which rows are kept for testing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// None.
    #[default]
    None,
    /// The rows listed in a file.
    TestRows {
        /// A JSON array of row numbers, from 0 after the row filter and after incomplete rows were dropped. The path is
        /// relative to the schema's folder.
        file: String,
    },
    /// A random part.
    TestFraction {
        /// The part, as a decimal fraction below 1; the number of test rows is rounded up.
        fraction: Decimal,
        /// Seed of the choice.
        seed: u64,
    },
}

/// A schema that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Not TOML, or not a schema.
    #[error("the schema cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A delimiter that cannot be told from the text.
    #[error("{0:?} cannot be the delimiter: use a comma, semicolon, tab or another ASCII sign")]
    Delimiter(char),
    /// No feature, or more than a model may have.
    #[error("the schema yields {0} features: use 1 to {FEATURES_MAX}")]
    FeatureCount(usize),
    /// One column as two features, or as feature and label.
    #[error("column {0:?} is used twice")]
    ColumnUsedTwice(String),
    /// Too few or too many categories.
    #[error("column {column:?} has {found} categories: use 2 to {CATEGORIES_MAX}")]
    CategoryCount {
        /// The column.
        column: String,
        /// Categories given.
        found: usize,
    },
    /// One category twice, or one that also stands for a missing value.
    #[error("category {category:?} of column {column:?} is ambiguous: it is listed twice or is a missing marker")]
    AmbiguousCategory {
        /// The column.
        column: String,
        /// The category.
        category: String,
    },
    /// No text, or too many, for positive labels or missing values.
    #[error("{what}: {found} texts, use 1 to {limit}")]
    TextCount {
        /// The field of the schema.
        what: &'static str,
        /// Texts given.
        found: usize,
        /// Most texts allowed.
        limit: usize,
    },
    /// A text that no field can hold.
    #[error("a text in the schema is longer than {FIELD_BYTES_MAX} bytes: {start:?}...")]
    TextTooLong {
        /// How it begins.
        start: String,
    },
    /// A group that cannot be reported.
    #[error(
        "{0:?} cannot be the name of a group: use 1 to {NAME_LENGTH_MAX} bytes without control characters, each name once, and \
         no missing marker"
    )]
    GroupName(String),
    /// A part that is negative or not below the whole.
    #[error("split.fraction: {0} is not at least 0 and below 1")]
    Fraction(Decimal),
}

impl Schema {
    /// Reads and checks a schema.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] names what is wrong, for TOML with line and column.
    pub fn from_toml(text: &str) -> Result<Self, SchemaError> {
        let schema: Self = toml::from_str(text)?;
        schema.validate()?;
        Ok(schema)
    }

    /// Checks every rule that the types cannot express.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), SchemaError> {
        if !self.delimiter.is_ascii() || self.delimiter.is_ascii_alphanumeric() || "\"\r\n.-+".contains(self.delimiter)
        {
            return Err(SchemaError::Delimiter(self.delimiter));
        }
        count("missing_markers", self.missing_markers.len(), MISSING_MARKERS_MAX)?;
        self.texts().try_for_each(|text| length(text))?;
        let mut columns = BTreeSet::from([self.label.column.as_str()]);
        for feature in &self.features {
            if !columns.insert(feature.column()) {
                return Err(SchemaError::ColumnUsedTwice(feature.column().to_owned()));
            }
            self.validate_categories(feature)?;
        }
        let width = self.feature_count();
        if width == 0 || width > FEATURES_MAX as usize || self.features.len() > COLUMNS_MAX {
            return Err(SchemaError::FeatureCount(width));
        }
        if let PositiveWhen::Equals(texts) = &self.label.positive_when {
            count("label.positive_when.equals", texts.len(), CATEGORIES_MAX)?;
        }
        self.group.as_ref().map_or(Ok(()), |group| self.validate_group(group))?;
        match &self.split {
            Split::TestFraction { fraction, .. } if !fraction.is_fraction() => {
                Err(SchemaError::Fraction(fraction.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Values of a row after categories were expanded.
    pub fn feature_count(&self) -> usize {
        self.features.iter().map(Feature::width).sum()
    }

    /// Names of those values: the column, or `column=category`.
    pub fn feature_names(&self) -> Vec<String> {
        self.features.iter().flat_map(Feature::names).collect()
    }

    /// SHA-256 of the canonical encoding.
    pub fn digest(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }

    fn validate_categories(&self, feature: &Feature) -> Result<(), SchemaError> {
        let Feature::OneHot { column, categories, .. } = feature else {
            return Ok(());
        };
        if !(2..=CATEGORIES_MAX).contains(&categories.len()) {
            return Err(SchemaError::CategoryCount { column: column.clone(), found: categories.len() });
        }
        let mut seen: BTreeSet<&String> = self.missing_markers.iter().collect();
        match categories.iter().find(|&category| !seen.insert(category)) {
            Some(category) => {
                Err(SchemaError::AmbiguousCategory { column: column.clone(), category: category.clone() })
            }
            None => Ok(()),
        }
    }

    fn validate_group(&self, group: &Group) -> Result<(), SchemaError> {
        length(&group.column)?;
        count("group.categories", group.categories.len(), GROUPS_MAX)?;
        let mut seen: BTreeSet<&String> = self.missing_markers.iter().collect();
        match group.categories.iter().find(|name| !seen.insert(name) || !is_group_name(name)) {
            Some(name) => Err(SchemaError::GroupName(super::error::shortened(name))),
            None => Ok(()),
        }
    }

    /// Every text that is compared with a field or a column's name.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let filter = self.row_filter.iter().flat_map(|filter| [&filter.column, &filter.equals]);
        let features = self.features.iter().flat_map(|feature| match feature {
            Feature::Numeric { column } => std::iter::once(column).chain(&[]),
            Feature::OneHot { column, categories, .. } => std::iter::once(column).chain(categories),
        });
        let positive = match &self.label.positive_when {
            PositiveWhen::GreaterThan(_) => &[],
            PositiveWhen::Equals(texts) => texts.as_slice(),
        };
        self.missing_markers.iter().chain(filter).chain(features).chain([&self.label.column]).chain(positive)
    }
}

impl Feature {
    /// The column.
    pub fn column(&self) -> &str {
        match self {
            Self::Numeric { column } | Self::OneHot { column, .. } => column,
        }
    }

    /// Values that this feature adds to a row.
    pub fn width(&self) -> usize {
        match self {
            Self::Numeric { .. } => 1,
            Self::OneHot { categories, drop_first, .. } => categories.len().saturating_sub(usize::from(*drop_first)),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Numeric { column } => vec![column.clone()],
            Self::OneHot { column, categories, drop_first } => {
                let listed = categories.iter().skip(usize::from(*drop_first));
                listed.map(|category| format!("{column}={category}")).collect()
            }
        }
    }
}

/// The 64-bit float nearest to `decimal`.
pub(super) fn nearest(decimal: &Decimal) -> f64 {
    // Every plain decimal is a float's notation too; NaN compares false, so that a defect would not pass for a number.
    decimal.as_str().parse().unwrap_or(f64::NAN)
}

fn count(what: &'static str, found: usize, limit: usize) -> Result<(), SchemaError> {
    if (1..=limit).contains(&found) { Ok(()) } else { Err(SchemaError::TextCount { what, found, limit }) }
}

fn length(text: &str) -> Result<(), SchemaError> {
    if text.len() <= FIELD_BYTES_MAX {
        return Ok(());
    }
    Err(SchemaError::TextTooLong { start: super::error::shortened(text) })
}

fn comma() -> char {
    ','
}

fn only_the_empty_field() -> Vec<String> {
    vec![String::new()]
}
