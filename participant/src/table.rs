//! Local records: a CSV file described by a schema becomes the training and test rows of one participant.
//!
//! A wrong column or an unreadable number would train a wrong model without anybody noticing, so reading is strict:
//! whatever does not fit the [`Schema`] is an error that names line, column and text. Everything here works on bytes that
//! are handed in; only [`open`] touches files.

mod dataset;
mod error;
mod inspect;
mod lines;
mod manifest;
mod normalization;
mod open;
mod parse;
mod schema;
mod split;
mod suggest;

use std::io::{self, Read};

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

pub use dataset::{CLASSES_MAX, Dataset, DatasetError, Groups};
pub use error::{Place, TableError};
pub use inspect::{Column, Inspection, VALUES_MAX, inspect, inspect_file};
pub use lines::{COLUMNS_MAX, FIELD_BYTES_MAX, FILE_BYTES_MAX, LINE_BYTES_MAX};
pub use manifest::DataManifest;
pub use normalization::Normalization;
pub use open::{OpenError, SCHEMA_BYTES_MAX, TEST_ROWS_BYTES_MAX, load, open};
pub use parse::{CELLS_MAX, ROWS_MAX};
pub use schema::{
    CATEGORIES_MAX, Feature, Label, Missing, Normalize, PositiveWhen, RowFilter, Schema, SchemaError, Split,
};
pub use suggest::{LABEL_NAMES, LeftOut, SuggestError, Suggestion, Wishes, suggest};

/// What became of a table: rows to train on, rows to test on, and what they were made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Rows to train on, in the order of the file.
    pub train: Dataset,
    /// Rows to test on, in the order of the file; none if the schema keeps none.
    pub test: Dataset,
    /// Names of the features, in the order of a row's values; a category stands as `column=category`.
    pub feature_names: Vec<String>,
    /// Digests and counts that identify these data without showing them.
    pub manifest: DataManifest,
}

/// Reads a CSV table as `schema` describes it.
///
/// `test_rows` are the row numbers of a [`Split::TestRows`], counted from 0 after the row filter and after incomplete rows
/// were dropped; they are ignored for other splits.
///
/// # Errors
///
/// [`TableError`] names the place and what to change. No more memory is used than the named bounds allow.
pub fn read(source: impl Read, schema: &Schema, test_rows: Option<&[u64]>) -> Result<Table, TableError> {
    schema.validate()?;
    let mut source = HashingReader { source: source.take(FILE_BYTES_MAX + 1), hasher: Sha256::new() };
    let parsed = parse::parse(&mut source, schema)?;
    let file = Digest::from_bytes(source.hasher.finalize().into());

    let dropped_rows = parsed.dropped_rows;
    let feature_names = parsed.feature_names.clone();
    let (mut train, mut test) = split::split(parsed, &schema.split, test_rows)?;
    if train.rows() == 0 {
        return Err(TableError::NoTrainingRows);
    }
    if schema.missing == Missing::Mean {
        normalization::impute(&mut train, &mut test, &feature_names)?;
    }
    if schema.normalize == Normalize::Site {
        let normalization = Normalization::fit(&train);
        normalization.apply(&mut train);
        normalization.apply(&mut test);
    }
    let manifest = DataManifest {
        schema: schema.digest(),
        file,
        feature_count: train.columns() as u64,
        train_rows: train.rows() as u64,
        test_rows: test.rows() as u64,
        dropped_rows,
    };
    Ok(Table { train, test, feature_names, manifest })
}

/// Hashes whatever passes through, so that the digest covers the bytes that were understood and no others.
struct HashingReader<R> {
    source: R,
    hasher: Sha256,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}
