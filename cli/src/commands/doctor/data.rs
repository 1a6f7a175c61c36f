//! The site's records, read as the participant would read them.

use std::{path::Path, time::Duration};

use fedledger_participant::table::{self, DataManifest};
use fedledger_proto::kit::DataConfig;

use super::{Check, within};
use crate::error::chain;

/// How long the records may take to be read.
const READING_MAX: Duration = Duration::from_secs(120);

/// Reads the table; what it amounts to, if it can be used.
pub(super) fn examine(directory: &Path, config: &DataConfig, checks: &mut Vec<Check>) -> Option<DataManifest> {
    let (table, schema) = (directory.join(&config.table), directory.join(&config.schema));
    let subject = table.display().to_string();
    let loaded = within(READING_MAX, move || table::load(&table, &schema).map(|table| table.manifest));
    let (check, manifest) = match loaded {
        Some(Ok(manifest)) => {
            let DataManifest { feature_count, train_rows, test_rows, dropped_rows, .. } = manifest;
            let found = format!(
                "{train_rows} rows to train on, {test_rows} to test on, {dropped_rows} left out, {feature_count} features"
            );
            let check = if test_rows == 0 {
                Check::warn("data", subject, found)
                    .advise("let schema.toml keep some rows for testing, or versions are not evaluated here")
            } else {
                Check::ok("data", subject, found)
            };
            (check, Some(manifest))
        }
        Some(Err(error)) => (
            Check::fail("data", subject, chain(&error))
                .advise("put the records there, or correct `data` in node.toml or the schema"),
            None,
        ),
        None => (Check::warn("data", subject, format!("not read within {READING_MAX:?}")), None),
    };
    checks.push(check);
    manifest
}
