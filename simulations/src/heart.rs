//! The UCI heart disease records of four hospitals: the data of the demo and of the FLamby reproduction.
//!
//! Origin and licence stand in `simulations/data/NOTICE.md`. Each hospital is read from a file that holds only its own rows,
//! through the same reader as a real hospital's table.

use std::collections::BTreeMap;

use fedledger_participant::table::{self, Normalize, Schema, SchemaError, Table, TableError};

/// The hospitals, in FLamby's order (its centres 0 to 3). They serve as member ids too.
pub const SITES: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va"];

/// The schema that all hospitals use, as TOML. Its split names [`TEST_ROWS_FILE`].
pub const SCHEMA: &str = include_str!("../data/heart.schema.toml");

/// Name of the file with a hospital's test rows, beside its schema.
pub const TEST_ROWS_FILE: &str = "heart_test_rows.json";

const ALL_SITES: &str = include_str!("../data/heart_4sites.csv");
const ALL_TEST_ROWS: &str = include_str!("../data/heart_test_rows.json");

/// Why the records of a hospital cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HeartError {
    /// None of [`SITES`].
    #[error("there is no hospital {0:?}: use one of {SITES:?}")]
    UnknownSite(String),
    /// The list of test rows is damaged.
    #[error("the list of test rows cannot be read")]
    TestRows(#[from] serde_json::Error),
    /// The schema is damaged.
    #[error("the schema cannot be read")]
    Schema(#[from] SchemaError),
    /// The records are damaged.
    #[error("the records cannot be read")]
    Table(#[from] TableError),
}

/// The CSV file of one hospital: header and its rows.
///
/// # Errors
///
/// [`HeartError::UnknownSite`].
pub fn csv(site: &str) -> Result<String, HeartError> {
    known(site)?;
    let mut lines = ALL_SITES.lines();
    let header = lines.next().unwrap_or_default();
    let own = lines.filter(|line| line.split(',').next() == Some(site));
    Ok(std::iter::once(header).chain(own).flat_map(|line| [line, "\n"]).collect())
}

/// The test rows of one hospital, numbered from 0 over its complete rows.
///
/// # Errors
///
/// [`HeartError::UnknownSite`], or [`HeartError::TestRows`] if the list is damaged.
pub fn test_rows(site: &str) -> Result<Vec<u64>, HeartError> {
    let mut all: BTreeMap<String, Vec<u64>> = serde_json::from_str(ALL_TEST_ROWS)?;
    all.remove(site).ok_or_else(|| HeartError::UnknownSite(site.to_owned()))
}

/// Training and test rows of one hospital, normalised as `normalize` says and not as the schema does.
///
/// # Errors
///
/// [`HeartError`] for an unknown hospital or damaged files.
pub fn table(site: &str, normalize: Normalize) -> Result<Table, HeartError> {
    let schema = Schema { normalize, ..Schema::from_toml(SCHEMA)? };
    Ok(table::read(csv(site)?.as_bytes(), &schema, Some(&test_rows(site)?))?)
}

fn known(site: &str) -> Result<(), HeartError> {
    if SITES.contains(&site) { Ok(()) } else { Err(HeartError::UnknownSite(site.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_belongs_to_one_hospital() {
        let rows: usize = SITES.iter().map(|site| csv(site).unwrap().lines().count() - 1).sum();
        assert_eq!(rows, ALL_SITES.lines().count() - 1);
        assert!(matches!(csv("basel"), Err(HeartError::UnknownSite(_))));
        assert!(matches!(test_rows("basel"), Err(HeartError::UnknownSite(_))));
    }

    #[test]
    fn incomplete_rows_are_left_out() {
        let dropped = SITES.map(|site| table(site, Normalize::Site).unwrap().manifest.dropped_rows);
        assert_eq!(dropped, [0, 33, 77, 70]);
    }
}
