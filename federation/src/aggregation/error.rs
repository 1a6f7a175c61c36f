//! Why a contribution or an aggregation is refused.

use super::{encode::EncodeError, server_optimizer::RuleError};
use crate::tensors::{LayoutError, ReadError};

/// Why one contribution is refused. Nothing of it is in any sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContributionError {
    /// The update is not the canonical file of the model's tensors.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The example count or a value cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Why a file of the base version cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateFileError {
    /// The weights file is not as the plan says.
    #[error("base weights: {0}")]
    Weights(#[source] ReadError),
    /// The optimiser state file is not as the rule says.
    #[error("optimiser state: {0}")]
    OptimizerState(#[source] ReadError),
    /// There is an optimiser state but the rule keeps none.
    #[error("the base version has an optimiser state, but the rule keeps none")]
    UnexpectedOptimizerState,
}

/// Why an aggregation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AggregationError {
    /// The rule's parameters are out of range.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// Weights or optimiser state would not fit a file.
    #[error("the new version's files cannot be laid out: {0}")]
    Layout(#[from] LayoutError),
    /// Updates may be `F32`, `F16` or `BF16`.
    #[error("tensor {tensor:?} of the update has dtype F64: use F32, F16 or BF16")]
    UpdateDtype {
        /// The tensor's name.
        tensor: String,
    },
    /// A file of the base version cannot be used.
    #[error(transparent)]
    Base(#[from] StateFileError),
    /// There is nothing to aggregate.
    #[error("there are no contributions to aggregate")]
    NoContributions,
    /// More contributions than the fixed-point format leaves room for.
    #[error("{found} contributions, but the encoding leaves room for {cohort}")]
    TooManyContributions {
        /// How many there are.
        found: usize,
        /// The cohort size that the encoding was made for.
        cohort: usize,
    },
    /// A contribution is refused; leave it out and aggregate again.
    #[error("contribution {index} is refused: {source}")]
    Contribution {
        /// Its position among the contributions given.
        index: usize,
        /// Why.
        source: ContributionError,
    },
    /// A contribution or sum was made for another aggregation.
    #[error("the contribution was checked for another layout or encoding")]
    OtherAggregation,
    /// The new version would hold an infinity or NaN. NaNs have no defined bits, so replicas might differ.
    #[error("the new value of tensor {tensor:?} at element {element} or its optimiser state is not finite")]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// Row-major index in the tensor.
        element: usize,
    },
}
