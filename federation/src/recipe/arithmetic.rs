//! A plan's numbers in the form that aggregation computes with, and the first version.

use std::io::Write;

use super::RecipeError;
use crate::{
    aggregation::{self, Aggregation, AggregationError, EncodeError, FixedPoint},
    architecture::Architecture,
    command::FileRef,
    decimal::Decimal,
    plan::{Plan, Rule, ServerOptimizer, UpdateDtype},
    tensors::{Dtype, LayoutError, TensorLayout, TensorSpec, TensorWriter},
};

impl Architecture {
    /// The tensors of a weights file.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if the model is too large for a file.
    pub fn layout(&self) -> Result<TensorLayout, LayoutError> {
        let specs = self.parameters().into_iter().map(|(name, shape)| TensorSpec::new(name, shape, Dtype::F32));
        TensorLayout::new(specs.collect())
    }

    /// The tensors of an update file with elements of type `dtype`.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if the model is too large for a file.
    pub fn update_layout(&self, dtype: UpdateDtype) -> Result<TensorLayout, LayoutError> {
        self.layout()?.with_dtype(dtype.into())
    }

    /// Size of an update file, in bytes; 0 for a model too large for a file, which no update has.
    pub fn update_size_bytes(&self, dtype: UpdateDtype) -> u64 {
        self.update_layout(dtype).map_or(0, |layout| layout.file_size_bytes() as u64)
    }
}

impl From<UpdateDtype> for Dtype {
    fn from(dtype: UpdateDtype) -> Self {
        match dtype {
            UpdateDtype::F32 => Self::F32,
            UpdateDtype::F16 => Self::F16,
            UpdateDtype::BF16 => Self::BF16,
        }
    }
}

impl Plan {
    /// The tensors of an update file.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if the model is too large for a file.
    pub fn update_layout(&self) -> Result<TensorLayout, LayoutError> {
        self.architecture.update_layout(self.aggregation.update_dtype)
    }

    /// Size of an update file, in bytes; 0 for a model too large for a file, which no update has.
    pub fn update_size_bytes(&self) -> u64 {
        self.architecture.update_size_bytes(self.aggregation.update_dtype)
    }

    /// The arithmetic of a round with `cohort` selected participants.
    ///
    /// # Errors
    ///
    /// [`AggregationError`] for a plan that [`Plan::check`] would refuse.
    pub fn arithmetic(&self, cohort: usize) -> Result<Aggregation, AggregationError> {
        let contribution = |source: EncodeError| AggregationError::Contribution { index: 0, source: source.into() };
        let fixed_point = FixedPoint::new(self.aggregation.example_scale, cohort).map_err(contribution)?;
        Aggregation::new(rule(&self.aggregation.rule), fixed_point, self.update_layout()?)
    }

    /// The weights file of the initial version, in memory.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Architecture`] for a plan that [`Plan::check`] would refuse.
    pub fn initial_weights(&self) -> Result<Vec<u8>, RecipeError> {
        let mut file = Vec::new();
        self.write_initial_weights(&mut file)?;
        Ok(file)
    }

    /// Writes the weights file of the initial version, from beginning to end: its digest and size.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Architecture`] for a plan that [`Plan::check`] would refuse, [`RecipeError::Output`].
    pub fn write_initial_weights(&self, file: impl Write) -> Result<FileRef, RecipeError> {
        let drawn = self.architecture.draw_initial_weights(self.seed)?;
        let mut writer = TensorWriter::new(self.architecture.layout()?, file).map_err(RecipeError::Output)?;
        for values in drawn {
            writer.push(&values)?;
        }
        Ok(writer.finish()?)
    }
}

impl Rule {
    /// Whether a version that the rule leads to has an optimiser state.
    pub const fn keeps_state(&self) -> bool {
        !matches!(self, Self::FedAvg { .. })
    }
}

fn rule(rule: &Rule) -> aggregation::Rule {
    // A decimal's text is always a number; the nearest 64-bit float is the same for everybody.
    let value = |decimal: &Decimal| decimal.as_str().parse::<f64>().unwrap_or(f64::NAN);
    let parameters =
        |p: &ServerOptimizer| (value(&p.server_learning_rate), value(&p.beta1), value(&p.beta2), value(&p.tau));
    match rule {
        Rule::FedAvg { server_learning_rate } => {
            aggregation::Rule::FedAvg { server_learning_rate: value(server_learning_rate) }
        }
        Rule::FedAvgM { server_learning_rate, momentum } => {
            aggregation::Rule::FedAvgM { server_learning_rate: value(server_learning_rate), momentum: value(momentum) }
        }
        Rule::FedAdagrad(p) => {
            let (server_learning_rate, beta1, _, tau) = parameters(p);
            aggregation::Rule::FedAdagrad { server_learning_rate, beta1, tau }
        }
        Rule::FedAdam(p) => {
            let (server_learning_rate, beta1, beta2, tau) = parameters(p);
            aggregation::Rule::FedAdam { server_learning_rate, beta1, beta2, tau }
        }
        Rule::FedYogi(p) => {
            let (server_learning_rate, beta1, beta2, tau) = parameters(p);
            aggregation::Rule::FedYogi { server_learning_rate, beta1, beta2, tau }
        }
    }
}
