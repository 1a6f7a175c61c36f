//! What a model says of each row, before it is held against the labels.

/// A model's outputs for rows in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// One logit per row, of the positive one of two classes; or as many as there are classes, row after row.
    pub logits: Vec<f32>,
    /// Classes that the model tells apart.
    pub classes: u32,
}

impl Outputs {
    /// Logits of each of `rows` rows: 1 or [`Outputs::classes`]. None if the logits are not those of so many rows.
    pub fn per_row(&self, rows: usize) -> Option<usize> {
        let classes = usize::try_from(self.classes).ok().filter(|&classes| classes >= 2);
        let of_classes = |classes: &usize| rows.checked_mul(*classes) == Some(self.logits.len());
        if self.logits.len() == rows { Some(1) } else { classes.filter(of_classes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_one_per_row_or_one_per_class() {
        let outputs = |logits, classes| Outputs { logits: vec![0.0; logits], classes };
        assert_eq!(outputs(4, 2).per_row(4), Some(1));
        assert_eq!(outputs(8, 2).per_row(4), Some(2));
        assert_eq!(outputs(12, 3).per_row(4), Some(3));
        for (logits, classes) in [(11, 3), (8, 3), (0, 2), (4, 4)] {
            assert_eq!(outputs(logits, classes).per_row(5), None);
        }
    }
}
