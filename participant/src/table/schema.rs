//! What a site's own files are: their format, which rows count, which are kept for testing, and what columns are called.
//!
//! What is done to records stands in the plan, so that it is the same at every site. For plans that say nothing of it, the
//! schema may describe features and label as well. Written by people as TOML, hashed as canonical DAG-CBOR; numbers with
//! fractions are therefore decimal strings.
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

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fedledger_federation::{
    data_description::{
        DataDescriptionError, Feature, Group, Label, Missing, Normalize, PositiveWhen, TableDescription,
    },
    decimal::Decimal,
};
use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

use super::lines::{COLUMNS_MAX, FIELD_BYTES_MAX};

/// Most texts that stand for a missing value.
const MISSING_MARKERS_MAX: usize = 16;

/// What a site's files are, and how they become numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Format of the files; told by the ending of their name, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Character between fields, a comma if not given.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// Rows that belong to the data set; all, if not given.
    #[serde(default)]
    pub row_filter: Option<RowFilter>,
    /// Texts that stand for a missing value; only the empty field, if not given.
    #[serde(default = "only_the_empty_field")]
    pub missing_markers: Vec<String>,
    /// What this site's file calls the columns that plans call otherwise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// What to do about missing values, for plans that do not say it; refuse them, if not given.
    #[serde(default = "refused")]
    pub missing: Missing,
    /// How features are scaled, for plans that do not say it; not at all, if not given.
    #[serde(default = "unscaled")]
    pub normalize: Normalize,
    /// What is to be predicted, for plans that do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// What it is to be predicted from, in the order of the model's inputs, for plans that do not say it.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// The groups for which metrics are reported, for plans that do not describe their data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Most rows that may be skipped because they cannot be read, for plans that do not say it; none, if not given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_rows_max: u64,
    /// Which images and labels the files hold, for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageFiles>,
    /// Which rows are kept for testing; none, if not given.
    #[serde(default)]
    pub split: Split,
}

/// Format of a site's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text with one row per line (RFC 4180).
    Csv,
    /// Apache Parquet.
    Parquet,
    /// Arrays in a ZIP archive, as numpy writes them: images.
    Npz,
    /// Four files of one array each, as those of MNIST: images.
    Idx,
}

/// Names of the arrays of an npz file, or of IDX files beside each other. Those that are not given are called as MedMNIST
/// and MNIST call them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageFiles {
    /// Images to train on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_images: Option<String>,
    /// Their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_labels: Option<String>,
    /// Images to test on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_images: Option<String>,
    /// Their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_labels: Option<String>,
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

/// Which rows or images are kept for testing.
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
    /// Features or a label that cannot be used.
    #[error(transparent)]
    Description(#[from] DataDescriptionError),
    /// Features without a label, or a label without features.
    #[error("features and label go together: give both, or neither if every plan describes its data")]
    HalfDescribed,
    /// A category or class that also stands for a missing value.
    #[error("{text:?} of column {column:?} also stands for a missing value: change `missing_markers`")]
    MissingMarker {
        /// The column.
        column: String,
        /// The text.
        text: String,
    },
    /// One column of the file under two names that are used together.
    #[error("`columns` gives {0:?} for two columns that are used together")]
    ColumnUsedTwice(String),
    /// No text, or too many.
    #[error("{what}: {found} texts, use {least} to {most}")]
    TextCount {
        /// The field of the schema.
        what: &'static str,
        /// Texts given.
        found: usize,
        /// Fewest allowed.
        least: usize,
        /// Most allowed.
        most: usize,
    },
    /// A text that no field can hold.
    #[error("a text in the schema is longer than {FIELD_BYTES_MAX} bytes: {start:?}...")]
    TextTooLong {
        /// How it begins.
        start: String,
    },
    /// A part that is negative or not below the whole.
    #[error("split.fraction: {0} is not at least 0 and below 1")]
    Fraction(Decimal),
    /// Images have no columns.
    #[error("{0} is for tables: leave it out where the files hold images")]
    ForTables(&'static str),
    /// Test images and a split.
    #[error("test images are named and a split is asked for: use one of both")]
    TestImagesAndSplit,
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
        count("missing_markers", self.missing_markers.len(), (1, MISSING_MARKERS_MAX))?;
        count("columns", self.columns.len(), (0, COLUMNS_MAX))?;
        self.texts().try_for_each(|text| length(text))?;
        if self.label.is_some() == self.features.is_empty() {
            return Err(SchemaError::HalfDescribed);
        }
        if let Some(description) = self.description() {
            self.check_description(&description)?;
        }
        if let Some(images) = &self.images {
            self.check_images(images)?;
        }
        match &self.split {
            Split::TestFraction { fraction, .. } if !fraction.is_fraction() => {
                Err(SchemaError::Fraction(fraction.clone()))
            }
            _ => Ok(()),
        }
    }

    /// What the schema itself says of records; none if every plan has to.
    pub fn description(&self) -> Option<TableDescription> {
        let label = self.label.clone()?;
        Some(TableDescription {
            missing: self.missing.clone(),
            normalize: self.normalize.clone(),
            label,
            features: self.features.clone(),
            group: self.group.clone(),
            bad_rows_max: self.bad_rows_max,
        })
    }

    /// Checks a description, and that it can be applied to this site's file.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] names the first rule that is broken.
    pub fn check_description(&self, description: &TableDescription) -> Result<(), SchemaError> {
        description.check()?;
        let TableDescription { label, features, group, .. } = description;
        let categories = features.iter().filter_map(|feature| match feature {
            Feature::OneHot { column, categories, .. } => Some((column, categories)),
            Feature::Numeric { .. } => None,
        });
        let positive = label.positive_when.iter().filter_map(|positive| match positive {
            PositiveWhen::Equals(texts) => Some(texts),
            PositiveWhen::GreaterThan(_) => None,
        });
        let labels = positive.chain(&label.classes).map(|texts| (&label.column, texts));
        let groups = group.iter().map(|group| (&group.column, &group.categories));
        for (column, texts) in categories.chain(labels).chain(groups) {
            if let Some(text) = texts.iter().find(|text| self.missing_markers.contains(text)) {
                return Err(SchemaError::MissingMarker { column: column.clone(), text: text.clone() });
            }
        }
        let mut used = BTreeSet::new();
        let columns = features.iter().map(Feature::column).chain([label.column.as_str()]);
        match columns.map(|column| self.own_name(column)).find(|column| !used.insert(*column)) {
            Some(column) => Err(SchemaError::ColumnUsedTwice(column.to_owned())),
            None => Ok(()),
        }
    }

    /// What the site's file calls a column that a description names.
    pub fn own_name<'a>(&'a self, column: &'a str) -> &'a str {
        self.columns.get(column).map_or(column, String::as_str)
    }

    /// The format of a file of this name: the one that is given, or else the one that the name tells; CSV if it tells none.
    pub fn format_of(&self, path: &Path) -> Format {
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let guessed = || match name.strip_suffix(".gz").unwrap_or(&name) {
            name if name.ends_with(".parquet") => Format::Parquet,
            name if name.ends_with(".npz") => Format::Npz,
            name if name.ends_with("-ubyte") || name.ends_with(".idx") => Format::Idx,
            _ => Format::Csv,
        };
        self.format.unwrap_or_else(guessed)
    }

    /// SHA-256 of the canonical encoding.
    pub fn digest(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }

    fn check_images(&self, images: &ImageFiles) -> Result<(), SchemaError> {
        let for_tables = [
            ("row_filter", self.row_filter.is_some()),
            ("features", self.label.is_some()),
            ("group", self.group.is_some()),
        ];
        if let Some((what, _)) = for_tables.into_iter().find(|(_, is_given)| *is_given) {
            return Err(SchemaError::ForTables(what));
        }
        let tests = images.test_images.is_some() || images.test_labels.is_some();
        if tests && self.split != Split::None { Err(SchemaError::TestImagesAndSplit) } else { Ok(()) }
    }

    /// Texts that stand nowhere else but here.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let filter = self.row_filter.iter().flat_map(|filter| [&filter.column, &filter.equals]);
        let columns = self.columns.iter().flat_map(|(described, own)| [described, own]);
        self.missing_markers.iter().chain(filter).chain(columns)
    }
}

/// The 64-bit float nearest to `decimal`.
pub(super) fn nearest(decimal: &Decimal) -> f64 {
    // Every plain decimal is a float's notation too; NaN compares false, so that a defect would not pass for a number.
    decimal.as_str().parse().unwrap_or(f64::NAN)
}

fn count(what: &'static str, found: usize, (least, most): (usize, usize)) -> Result<(), SchemaError> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(SchemaError::TextCount { what, found, least, most }) }
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

const fn refused() -> Missing {
    Missing::Error
}

const fn unscaled() -> Normalize {
    Normalize::None
}

/// Whether a limit need not be written down.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(limit: &u64) -> bool {
    *limit == 0
}
