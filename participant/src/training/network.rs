//! Networks of every known architecture, on candle tensors.

mod convolutional;
mod perceptron;
mod residual;

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};
use fedledger_federation::{
    architecture::Architecture,
    tensors::{self, FileError},
};

use self::{convolutional::ConvolutionalNetwork, perceptron::Perceptron, residual::ResidualNetwork};
use super::{linear::Linear, loss::cross_entropy, parameter::Parameter, weights::BaseWeights};

/// Weights that do not belong to an architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// Too few or too many tensors.
    #[error("{found} tensors, the architecture has {expected}")]
    Count {
        /// Tensors of the architecture.
        expected: usize,
        /// Tensors given.
        found: usize,
    },
    /// Another tensor than expected at this place, in the order of the names.
    #[error("tensor {found:?} of shape {found_shape:?} stands where {expected:?} of shape {expected_shape:?} belongs")]
    Tensor {
        /// Name that belongs here.
        expected: String,
        /// Shape that belongs here.
        expected_shape: Vec<u64>,
        /// Name given.
        found: String,
        /// Shape given.
        found_shape: Vec<u64>,
    },
    /// Another number of values than the shape says.
    #[error("tensor {name:?} has {found} values, its shape asks for {expected}")]
    Length {
        /// The tensor.
        name: String,
        /// Values that the shape asks for.
        expected: u64,
        /// Values given.
        found: usize,
    },
    /// An infinite value or NaN.
    #[error("value {index} of tensor {name:?} is not finite")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Which value, from 0 in row-major order.
        index: usize,
    },
}

/// Why a network has no weights.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Numeric(#[from] candle_core::Error),
}

/// Activations of one layer that are computed at a time. It bounds memory, keeps a pass in the processor's cache, and stays
/// below the 65,536 elements from which the tensor library spreads work over threads that wait for each other.
const ACTIVATIONS_PER_PASS: usize = 65_535;

/// Fewest rows of a table that are computed at a time, however wide a layer is.
const ROWS_PER_PASS_MIN: usize = 8;

/// Rows to put through the network at a time. It depends on the architecture alone, because it decides the order in which
/// gradients are summed.
pub(crate) fn rows_per_pass(architecture: &Architecture) -> usize {
    let linear = architecture.layers().into_iter().map(|layer| layer.inputs.max(layer.outputs));
    let pooled =
        architecture.convolutions().into_iter().map(|layer| layer.output().pooled().values().unwrap_or(u32::MAX));
    let convolved =
        architecture.stem().into_iter().chain(architecture.residual_blocks().into_iter().map(|block| block.first));
    let convolved = convolved.map(|layer| layer.output().values().unwrap_or(u32::MAX));
    let largest = linear.chain(pooled).chain(convolved).max().unwrap_or(1).max(1);
    let least = if architecture.image().is_some() { 1 } else { ROWS_PER_PASS_MIN };
    (ACTIVATIONS_PER_PASS / largest as usize).max(least)
}

/// Checks names, shapes, lengths and values against a valid architecture.
pub(crate) fn check_weights(
    architecture: &Architecture,
    weights: &[tensors::Tensor],
) -> std::result::Result<(), WeightsError> {
    let expected = architecture.parameters();
    if weights.len() != expected.len() {
        return Err(WeightsError::Count { expected: expected.len(), found: weights.len() });
    }
    for ((expected, expected_shape), tensors::Tensor { name, shape, values }) in expected.into_iter().zip(weights) {
        if *name != expected || *shape != expected_shape {
            let (found, found_shape) = (name.clone(), shape.clone());
            return Err(WeightsError::Tensor { expected, expected_shape, found, found_shape });
        }
        let count: u64 = shape.iter().product();
        if values.len() as u64 != count {
            return Err(WeightsError::Length { name: name.clone(), expected: count, found: values.len() });
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(WeightsError::NotFinite { name: name.clone(), index });
        }
    }
    Ok(())
}

/// A network with its parameters.
pub(crate) struct Network {
    /// In the order of their names.
    parameters: Vec<Parameter>,
    layers: Layers,
}

/// What features go through.
enum Layers {
    Perceptron(Perceptron),
    Convolutional(ConvolutionalNetwork),
    Residual(ResidualNetwork),
}

/// The parameters of an architecture by name, for its layers to find theirs.
struct Named(BTreeMap<String, Parameter>);

impl Named {
    fn get(&self, name: &str) -> Result<Parameter> {
        match self.0.get(name) {
            Some(parameter) => Ok(parameter.clone()),
            None => candle_core::bail!("the architecture has no parameter {name:?}"),
        }
    }

    /// `name.weight` and `name.bias`.
    fn pair(&self, name: &str) -> Result<[Parameter; 2]> {
        Ok([self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?])
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        let [weight, bias] = self.pair(name)?;
        Ok(Linear { weight, bias })
    }
}

impl Network {
    /// A network with the weights of `base`, of which each is held once. Names, shapes and order must be those of the
    /// architecture; lengths and values are checked here.
    pub(crate) fn load<B: BaseWeights + ?Sized>(
        architecture: &Architecture,
        base: &B,
    ) -> std::result::Result<Self, LoadError> {
        let mut pieces = base.read()?;
        let mut values: Vec<Vec<f32>> = Vec::new();
        let parameters = architecture.parameters();
        // Judged when everything was read: the bytes of a damaged file may mean anything, and its digest tells at the end.
        let mut not_finite = None;
        for (_, shape) in &parameters {
            let count = shape.iter().product::<u64>();
            values.push(Vec::with_capacity(usize::try_from(count).unwrap_or_default()));
        }
        while let Some((position, piece)) = pieces.next_piece()? {
            let (Some((name, _)), Some(values)) = (parameters.get(position), values.get_mut(position)) else {
                let found = position.saturating_add(1);
                return Err(WeightsError::Count { expected: parameters.len(), found }.into());
            };
            if let Some(index) = piece.iter().position(|value| !value.is_finite()) {
                let index = values.len() + index;
                not_finite.get_or_insert_with(|| WeightsError::NotFinite { name: name.clone(), index });
            }
            if piece.len() > values.capacity() - values.len() {
                let (expected, found) = (values.capacity() as u64, values.len() + piece.len());
                return Err(WeightsError::Length { name: name.clone(), expected, found }.into());
            }
            values.extend_from_slice(piece);
        }
        if let Some(error) = not_finite {
            return Err(error.into());
        }
        let mut loaded = Vec::new();
        for ((name, shape), values) in parameters.iter().zip(values) {
            let (expected, found) = (shape.iter().product::<u64>(), values.len());
            if found as u64 != expected {
                return Err(WeightsError::Length { name: name.clone(), expected, found }.into());
            }
            loaded.push(Parameter::new(values, shape)?);
        }
        Ok(Self::of_parameters(architecture, loaded)?)
    }

    /// A network of these parameters, in the order of their names.
    pub(super) fn of_parameters(architecture: &Architecture, parameters: Vec<Parameter>) -> Result<Self> {
        let names = architecture.parameters().into_iter().map(|(name, _)| name);
        let named = Named(names.zip(parameters.iter().cloned()).collect());
        let layers = match architecture {
            Architecture::LogisticRegression { .. } | Architecture::MultilayerPerceptron { .. } => {
                Layers::Perceptron(Perceptron::new(architecture, &named)?)
            }
            Architecture::Convolutional { .. } => {
                Layers::Convolutional(ConvolutionalNetwork::new(architecture, &named)?)
            }
            Architecture::Residual { .. } => Layers::Residual(ResidualNetwork::new(architecture, &named)?),
            Architecture::Custom { .. } => candle_core::bail!("a custom architecture is for external trainers"),
        };
        Ok(Self { parameters, layers })
    }

    /// Logits `[rows, outputs]` of features `[rows, columns]`.
    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        match &self.layers {
            Layers::Perceptron(perceptron) => perceptron.forward(features),
            Layers::Convolutional(network) => network.forward(features),
            Layers::Residual(network) => network.forward(features),
        }
    }

    /// Adds the gradients of these rows to those of the parameters, and gives their share of the mean loss of `examples`
    /// rows.
    pub(super) fn add_gradients(&self, features: &Tensor, labels: &Tensor, examples: usize) -> Result<f32> {
        let loss = cross_entropy(&self.forward(features)?, labels, examples)?;
        loss.backward()?;
        loss.to_scalar()
    }

    /// The parameters in the order of their names.
    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

#[cfg(test)]
mod tests;
