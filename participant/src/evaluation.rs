//! How good a model is on local test rows, as fixed-point integers that can stand on the ledger.
//!
//! [`evaluate`] has the model judge every row, [`score`] holds its [`Outputs`] against the labels, and [`report`] says what of
//! it leaves the building.

mod area;
mod calibration;
mod confusion;
mod judged;
mod millionths;
mod outputs;
mod report;
mod score;

use candle_core::{Device, Tensor};
use fedledger_federation::{
    architecture::{Architecture, ArchitectureError},
    tensors::{self, FileError},
};

pub use fedledger_federation::metrics::MILLIONTHS;

pub use self::{
    outputs::Outputs,
    report::{report, report_of_program},
    score::{Evaluation, Interval, Scores, score},
};
use crate::{
    table::Dataset,
    training::{
        BaseWeights, BaseWeightsError,
        network::{LoadError, Network, check_weights, rows_per_pass},
        on_one_thread, row_of_other_class,
    },
};

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
    /// Outputs that are not those of the rows.
    #[error("{found} logits do not belong to {rows} rows")]
    OutputCount {
        /// Rows of the data set.
        rows: usize,
        /// Logits of the model.
        found: usize,
    },
    /// A label that is no class of the model.
    #[error("the label of row {row} is none of the {classes} classes that the model tells apart")]
    Label {
        /// The row, from 0.
        row: usize,
        /// Classes of the model.
        classes: usize,
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
    let expected = architecture.inputs().ok_or(EvaluationError::Custom)?;
    if data.columns() != expected as usize {
        return Err(EvaluationError::FeatureCount { expected, found: data.columns() });
    }
    if data.rows() == 0 {
        return Err(EvaluationError::NoRows);
    }
    if let Some(row) = row_of_other_class(data, architecture.classes()) {
        return Err(EvaluationError::Label { row, classes: architecture.classes() as usize });
    }
    let outputs = on_one_thread(|| outputs(architecture, weights, data))?;
    score(&outputs, data.labels(), data.groups())
}

fn outputs<B: BaseWeights + ?Sized>(
    architecture: &Architecture,
    weights: &B,
    data: &Dataset,
) -> Result<Outputs, EvaluationError> {
    let network = Network::load(architecture, weights)?;
    let mut logits = Vec::with_capacity(data.rows() * architecture.outputs() as usize);
    let rows_per_pass = rows_per_pass(architecture);
    for start in (0..data.rows()).step_by(rows_per_pass) {
        let rows = start..data.rows().min(start + rows_per_pass);
        let mut features = Vec::with_capacity(rows.len() * data.columns());
        rows.clone().for_each(|row| data.append_row(row, &mut features));
        let features = Tensor::from_vec(features, (rows.len(), data.columns()), &Device::Cpu)?;
        logits.extend(network.forward(&features)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(Outputs { logits, classes: architecture.classes() })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let architecture = Architecture::logistic_regression(2);
        let weights = weights_of(&[1.0; 2]);
        let narrow = Dataset::new(vec![1.0], vec![1.0], 1).unwrap();
        let empty = Dataset::new(vec![], vec![], 2).unwrap();
        let huge = Dataset::new(vec![f32::MAX; 2], vec![1.0], 2).unwrap();
        let steep = weights_of(&[9.0; 2]);
        use EvaluationError::{FeatureCount, NoRows, NotFinite, Weights};
        assert!(matches!(evaluate(&architecture, &weights, &narrow), Err(FeatureCount { expected: 2, found: 1 })));
        assert!(matches!(evaluate(&architecture, &weights, &empty), Err(NoRows)));
        assert!(matches!(evaluate(&architecture, &steep, &huge), Err(NotFinite { row: 0 })));
        let other_class = Dataset::new(vec![1.0; 2], vec![2.0], 2).unwrap();
        let label = evaluate(&architecture, &weights, &other_class);
        assert!(matches!(label, Err(EvaluationError::Label { row: 0, classes: 2 })));
        assert!(matches!(evaluate(&architecture, &weights[..1], &empty), Err(Weights(_))));
    }

    #[test]
    fn many_rows_are_evaluated_in_passes() {
        let architecture = Architecture::logistic_regression(1);
        let rows = 2 * rows_per_pass(&architecture) + 1;
        let features: Vec<f32> = (0..rows).map(|row| if row % 3 == 0 { 1.0 } else { -1.0 }).collect();
        let data = Dataset::new(features, vec![1.0; rows], 1).unwrap();
        let result = evaluate(&architecture, &weights_of(&[1.0]), &data).unwrap();
        assert_eq!((result.all.examples, result.all.correct), (rows as u64, rows.div_ceil(3) as u64));
    }
}
