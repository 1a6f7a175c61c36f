//! Rows of numbers with a yes-or-no label: the one form in which records reach training and evaluation.

/// Feature rows and their labels, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    features: Vec<f32>,
    labels: Vec<f32>,
    columns: usize,
}

/// Numbers that do not make a data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatasetError {
    /// The number of values is not rows times columns.
    #[error("{values} values do not make {rows} rows of {columns} columns")]
    Shape {
        /// Values given.
        values: usize,
        /// Labels given, one per row.
        rows: usize,
        /// Columns asked for.
        columns: usize,
    },
    /// A label other than 0 and 1.
    #[error("the label of row {row} is neither 0 nor 1")]
    Label {
        /// The row, from 0.
        row: usize,
    },
    /// Data sets with different numbers of columns cannot be joined.
    #[error("rows of {found} columns cannot follow rows of {expected}")]
    Columns {
        /// Columns of the first part.
        expected: usize,
        /// Columns of the other part.
        found: usize,
    },
}

impl Dataset {
    /// A data set of `labels.len()` rows; `features` is row-major with `columns` values a row.
    ///
    /// # Errors
    ///
    /// [`DatasetError`] if the lengths do not fit or a label is neither 0 nor 1.
    pub fn new(features: Vec<f32>, labels: Vec<f32>, columns: usize) -> Result<Self, DatasetError> {
        let rows = labels.len();
        if columns == 0 || rows.checked_mul(columns) != Some(features.len()) {
            return Err(DatasetError::Shape { values: features.len(), rows, columns });
        }
        match labels.iter().position(|&label| label != 0.0 && label != 1.0) {
            Some(row) => Err(DatasetError::Label { row }),
            None => Ok(Self { features, labels, columns }),
        }
    }

    /// The rows of all `parts`, one part after the other.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Columns`] if the parts differ in their number of columns, [`DatasetError::Shape`] if there is none.
    pub fn concatenate<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Result<Self, DatasetError> {
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or(DatasetError::Shape { values: 0, rows: 0, columns: 0 })?;
        let mut all = first.clone();
        for part in parts {
            if part.columns != all.columns {
                return Err(DatasetError::Columns { expected: all.columns, found: part.columns });
            }
            all.features.extend_from_slice(&part.features);
            all.labels.extend_from_slice(&part.labels);
        }
        Ok(all)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Features of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All features, row after row.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// One label per row: 1 for a positive row, 0 for a negative one.
    pub fn labels(&self) -> &[f32] {
        &self.labels
    }

    /// Features and label of each row.
    pub fn iter(&self) -> impl Iterator<Item = (&[f32], f32)> {
        self.features.chunks_exact(self.columns).zip(self.labels.iter().copied())
    }

    /// Rows with label 1.
    pub fn positives(&self) -> usize {
        self.labels.iter().filter(|&&label| label == 1.0).count()
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.features.chunks_exact_mut(self.columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_labels_are_checked() {
        assert!(Dataset::new(vec![1.0; 6], vec![0.0, 1.0], 3).is_ok());
        assert_eq!(
            Dataset::new(vec![1.0; 5], vec![0.0, 1.0], 3),
            Err(DatasetError::Shape { values: 5, rows: 2, columns: 3 })
        );
        assert_eq!(Dataset::new(vec![], vec![], 0), Err(DatasetError::Shape { values: 0, rows: 0, columns: 0 }));
        assert_eq!(Dataset::new(vec![1.0; 2], vec![0.0, 0.5], 1), Err(DatasetError::Label { row: 1 }));
        assert_eq!(Dataset::new(vec![1.0], vec![f32::NAN], 1), Err(DatasetError::Label { row: 0 }));
    }

    #[test]
    fn parts_are_joined_in_order() {
        let first = Dataset::new(vec![1.0, 2.0], vec![1.0], 2).unwrap();
        let second = Dataset::new(vec![3.0, 4.0], vec![0.0], 2).unwrap();
        let all = Dataset::concatenate([&first, &second]).unwrap();
        assert_eq!(all.iter().collect::<Vec<_>>(), [(&[1.0, 2.0][..], 1.0), (&[3.0, 4.0][..], 0.0)]);
        let other = Dataset::new(vec![1.0], vec![1.0], 1).unwrap();
        assert_eq!(Dataset::concatenate([&first, &other]), Err(DatasetError::Columns { expected: 2, found: 1 }));
    }
}
