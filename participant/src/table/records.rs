//! Which records of a file became which rows.

use serde::Serialize;

/// Numbers of the records that rows were made from, in the order of the rows.
///
/// The record below a table's header has number 0, and every line counts, also one that was left out; of images, that is the
/// position in their array. Where images to test on have an array of their own, `test` counts in that one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecordNumbers {
    /// Of the rows to train on.
    pub train: Vec<u64>,
    /// Of the rows to test on.
    pub test: Vec<u64>,
}

impl RecordNumbers {
    /// Of records with the word whether each is kept for testing.
    pub(super) fn split(records: impl Iterator<Item = (u64, bool)>) -> Self {
        let mut numbers = Self::default();
        for (number, is_test) in records {
            if is_test { numbers.test.push(number) } else { numbers.train.push(number) }
        }
        numbers
    }
}
