//! The only place where files of records are opened.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use fedledger_federation::data_description::{DataDescription, Feature, ImageDescription, TableDescription};
use fedledger_ledger::Digest;

use super::{
    DataManifest, Format, ImageError, Reading, Schema, SchemaError, Split, Table, TableError,
    hashing::{HashedFile, digest_while},
    images::{self, Arrays, Images},
    lines::FILE_BYTES_MAX,
    parquet::ParquetRows,
    parse::ROWS_MAX,
};

/// Largest schema file, in bytes.
pub const SCHEMA_BYTES_MAX: u64 = 1 << 20;

/// Largest file of test rows, in bytes: room for every row number of the largest table.
pub const TEST_ROWS_BYTES_MAX: u64 = 12 * ROWS_MAX as u64;

/// Records, their schema or their list of test rows that cannot be used, with the file's path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be opened or read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than it can be.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Largest size allowed, in bytes.
        limit: u64,
    },
    /// The schema is wrong.
    #[error("schema {}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SchemaError,
    },
    /// The list of test rows is no JSON array of row numbers.
    #[error("{} is not a JSON array of row numbers", path.display())]
    TestRows {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The table is wrong.
    #[error("table {}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TableError,
    },
    /// The images are wrong.
    #[error("images {}", path.display())]
    Images {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
}

/// Reads the schema at `schema_path`, then the table at `table_path` as the schema itself describes it.
///
/// # Errors
///
/// [`OpenError`] names the file; its source names the place in it.
pub fn load(table_path: &Path, schema_path: &Path) -> Result<Table, OpenError> {
    SiteData::open(table_path, schema_path)?.read(None)
}

/// A site's files and their schema, to be read as plans describe them.
#[derive(Debug, Clone)]
pub struct SiteData {
    path: PathBuf,
    schema_folder: PathBuf,
    schema: Schema,
    memory_max: Option<u64>,
}

/// Row numbers and the digest of the file that lists them.
type TestRows = (Vec<u64>, Digest);

impl SiteData {
    /// Reads the schema at `schema_path` of the records at `path`: a file, or for IDX files their folder or one of them.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file; its source names the place in it.
    pub fn open(path: &Path, schema_path: &Path) -> Result<Self, OpenError> {
        let text = read_bounded(schema_path, SCHEMA_BYTES_MAX)?;
        let schema =
            Schema::from_toml(&text).map_err(|source| OpenError::Schema { path: schema_path.to_owned(), source })?;
        let schema_folder = schema_path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { path: path.to_owned(), schema_folder, schema, memory_max: None })
    }

    /// The records at `path` with a schema that need not be on disk yet; files that it names are looked for in
    /// `schema_folder`.
    pub fn with_schema(path: &Path, schema: Schema, schema_folder: &Path) -> Self {
        Self { path: path.to_owned(), schema_folder: schema_folder.to_owned(), schema, memory_max: None }
    }

    /// The same, but reading may take so much memory only, in bytes: plans choose what is read, before anybody has consented to
    /// them.
    #[must_use]
    pub fn within(self, memory_max: Option<u64>) -> Self {
        Self { memory_max, ..self }
    }

    /// The schema.
    pub const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Where the records lie.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the records as a plan describes them, or for a plan that says nothing of them, as the schema itself does.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file; its source names the place in it.
    pub fn read(&self, description: Option<&DataDescription>) -> Result<Table, OpenError> {
        self.read_while(description, &|| true)
    }

    /// The same, as long as `goes_on` says that it is still wanted.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read); [`io::ErrorKind::Interrupted`] is the cause if it is not wanted any more.
    pub fn read_while(
        &self,
        description: Option<&DataDescription>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Table, OpenError> {
        let (test_rows, test_rows_file) = self.test_rows()?.unzip();
        let test_rows = test_rows.as_deref();
        let mut table = match description {
            Some(DataDescription::Images(images)) => self.images(images, test_rows, goes_on)?,
            Some(DataDescription::Table(table)) => self.table(table, test_rows, goes_on)?,
            None => {
                let own = self.schema.description().ok_or_else(|| self.wrong(TableError::Undescribed))?;
                self.table(&own, test_rows, goes_on)?
            }
        };
        table.manifest.description = description.map(DataDescription::digest);
        table.manifest.test_rows_file = test_rows_file;
        Ok(table)
    }

    fn table(
        &self,
        description: &TableDescription,
        test_rows: Option<&[u64]>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Table, OpenError> {
        let read = || -> Result<Table, TableError> {
            self.schema.check_description(description)?;
            let memory_max = self.memory_max;
            let reading = Reading { schema: &self.schema, description, test_rows, memory_max, goes_on };
            match self.schema.format_of(&self.path) {
                Format::Csv => reading.csv(File::open(&self.path)?),
                Format::Parquet => {
                    let file = HashedFile::of(File::open(&self.path)?, FILE_BYTES_MAX)?;
                    let mut file = file.ok_or(TableError::FileTooLarge)?;
                    let columns = self.used_columns(description);
                    let parsed = reading.parse(&mut ParquetRows::open(file.reader()?, &columns)?)?;
                    reading.finish(&parsed, file.unchanged()?.ok_or(TableError::Changed)?)
                }
                format @ (Format::Npz | Format::Idx) => Err(TableError::OtherRecords { described: "a table", format }),
            }
        };
        read().map_err(|source| self.wrong(source))
    }

    /// The columns of the file that a description needs.
    fn used_columns<'a>(&'a self, description: &'a TableDescription) -> BTreeSet<&'a str> {
        let TableDescription { label, features, group, .. } = description;
        let group = group.iter().map(|group| group.column.as_str());
        let described = features.iter().map(Feature::column).chain([label.column.as_str()]).chain(group);
        let filter = self.schema.row_filter.iter().map(|filter| filter.column.as_str());
        described.map(|column| self.schema.own_name(column)).chain(filter).collect()
    }

    fn images(
        &self,
        description: &ImageDescription,
        test_rows: Option<&[u64]>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Table, OpenError> {
        let files = self.schema.images.clone().unwrap_or_default();
        let memory_max = self.memory_max;
        let split = &self.schema.split;
        let reading = images::Reading { description, files: &files, split, test_rows, memory_max, goes_on };
        let read = || -> Result<Images, ImageError> {
            let mut arrays: Box<dyn Arrays> = match self.schema.format_of(&self.path) {
                Format::Npz => Box::new(images::Npz::open(File::open(&self.path)?)?),
                // A folder has no ending that could tell its format.
                Format::Csv if self.schema.format.is_none() && self.path.is_dir() => {
                    Box::new(images::IdxFiles::of(&self.path))
                }
                Format::Idx => Box::new(images::IdxFiles::of(&self.path)),
                format @ (Format::Csv | Format::Parquet) => {
                    return Err(TableError::OtherRecords { described: "images", format }.into());
                }
            };
            reading.read(arrays.as_mut())
        };
        let Images { train, test, records, skipped_rows, file } =
            read().map_err(|source| OpenError::Images { path: self.path.clone(), source })?;
        let manifest = DataManifest {
            schema: self.schema.digest(),
            description: None,
            file,
            test_rows_file: None,
            feature_count: train.columns() as u64,
            train_rows: train.rows() as u64,
            test_rows: test.rows() as u64,
            dropped_rows: 0,
            skipped_rows,
        };
        Ok(Table { train, test, classes: description.classes, feature_names: Vec::new(), records, manifest })
    }

    /// Whether the files are still those that a table was read from, as `description` says. Of several files in a folder, all
    /// that were read are read again.
    ///
    /// # Errors
    ///
    /// As for [`read_while`](Self::read_while).
    pub fn is_unchanged(
        &self,
        table: &Table,
        description: Option<&DataDescription>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<bool, OpenError> {
        if self.path.is_dir() || self.schema.format_of(&self.path) == Format::Idx {
            return Ok(self.read_while(description, goes_on)?.manifest == table.manifest);
        }
        let failed = |source| OpenError::Io { path: self.path.clone(), source };
        let listed = self.test_rows()?.map(|(_, digest)| digest);
        let found = File::open(&self.path).and_then(|mut file| digest_while(&mut file, FILE_BYTES_MAX, goes_on));
        Ok(found.map_err(failed)? == Some(table.manifest.file) && listed == table.manifest.test_rows_file)
    }

    /// The test rows that a file beside the schema lists, if the split wants one.
    fn test_rows(&self) -> Result<Option<TestRows>, OpenError> {
        let Split::TestRows { file } = &self.schema.split else { return Ok(None) };
        let path = self.schema_folder.join(file);
        let text = read_bounded(&path, TEST_ROWS_BYTES_MAX)?;
        let rows = serde_json::from_str(&text).map_err(|source| OpenError::TestRows { path, source })?;
        Ok(Some((rows, Digest::of(text.as_bytes()))))
    }

    fn wrong(&self, source: TableError) -> OpenError {
        match source {
            TableError::Io(source) if source.kind() == io::ErrorKind::NotFound => {
                OpenError::Io { path: self.path.clone(), source }
            }
            source => OpenError::Table { path: self.path.clone(), source },
        }
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<String, OpenError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    if text.len() as u64 > limit {
        return Err(OpenError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(text)
}
