//! Output: results on stdout, for people or as JSON; progress and remarks on stderr.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _, stderr, stdout},
    path::Path,
    time::Duration,
};

use fedledger_federation::data_description::SkippedRows;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::{args::GlobalArgs, error::Failure};

/// How often a sign of life moves.
const TICK: Duration = Duration::from_millis(100);

/// Space between two columns.
const GAP: &str = "  ";

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    color: bool,
}

/// An object with the name of its form.
#[derive(Serialize)]
struct Tagged<'a, T> {
    schema: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

/// Rows under headings, each column as wide as it must be.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// A sign of life, until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Shows that so much is done.
    pub fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }
}

impl Output {
    /// The output that the arguments ask for.
    pub fn new(global: &GlobalArgs) -> Self {
        let color = global.color.allows(stdout().is_terminal());
        Self { json: global.json, quiet: global.quiet, color }
    }

    /// Whether JSON is asked for.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints an object: as JSON with its schema, or as the text that `text` makes of it.
    pub fn object<T: Serialize>(
        &self,
        schema: &'static str,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json { self.json_value(&Tagged { schema, value }) } else { self.text(&text()) }
    }

    /// Prints an array: as JSON, or as the text that `text` makes of it.
    pub fn array<T: Serialize>(&self, values: &[T], text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.json_value(&values) } else { self.text(&text()) }
    }

    /// Prints one of many objects, as a line of JSON or of text.
    pub fn line<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if !self.json {
            return self.text(&text());
        }
        let line = serde_json::to_string(value).map_err(|error| Failure::output(&error.into()))?;
        self.text(&line)
    }

    /// Prints a line or several on stdout.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = stdout().lock();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let written = write!(stdout, "{text}{end}").and_then(|()| stdout.flush());
        written.map_err(|error| Failure::output(&error))
    }

    /// Tells people something beside the result.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(stderr(), "{text}");
        }
    }

    /// Shows that something is being done, if somebody watches.
    pub fn progress(&self, doing: &'static str) -> Progress {
        if self.quiet || !stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new_spinner().with_message(doing);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Progress(Some(bar))
    }

    /// Shows how much of something is done, if somebody watches.
    pub fn progress_of(&self, doing: &'static str, total: u64) -> Progress {
        if self.quiet || !stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new(total).with_message(doing);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} ({elapsed}, {eta} left)") {
            bar.set_style(style);
        }
        Progress(Some(bar))
    }

    /// A heading.
    pub fn heading(&self, text: &str) -> String {
        self.styled("1", text)
    }

    /// Something that is in order.
    pub fn good(&self, text: &str) -> String {
        self.styled("32", text)
    }

    /// Something that is not in order.
    pub fn bad(&self, text: &str) -> String {
        self.styled("31", text)
    }

    /// A table as text.
    pub fn table(&self, table: &Table) -> String {
        let mut widths: Vec<usize> = table.headings.iter().map(|heading| heading.chars().count()).collect();
        for row in &table.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headings: Vec<String> = table.headings.iter().map(|heading| (*heading).to_owned()).collect();
        let mut text = self.heading(aligned(&headings, &widths).trim_end()) + "\n";
        for row in &table.rows {
            text.push_str(aligned(row, &widths).trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints a value that names its form itself, as JSON.
    pub fn json_value<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::output(&error.into()))?;
        self.text(&text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

impl Table {
    /// A table without rows.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        // Writing to a string does not fail.
        let _ = write!(line, "{cell:width$}{GAP}");
    }
    line
}

/// A number as people read it.
pub(crate) fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// Words in a list, or a dash.
pub(crate) fn list<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

/// Records that a site skipped, by reason, in one cell.
pub(crate) fn skipped_rows(skipped: &SkippedRows) -> String {
    list(skipped.iter().map(|(reason, rows)| format!("{reason}={rows}")))
}

/// Output errors of files that commands write.
pub(crate) fn written<T>(path: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io("write", path, &error))
}

/// Writes a file as a whole or not at all; one that is there already is replaced.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = written(path, NamedTempFile::new_in(folder))?;
    written(path, file.write_all(bytes))?;
    written(path, file.as_file().sync_all())?;
    written(path, file.persist(path).map_err(|error| error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let output = Output { json: false, quiet: false, color: false };
        let mut table = Table::new(&["id", "name"]);
        table.row(vec!["1".into(), "ålesund".into()]);
        table.row(vec!["1000".into(), "va".into()]);
        assert_eq!(output.table(&table), "id    name\n1     ålesund\n1000  va\n");
    }
}
