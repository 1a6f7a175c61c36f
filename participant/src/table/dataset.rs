//! Rows of numbers with a label: the one form in which records reach training and evaluation.

use fedledger_federation::data_description::CATEGORIES_MAX;

use super::pixels::{PixelScale, Pixels};

/// Most classes of a label.
pub const CLASSES_MAX: u32 = CATEGORIES_MAX as u32;

/// Feature rows and their labels, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    values: Values,
    labels: Vec<f32>,
    columns: usize,
    groups: Option<Groups>,
}

/// Feature values, row after row.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// Of a table.
    Numbers(Vec<f32>),
    /// Of images, in a quarter of the memory.
    Pixels(Pixels),
}

/// The group that each row belongs to, for metrics by group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// What the groups are called.
    pub names: Vec<String>,
    /// For each row the position of its group's name.
    pub of_row: Vec<u16>,
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
    /// A label that is no class: a whole number from 0 to below [`CLASSES_MAX`].
    #[error("the label of row {row} is no whole number from 0 to below {CLASSES_MAX}")]
    Label {
        /// The row, from 0.
        row: usize,
    },
    /// The groups are not those of the rows.
    #[error("the groups of {found} rows cannot be those of {rows}, or a row's group has no name")]
    Groups {
        /// Rows of the data set.
        rows: usize,
        /// Rows whose groups were given.
        found: usize,
    },
    /// A row that is not there.
    #[error("there is no row {row} among {rows}")]
    Row {
        /// The row, from 0.
        row: usize,
        /// Rows of the data set.
        rows: usize,
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
    /// A data set of `labels.len()` rows; `features` is row-major with `columns` values a row. Labels are classes, counted
    /// from 0; where there are two, 1 is the positive one.
    ///
    /// # Errors
    ///
    /// [`DatasetError`] if the lengths do not fit or a label is no class.
    pub fn new(features: Vec<f32>, labels: Vec<f32>, columns: usize) -> Result<Self, DatasetError> {
        let rows = labels.len();
        if columns == 0 || rows.checked_mul(columns) != Some(features.len()) {
            return Err(DatasetError::Shape { values: features.len(), rows, columns });
        }
        Self::labelled(Values::Numbers(features), labels, columns)
    }

    /// A data set of `labels.len()` images with `columns` pixel values each, given as bytes, image after image. A byte
    /// becomes the number that `scale` says when a row is asked for.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn of_images(
        bytes: Vec<u8>,
        scale: PixelScale,
        labels: Vec<f32>,
        columns: usize,
    ) -> Result<Self, DatasetError> {
        let rows = labels.len();
        if columns == 0 || rows.checked_mul(columns) != Some(bytes.len()) {
            return Err(DatasetError::Shape { values: bytes.len(), rows, columns });
        }
        Self::labelled(Values::Pixels(Pixels::new(bytes, scale)), labels, columns)
    }

    fn labelled(values: Values, labels: Vec<f32>, columns: usize) -> Result<Self, DatasetError> {
        match labels.iter().position(|&label| !is_class(label)) {
            Some(row) => Err(DatasetError::Label { row }),
            None => Ok(Self { values, labels, columns, groups: None }),
        }
    }

    /// The same rows, of these groups.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Groups`] if they are not those of the rows.
    pub fn with_groups(self, groups: Groups) -> Result<Self, DatasetError> {
        let (rows, found) = (self.rows(), groups.of_row.len());
        let named = groups.of_row.iter().all(|&group| usize::from(group) < groups.names.len());
        if rows == found && named {
            Ok(Self { groups: Some(groups), ..self })
        } else {
            Err(DatasetError::Groups { rows, found })
        }
    }

    /// The rows of all `parts`, one part after the other, without groups.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Columns`] if the parts differ in their number of columns, [`DatasetError::Shape`] if there is none.
    pub fn concatenate<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Result<Self, DatasetError> {
        let mut parts = parts.into_iter().peekable();
        let columns = parts.peek().ok_or(DatasetError::Shape { values: 0, rows: 0, columns: 0 })?.columns;
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        for part in parts {
            if part.columns != columns {
                return Err(DatasetError::Columns { expected: columns, found: part.columns });
            }
            (0..part.rows()).for_each(|row| part.append_row(row, &mut features));
            labels.extend_from_slice(&part.labels);
        }
        Self::new(features, labels, columns)
    }

    /// The rows with these numbers, in this order, with their groups.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Row`] if one of them is not there.
    pub fn select(&self, rows: &[usize]) -> Result<Self, DatasetError> {
        if let Some(&row) = rows.iter().find(|row| **row >= self.rows()) {
            return Err(DatasetError::Row { row, rows: self.rows() });
        }
        let columns = self.columns;
        let values = match &self.values {
            Values::Numbers(features) => Values::Numbers(gathered(features, rows, columns)),
            Values::Pixels(pixels) => Values::Pixels(pixels.with_bytes(|bytes| gathered(bytes, rows, columns))),
        };
        let groups = self.groups.as_ref();
        let groups = groups.map(|all| Groups { names: all.names.clone(), of_row: gathered(&all.of_row, rows, 1) });
        Ok(Self { values, labels: gathered(&self.labels, rows, 1), columns, groups })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Features of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of memory that each value takes.
    pub fn value_bytes(&self) -> u64 {
        let size = match &self.values {
            Values::Numbers(_) => size_of::<f32>(),
            Values::Pixels(_) => size_of::<u8>(),
        };
        size as u64
    }

    /// All features of a table, row after row. Images are not held as numbers: [`append_row`](Self::append_row) gives them
    /// one by one, and here is nothing.
    pub fn features(&self) -> &[f32] {
        match &self.values {
            Values::Numbers(features) => features,
            Values::Pixels(_) => &[],
        }
    }

    /// One label per row: its class, and of two classes 1 for a positive row and 0 for a negative one.
    pub fn labels(&self) -> &[f32] {
        &self.labels
    }

    /// The groups of the rows, where the schema names a column for them.
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    /// Appends the features of a row to `values`; nothing for a row that is not there.
    pub fn append_row(&self, row: usize, values: &mut Vec<f32>) {
        let start = row.saturating_mul(self.columns);
        let range = start..start.saturating_add(self.columns);
        match &self.values {
            Values::Numbers(features) => values.extend_from_slice(features.get(range).unwrap_or_default()),
            Values::Pixels(pixels) => pixels.append(range, values),
        }
    }

    /// Features and label of each row of a table.
    pub fn iter(&self) -> impl Iterator<Item = (&[f32], f32)> {
        self.features().chunks_exact(self.columns).zip(self.labels.iter().copied())
    }

    /// Rows with label 1.
    pub fn positives(&self) -> usize {
        self.labels.iter().filter(|&&label| label == 1.0).count()
    }

    /// The rows of a table, to be changed; labels and groups stay.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let features: &mut [f32] = match &mut self.values {
            Values::Numbers(features) => features,
            Values::Pixels(_) => &mut [],
        };
        features.chunks_exact_mut(self.columns)
    }
}

/// Rows of so many values each, one after the other.
fn gathered<T: Copy>(values: &[T], rows: &[usize], columns: usize) -> Vec<T> {
    let mut gathered = Vec::with_capacity(rows.len().saturating_mul(columns));
    for row in rows {
        let start = row.saturating_mul(columns);
        gathered.extend_from_slice(values.get(start..start.saturating_add(columns)).unwrap_or_default());
    }
    gathered
}

/// Whether a label is the number of a class.
fn is_class(label: f32) -> bool {
    label >= 0.0 && label < CLASSES_MAX as f32 && label.fract() == 0.0
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
        for label in [0.5, -1.0, CLASSES_MAX as f32] {
            assert_eq!(Dataset::new(vec![1.0; 2], vec![2.0, label], 1), Err(DatasetError::Label { row: 1 }));
        }
        assert_eq!(Dataset::new(vec![1.0], vec![f32::NAN], 1), Err(DatasetError::Label { row: 0 }));
    }

    #[test]
    fn rows_are_given_one_by_one_with_their_groups() {
        let data = Dataset::new(vec![1.0, 2.0, 3.0, 4.0], vec![1.0, 0.0], 2).unwrap();
        let mut values = Vec::new();
        [1, 0, 2].into_iter().for_each(|row| data.append_row(row, &mut values));
        assert_eq!(values, [3.0, 4.0, 1.0, 2.0]);
        let groups = |of_row| Groups { names: vec!["f".to_owned(), "m".to_owned()], of_row };
        assert_eq!(data.clone().with_groups(groups(vec![1, 0])).unwrap().groups(), Some(&groups(vec![1, 0])));
        for of_row in [vec![0], vec![0, 2]] {
            assert!(matches!(data.clone().with_groups(groups(of_row)), Err(DatasetError::Groups { rows: 2, .. })));
        }
    }

    #[test]
    fn images_are_held_as_bytes_and_given_as_numbers() {
        let scale = PixelScale { mean: 0.5, deviation: 0.25 };
        let data = Dataset::of_images(vec![0, 51, 255, 102], scale, vec![3.0, 0.0], 2).unwrap();
        let mut values = Vec::new();
        [1, 0, 2].into_iter().for_each(|row| data.append_row(row, &mut values));
        assert_eq!(values, [2.0, -0.4, -2.0, -1.2]);
        assert_eq!((data.rows(), data.columns(), data.features()), (2, 2, &[][..]));
        let joined = Dataset::concatenate([&data, &data]).unwrap();
        assert_eq!((data.value_bytes(), joined.value_bytes()), (1, 4));
        assert_eq!((joined.rows(), &joined.features()[..4]), (4, &[-2.0, -1.2, 2.0, -0.4][..]));
        let shape = Err(DatasetError::Shape { values: 3, rows: 2, columns: 2 });
        assert_eq!(Dataset::of_images(vec![0; 3], scale, vec![0.0; 2], 2), shape);
    }

    #[test]
    fn rows_are_selected_with_label_and_group() {
        let groups = |of_row| Groups { names: vec!["f".to_owned(), "m".to_owned()], of_row };
        let table =
            Dataset::new(vec![1.0, 2.0, 3.0], vec![0.0, 1.0, 2.0], 1).unwrap().with_groups(groups(vec![0, 1, 1]));
        let selected = table.unwrap().select(&[2, 0]).unwrap();
        assert_eq!((selected.features(), selected.labels()), (&[3.0, 1.0][..], &[2.0, 0.0][..]));
        assert_eq!(selected.groups(), Some(&groups(vec![1, 0])));
        assert_eq!(selected.select(&[2]), Err(DatasetError::Row { row: 2, rows: 2 }));

        let scale = PixelScale { mean: 0.5, deviation: 0.25 };
        let images = Dataset::of_images(vec![0, 51, 255, 102], scale, vec![3.0, 0.0], 2).unwrap();
        let second = Dataset::of_images(vec![255, 102], scale, vec![0.0], 2).unwrap();
        assert_eq!(images.select(&[1]), Ok(second));
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
