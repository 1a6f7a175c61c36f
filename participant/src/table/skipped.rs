//! Rows that cannot be read: counted by reason, up to a limit.

use std::collections::BTreeMap;

use fedledger_federation::data_description::{SkipReason, SkippedRows};

use super::TableError;

/// Places that an error about too many bad rows names.
const FIRST_MAX: usize = 3;

/// Rows that were skipped so far.
#[derive(Debug)]
pub(super) struct Skipped {
    limit: u64,
    count: u64,
    by_reason: BTreeMap<SkipReason, u64>,
    first: Vec<String>,
}

impl Skipped {
    /// None yet, and at most so many in all.
    pub(super) const fn up_to(limit: u64) -> Self {
        Self { limit, count: 0, by_reason: BTreeMap::new(), first: Vec::new() }
    }

    /// Skips the row that an error is about.
    ///
    /// # Errors
    ///
    /// The error itself, if it is not about a single row or none may be skipped; [`TableError::TooManyBadRows`] if as many
    /// were skipped as may be.
    pub(super) fn skip(&mut self, error: TableError) -> Result<(), TableError> {
        let Some(reason) = error.skip_reason().filter(|_| self.limit > 0) else { return Err(error) };
        self.note(reason, || error.to_string())
    }

    /// Skips a row for a reason, which is described where it is one of the first.
    ///
    /// # Errors
    ///
    /// [`TableError::TooManyBadRows`] if as many were skipped as may be.
    pub(super) fn note(&mut self, reason: SkipReason, what: impl FnOnce() -> String) -> Result<(), TableError> {
        if self.first.len() < FIRST_MAX {
            self.first.push(what());
        }
        if self.count >= self.limit {
            return Err(TableError::TooManyBadRows { limit: self.limit, first: std::mem::take(&mut self.first) });
        }
        self.count += 1;
        *self.by_reason.entry(reason).or_default() += 1;
        Ok(())
    }

    /// How many rows were skipped for which reason.
    pub(super) fn counts(&self) -> SkippedRows {
        self.by_reason.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
    }
}
