//! The only place where table files are opened.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{Schema, SchemaError, Split, Table, TableError, parse::ROWS_MAX};

/// Largest schema file, in bytes.
pub const SCHEMA_BYTES_MAX: u64 = 1 << 20;

/// Largest file of test rows, in bytes: room for every row number of the largest table.
pub const TEST_ROWS_BYTES_MAX: u64 = 12 * ROWS_MAX as u64;

/// A table, its schema or its list of test rows that cannot be used, with the file's path.
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
}

/// Reads the schema at `schema_path`, then the table at `table_path` with it.
///
/// # Errors
///
/// [`OpenError`] names the file; its source names the place in it.
pub fn load(table_path: &Path, schema_path: &Path) -> Result<Table, OpenError> {
    let text = read_bounded(schema_path, SCHEMA_BYTES_MAX)?;
    let schema =
        Schema::from_toml(&text).map_err(|source| OpenError::Schema { path: schema_path.to_owned(), source })?;
    open(table_path, &schema, schema_path.parent().unwrap_or(Path::new("")))
}

/// Reads the table at `table_path`; a list of test rows is looked for in `schema_folder`.
///
/// # Errors
///
/// [`OpenError`] names the file; its source names the place in it.
pub fn open(table_path: &Path, schema: &Schema, schema_folder: &Path) -> Result<Table, OpenError> {
    let test_rows: Option<Vec<u64>> = match &schema.split {
        Split::TestRows { file } => {
            let path = schema_folder.join(file);
            let text = read_bounded(&path, TEST_ROWS_BYTES_MAX)?;
            Some(serde_json::from_str(&text).map_err(|source| OpenError::TestRows { path, source })?)
        }
        Split::None | Split::TestFraction { .. } => None,
    };
    let file = File::open(table_path).map_err(|source| OpenError::Io { path: table_path.to_owned(), source })?;
    super::read(file, schema, test_rows.as_deref())
        .map_err(|source| OpenError::Table { path: table_path.to_owned(), source })
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
