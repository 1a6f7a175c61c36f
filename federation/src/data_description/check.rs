//! What makes a description one that can be carried out.

use std::collections::BTreeSet;

use super::{
    CATEGORIES_MAX, CHANNELS_MAX, COLUMNS_MAX, FIELD_BYTES_MAX, Feature, Group, IMAGE_SIDE_MAX, ImageDescription,
    Label, Missing, Normalize, PositiveWhen, ROWS_MAX, Scaling, TableDescription,
};
use crate::{
    architecture::{FEATURES_MAX, IMAGE_VALUES_MAX},
    decimal::Decimal,
    limits::{GROUPS_MAX, NAME_LENGTH_MAX},
    metrics::is_group_name,
};

/// A description that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataDescriptionError {
    /// No feature, or more than a model may have.
    #[error("records of {0} features: use 1 to {FEATURES_MAX}")]
    FeatureCount(u64),
    /// Images of more values than a network for images may take.
    #[error("images of {0} values: use up to {IMAGE_VALUES_MAX}, that is smaller images")]
    ImageValues(u64),
    /// One column as two features, or as feature and label.
    #[error("column {0:?} is used twice")]
    ColumnUsedTwice(String),
    /// Too few or too many categories or classes.
    #[error("column {column:?} has {found} {what}: use {least} to {most}")]
    CategoryCount {
        /// The column.
        column: String,
        /// `categories`, `classes` or `groups`.
        what: &'static str,
        /// Texts given.
        found: usize,
        /// Fewest allowed.
        least: usize,
        /// Most allowed.
        most: usize,
    },
    /// One category twice.
    #[error("{category:?} is listed twice for column {column:?}")]
    AmbiguousCategory {
        /// The column.
        column: String,
        /// The category.
        category: String,
    },
    /// A group that cannot be reported.
    #[error("{0:?} cannot be the name of a group: use 1 to {NAME_LENGTH_MAX} bytes without control characters")]
    GroupName(String),
    /// A text that no field can hold.
    #[error("a text is longer than {FIELD_BYTES_MAX} bytes: {start:?}...")]
    TextTooLong {
        /// How it begins.
        start: String,
    },
    /// Neither when a label is positive nor its classes, or both.
    #[error("label {0:?} needs either `positive_when` or `classes`")]
    LabelMeaning(String),
    /// Zeros would mean the first category and a missing one.
    #[error("column {0:?}: with `missing = {{ constant }}` zeros tell a missing category; leave `drop_first` out")]
    DroppedAndMissing(String),
    /// The columns that are scaled are not the numeric ones.
    #[error("normalize.plan must list the numeric columns and no others: {0:?} is wrong or not there")]
    ScaledColumns(String),
    /// Something is divided by zero or a negative number.
    #[error("{what}: a deviation of {found} is not above 0")]
    Deviation {
        /// What is scaled.
        what: String,
        /// Its deviation.
        found: Decimal,
    },
    /// A number outside its range.
    #[error("{field} is {found}: use {least} to {most}")]
    Range {
        /// The field.
        field: &'static str,
        /// Value found.
        found: u64,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
    },
}

impl TableDescription {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// [`DataDescriptionError`] names the first rule that is broken.
    pub fn check(&self) -> Result<(), DataDescriptionError> {
        self.texts().try_for_each(|text| length(text))?;
        self.label.check()?;
        self.check_features()?;
        self.check_normalize()?;
        if let Some(Group { column, categories }) = &self.group {
            listed(column, "groups", categories, (1, GROUPS_MAX))?;
            if let Some(name) = categories.iter().find(|name| !is_group_name(name)) {
                return Err(DataDescriptionError::GroupName(name.chars().take(80).collect()));
            }
        }
        range("bad_rows_max", self.bad_rows_max, 0, ROWS_MAX)
    }

    fn check_features(&self) -> Result<(), DataDescriptionError> {
        let mut columns = BTreeSet::from([self.label.column.as_str()]);
        for feature in &self.features {
            if !columns.insert(feature.column()) {
                return Err(DataDescriptionError::ColumnUsedTwice(feature.column().to_owned()));
            }
            if let Feature::OneHot { column, categories, drop_first } = feature {
                listed(column, "categories", categories, (2, CATEGORIES_MAX))?;
                if *drop_first && matches!(self.missing, Missing::Constant(_)) {
                    return Err(DataDescriptionError::DroppedAndMissing(column.clone()));
                }
            }
        }
        let width = self.feature_count();
        if width == 0 || width > FEATURES_MAX as usize || self.features.len() > COLUMNS_MAX {
            return Err(DataDescriptionError::FeatureCount(width as u64));
        }
        Ok(())
    }

    fn check_normalize(&self) -> Result<(), DataDescriptionError> {
        let Normalize::Plan(scalings) = &self.normalize else { return Ok(()) };
        let numeric: BTreeSet<&String> = self.features.iter().filter_map(Feature::numeric).collect();
        let scaled: BTreeSet<&String> = scalings.keys().collect();
        if let Some(column) = numeric.symmetric_difference(&scaled).next() {
            return Err(DataDescriptionError::ScaledColumns((*column).clone()));
        }
        scalings.iter().try_for_each(|(column, Scaling { deviation, .. })| divisor(column, deviation))
    }

    /// Every text that is compared with a field or a column's name.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let features = self.features.iter().flat_map(|feature| match feature {
            Feature::Numeric { column } => std::iter::once(column).chain(&[]),
            Feature::OneHot { column, categories, .. } => std::iter::once(column).chain(categories),
        });
        let group = self.group.iter().flat_map(|group| std::iter::once(&group.column).chain(&group.categories));
        features.chain(group).chain(self.label.texts())
    }
}

impl ImageDescription {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// [`DataDescriptionError`] names the first rule that is broken.
    pub fn check(&self) -> Result<(), DataDescriptionError> {
        range("height", self.height.into(), 1, IMAGE_SIDE_MAX.into())?;
        range("width", self.width.into(), 1, IMAGE_SIDE_MAX.into())?;
        range("channels", self.channels.into(), 1, CHANNELS_MAX.into())?;
        range("classes", self.classes.into(), 2, CATEGORIES_MAX as u64)?;
        range("bad_rows_max", self.bad_rows_max, 0, ROWS_MAX)?;
        divisor("images", &self.deviation)?;
        let values = self.value_count();
        if values > IMAGE_VALUES_MAX.into() { Err(DataDescriptionError::ImageValues(values)) } else { Ok(()) }
    }
}

impl Label {
    fn check(&self) -> Result<(), DataDescriptionError> {
        match (&self.positive_when, &self.classes) {
            (Some(PositiveWhen::Equals(texts)), None) => {
                listed(&self.column, "positive texts", texts, (1, CATEGORIES_MAX))
            }
            (Some(PositiveWhen::GreaterThan(_)), None) => Ok(()),
            (None, Some(classes)) => listed(&self.column, "classes", classes, (2, CATEGORIES_MAX)),
            (None, None) | (Some(_), Some(_)) => Err(DataDescriptionError::LabelMeaning(self.column.clone())),
        }
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        let positive = match &self.positive_when {
            Some(PositiveWhen::Equals(texts)) => texts.as_slice(),
            Some(PositiveWhen::GreaterThan(_)) | None => &[],
        };
        std::iter::once(&self.column).chain(positive).chain(self.classes.iter().flatten())
    }
}

impl Feature {
    /// The column, if its numbers are used as they are.
    const fn numeric(&self) -> Option<&String> {
        match self {
            Self::Numeric { column } => Some(column),
            Self::OneHot { .. } => None,
        }
    }
}

/// As many texts as allowed, and none of them twice.
fn listed(
    column: &str,
    what: &'static str,
    texts: &[String],
    (least, most): (usize, usize),
) -> Result<(), DataDescriptionError> {
    let (column, found) = (column.to_owned(), texts.len());
    if !(least..=most).contains(&found) {
        return Err(DataDescriptionError::CategoryCount { column, what, found, least, most });
    }
    let mut seen = BTreeSet::new();
    match texts.iter().find(|&text| !seen.insert(text)) {
        Some(category) => Err(DataDescriptionError::AmbiguousCategory { column, category: category.clone() }),
        None => Ok(()),
    }
}

fn length(text: &str) -> Result<(), DataDescriptionError> {
    if text.len() <= FIELD_BYTES_MAX {
        return Ok(());
    }
    Err(DataDescriptionError::TextTooLong { start: text.chars().take(80).collect() })
}

fn divisor(what: &str, found: &Decimal) -> Result<(), DataDescriptionError> {
    if found.is_positive() {
        return Ok(());
    }
    Err(DataDescriptionError::Deviation { what: what.to_owned(), found: found.clone() })
}

fn range(field: &'static str, found: u64, least: u64, most: u64) -> Result<(), DataDescriptionError> {
    if (least..=most).contains(&found) {
        Ok(())
    } else {
        Err(DataDescriptionError::Range { field, found, least, most })
    }
}

#[cfg(test)]
mod tests;
