//! Linear layers with rectified linear units between them.

use candle_core::{Result, Tensor};
use fedledger_federation::architecture::Architecture;

use super::Named;
use crate::training::linear::{Activation, Linear};

/// The linear layers `layer0`, `layer1` and so on.
pub(super) struct Perceptron {
    hidden: Vec<Linear>,
    last: Linear,
}

impl Perceptron {
    pub(super) fn new(architecture: &Architecture, named: &Named) -> Result<Self> {
        let count = architecture.layers().len();
        let mut layers = (0..count).map(|index| named.linear(&format!("layer{index}"))).collect::<Result<Vec<_>>>()?;
        let Some(last) = layers.pop() else { candle_core::bail!("a perceptron has a layer") };
        Ok(Self { hidden: layers, last })
    }

    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let mut values = features.clone();
        for layer in &self.hidden {
            values = layer.forward(&values, Activation::Rectified)?;
        }
        self.last.forward(&values, Activation::None)
    }
}
