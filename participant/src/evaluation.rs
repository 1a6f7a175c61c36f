//! How good a model is on local test rows, as fixed-point integers that can stand on the ledger.

use candle_core::{Device, Tensor};
use fedledger_federation::{
    architecture::{Architecture, ArchitectureError},
    tensors::{self, FileError},
};
use serde::{Deserialize, Serialize};

use crate::{
    table::Dataset,
    training::{
        BaseWeights, BaseWeightsError,
        loss::example_loss,
        network::{LoadError, Network, check_weights, rows_per_pass},
        on_one_thread,
    },
};

/// 1.0 in the fixed-point numbers of an [`Evaluation`].
pub const MILLIONTHS: i64 = 1_000_000;

/// A model's results on a data set. A row is predicted positive if its logit is above 0, that is, its probability above one
/// half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Rows evaluated.
    pub examples: u64,
    /// Rows predicted correctly.
    pub correct: u64,
    /// Share of correct rows, in millionths, rounded to the nearest.
    pub accuracy_millionths: i64,
    /// Mean binary cross-entropy in nats, in millionths, rounded to the nearest.
    pub loss_millionths: i64,
    /// Area under the receiver operating characteristic, in millionths, rounded to the nearest; none if all labels are
    /// alike. It is the share of pairs of a positive and a negative row in which the positive one has the higher logit, ties
    /// counting one half (Mann and Whitney 1947).
    pub auc_millionths: Option<i64>,
}

/// Why a model could not be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The architecture is out of bounds.
    #[error("the architecture is not valid")]
    Architecture(#[from] ArchitectureError),
    /// The weights do not belong to the architecture.
    #[error("the weights do not fit the architecture")]
    Weights(#[from] BaseWeightsError),
    /// The weights cannot be read.
    #[error("the weights cannot be read")]
    File(#[from] FileError),
    /// The records have another number of features than the model.
    #[error("the records have {found} features, the model expects {expected}: check the schema")]
    FeatureCount {
        /// Features of the model.
        expected: u32,
        /// Features of a row.
        found: usize,
    },
    /// A model that only external trainers understand.
    #[error("a custom architecture cannot be evaluated here: use a trainer that evaluates")]
    Custom,
    /// There are no rows to evaluate on.
    #[error("there are no test rows: give the schema a split")]
    NoRows,
    /// A logit is infinite or NaN, so that there is no meaningful result.
    #[error("the model's output for row {row} is not finite")]
    NotFinite {
        /// The row, from 0.
        row: usize,
    },
    /// The thread to compute on could not be started.
    #[error("the evaluation thread cannot be started")]
    Thread(#[from] rayon::ThreadPoolBuildError),
    /// The numeric library failed.
    #[error("the numeric library failed")]
    Numeric(#[from] candle_core::Error),
}

impl From<LoadError> for EvaluationError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Weights(error) => error.into(),
            LoadError::File(error) => error.into(),
            LoadError::Numeric(error) => error.into(),
        }
    }
}

/// Evaluates `weights`, the parameters of `architecture` in the order of their names, on every row of `data`.
///
/// # Errors
///
/// [`EvaluationError`] if the parts do not fit together or the model's output is not finite.
pub fn evaluate(
    architecture: &Architecture,
    weights: &[tensors::Tensor],
    data: &Dataset,
) -> Result<Evaluation, EvaluationError> {
    architecture.validate()?;
    check_weights(architecture, weights)?;
    evaluate_from(architecture, weights, data)
}

/// Evaluates weights that are read piece by piece; in memory, there is one copy of them.
///
/// # Errors
///
/// As [`evaluate`], and [`EvaluationError::File`].
pub fn evaluate_from<B: BaseWeights + ?Sized>(
    architecture: &Architecture,
    weights: &B,
    data: &Dataset,
) -> Result<Evaluation, EvaluationError> {
    architecture.validate()?;
    let expected = architecture.features().ok_or(EvaluationError::Custom)?;
    if data.columns() != expected as usize {
        return Err(EvaluationError::FeatureCount { expected, found: data.columns() });
    }
    if data.rows() == 0 {
        return Err(EvaluationError::NoRows);
    }
    let logits = on_one_thread(|| logits(architecture, weights, data))?;
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(row) => Err(EvaluationError::NotFinite { row }),
        None => Ok(score(&logits, data.labels())),
    }
}

fn logits<B: BaseWeights + ?Sized>(
    architecture: &Architecture,
    weights: &B,
    data: &Dataset,
) -> Result<Vec<f32>, EvaluationError> {
    let network = Network::load(architecture, weights)?;
    let mut logits = Vec::with_capacity(data.rows());
    let rows_per_pass = rows_per_pass(architecture);
    for start in (0..data.rows()).step_by(rows_per_pass) {
        let rows = start..data.rows().min(start + rows_per_pass);
        let mut features = Vec::with_capacity(rows.len() * data.columns());
        rows.clone().for_each(|row| data.append_row(row, &mut features));
        let features = Tensor::from_vec(features, (rows.len(), data.columns()), &Device::Cpu)?;
        logits.extend(network.forward(&features)?.to_vec1::<f32>()?);
    }
    Ok(logits)
}

/// Results for finite logits; there is at least one.
fn score(logits: &[f32], labels: &[f32]) -> Evaluation {
    let pairs = || logits.iter().zip(labels);
    let examples = logits.len() as u64;
    let correct = pairs().filter(|&(&logit, &label)| (logit > 0.0) == (label == 1.0)).count() as u64;
    let loss: f64 = pairs().map(|(&logit, &label)| example_loss(logit.into(), label.into())).sum();
    Evaluation {
        examples,
        correct,
        accuracy_millionths: ratio_millionths(correct.into(), examples.into()),
        // A float-to-integer cast saturates, and the loss of finite 32-bit logits is finite.
        loss_millionths: (loss / examples as f64 * MILLIONTHS as f64).round() as i64,
        auc_millionths: auc_millionths(logits, labels),
    }
}

/// From the sum of the ranks of the positive rows; ranks are doubled, so that tied ones stay integers.
fn auc_millionths(logits: &[f32], labels: &[f32]) -> Option<i64> {
    let mut ranked: Vec<(f32, bool)> = logits.iter().copied().zip(labels.iter().map(|&label| label == 1.0)).collect();
    ranked.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    let positives = ranked.iter().filter(|(_, positive)| *positive).count() as u128;
    let negatives = ranked.len() as u128 - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut doubled_rank_sum = 0;
    let mut before = 0u128;
    // Equality and not bits: 0.0 and -0.0 are one logit. The total order puts them side by side.
    for tied in ranked.chunk_by(|left, right| left.0 == right.0) {
        let positive = tied.iter().filter(|(_, positive)| *positive).count() as u128;
        // Ranks before + 1 to before + n; twice their mean is 2 * before + n + 1.
        doubled_rank_sum += positive * (2 * before + tied.len() as u128 + 1);
        before += tied.len() as u128;
    }
    let doubled_wins = doubled_rank_sum - positives * (positives + 1);
    Some(ratio_millionths(doubled_wins, 2 * positives * negatives))
}

/// `part / whole` in millionths, rounded to the nearest, halves up; `part` is at most `whole` and `whole` is not 0.
fn ratio_millionths(part: u128, whole: u128) -> i64 {
    let scale = MILLIONTHS.unsigned_abs();
    let rounded = (2 * part * u128::from(scale) + whole) / (2 * whole);
    i64::try_from(rounded).unwrap_or(MILLIONTHS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn results_are_those_of_a_calculation_by_hand() {
        let result = score(&[2.0, -1.0, 0.5, -3.0], &[1.0, 1.0, 0.0, 0.0]);
        assert_eq!((result.examples, result.correct, result.accuracy_millionths), (4, 2, 500_000));
        // Pairs: 2.0 beats both, -1.0 loses to 0.5 and beats -3.0.
        assert_eq!(result.auc_millionths, Some(750_000));
        // ln(1 + e^-2), ln(1 + e^1), ln(1 + e^0.5), ln(1 + e^-3).
        let expected = (0.126_928_011 + 1.313_261_688 + 0.974_076_984 + 0.048_587_352) / 4.0;
        assert!((result.loss_millionths as f64 / 1e6 - expected).abs() < 1e-6);
    }

    #[test]
    fn ties_count_one_half_and_one_class_has_no_auc() {
        assert_eq!(score(&[1.0, 1.0], &[1.0, 0.0]).auc_millionths, Some(500_000));
        assert_eq!(score(&[0.0, -0.0], &[1.0, 0.0]).auc_millionths, Some(500_000));
        assert_eq!(score(&[1.0, 2.0], &[1.0, 1.0]).auc_millionths, None);
    }

    /// A logistic regression without bias.
    fn weights_of(weights: &[f32]) -> [tensors::Tensor; 2] {
        let tensor = |name: &str, shape, values| tensors::Tensor { name: name.to_owned(), shape, values };
        [
            tensor("layer0.bias", vec![1], vec![0.0]),
            tensor("layer0.weight", vec![1, weights.len() as u64], weights.to_vec()),
        ]
    }

    #[test]
    fn mismatched_parts_are_refused() {
        let architecture = Architecture::LogisticRegression { features: 2 };
        let weights = weights_of(&[1.0; 2]);
        let narrow = Dataset::new(vec![1.0], vec![1.0], 1).unwrap();
        let empty = Dataset::new(vec![], vec![], 2).unwrap();
        let huge = Dataset::new(vec![f32::MAX; 2], vec![1.0], 2).unwrap();
        let steep = weights_of(&[9.0; 2]);
        use EvaluationError::{FeatureCount, NoRows, NotFinite, Weights};
        assert!(matches!(evaluate(&architecture, &weights, &narrow), Err(FeatureCount { expected: 2, found: 1 })));
        assert!(matches!(evaluate(&architecture, &weights, &empty), Err(NoRows)));
        assert!(matches!(evaluate(&architecture, &steep, &huge), Err(NotFinite { row: 0 })));
        assert!(matches!(evaluate(&architecture, &weights[..1], &empty), Err(Weights(_))));
    }

    #[test]
    fn many_rows_are_evaluated_in_passes() {
        let architecture = Architecture::LogisticRegression { features: 1 };
        let rows = 2 * rows_per_pass(&architecture) + 1;
        let features: Vec<f32> = (0..rows).map(|row| if row % 3 == 0 { 1.0 } else { -1.0 }).collect();
        let data = Dataset::new(features, vec![1.0; rows], 1).unwrap();
        let result = evaluate(&architecture, &weights_of(&[1.0]), &data).unwrap();
        assert_eq!((result.examples, result.correct), (rows as u64, rows.div_ceil(3) as u64));
    }

    proptest! {
        #[test]
        fn the_auc_is_the_share_of_pairs_in_the_right_order(
            rows in prop::collection::vec((-4i8..4, any::<bool>()), 2..40)
        ) {
            let logits: Vec<f32> = rows.iter().map(|(logit, _)| f32::from(*logit)).collect();
            let labels: Vec<f32> = rows.iter().map(|(_, positive)| if *positive { 1.0 } else { 0.0 }).collect();
            let (mut wins, mut pairs) = (0.0f64, 0.0f64);
            for (positive, _) in rows.iter().filter(|row| row.1) {
                for (negative, _) in rows.iter().filter(|row| !row.1) {
                    pairs += 1.0;
                    wins += if positive > negative { 1.0 } else if positive == negative { 0.5 } else { 0.0 };
                }
            }
            match auc_millionths(&logits, &labels) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(auc) => prop_assert!((auc as f64 / 1e6 - wins / pairs).abs() <= 0.5e-6 + 1e-12),
            }
        }
    }
}
