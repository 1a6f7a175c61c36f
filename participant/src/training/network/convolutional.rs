//! Convolutions with pooling, and linear layers behind them.

use candle_core::{Result, Tensor};
use fedledger_federation::architecture::Architecture;

use super::{Named, perceptron::Perceptron};
use crate::training::{
    convolution::PooledConvolution,
    images::{channels_first, channels_last},
};

/// A network like LeNet.
pub(super) struct ConvolutionalNetwork {
    /// Channels of an image.
    channels: usize,
    convolutions: Vec<PooledConvolution>,
    /// Channels of what the linear layers take.
    flattened_channels: usize,
    linear: Perceptron,
}

impl ConvolutionalNetwork {
    pub(super) fn new(architecture: &Architecture, named: &Named) -> Result<Self> {
        let layers = architecture.convolutions();
        let convolutions = layers.iter().enumerate().map(|(index, layer)| {
            let [weight, bias] = named.pair(&format!("convolution{index}"))?;
            Ok(PooledConvolution::new(layer, weight, bias))
        });
        Ok(Self {
            channels: architecture.image().map_or(1, |image| image.channels as usize),
            convolutions: convolutions.collect::<Result<_>>()?,
            flattened_channels: layers.last().map_or(1, |layer| layer.filters as usize),
            linear: Perceptron::new(architecture, named)?,
        })
    }

    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let mut images = channels_last(features, self.channels)?;
        for convolution in &self.convolutions {
            images = convolution.forward(&images)?;
        }
        self.linear.forward(&channels_first(&images, self.flattened_channels)?)
    }
}
