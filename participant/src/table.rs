//! Local records: files that a schema and a plan describe become the training and test rows of one participant.
//!
//! A wrong column or an unreadable number would train a wrong model without anybody noticing, so reading is strict:
//! whatever does not fit is an error that names line, column and text, or a row that is skipped and counted where the plan
//! lets some be. Tables are read from CSV and Parquet files, images from npz and IDX files; all are read as a stream, and no
//! size that a file claims is believed. Only [`SiteData`] opens files.

mod dataset;
mod error;
mod hashing;
mod images;
mod inspect;
mod lines;
mod manifest;
mod normalization;
mod open;
mod parquet;
mod parse;
mod pixels;
mod record;
mod records;
mod schema;
mod skipped;
mod split;
mod suggest;
mod told;

use std::io::Read;

pub use fedledger_federation::data_description::{
    CATEGORIES_MAX, Feature, Group, Label, Missing, Normalize, PositiveWhen, Scaling, TableDescription,
};
use fedledger_ledger::Digest;

pub use dataset::{CLASSES_MAX, Dataset, DatasetError, Groups};
pub use error::{Place, Position, TableError};
pub use images::{ImageError, ImageInspection, PIXELS_MAX, holds_images, inspect_images};
pub use inspect::{Column, Inspection, VALUES_MAX, inspect, inspect_file};
pub use lines::{COLUMNS_MAX, FIELD_BYTES_MAX, FILE_BYTES_MAX, LINE_BYTES_MAX};
pub use manifest::DataManifest;
pub use normalization::Normalization;
pub use open::{OpenError, SCHEMA_BYTES_MAX, SiteData, TEST_ROWS_BYTES_MAX, load};
pub use parse::{CELLS_MAX, ROWS_MAX};
pub use pixels::PixelScale;
pub use records::RecordNumbers;
pub use schema::{Format, ImageFiles, RowFilter, Schema, SchemaError, Split};
pub use suggest::{LABEL_NAMES, LeftOut, SuggestError, Suggestion, Wishes, suggest};

use self::{hashing::HashingReader, lines::CsvRecords, parse::Parsed, record::Records};

/// What became of a site's records: rows to train on, rows to test on, and what they were made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Rows to train on, in the order of the file.
    pub train: Dataset,
    /// Rows to test on, in the order of the file; none if the schema keeps none.
    pub test: Dataset,
    /// Classes that a label may be of.
    pub classes: u32,
    /// Names of the features, in the order of a row's values; a category stands as `column=category`. None for images.
    pub feature_names: Vec<String>,
    /// Which records of the file these rows are.
    pub records: RecordNumbers,
    /// Digests and counts that identify these data without showing them.
    pub manifest: DataManifest,
}

/// Reads a CSV table as `schema` itself describes it.
///
/// `test_rows` are the row numbers of a [`Split::TestRows`], counted from 0 after the row filter and after rows that are
/// incomplete or cannot be read were left out; they are ignored for other splits.
///
/// # Errors
///
/// [`TableError`] names the place and what to change. No more memory is used than the named bounds allow.
pub fn read(source: impl Read, schema: &Schema, test_rows: Option<&[u64]>) -> Result<Table, TableError> {
    schema.validate()?;
    let description = schema.description().ok_or(TableError::Undescribed)?;
    Reading { schema, description: &description, test_rows, memory_max: None, goes_on: &|| true }.csv(source)
}

/// How records become a table.
struct Reading<'a> {
    schema: &'a Schema,
    description: &'a TableDescription,
    test_rows: Option<&'a [u64]>,
    /// Memory that the values may take while they are read, in bytes.
    memory_max: Option<u64>,
    /// Whether reading is to go on.
    goes_on: &'a dyn Fn() -> bool,
}

impl Reading<'_> {
    /// Reads lines.
    fn csv(&self, source: impl Read) -> Result<Table, TableError> {
        let delimiter = self.schema.delimiter;
        let separator = u8::try_from(delimiter).map_err(|_| SchemaError::Delimiter(delimiter))?;
        let mut source = HashingReader::new(source.take(FILE_BYTES_MAX + 1));
        let parsed = self.parse(&mut CsvRecords::new(&mut source, separator)?)?;
        self.finish(&parsed, source.digest())
    }

    fn parse(&self, records: &mut dyn Records) -> Result<Parsed, TableError> {
        parse::parse(records, self.schema, self.description, self.memory_max, self.goes_on)
    }

    /// Splits and scales what was read from a file of this digest.
    fn finish(&self, parsed: &Parsed, file: Digest) -> Result<Table, TableError> {
        let Self { schema, description, test_rows, .. } = self;
        let feature_names = description.feature_names();
        let is_test = split::test_rows(parsed.labels.len(), &schema.split, *test_rows)?;
        let (mut train, mut test) = split::split(parsed, description, &is_test)?;
        if train.rows() == 0 {
            return Err(TableError::NoTrainingRows);
        }
        if description.missing == Missing::Mean {
            normalization::impute(&mut train, &mut test, &feature_names)?;
        }
        if description.normalize == Normalize::Site {
            let normalization = Normalization::fit(&train);
            normalization.apply(&mut train);
            normalization.apply(&mut test);
        }
        let manifest = DataManifest {
            schema: schema.digest(),
            description: None,
            file,
            test_rows_file: None,
            feature_count: train.columns() as u64,
            train_rows: train.rows() as u64,
            test_rows: test.rows() as u64,
            dropped_rows: parsed.dropped_rows,
            skipped_rows: parsed.skipped_rows.clone(),
        };
        let records = RecordNumbers::split(parsed.records.iter().copied().zip(is_test));
        Ok(Table { train, test, classes: description.label.class_count(), feature_names, records, manifest })
    }
}
