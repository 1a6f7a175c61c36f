//! Residual blocks with group normalisation.

use candle_core::{Result, Tensor};
use fedledger_federation::architecture::{Architecture, ConvolutionLayer, ResidualBlock};

use super::Named;
use crate::training::{
    convolution::Convolution,
    images::{add_rectified, channels_last, means},
    linear::{Activation, Linear},
    normalization::GroupNormalization,
};

/// A residual network for images.
pub(super) struct ResidualNetwork {
    /// Channels of an image.
    channels: usize,
    stem: Normalized,
    blocks: Vec<Block>,
    /// Channels of what the linear layer takes.
    last_channels: usize,
    output: Linear,
}

/// A convolution and the normalisation of what it gives.
struct Normalized {
    convolution: Convolution,
    normalization: GroupNormalization,
}

struct Block {
    first: Normalized,
    second: Normalized,
    shortcut: Option<Normalized>,
}

impl ResidualNetwork {
    pub(super) fn new(architecture: &Architecture, named: &Named) -> Result<Self> {
        let (Some(stem), Some(image)) = (architecture.stem(), architecture.image()) else {
            candle_core::bail!("a residual network has a first convolution");
        };
        let blocks = architecture.residual_blocks();
        Ok(Self {
            channels: image.channels as usize,
            stem: Normalized::new(named, &stem, "stem.convolution", "stem.normalization")?,
            last_channels: blocks.last().map_or(stem.filters, |block| block.second.filters) as usize,
            blocks: blocks.iter().map(|block| Block::new(named, block)).collect::<Result<_>>()?,
            output: named.linear("output")?,
        })
    }

    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let images = channels_last(features, self.channels)?;
        let mut images = self.stem.forward(&images, Activation::Rectified)?;
        for block in &self.blocks {
            images = block.forward(&images)?;
        }
        self.output.forward(&means(&images, self.last_channels)?, Activation::None)
    }
}

impl Normalized {
    fn new(named: &Named, layer: &ConvolutionLayer, convolution: &str, normalization: &str) -> Result<Self> {
        let [weight, bias] = named.pair(normalization)?;
        Ok(Self {
            convolution: Convolution::new(layer, named.get(&format!("{convolution}.weight"))?),
            normalization: GroupNormalization::new(weight, bias, layer.filters),
        })
    }

    fn forward(&self, images: &Tensor, activation: Activation) -> Result<Tensor> {
        self.normalization.forward(&self.convolution.forward(images)?, activation)
    }
}

impl Block {
    fn new(named: &Named, block: &ResidualBlock) -> Result<Self> {
        let name = &block.name;
        let normalized = |layer: &ConvolutionLayer, index: usize| {
            Normalized::new(
                named,
                layer,
                &format!("{name}.convolution{index}"),
                &format!("{name}.normalization{index}"),
            )
        };
        let shortcut = block.shortcut.as_ref().map(|layer| {
            Normalized::new(named, layer, &format!("{name}.shortcut"), &format!("{name}.shortcut_normalization"))
        });
        Ok(Self {
            first: normalized(&block.first, 0)?,
            second: normalized(&block.second, 1)?,
            shortcut: shortcut.transpose()?,
        })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let hidden = self.first.forward(images, Activation::Rectified)?;
        let change = self.second.forward(&hidden, Activation::None)?;
        match &self.shortcut {
            Some(shortcut) => add_rectified(&change, &shortcut.forward(images, Activation::None)?),
            None => add_rectified(&change, images),
        }
    }
}
