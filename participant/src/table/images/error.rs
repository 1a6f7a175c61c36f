//! Everything that can be wrong with files of images.

use std::io;

use zip::result::ZipError;

use super::PIXELS_MAX;
use crate::table::{DatasetError, TableError, parse::ROWS_MAX};

/// Images that cannot be read as the plan and the schema say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file could not be read to its end.
    #[error("the images cannot be read")]
    Io(#[from] io::Error),
    /// Not a ZIP archive, or a damaged one.
    #[error("the npz file cannot be read")]
    Zip(#[from] ZipError),
    /// A file that is larger than any that can be used.
    #[error("{name} is larger than {limit} bytes")]
    FileTooLarge {
        /// The file.
        name: String,
        /// Largest size allowed, in bytes.
        limit: u64,
    },
    /// Somebody wrote to a file while it was read.
    #[error("{name} was changed while it was read: read the images again when nobody writes to them")]
    Changed {
        /// The file.
        name: String,
    },
    /// An array that is needed is not there.
    #[error("there is no array {name:?}: name the right one under [images] in the schema")]
    MissingArray {
        /// The array.
        name: String,
    },
    /// Not an array as numpy or MNIST write them.
    #[error("{name} is no array that can be used: {why}")]
    Header {
        /// The array.
        name: String,
        /// What is wrong with its header.
        why: String,
    },
    /// An array of another shape.
    #[error("{name} has the shape {found:?}, expected {expected}")]
    Shape {
        /// The array.
        name: String,
        /// Its shape.
        found: Vec<u64>,
        /// What was expected.
        expected: String,
    },
    /// An array of another kind of numbers.
    #[error("{name} holds {found}, expected {expected}")]
    Element {
        /// The array.
        name: String,
        /// What it holds.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// An array that ends before its header says, or goes on behind.
    #[error("{name} {what}: the file is damaged")]
    Length {
        /// The array.
        name: String,
        /// What is wrong with its length.
        what: &'static str,
    },
    /// A label that is no class, where none may be skipped.
    #[error("{0}")]
    Label(String),
    /// Mean and deviation lead beyond the range of a 32-bit float.
    #[error("the plan's mean and deviation give numbers that are not finite")]
    Scale,
    /// More images than can be held.
    #[error("more than {ROWS_MAX} images or {PIXELS_MAX} bytes: use fewer")]
    TooLarge,
    /// Nothing is left to train on.
    #[error("no image is left to train on: check the labels and the split")]
    NoTrainingImages,
    /// The split, or the number of labels that are no class.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The images make no data set, which is a defect of this software.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}
