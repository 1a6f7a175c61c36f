//! The forward pass of every known architecture, on candle tensors.

use candle_core::{Device, Result, Tensor, Var};
use fedledger_federation::{architecture::Architecture, tensors};

use super::linear::linear;

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

/// Activations of one layer that are computed at a time. It bounds memory, keeps a pass in the processor's cache, and stays
/// below the 65,536 elements from which the tensor library spreads work over threads that wait for each other.
const ACTIVATIONS_PER_PASS: usize = 65_535;

/// Fewest rows that are computed at a time, however wide a layer is.
const ROWS_PER_PASS_MIN: usize = 8;

/// Rows to put through the network at a time. It depends on the architecture alone, because it decides the order in which
/// gradients are summed.
pub(crate) fn rows_per_pass(architecture: &Architecture) -> usize {
    let widths = architecture.layers().into_iter().map(|layer| layer.inputs.max(layer.outputs) as usize);
    (ACTIVATIONS_PER_PASS / widths.max().unwrap_or(1).max(1)).max(ROWS_PER_PASS_MIN)
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

/// Linear layers with rectified linear units between them.
pub(crate) struct Network {
    layers: Vec<Layer>,
}

struct Layer {
    /// `[outputs]`.
    bias: Var,
    /// `[outputs, inputs]`.
    weight: Var,
}

impl Network {
    /// A network with these weights, which [`check_weights`] has passed: bias and weight of each layer in turn.
    pub(crate) fn new(weights: &[tensors::Tensor]) -> Result<Self> {
        let layers = weights
            .chunks_exact(2)
            .map(|pair| match pair {
                [bias, weight] => Ok(Layer { bias: variable(bias)?, weight: variable(weight)? }),
                _ => candle_core::bail!("a layer has a bias and a weight"),
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Logits `[rows]` of features `[rows, columns]`.
    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let mut values = features.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                values = values.relu()?;
            }
            values = linear(&values, &layer.weight, &layer.bias)?;
        }
        values.squeeze(1)
    }

    /// The parameters in the order of their names.
    pub(super) fn variables(&self) -> impl Iterator<Item = &Var> {
        self.layers.iter().flat_map(|layer| [&layer.bias, &layer.weight])
    }

    /// Values of the parameters in the order of their names.
    pub(super) fn parameters(&self) -> Result<Vec<Vec<f32>>> {
        self.variables().map(|variable| variable.flatten_all()?.to_vec1()).collect()
    }
}

fn variable(tensors::Tensor { shape, values, .. }: &tensors::Tensor) -> Result<Var> {
    let dimensions: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
    Var::from_slice(values, dimensions, &Device::Cpu)
}
