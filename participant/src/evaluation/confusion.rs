//! Which classes are taken for which, as far as accuracy and F1 need it.

use super::millionths;

/// Rows of a class, rows that are predicted to be of it, and rows that are both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ClassCounts {
    labelled: u64,
    predicted: u64,
    hit: u64,
}

/// The counts of every class.
#[derive(Debug, Clone)]
pub(super) struct Confusion {
    classes: Vec<ClassCounts>,
}

impl Confusion {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes: vec![ClassCounts::default(); classes] }
    }

    /// Counts a row. Classes that are not there are not counted.
    pub(super) fn add(&mut self, label: usize, predicted: usize) {
        if let Some(counts) = self.classes.get_mut(label) {
            counts.labelled += 1;
            counts.hit += u64::from(label == predicted);
        }
        if let Some(counts) = self.classes.get_mut(predicted) {
            counts.predicted += 1;
        }
    }

    /// Rows predicted correctly.
    pub(super) fn correct(&self) -> u64 {
        self.classes.iter().map(|counts| counts.hit).sum()
    }

    /// Rows of each class.
    pub(super) fn labelled(&self) -> Vec<u64> {
        self.classes.iter().map(|counts| counts.labelled).collect()
    }

    /// The F1 score in millionths, rounded to the nearest: of the positive one of two classes, and of several classes the mean
    /// over those that rows are of or are taken for. None if there is no such class.
    pub(super) fn f1_millionths(&self) -> Option<i64> {
        if let [_, positive] = self.classes.as_slice() {
            return Some(millionths::ratio((2 * positive.hit).into(), u128::from(positive.size()?)));
        }
        let scores = self.classes.iter().filter_map(|counts| Some((2 * counts.hit) as f64 / counts.size()? as f64));
        let (sum, classes) = scores.fold((0.0, 0u32), |(sum, classes), score| (sum + score, classes + 1));
        (classes > 0).then(|| millionths::of(sum / f64::from(classes)))
    }
}

impl ClassCounts {
    /// Rows of the class and rows that are taken for it, both together; none if there are none.
    fn size(self) -> Option<u64> {
        Some(self.labelled + self.predicted).filter(|&size| size > 0)
    }
}
