//! Group normalisation (Wu and He, arXiv 1803.08494), with or without rectified linear units behind it.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use fedledger_federation::architecture;

use super::{
    linear::Activation,
    parameter::{Gradient, Parameter, contiguous, with_all_values},
};

/// Added to the variance, as PyTorch's `GroupNorm` does unless it is told otherwise.
const EPSILON: f64 = 1e-5;

/// Normalises the channels of each image in groups, and scales and shifts each channel.
pub(super) struct GroupNormalization {
    /// `[channels]`: the scale.
    weight: Parameter,
    /// `[channels]`: the shift.
    bias: Parameter,
    groups: usize,
}

impl GroupNormalization {
    pub(super) fn new(weight: Parameter, bias: Parameter, channels: u32) -> Self {
        Self { weight, bias, groups: architecture::groups(channels) as usize }
    }

    /// Images of `[rows, places * channels]`, the channels of a place side by side.
    pub(super) fn forward(&self, images: &Tensor, activation: Activation) -> Result<Tensor> {
        let operation = NormalizationOperation {
            groups: self.groups,
            activation,
            weight: self.weight.gradient(),
            bias: self.bias.gradient(),
            moments: OnceLock::new(),
        };
        images.apply_op3(self.weight.tensor(), self.bias.tensor(), operation)
    }
}

struct NormalizationOperation {
    groups: usize,
    activation: Activation,
    weight: Gradient,
    bias: Gradient,
    /// Of each group of each image; known after the forward pass.
    moments: OnceLock<Vec<Moments>>,
}

/// Mean and inverse standard deviation of a group.
#[derive(Debug, Clone, Copy)]
struct Moments {
    mean: f64,
    inverse_deviation: f64,
}

impl NormalizationOperation {
    /// Channels of a group; all sizes are those of a valid architecture.
    fn group_channels(&self, channels: usize) -> usize {
        (channels / self.groups.max(1)).max(1)
    }

    fn moments(&self, image: &[f32], channels: usize) -> Vec<Moments> {
        let group = self.group_channels(channels);
        let count = (image.len() / channels.max(1) * group) as f64;
        let mut sums = vec![0.0f64; channels];
        for place in image.chunks_exact(channels) {
            sums.iter_mut().zip(place).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let means: Vec<f64> = sums.chunks(group).map(|sums| sums.iter().sum::<f64>() / count).collect();
        let mean_of_channel: Vec<f64> = means.iter().flat_map(|mean| std::iter::repeat_n(*mean, group)).collect();
        sums.fill(0.0);
        for place in image.chunks_exact(channels) {
            for ((sum, value), mean) in sums.iter_mut().zip(place).zip(&mean_of_channel) {
                let difference = f64::from(*value) - mean;
                *sum += difference * difference;
            }
        }
        let variances = sums.chunks(group).map(|sums| sums.iter().sum::<f64>() / count);
        let moments =
            |(&mean, variance): (&f64, f64)| Moments { mean, inverse_deviation: 1.0 / (variance + EPSILON).sqrt() };
        means.iter().zip(variances).map(moments).collect()
    }
}

impl CustomOp3 for NormalizationOperation {
    fn name(&self) -> &'static str {
        "group-normalization"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((_, length), channels) = (images_layout.shape().dims2()?, weight_layout.shape().dims1()?);
        if channels == 0 || !length.is_multiple_of(channels) || bias_layout.shape().dims1()? != channels {
            candle_core::bail!("images of {length} values cannot be normalised with {channels} channels");
        }
        let images = contiguous(images.as_slice::<f32>()?, images_layout)?;
        let weight = contiguous(weight.as_slice::<f32>()?, weight_layout)?;
        let bias = contiguous(bias.as_slice::<f32>()?, bias_layout)?;
        let (mut outputs, mut kept) = (Vec::with_capacity(images.len()), Vec::new());
        let least = if self.activation == Activation::Rectified { 0.0 } else { f32::NEG_INFINITY };
        for image in images.chunks_exact(length.max(1)) {
            let moments = self.moments(image, channels);
            let group = self.group_channels(channels);
            let of_channel = moments.iter().flat_map(|moments| std::iter::repeat_n(moments, group));
            let affine: Vec<(f32, f32)> = of_channel
                .zip(weight.iter().zip(bias))
                .map(|(moments, (weight, bias))| {
                    let scale = f64::from(*weight) * moments.inverse_deviation;
                    (scale as f32, (f64::from(*bias) - moments.mean * scale) as f32)
                })
                .collect();
            for place in image.chunks_exact(channels) {
                outputs.extend(
                    place.iter().zip(&affine).map(|(value, (scale, shift))| (value * scale + shift).max(least)),
                );
            }
            kept.extend(moments);
        }
        // An operation is applied once; a second time would find the same moments.
        let _ = self.moments.set(kept);
        Ok((CpuStorage::F32(outputs), images_layout.shape().clone()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        outputs: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, length) = images.dims2()?;
        let gradient = gradient.contiguous()?;
        let mut of_images = Vec::with_capacity(images.elem_count());
        with_all_values([images, outputs, &gradient, weight], |[images, outputs, gradient, weight]| {
            let each = images.chunks_exact(length).zip(outputs.chunks_exact(length));
            let moments = self.moments.get().map(Vec::as_slice).unwrap_or_default();
            let moments = moments.chunks_exact(self.groups.max(1));
            for (((image, output), gradient), moments) in each.zip(gradient.chunks_exact(length)).zip(moments) {
                let gradient = self.masked(gradient, output);
                self.backward(image, &gradient, weight, moments, &mut of_images);
            }
        })?;
        Ok((Some(Tensor::from_vec(of_images, images.shape(), images.device())?), None, None))
    }
}

impl NormalizationOperation {
    fn masked(&self, gradient: &[f32], output: &[f32]) -> Vec<f32> {
        match self.activation {
            Activation::None => gradient.to_vec(),
            Activation::Rectified => {
                let passed = |(gradient, output): (&f32, &f32)| if *output > 0.0 { *gradient } else { 0.0 };
                gradient.iter().zip(output).map(passed).collect()
            }
        }
    }

    /// Adds the gradients of scale and shift, and appends that of one image.
    fn backward(&self, image: &[f32], gradient: &[f32], weight: &[f32], moments: &[Moments], of_image: &mut Vec<f32>) {
        let channels = weight.len().max(1);
        let group = self.group_channels(channels);
        let of_channel: Vec<Moments> =
            moments.iter().flat_map(|moments| std::iter::repeat_n(*moments, group)).collect();
        // By channel: the sum of the gradients, and that of their products with the normalised values.
        let mut sums = vec![(0.0f64, 0.0f64); channels];
        for (place, gradient) in image.chunks_exact(channels).zip(gradient.chunks_exact(channels)) {
            for (((sums, value), gradient), moments) in sums.iter_mut().zip(place).zip(gradient).zip(&of_channel) {
                let normalized = (f64::from(*value) - moments.mean) * moments.inverse_deviation;
                sums.0 += f64::from(*gradient);
                sums.1 += f64::from(*gradient) * normalized;
            }
        }
        let (mut of_bias, mut of_weight) = (self.bias.sums(channels), self.weight.sums(channels));
        for ((of_bias, of_weight), sums) in of_bias.iter_mut().zip(of_weight.iter_mut()).zip(&sums) {
            *of_bias += sums.0 as f32;
            *of_weight += sums.1 as f32;
        }
        // dx = s (w g - mean(w g) - x̂ mean(w g x̂)), with means over the group; as a linear function of g and x.
        let count = (image.len() / channels * group) as f64;
        let mut terms = Vec::with_capacity(channels);
        for ((weight, sums), moments) in weight.chunks(group).zip(sums.chunks(group)).zip(moments) {
            let mean = |of: fn(&(f64, f64)) -> f64| {
                weight.iter().zip(sums).map(|(weight, sums)| f64::from(*weight) * of(sums)).sum::<f64>() / count
            };
            let (plain, normalized) = (mean(|sums| sums.0), mean(|sums| sums.1));
            let scale = moments.inverse_deviation;
            let of_value = -normalized * scale * scale;
            let constant = -plain * scale - of_value * moments.mean;
            terms.extend(
                weight.iter().map(|weight| ((f64::from(*weight) * scale) as f32, of_value as f32, constant as f32)),
            );
        }
        for (place, gradient) in image.chunks_exact(channels).zip(gradient.chunks_exact(channels)) {
            let values = place.iter().zip(gradient).zip(&terms);
            of_image.extend(values.map(|((value, gradient), (of_gradient, of_value, constant))| {
                gradient * of_gradient + value * of_value + constant
            }));
        }
    }
}
