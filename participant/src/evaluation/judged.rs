//! Rows with their labels and a model's outputs: what is predicted of each, and how likely it was held.

use super::{EvaluationError, Outputs};
use crate::training::loss::binary_loss;

/// Outputs that fit the labels of as many rows.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    outputs: &'a Outputs,
    labels: &'a [f32],
    per_row: usize,
    /// The logarithm of the sum of the exponentials of each row's logits; empty where two classes are told by one margin.
    normalizers: Vec<f64>,
}

/// What a model says of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prediction {
    /// The class predicted.
    pub(super) class: usize,
    /// Cross-entropy, in nats.
    pub(super) loss: f64,
    /// Of two classes, the probability to be positive; of several, the one of the predicted class.
    pub(super) probability: f64,
    /// Whether the row is what the probability is of.
    pub(super) came_true: bool,
}

impl<'a> Judged<'a> {
    pub(super) fn new(outputs: &'a Outputs, labels: &'a [f32]) -> Result<Self, EvaluationError> {
        let rows = labels.len();
        if rows == 0 {
            return Err(EvaluationError::NoRows);
        }
        let found = outputs.logits.len();
        let per_row = outputs.per_row(rows).ok_or(EvaluationError::OutputCount { rows, found })?;
        if let Some(logit) = outputs.logits.iter().position(|logit| !logit.is_finite()) {
            return Err(EvaluationError::NotFinite { row: logit / per_row });
        }
        let classes = per_row.max(2);
        if let Some(row) = labels.iter().position(|&label| label as usize >= classes) {
            return Err(EvaluationError::Label { row, classes });
        }
        let normalizers = if per_row > 2 { normalizers(&outputs.logits, per_row) } else { Vec::new() };
        Ok(Self { outputs, labels, per_row, normalizers })
    }

    /// Classes that are told apart, at least 2.
    pub(super) fn classes(&self) -> usize {
        self.per_row.max(2)
    }

    /// The class of a row.
    pub(super) fn label(&self, row: usize) -> usize {
        // Labels are small whole numbers; the cast saturates.
        self.labels.get(row).map_or(0, |&label| label as usize)
    }

    pub(super) fn predict(&self, row: usize) -> Prediction {
        let label = self.label(row);
        if let Some(margin) = self.margin(row) {
            let (class, came_true) = (usize::from(margin > 0.0), label == 1);
            let loss = binary_loss(margin, if came_true { 1.0 } else { 0.0 });
            return Prediction { class, loss, probability: 1.0 / (1.0 + (-margin).exp()), came_true };
        }
        let logits = self.logits(row).iter().enumerate();
        let highest = logits.reduce(|best, other| if other.1 > best.1 { other } else { best });
        let class = highest.map_or(0, |(class, _)| class);
        let probability = self.likelihood(row, class).exp().min(1.0);
        Prediction { class, loss: -self.likelihood(row, label), probability, came_true: class == label }
    }

    /// How likely a row is held to be of a class: of several classes the logarithm of its probability, of two a number that
    /// grows with it.
    pub(super) fn likelihood(&self, row: usize, class: usize) -> f64 {
        if let Some(margin) = self.margin(row) {
            return if class == 1 { margin } else { -margin };
        }
        let logit = self.logits(row).get(class).copied().map_or(f64::NEG_INFINITY, f64::from);
        logit - self.normalizers.get(row).copied().unwrap_or_default()
    }

    /// By how much the logit of being positive exceeds the other one, of two classes.
    fn margin(&self, row: usize) -> Option<f64> {
        match self.logits(row) {
            [logit] => Some(f64::from(*logit)),
            [negative, positive] => Some(f64::from(*positive) - f64::from(*negative)),
            _ => None,
        }
    }

    fn logits(&self, row: usize) -> &[f32] {
        let start = row.saturating_mul(self.per_row);
        self.outputs.logits.get(start..start.saturating_add(self.per_row)).unwrap_or_default()
    }
}

/// Relative to the highest logit, so that nothing overflows.
fn normalizers(logits: &[f32], per_row: usize) -> Vec<f64> {
    let of_row = |logits: &[f32]| {
        let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
        highest + sum.ln()
    };
    logits.chunks_exact(per_row).map(of_row).collect()
}
