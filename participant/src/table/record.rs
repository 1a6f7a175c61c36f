//! Records as text, whatever kind of file they come from.

use super::{TableError, error::Position};

/// Fields of one record. Reused from record to record.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: String,
    ends: Vec<usize>,
    absent: Vec<bool>,
}

/// A file's records, one after the other; one is in memory at a time.
pub(super) trait Records {
    /// Names of the columns; they differ.
    fn header(&self) -> &[String];

    /// Reads the next record into `fields`; `false` at the end of the file. After an error that has a
    /// [reason to skip](TableError::skip_reason), the record behind it can be read.
    fn next(&mut self, fields: &mut Fields) -> Result<bool, TableError>;

    /// Where the record stands that was read last.
    fn position(&self) -> Position;
}

impl Fields {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.absent.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The field with this index, from 0; empty beyond the last.
    pub(super) fn get(&self, index: usize) -> &str {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|&end| self.text.get(start..end)).unwrap_or_default()
    }

    /// Whether the file has no value there, which is something else than an empty text.
    pub(super) fn is_absent(&self, index: usize) -> bool {
        self.absent.get(index).copied().unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Lets `write` append the text of the next field.
    pub(super) fn push_with(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.ends.push(self.text.len());
        self.absent.push(false);
    }

    /// Appends a field that has no value.
    pub(super) fn push_absent(&mut self) {
        self.ends.push(self.text.len());
        self.absent.push(true);
    }
}
