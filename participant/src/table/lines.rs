//! Comma-separated lines (RFC 4180), bounded and strict.
//!
//! Two deviations from the RFC keep memory bounded and errors close to their cause: a quoted field ends on the line where it
//! began, and quotes are allowed only around a whole field. A byte order mark and CR LF line ends are accepted.

use std::io::{BufRead, BufReader, Read};

use fedledger_federation::data_description;

use super::{
    error::{Place, Position, TableError},
    record::{Fields, Records},
};

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 30;

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Longest field, in bytes.
pub const FIELD_BYTES_MAX: usize = data_description::FIELD_BYTES_MAX;

/// Most fields of a line.
pub const COLUMNS_MAX: usize = data_description::COLUMNS_MAX;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads lines and splits them into fields; one line is in memory at a time.
pub(super) struct Lines<R> {
    source: BufReader<R>,
    delimiter: u8,
    line: Vec<u8>,
    number: u64,
    bytes_read: u64,
}

/// The lines behind the header, which names as many fields as each of them has.
pub(super) struct CsvRecords<R> {
    lines: Lines<R>,
    header: Vec<String>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(source: R, delimiter: u8) -> Self {
        Self { source: BufReader::new(source), delimiter, line: Vec::new(), number: 0, bytes_read: 0 }
    }

    /// Number of the line read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line into `fields`; `false` at the end of the file.
    pub(super) fn next(&mut self, fields: &mut Fields) -> Result<bool, TableError> {
        self.number += 1;
        if !self.read_line()? {
            return Ok(false);
        }
        let mut line = self.line.as_slice();
        if self.number == 1 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        split(line, self.delimiter, self.number, fields)?;
        Ok(true)
    }

    fn read_line(&mut self) -> Result<bool, TableError> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let length = self.source.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
        if length > LINE_BYTES_MAX {
            return Err(TableError::LineTooLong { line: self.number });
        }
        self.bytes_read += length as u64;
        if self.bytes_read > FILE_BYTES_MAX { Err(TableError::FileTooLarge) } else { Ok(length > 0) }
    }
}

impl<R: Read> CsvRecords<R> {
    /// Reads the header.
    pub(super) fn new(source: R, delimiter: u8) -> Result<Self, TableError> {
        let (mut lines, mut fields) = (Lines::new(source, delimiter), Fields::default());
        if !lines.next(&mut fields)? || (fields.len() == 1 && fields.get(0).is_empty()) {
            return Err(TableError::Empty);
        }
        let header = fields.iter().map(str::to_owned).collect();
        Ok(Self { lines, header })
    }
}

impl<R: Read> Records for CsvRecords<R> {
    fn header(&self) -> &[String] {
        &self.header
    }

    fn next(&mut self, fields: &mut Fields) -> Result<bool, TableError> {
        if !self.lines.next(fields)? {
            return Ok(false);
        }
        let (line, expected, found) = (self.lines.number(), self.header.len(), fields.len());
        if found == expected { Ok(true) } else { Err(TableError::FieldCount { line, expected, found }) }
    }

    fn position(&self) -> Position {
        Position::Line(self.lines.number())
    }
}

/// Splits one line without its end into `fields`.
fn split(line: &[u8], delimiter: u8, number: u64, fields: &mut Fields) -> Result<(), TableError> {
    fields.clear();
    let mut rest = Some(line);
    while let Some(bytes) = rest {
        let column = fields.len() + 1;
        let place = || Place { at: Position::Line(number), column, name: String::new() };
        if fields.len() == COLUMNS_MAX {
            return Err(TableError::TooManyColumns { line: number });
        }
        let (field, after) = match bytes.strip_prefix(b"\"") {
            Some(quoted) => split_quoted(quoted, delimiter, place)?,
            None => split_plain(bytes, delimiter, place)?,
        };
        let text = std::str::from_utf8(field).map_err(|_| TableError::NotUtf8 { place: place() })?;
        if field.len() > FIELD_BYTES_MAX {
            return Err(TableError::FieldTooLong { place: place() });
        }
        // Only a quoted field can hold quotes here, and then they are doubled.
        fields.push_with(|unquoted| {
            for (index, piece) in text.split("\"\"").enumerate() {
                if index > 0 {
                    unquoted.push('"');
                }
                unquoted.push_str(piece);
            }
        });
        rest = after;
    }
    Ok(())
}

/// The field at the start of `bytes`, and what follows its delimiter.
type Split<'a> = (&'a [u8], Option<&'a [u8]>);

fn split_plain(bytes: &[u8], delimiter: u8, place: impl Fn() -> Place) -> Result<Split<'_>, TableError> {
    let end = bytes.iter().position(|&byte| byte == delimiter).unwrap_or(bytes.len());
    let (field, after) = bytes.split_at(end);
    if field.contains(&b'"') {
        return Err(TableError::StrayQuote { place: place() });
    }
    Ok((field, after.get(1..)))
}

/// The same for a field whose opening quote was taken off; doubled quotes stay doubled.
fn split_quoted(bytes: &[u8], delimiter: u8, place: impl Fn() -> Place) -> Result<Split<'_>, TableError> {
    let mut end = 0;
    loop {
        match (bytes.get(end), bytes.get(end + 1)) {
            (None, _) => return Err(TableError::UnclosedQuote { place: place() }),
            (Some(b'"'), Some(b'"')) => end += 2,
            (Some(b'"'), None) => return Ok((bytes.get(..end).unwrap_or_default(), None)),
            (Some(b'"'), Some(&next)) if next == delimiter => {
                return Ok((bytes.get(..end).unwrap_or_default(), bytes.get(end + 2..)));
            }
            (Some(b'"'), Some(_)) => return Err(TableError::StrayQuote { place: place() }),
            (Some(_), _) => end += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields_of(line: &[u8]) -> Result<Vec<String>, TableError> {
        let mut fields = Fields::default();
        split(line, b',', 1, &mut fields)?;
        Ok(fields.iter().map(str::to_owned).collect())
    }

    #[test]
    fn fields_are_split_and_unquoted() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[""]),
            ("a", &["a"]),
            ("a,b", &["a", "b"]),
            (",", &["", ""]),
            ("a,", &["a", ""]),
            (r#""a,b",c"#, &["a,b", "c"]),
            (r#""say ""yes""""#, &["say \"yes\""]),
            (r#""""#, &[""]),
            (r#""""""#, &["\""]),
            (r#"""",""","#, &["\",\"", ""]),
        ];
        for (line, expected) in cases {
            assert_eq!(fields_of(line.as_bytes()).unwrap(), *expected, "{line}");
        }
    }

    #[test]
    fn misplaced_quotes_are_refused() {
        for line in [r#"a"b"#, r#""a"b"#, r#""a"#, r#"""""#, r#"x,"a"#] {
            assert!(fields_of(line.as_bytes()).is_err(), "{line} was accepted");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_comes_back(values in prop::collection::vec("[a-z,\"é ]{0,6}", 1..6)) {
            let quoted: Vec<_> = values.iter().map(|value| format!("\"{}\"", value.replace('"', "\"\""))).collect();
            prop_assert_eq!(fields_of(quoted.join(",").as_bytes()).unwrap(), values);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = fields_of(&bytes);
        }
    }
}
