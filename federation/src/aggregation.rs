//! From many updates to one global model version, bit for bit the same whoever computes it.
//!
//! Updates become fixed-point integers weighted by example counts ([`encode`]) and are summed with wrapping adds in
//! Z_2^64. Such a sum is exact and does not depend on order, threads or grouping. Floats come back only at
//! the end ([`finish`], [`server_optimizer`]), in one fixed order of operations per coordinate and with correctly
//! rounded operations only (add, subtract, multiply, divide, square root), so the result has the same bytes on every
//! IEEE 754 machine.
//!
//! Two ways lead to the same bytes: [`aggregate`] when everything is in memory; and [`aggregate_files`], which reads and
//! writes files stripe by stripe. There the sum is either formed while the updates arrive ([`RunningSum`], two model sizes
//! for updates in `F32`, whatever their number), or from their files, in memory that does not depend on the model.

pub mod encode;
pub mod finish;
pub mod server_optimizer;

mod blocks;
mod error;
pub(crate) mod running;
mod sources;
mod stream;
mod stripes;
mod targets;

#[cfg(test)]
mod tests;

pub use blocks::aggregate;
pub use encode::{EncodeError, Encoder, FixedPoint};
pub use error::{AggregationError, ContributionError, StateFileError};
pub use running::{Addition, AdditionError, RunningSum, Term};
pub use server_optimizer::{DecimalError, Rule, RuleError, parse_decimal};
pub use stream::ContributionStream;
pub use stripes::{BaseInputs, Destination, StreamError, Sums, UPDATE_FILES_MAX, aggregate_files};

use crate::tensors::{Dtype, TensorLayout};

/// How the updates of a round become the next version: fixed by the plan, the same for everybody.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregation {
    rule: Rule,
    fixed_point: FixedPoint,
    updates: TensorLayout,
    weights: TensorLayout,
    optimizer_state: Option<TensorLayout>,
}

impl Aggregation {
    /// Aggregation by `rule` of updates with the layout `updates`. Weights have the same names and shapes in `F32`.
    ///
    /// # Errors
    ///
    /// [`AggregationError::Rule`] for parameters out of range, [`AggregationError::UpdateDtype`] for an update tensor
    /// in `F64`, [`AggregationError::Layout`] if weights or optimiser state would not fit a file.
    pub fn new(rule: Rule, fixed_point: FixedPoint, updates: TensorLayout) -> Result<Self, AggregationError> {
        rule.check()?;
        if let Some(tensor) = updates.tensors().iter().find(|tensor| tensor.dtype == Dtype::F64) {
            return Err(AggregationError::UpdateDtype { tensor: tensor.name.clone() });
        }
        let weights = updates.with_dtype(Dtype::F32)?;
        let optimizer_state = rule.state_layout(&weights)?;
        Ok(Self { rule, fixed_point, updates, weights, optimizer_state })
    }

    /// The server's rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// How updates become integers.
    pub fn fixed_point(&self) -> &FixedPoint {
        &self.fixed_point
    }

    /// Layout of an update file.
    pub fn update_layout(&self) -> &TensorLayout {
        &self.updates
    }

    /// Layout of a weights file.
    pub fn weights_layout(&self) -> &TensorLayout {
        &self.weights
    }

    /// Layout of an optimiser state file, if the rule keeps state.
    pub fn optimizer_state_layout(&self) -> Option<&TensorLayout> {
        self.optimizer_state.as_ref()
    }
}

/// The version that a round starts from.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Its weights file.
    pub weights: &'a [u8],
    /// Its optimiser state file; `None` for a first version or a rule without state, and then all moments are zero.
    pub optimizer_state: Option<&'a [u8]>,
}

/// The files of the new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// Weights, `F32`.
    pub weights: Vec<u8>,
    /// Optimiser state, `F64`, if the rule keeps any.
    pub optimizer_state: Option<Vec<u8>>,
}
