//! What is done to records before a model sees them, at every site alike: the `[data]` part of a plan.
//!
//! A description says what the values of an example are and what is predicted from them. Where the records lie and what
//! their columns are called is each site's own business. Real numbers are decimal strings, as everywhere in a plan.

mod check;
mod skipped;

use std::collections::BTreeMap;

use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

pub use check::DataDescriptionError;
pub use skipped::{SkipReason, SkippedRows, are_skipped_rows};

use crate::decimal::Decimal;

/// Most categories of one column, and most classes of a label.
pub const CATEGORIES_MAX: usize = 1024;

/// Most columns of a table.
pub const COLUMNS_MAX: usize = 8192;

/// Longest text of a field, a category or a column's name, in bytes.
pub const FIELD_BYTES_MAX: usize = 1024;

/// Most rows or images of a site.
pub const ROWS_MAX: u64 = 1 << 24;

/// Most pixels of an image, in each direction.
pub const IMAGE_SIDE_MAX: u32 = 4096;

/// Most channels of an image.
pub const CHANNELS_MAX: u32 = 4;

/// What records are, and what is done to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DataDescription {
    /// Rows of a table.
    Table(TableDescription),
    /// Images of one size.
    Images(ImageDescription),
}

/// How a row of a table becomes the values of an example and its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableDescription {
    /// What to do about missing values.
    pub missing: Missing,
    /// How features are scaled.
    pub normalize: Normalize,
    /// What is to be predicted.
    pub label: Label,
    /// What it is to be predicted from, in the order of the model's inputs.
    pub features: Vec<Feature>,
    /// The groups for which metrics are reported beside those of all examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Most rows that a site may skip because they cannot be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_rows_max: u64,
}

/// How an image becomes the values of an example, and what its label may be.
///
/// The values are ordered by channel, then row, then column. A byte `b` of the file becomes
/// `(b / 255 - mean) / deviation`, computed in 64 bits and rounded to 32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDescription {
    /// Rows of pixels.
    pub height: u32,
    /// Pixels of a row.
    pub width: u32,
    /// Values of a pixel: 1 for grey, 3 for colours.
    pub channels: u32,
    /// Subtracted from values of 0 to 1.
    pub mean: Decimal,
    /// What the difference is divided by.
    pub deviation: Decimal,
    /// Labels are whole numbers from 0 to below this.
    pub classes: u32,
    /// Most images that a site may skip because their label is no class.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_rows_max: u64,
}

/// What to do about missing values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Leave the row out.
    DropRow,
    /// Put the mean of the training rows in place of a feature; a row without a label cannot be read.
    Mean,
    /// A row without one cannot be read.
    Error,
    /// Put this number in place of a numeric feature, before it is scaled, and zeros in place of a category; a row without
    /// a label cannot be read.
    Constant(Decimal),
}

/// How features are scaled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// To mean 0 and deviation 1 over this site's training rows.
    Site,
    /// Not at all.
    None,
    /// Each numeric column as listed; categories not at all.
    Plan(BTreeMap<String, Scaling>),
}

/// How a numeric column is scaled: `(value - mean) / deviation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Subtracted from each value.
    pub mean: Decimal,
    /// What the difference is divided by.
    pub deviation: Decimal,
}

/// The label: a column, and what it means. Exactly one of `positive_when` and `classes` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The column.
    pub column: String,
    /// When a row is positive; every other row is negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive_when: Option<PositiveWhen>,
    /// The texts that may stand there; the class of a row is the position of its text, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
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

/// A column whose texts tell the groups; it may be a feature as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The column.
    pub column: String,
    /// Every text that may stand there.
    pub categories: Vec<String>,
}

impl DataDescription {
    /// SHA-256 of the canonical encoding.
    pub fn digest(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }

    /// Values of an example.
    pub fn features(&self) -> u64 {
        match self {
            Self::Table(table) => table.feature_count() as u64,
            Self::Images(images) => images.value_count(),
        }
    }

    /// Classes that a label may be of; two for one that is positive or not.
    pub fn classes(&self) -> u32 {
        match self {
            Self::Table(table) => table.label.class_count(),
            Self::Images(images) => images.classes,
        }
    }

    /// Most records that a site may skip because they cannot be read.
    pub const fn bad_rows_max(&self) -> u64 {
        match self {
            Self::Table(TableDescription { bad_rows_max, .. })
            | Self::Images(ImageDescription { bad_rows_max, .. }) => *bad_rows_max,
        }
    }

    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// [`DataDescriptionError`] names the first rule that is broken.
    pub fn check(&self) -> Result<(), DataDescriptionError> {
        match self {
            Self::Table(table) => table.check(),
            Self::Images(images) => images.check(),
        }
    }
}

impl TableDescription {
    /// Values of a row after categories were expanded.
    pub fn feature_count(&self) -> usize {
        self.features.iter().map(Feature::width).sum()
    }

    /// Names of those values: the column, or `column=category`.
    pub fn feature_names(&self) -> Vec<String> {
        self.features.iter().flat_map(Feature::names).collect()
    }
}

impl ImageDescription {
    /// Values of an image, saturating.
    pub fn value_count(&self) -> u64 {
        u64::from(self.height).saturating_mul(self.width.into()).saturating_mul(self.channels.into())
    }
}

impl Label {
    /// Classes that it tells apart.
    pub fn class_count(&self) -> u32 {
        let listed = self.classes.as_ref().map_or(2, Vec::len);
        u32::try_from(listed).unwrap_or(u32::MAX)
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

/// Whether a limit need not be written down.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(limit: &u64) -> bool {
    *limit == 0
}
