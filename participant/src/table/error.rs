//! Everything that can be wrong with a table, with the place where it is wrong.

use std::{fmt, io};

use fedledger_federation::data_description::SkipReason;

use super::{
    DatasetError,
    lines::{COLUMNS_MAX, FIELD_BYTES_MAX, FILE_BYTES_MAX, LINE_BYTES_MAX},
    parse::{CELLS_MAX, ROWS_MAX},
    schema::{Format, SchemaError},
};

/// A record of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Line of a text file as an editor shows it, from 1; the header is line 1.
    Line(u64),
    /// Row of a file without lines, from 1.
    Row(u64),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// Where in a file: record and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The record.
    pub at: Position,
    /// Field within the record, from 1.
    pub column: usize,
    /// Name of the column, empty where there is none.
    pub name: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, column {}", self.at, self.column)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.name) }
    }
}

/// A table that cannot be read as its schema says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The schema itself is wrong.
    #[error("the schema is not valid")]
    Schema(#[from] SchemaError),
    /// The file could not be read to its end.
    #[error("the table cannot be read")]
    Io(#[from] io::Error),
    /// The file has no header line.
    #[error("the table is empty: its first line must name the columns")]
    Empty,
    /// More than [`FILE_BYTES_MAX`] bytes.
    #[error("the table is larger than {FILE_BYTES_MAX} bytes: split it")]
    FileTooLarge,
    /// Somebody wrote to the file while it was read.
    #[error("the table was changed while it was read: read it again when nobody writes to it")]
    Changed,
    /// A line of more than [`LINE_BYTES_MAX`] bytes.
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong {
        /// The line, from 1.
        line: u64,
    },
    /// A line of more than [`COLUMNS_MAX`] fields.
    #[error("line {line} has more than {COLUMNS_MAX} fields")]
    TooManyColumns {
        /// The line, from 1.
        line: u64,
    },
    /// A field of more than [`FIELD_BYTES_MAX`] bytes.
    #[error("{place}: the field is longer than {FIELD_BYTES_MAX} bytes")]
    FieldTooLong {
        /// Where.
        place: Place,
    },
    /// Bytes that are not UTF-8.
    #[error("{place}: not UTF-8; save the table as UTF-8")]
    NotUtf8 {
        /// Where.
        place: Place,
    },
    /// A quoted field that does not end on its line.
    #[error("{place}: a quoted field does not end on its line")]
    UnclosedQuote {
        /// Where.
        place: Place,
    },
    /// Text beside the quotes of a quoted field, or a quote inside an unquoted one.
    #[error("{place}: a quote must enclose the whole field, and a quote within it must be doubled")]
    StrayQuote {
        /// Where.
        place: Place,
    },
    /// A line with another number of fields than the header.
    #[error("line {line} has {found} fields, the header has {expected}")]
    FieldCount {
        /// The line, from 1.
        line: u64,
        /// Fields of the header.
        expected: usize,
        /// Fields of this line.
        found: usize,
    },
    /// Two columns of one name.
    #[error("{place}: the header names this column twice")]
    DuplicateColumn {
        /// The second of them.
        place: Place,
    },
    /// A column of the schema that the header does not name.
    #[error("the header has no column {name:?}: check the spelling and the delimiter")]
    MissingColumn {
        /// The column.
        name: String,
    },
    /// Text where a number should be.
    #[error("{place}: {text:?} is not a number")]
    NotANumber {
        /// Where.
        place: Place,
        /// What stands there, at most 80 characters.
        text: String,
    },
    /// An infinite value, NaN, or one beyond the range of a 32-bit float.
    #[error("{place}: {text:?} is not a finite 32-bit number")]
    NotFinite {
        /// Where.
        place: Place,
        /// What stands there, at most 80 characters.
        text: String,
    },
    /// A category that is not listed.
    #[error("{place}: {text:?} is none of the categories that are listed")]
    UnknownCategory {
        /// Where.
        place: Place,
        /// What stands there, at most 80 characters.
        text: String,
    },
    /// A missing value where the schema allows none.
    #[error("{place}: the value is missing; complete it or set `missing` in the schema")]
    MissingValue {
        /// Where.
        place: Place,
    },
    /// A row without a label, where such rows are not dropped.
    #[error("{place}: the label is missing; complete it or set `missing = \"drop_row\"`")]
    MissingLabel {
        /// Where.
        place: Place,
    },
    /// A label that is none of the classes.
    #[error("{place}: {text:?} is none of the classes that are listed")]
    UnknownLabel {
        /// Where.
        place: Place,
        /// What stands there, at most 80 characters.
        text: String,
    },
    /// A group that is not listed.
    #[error("{place}: {text:?} is none of the categories of the group that are listed")]
    UnknownGroup {
        /// Where.
        place: Place,
        /// What stands there, at most 80 characters.
        text: String,
    },
    /// More rows cannot be read than may be skipped.
    #[error("more than {limit} rows cannot be read, which is as many as may be skipped; the first: {}", first.join("; "))]
    TooManyBadRows {
        /// Most rows that may be skipped.
        limit: u64,
        /// What is wrong with the first of them.
        first: Vec<String>,
    },
    /// A plan for other records than those of the file.
    #[error("the plan describes {described}, this site has a file of format {format:?}")]
    OtherRecords {
        /// What the plan describes.
        described: &'static str,
        /// What the site has.
        format: Format,
    },
    /// Neither the plan nor the schema says what the records are.
    #[error("the schema has no features and no label: it serves only plans that describe their data")]
    Undescribed,
    /// Not a Parquet file, or a damaged one.
    #[error("the Parquet file cannot be read: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Pages of a Parquet file that are compressed in another way.
    #[error("column {name:?} is compressed with {found}: save it with Snappy, or uncompressed")]
    Compression {
        /// The column.
        name: String,
        /// How it is compressed.
        found: String,
    },
    /// A row group of a Parquet file that is too large.
    #[error("column {name:?} has more than {limit} bytes in a row group: write smaller row groups")]
    RowGroupTooLarge {
        /// The column.
        name: String,
        /// Most bytes allowed.
        limit: i64,
    },
    /// A column of a Parquet file that is neither numbers nor text.
    #[error("column {name:?} holds {found}: only plain numbers, truth values and UTF-8 text can be used")]
    ColumnType {
        /// The column.
        name: String,
        /// What the file says that it holds.
        found: String,
    },
    /// More than [`ROWS_MAX`] rows or [`CELLS_MAX`] values.
    #[error("the table has more than {ROWS_MAX} rows or {CELLS_MAX} values: use fewer")]
    TooManyRows,
    /// The values take more memory than the site allows.
    #[error(
        "the values take more than {allowed} bytes while they are read, which is memory_max of this site: use fewer"
    )]
    MemoryMax {
        /// Most that is allowed, in bytes.
        allowed: u64,
    },
    /// Every training row lacks this value, so that there is no mean to put in its place.
    #[error("feature {name:?} is missing in every training row: leave it out of the schema")]
    NoMean {
        /// The feature.
        name: String,
    },
    /// The schema wants a list of test rows and none was given.
    #[error("the schema's split needs the list of test rows")]
    NoTestRows,
    /// A test row beyond the last row, or one named twice.
    #[error("test row {row} is named twice or not among the {rows} rows of the table")]
    TestRow {
        /// The row, from 0.
        row: u64,
        /// Rows of the table.
        rows: u64,
    },
    /// The rows make no data set, which is a defect of this software.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Nothing is left to train on.
    #[error("no row is left to train on: check the row filter, the missing values and the split")]
    NoTrainingRows,
}

impl TableError {
    /// Why the row can be skipped that the error is about; none if the whole table cannot be used.
    pub const fn skip_reason(&self) -> Option<SkipReason> {
        Some(match self {
            Self::FieldCount { .. } | Self::TooManyColumns { .. } => SkipReason::FieldCount,
            Self::FieldTooLong { .. } | Self::NotUtf8 { .. } | Self::UnclosedQuote { .. } | Self::StrayQuote { .. } => {
                SkipReason::Malformed
            }
            Self::MissingLabel { .. } => SkipReason::MissingLabel,
            Self::MissingValue { .. } => SkipReason::MissingValue,
            Self::NotANumber { .. } => SkipReason::NotANumber,
            Self::NotFinite { .. } => SkipReason::OutOfRange,
            Self::UnknownCategory { .. } => SkipReason::UnknownCategory,
            Self::UnknownGroup { .. } => SkipReason::UnknownGroup,
            Self::UnknownLabel { .. } => SkipReason::UnknownLabel,
            _ => return None,
        })
    }
}

/// At most 80 characters of `text`, for error messages.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
