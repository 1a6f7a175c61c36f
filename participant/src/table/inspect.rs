//! What a table holds, seen without a schema, so that one can be suggested.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use super::{
    OpenError, TableError,
    error::{Place, Position},
    lines::{CsvRecords, LINE_BYTES_MAX},
    record::{Fields, Records},
};

/// Most different texts of a column that are told; of a column with more, none is.
pub const VALUES_MAX: usize = 32;

/// Texts that usually stand for a missing value.
pub const USUAL_MISSING_MARKERS: [&str; 9] = ["", "?", "NA", "N/A", "na", "n/a", "NaN", "nan", "NULL"];

/// Characters that usually stand between fields, the most usual first.
const USUAL_DELIMITERS: [u8; 4] = *b",;\t|";

/// What stands in a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Character between fields.
    pub delimiter: char,
    /// Rows below the header.
    pub rows: u64,
    /// Rows in which nothing is missing.
    pub complete_rows: u64,
    /// The columns, in the order of the header.
    pub columns: Vec<Column>,
}

/// What stands in one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Rows in which it is missing.
    pub missing: u64,
    /// Smallest and largest value; none unless whatever is not missing is a finite number.
    pub range: Option<(f32, f32)>,
    /// How often each text stands there that is not missing; none if there are more than [`VALUES_MAX`].
    pub values: Option<BTreeMap<String, u64>>,
}

/// Looks at the table in a file.
///
/// # Errors
///
/// [`OpenError`] names the file and the place in it.
pub fn inspect_file(path: &Path) -> Result<Inspection, OpenError> {
    let file = File::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    inspect(file).map_err(|source| OpenError::Table { path: path.to_owned(), source })
}

/// Looks at a table. No more memory is used than one line and [`VALUES_MAX`] texts of each column take.
///
/// # Errors
///
/// [`TableError`] if it is no table, whatever its columns mean.
pub fn inspect(source: impl Read) -> Result<Inspection, TableError> {
    let mut source = BufReader::new(source);
    let header = first_line(&mut source)?;
    let delimiter = delimiter_of(&header);
    let mut lines = CsvRecords::new(Cursor::new(header).chain(source), delimiter)?;
    if lines.header().iter().all(String::is_empty) {
        return Err(TableError::Empty);
    }
    let mut columns = Vec::new();
    for (index, name) in lines.header().iter().enumerate() {
        if columns.iter().any(|column: &Column| column.name == *name) {
            let place = Place { at: Position::Line(1), column: index + 1, name: name.clone() };
            return Err(TableError::DuplicateColumn { place });
        }
        columns.push(Column::new(name));
    }
    let mut fields = Fields::default();
    let (mut rows, mut complete_rows) = (0, 0);
    while lines.next(&mut fields)? {
        let mut complete = true;
        for (column, text) in columns.iter_mut().zip(fields.iter()) {
            complete &= column.take(text);
        }
        rows += 1;
        complete_rows += u64::from(complete);
    }
    // Of a column in which everything is missing nothing is known.
    columns.iter_mut().filter(|column| column.missing == rows).for_each(|column| column.range = None);
    Ok(Inspection { delimiter: delimiter.into(), rows, complete_rows, columns })
}

/// The first line with its end, or as much of it as a line may have.
fn first_line(source: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    source.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The usual delimiter that stands most often outside of quotes.
fn delimiter_of(header: &[u8]) -> u8 {
    let mut counts = [0_usize; USUAL_DELIMITERS.len()];
    let mut quoted = false;
    for byte in header {
        quoted ^= *byte == b'"';
        for (count, delimiter) in counts.iter_mut().zip(USUAL_DELIMITERS) {
            *count += usize::from(!quoted && *byte == delimiter);
        }
    }
    let mut best = (0, b',');
    for (count, delimiter) in counts.into_iter().zip(USUAL_DELIMITERS) {
        if count > best.0 {
            best = (count, delimiter);
        }
    }
    best.1
}

impl Column {
    fn new(name: &str) -> Self {
        let nothing = (f32::INFINITY, f32::NEG_INFINITY);
        Self { name: name.to_owned(), missing: 0, range: Some(nothing), values: Some(BTreeMap::new()) }
    }

    /// Counts one row's text; `false` if it is missing.
    fn take(&mut self, text: &str) -> bool {
        if USUAL_MISSING_MARKERS.contains(&text) {
            self.missing += 1;
            return false;
        }
        let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
        self.range = self.range.zip(number).map(|((least, most), number)| (least.min(number), most.max(number)));
        if let Some(values) = &mut self.values {
            let has_room = values.len() < VALUES_MAX;
            match values.get_mut(text) {
                Some(count) => *count += 1,
                None if has_room => {
                    values.insert(text.to_owned(), 1);
                }
                None => self.values = None,
            }
        }
        true
    }

    /// Whether everything that is not missing is a number.
    pub const fn is_numeric(&self) -> bool {
        self.range.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column<'a>(inspection: &'a Inspection, name: &str) -> &'a Column {
        inspection.columns.iter().find(|column| column.name == name).unwrap()
    }

    #[test]
    fn numbers_texts_and_gaps_are_told_apart() {
        let csv = "age;sex;note\n61;f;a\n?;m;b;\n";
        assert!(matches!(inspect(csv.as_bytes()), Err(TableError::FieldCount { line: 3, expected: 3, found: 4 })));
        let csv = "age;sex;note;empty\n61;f;1;\n?;m;b;NA\n-7.5;f;c;?\n";
        let found = inspect(csv.as_bytes()).unwrap();
        assert_eq!((found.delimiter, found.rows, found.complete_rows), (';', 3, 0));
        assert_eq!((column(&found, "age").range, column(&found, "age").missing), (Some((-7.5, 61.0)), 1));
        let sex = BTreeMap::from([("f".to_owned(), 2), ("m".to_owned(), 1)]);
        assert_eq!((column(&found, "sex").values.as_ref(), column(&found, "sex").range), (Some(&sex), None));
        assert!(!column(&found, "note").is_numeric() && !column(&found, "empty").is_numeric());
    }

    #[test]
    fn the_delimiter_is_the_sign_that_divides_the_header() {
        let cases = [("a,b\n", ','), ("a;b,c;d\n", ';'), ("a\tb\n", '\t'), ("\"a;b;c\"|d\n", '|'), ("alone\n", ',')];
        for (header, expected) in cases {
            assert_eq!(inspect(header.as_bytes()).unwrap().delimiter, expected, "{header}");
        }
        assert!(matches!(inspect(&b""[..]), Err(TableError::Empty)));
        assert!(matches!(inspect(&b"a,a\n"[..]), Err(TableError::DuplicateColumn { .. })));
    }

    #[test]
    fn columns_of_many_texts_are_not_listed() {
        let csv = |count: usize| (0..count).fold("name\n".to_owned(), |csv, row| csv + &format!("n{row}\n"));
        let values = |count| inspect(csv(count).as_bytes()).unwrap().columns[0].values.as_ref().map(BTreeMap::len);
        assert_eq!((values(VALUES_MAX), values(VALUES_MAX + 1)), (Some(VALUES_MAX), None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = inspect(&bytes[..]);
        }
    }
}
