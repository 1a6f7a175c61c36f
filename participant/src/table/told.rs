//! What a site says to others of records that it cannot use: never a value, a row or a path of its own.
//!
//! The reason of a declined round stands on the ledger for good, and whoever proposes a plan chooses the columns that are
//! read. So the place and the text of a mistake go to the log of the node, and to the ledger goes what is wrong with which
//! column.

use super::{ImageError, OpenError, Place, TableError};

/// In short, what the log of the node says at length.
const UNUSABLE: &str = "they cannot be read; the log of the node says why";

impl OpenError {
    /// What others may know of it.
    pub fn told(&self) -> String {
        match self {
            Self::Table { source, .. } => source.told(),
            Self::Images { source, .. } => source.told(),
            Self::Io { .. } => "their file cannot be read".to_owned(),
            Self::TooLarge { limit, .. } => format!("a file has more than {limit} bytes"),
            Self::Schema { .. } => "their schema is wrong".to_owned(),
            Self::TestRows { .. } => "the list of test rows is wrong".to_owned(),
        }
    }
}

impl TableError {
    /// What others may know of it: what is wrong and in which column, without the record and what stands there.
    pub fn told(&self) -> String {
        let of = |place: &Place, what: &str| match place.name.as_str() {
            "" => what.to_owned(),
            name => format!("column {name:?}: {what}"),
        };
        match self {
            Self::NotANumber { place, .. } => of(place, "a value is not a number"),
            Self::NotFinite { place, .. } => of(place, "a value is not a finite 32-bit number"),
            Self::UnknownCategory { place, .. } => of(place, "a value is none of the categories that are listed"),
            Self::UnknownLabel { place, .. } => of(place, "a value is none of the classes that are listed"),
            Self::UnknownGroup { place, .. } => of(place, "a value is none of the groups that are listed"),
            Self::MissingValue { place } => of(place, "a value is missing"),
            Self::MissingLabel { place } => of(place, "a label is missing"),
            Self::TooManyBadRows { limit, .. } => {
                format!("more than {limit} rows cannot be read, which is as many as may be skipped")
            }
            Self::Io(_) => "their file cannot be read".to_owned(),
            // These say what is wrong with the form of the file, in the words of the plan or of this software.
            Self::Empty
            | Self::FileTooLarge
            | Self::MissingColumn { .. }
            | Self::OtherRecords { .. }
            | Self::Undescribed
            | Self::Compression { .. }
            | Self::RowGroupTooLarge { .. }
            | Self::ColumnType { .. }
            | Self::TooManyRows
            | Self::MemoryMax { .. }
            | Self::NoMean { .. }
            | Self::NoTestRows
            | Self::NoTrainingRows => self.to_string(),
            _ => UNUSABLE.to_owned(),
        }
    }
}

impl ImageError {
    /// What others may know of it.
    pub fn told(&self) -> String {
        match self {
            Self::MissingArray { .. } | Self::Scale | Self::TooLarge | Self::NoTrainingImages => self.to_string(),
            Self::Shape { .. } | Self::Element { .. } => "an array has another form than the plan says".to_owned(),
            Self::Label(_) => "a label is none of the classes".to_owned(),
            _ => UNUSABLE.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::Position, *};

    #[test]
    fn no_value_row_or_path_of_the_site_is_told() {
        let place = || Place { at: Position::Line(4711), column: 2, name: "age".to_owned() };
        let text = || "Jane Doe".to_owned();
        let errors = [
            TableError::NotANumber { place: place(), text: text() },
            TableError::NotFinite { place: place(), text: text() },
            TableError::UnknownCategory { place: place(), text: text() },
            TableError::UnknownLabel { place: place(), text: text() },
            TableError::UnknownGroup { place: place(), text: text() },
            TableError::MissingValue { place: place() },
            TableError::NotUtf8 { place: place() },
            TableError::TooManyBadRows { limit: 3, first: vec![text()] },
            TableError::Io(std::io::Error::other("Jane Doe")),
        ];
        for source in errors {
            let error = OpenError::Table { path: PathBuf::from("/wards/7/data.csv"), source };
            let told = error.told();
            assert!(!told.is_empty());
            for private in ["Jane", "4711", "wards"] {
                assert!(!told.contains(private), "{error:?} tells {told}");
            }
        }
        let place = TableError::NotANumber { place: place(), text: text() };
        assert_eq!(place.told(), "column \"age\": a value is not a number");
    }
}
