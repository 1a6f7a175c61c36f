//! The same networks from the numeric library's own operations, for devices that our kernels do not run on.
//!
//! The parameters, the loss and the optimiser stay in main memory; a copy of the parameters goes to the device for each
//! batch, and the gradients come back. Values agree with those of our kernels but for their last digits, and nothing is said
//! about the order in which a device adds. The tests hold our kernels against this.

use candle_core::{Device, Result, Tensor, Var};
use fedledger_federation::architecture::{self, Architecture, ConvolutionLayer};

use super::{loss::cross_entropy, network::Network};

/// Added to the variance in a normalisation.
const EPSILON: f64 = 1e-5;

/// A network on some device.
pub(super) struct LibraryNetwork<'a> {
    architecture: &'a Architecture,
    /// Names and values of the parameters, sorted by name.
    variables: Vec<(String, Var)>,
}

impl<'a> LibraryNetwork<'a> {
    /// A network of these parameters, sorted by name.
    pub(super) fn new(architecture: &'a Architecture, variables: Vec<(String, Var)>) -> Self {
        Self { architecture, variables }
    }

    /// A copy of a network's parameters.
    pub(super) fn copy_of(architecture: &'a Architecture, network: &Network, device: &Device) -> Result<Self> {
        let names = architecture.parameters().into_iter().map(|(name, _)| name);
        let copies = names.zip(network.parameters()).map(|(name, parameter)| {
            // Not to a variable directly: on the processor that would be the same one.
            let values = parameter.with_values(<[f32]>::to_vec)?;
            Ok((name, Var::from_vec(values, parameter.tensor().shape(), device)?))
        });
        Ok(Self::new(architecture, copies.collect::<Result<_>>()?))
    }

    /// Adds the gradients of these rows to those of `network`, and gives their share of the mean loss of `examples` rows.
    pub(super) fn add_gradients(
        &self,
        network: &Network,
        features: &Tensor,
        labels: &Tensor,
        examples: usize,
    ) -> Result<f32> {
        let Some((_, first)) = self.variables.first() else { candle_core::bail!("a network has parameters") };
        let logits = self.forward(&features.to_device(first.device())?)?;
        let known = Var::from_tensor(&logits.detach().to_device(labels.device())?)?;
        let loss = cross_entropy(&known, labels, examples)?;
        let Some(of_logits) = loss.backward()?.remove(&known) else { candle_core::bail!("the loss has no gradient") };
        // The gradient of this sum is that of the loss.
        let gradients = (&logits * of_logits.to_device(logits.device())?)?.sum_all()?.backward()?;
        for ((_, variable), parameter) in self.variables.iter().zip(network.parameters()) {
            let Some(gradient) = gradients.get(variable) else { continue };
            let sum = parameter.gradient();
            let mut sum = sum.sums(parameter.count());
            let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
            sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
        }
        loss.to_scalar()
    }

    /// Logits `[rows, outputs]` of features `[rows, columns]`.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let Some(image) = self.architecture.image() else { return self.linear(features) };
        let [channels, height, width] = [image.channels, image.height, image.width].map(|size| size as usize);
        let images = features.reshape((features.dim(0)?, channels, height, width))?;
        match self.architecture.stem() {
            Some(stem) => self.residual(&images, &stem),
            None => self.convolutional(&images),
        }
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        let position = self.variables.binary_search_by(|(known, _)| known.as_str().cmp(name));
        match position.ok().and_then(|position| self.variables.get(position)) {
            Some((_, variable)) => Ok(variable),
            None => candle_core::bail!("the architecture has no parameter {name:?}"),
        }
    }

    /// One value for each channel of `[rows, channels, height, width]`.
    fn of_channels(&self, name: &str) -> Result<Tensor> {
        self.get(name)?.reshape((1, (), 1, 1))
    }

    fn linear(&self, features: &Tensor) -> Result<Tensor> {
        let mut values = features.clone();
        let count = self.architecture.layers().len();
        for index in 0..count {
            values = self.layer(&values, &format!("layer{index}"))?;
            if index + 1 < count {
                values = values.relu()?;
            }
        }
        Ok(values)
    }

    fn layer(&self, values: &Tensor, name: &str) -> Result<Tensor> {
        let weight = self.get(&format!("{name}.weight"))?.t()?;
        values.matmul(&weight)?.broadcast_add(self.get(&format!("{name}.bias"))?)
    }

    fn convolutional(&self, images: &Tensor) -> Result<Tensor> {
        let mut images = images.clone();
        for (index, layer) in self.architecture.convolutions().iter().enumerate() {
            let convolved = self.convolve(&images, layer, &format!("convolution{index}.weight"))?;
            let shifted = convolved.broadcast_add(&self.of_channels(&format!("convolution{index}.bias"))?)?;
            images = pooled(&shifted.relu()?)?;
        }
        self.linear(&images.flatten_from(1)?)
    }

    fn convolve(&self, images: &Tensor, layer: &ConvolutionLayer, weight: &str) -> Result<Tensor> {
        let (padding, stride) = (layer.padding as usize, layer.stride as usize);
        if stride == 1 {
            return images.conv2d(self.get(weight)?, padding, 1, 1, 1);
        }
        let output = layer.output();
        let images = under_filters(images, 2, layer, output.height)?;
        let images = under_filters(&images, 3, layer, output.width)?;
        images.conv2d(self.get(weight)?, 0, stride, 1, 1)
    }

    fn residual(&self, images: &Tensor, stem: &ConvolutionLayer) -> Result<Tensor> {
        let mut images = self.normalized(images, stem, "stem.convolution", "stem.normalization")?.relu()?;
        for block in self.architecture.residual_blocks() {
            let name = &block.name;
            let part = |images: &Tensor, layer: &ConvolutionLayer, index: usize| {
                let [convolution, normalization] =
                    ["convolution", "normalization"].map(|kind| format!("{name}.{kind}{index}"));
                self.normalized(images, layer, &convolution, &normalization)
            };
            let change = part(&part(&images, &block.first, 0)?.relu()?, &block.second, 1)?;
            let kept = match &block.shortcut {
                Some(layer) => {
                    let [convolution, normalization] =
                        ["shortcut", "shortcut_normalization"].map(|kind| format!("{name}.{kind}"));
                    self.normalized(&images, layer, &convolution, &normalization)?
                }
                None => images,
            };
            images = (change + kept)?.relu()?;
        }
        self.layer(&images.mean((2, 3))?, "output")
    }

    fn normalized(
        &self,
        images: &Tensor,
        layer: &ConvolutionLayer,
        convolution: &str,
        normalization: &str,
    ) -> Result<Tensor> {
        let convolved = self.convolve(images, layer, &format!("{convolution}.weight"))?;
        let groups = architecture::groups(layer.filters) as usize;
        let grouped = convolved.reshape((convolved.dim(0)?, groups, ()))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
        let variance = (centred.sqr()?.mean_keepdim(2)? + EPSILON)?;
        let normalized = centred.broadcast_div(&variance.sqrt()?)?.reshape(convolved.shape())?;
        let [weight, bias] = ["weight", "bias"].map(|part| self.of_channels(&format!("{normalization}.{part}")));
        normalized.broadcast_mul(&weight?)?.broadcast_add(&bias?)
    }
}

/// 2 x 2 max pooling; a last odd row or column is left out, which the library's own pooling has no gradient for.
fn pooled(images: &Tensor) -> Result<Tensor> {
    let (rows, channels, height, width) = images.dims4()?;
    let (height, width) = (height / 2, width / 2);
    let even = images.narrow(2, 0, 2 * height)?.narrow(3, 0, 2 * width)?.contiguous()?;
    even.reshape((rows, channels, height, 2, width, 2))?.max(5)?.max(3)
}

/// Images padded with zeros along one dimension, as far as filters of so many places reach. The library's gradient of a
/// convolution takes what filters with a stride leave over of the height for what they leave over of the width; here they
/// leave nothing over.
fn under_filters(images: &Tensor, dimension: usize, layer: &ConvolutionLayer, places: u32) -> Result<Tensor> {
    let [padding, kernel, stride, places] =
        [layer.padding, layer.kernel, layer.stride, places].map(|size| size as usize);
    let reached = places.saturating_sub(1).saturating_mul(stride).saturating_add(kernel);
    images.pad_with_zeros(dimension, padding, padding)?.narrow(dimension, 0, reached)?.contiguous()
}
