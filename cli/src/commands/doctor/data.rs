//! The site's records, read as the participant would read them: as the schema describes them, and as plans do.

use std::{collections::BTreeMap, io::ErrorKind, path::Path, time::Duration};

use fedledger_federation::{data_description::DataDescription, plan::Plan};
use fedledger_ledger::Digest;
use fedledger_participant::{
    node::core::{DataSummary, KnownData},
    table::{OpenError, SiteData, Table, TableError},
};
use fedledger_proto::kit::DataConfig;

use super::{Check, within};
use crate::{error::chain, output::skipped_rows};

/// How long the records may take to be read.
const READING_MAX: Duration = Duration::from_secs(120);

/// Descriptions of plans as which the records are read.
const DESCRIPTIONS_MAX: usize = 4;

/// What to do where records cannot be read.
const ADVICE: &str = "put the records there, or correct `data` in node.toml or the schema";

/// The site's records, as far as they were read.
pub(super) struct Records {
    source: SiteData,
    /// As the schema describes them.
    pub own: Result<DataSummary, String>,
    /// As plans do, by the digest of the description.
    described: BTreeMap<Digest, Result<DataSummary, String>>,
}

/// Reads the records; what they amount to, if the schema can be used. Where trainers have other data, there need be none.
pub(super) fn examine(
    directory: &Path,
    config: &DataConfig,
    has_other_data: bool,
    checks: &mut Vec<Check>,
) -> Option<Records> {
    let (path, schema) = (directory.join(&config.table), directory.join(&config.schema));
    let subject = path.display().to_string();
    let source = match SiteData::open(&path, &schema) {
        Ok(source) => source,
        Err(OpenError::Io { source, .. }) if has_other_data && source.kind() == ErrorKind::NotFound => {
            let found = "no schema and so no table: only plans for trainers with data of their own can be carried out";
            checks.push(Check::ok("data", subject, found));
            return None;
        }
        Err(error) => {
            checks.push(Check::fail("data", subject, chain(&error)).advise(ADVICE));
            return None;
        }
    };
    let own = if source.schema().description().is_some() {
        match read(&source, None, &subject) {
            (check, Some(own)) => {
                checks.push(check);
                Ok(own)
            }
            (check, None) => {
                let reason = check.found.clone();
                checks.push(check);
                Err(reason)
            }
        }
    } else {
        let found = "the schema leaves it to plans to describe the records: those on the ledger are tried below";
        checks.push(Check::ok("data", subject, found));
        Err(TableError::Undescribed.to_string())
    };
    Some(Records { source, own, described: BTreeMap::new() })
}

impl Records {
    /// Reads the records as these plans describe them.
    pub(super) fn examine_plans<'a>(&mut self, plans: impl Iterator<Item = &'a Plan>, checks: &mut Vec<Check>) {
        for plan in plans {
            let Some(description) = &plan.data else { continue };
            let digest = description.digest();
            if self.described.contains_key(&digest) || self.described.len() == DESCRIPTIONS_MAX {
                continue;
            }
            let subject = format!("as {} describes them", plan.name);
            let (check, summary) = read(&self.source, Some(description), &subject);
            // A plan for other records is no defect of this site.
            let check = if check.state == super::State::Fail {
                Check::warn("data", subject, check.found).advise("`fedledger plan show` shows the description")
            } else {
                check
            };
            self.described.insert(digest, summary.ok_or_else(|| check.found.clone()));
            checks.push(check);
        }
    }

    /// What is known of the records that a plan is about; none if they were not read.
    pub(super) fn of(&self, plan: &Plan) -> Option<KnownData<'_>> {
        let known = match &plan.data {
            None => &self.own,
            Some(description) => self.described.get(&description.digest())?,
        };
        Some(known.as_ref().map_err(String::as_str))
    }
}

fn read(source: &SiteData, description: Option<&DataDescription>, subject: &str) -> (Check, Option<DataSummary>) {
    let (source, description) = (source.clone(), description.cloned());
    let work = move || source.read(description.as_ref()).map(|table| found(&table));
    match within(READING_MAX, work) {
        Some(Ok((found, summary))) => {
            let check = if summary.test_examples == 0 {
                Check::warn("data", subject, found)
                    .advise("let schema.toml keep some rows for testing, or versions are not evaluated here")
            } else if !summary.skipped_rows.is_empty() {
                Check::warn("data", subject, found).advise("complete or correct the rows that are skipped")
            } else {
                Check::ok("data", subject, found)
            };
            (check, Some(summary))
        }
        Some(Err(error)) => (Check::fail("data", subject, chain(&error)).advise(ADVICE), None),
        None => (Check::warn("data", subject, format!("not read within {READING_MAX:?}")), None),
    }
}

/// What a table amounts to, in words and in numbers.
fn found(table: &Table) -> (String, DataSummary) {
    let summary = DataSummary::from(table);
    let DataSummary { features, train_examples, test_examples, .. } = &summary;
    let mut text = format!(
        "{train_examples} rows to train on, {test_examples} to test on, {} left out, {features} features",
        table.manifest.dropped_rows
    );
    if !summary.skipped_rows.is_empty() {
        text += &format!("; skipped because they cannot be read: {}", skipped_rows(&summary.skipped_rows));
    }
    (text, summary)
}
