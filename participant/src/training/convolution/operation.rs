//! Convolutions as operations of the numeric library.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use fedledger_federation::architecture::ConvolutionLayer;

use super::{
    super::parameter::{Gradient, Parameter, contiguous, with_values},
    Geometry, Workspace,
    pooling::{pool, unpool},
};

/// A convolution without bias. Images are `[rows, height * width * channels]`, the channels of a place side by side.
pub(in crate::training) struct Convolution {
    geometry: Geometry,
    /// `[filters, channels, kernel, kernel]`.
    weight: Parameter,
}

/// A convolution with bias, rectified linear units and 2 x 2 max pooling.
pub(in crate::training) struct PooledConvolution {
    convolution: Convolution,
    /// `[filters]`.
    bias: Parameter,
}

impl Convolution {
    pub(in crate::training) fn new(layer: &ConvolutionLayer, weight: Parameter) -> Self {
        Self { geometry: Geometry::new(layer), weight }
    }

    /// `[rows, places * filters]` of images.
    pub(in crate::training) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let operation = PlainOperation { geometry: self.geometry, weight: self.weight.gradient() };
        images.apply_op2(self.weight.tensor(), operation)
    }
}

impl PooledConvolution {
    pub(in crate::training) fn new(layer: &ConvolutionLayer, weight: Parameter, bias: Parameter) -> Self {
        Self { convolution: Convolution::new(layer, weight), bias }
    }

    /// `[rows, pooled places * filters]` of images.
    pub(in crate::training) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let operation = PooledOperation {
            geometry: self.convolution.geometry,
            weight: self.convolution.weight.gradient(),
            bias: self.bias.gradient(),
            winners: OnceLock::new(),
        };
        images.apply_op3(self.convolution.weight.tensor(), self.bias.tensor(), operation)
    }
}

/// Rows of images of the right size.
fn checked_rows(geometry: &Geometry, images: &Shape, weight: &Shape) -> Result<usize> {
    let (rows, values) = images.dims2()?;
    let expected = [geometry.filters, geometry.channels, geometry.kernel, geometry.kernel];
    if values != geometry.input_count() || weight.dims() != expected {
        candle_core::bail!("images of {values} values cannot be convolved with filters of {weight:?}");
    }
    Ok(rows)
}

struct PlainOperation {
    geometry: Geometry,
    weight: Gradient,
}

impl CustomOp2 for PlainOperation {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let geometry = self.geometry;
        let rows = checked_rows(&geometry, images_layout.shape(), weight_layout.shape())?;
        let images = contiguous(images.as_slice::<f32>()?, images_layout)?;
        let mut workspace = Workspace::new(geometry);
        let weight = workspace.for_outputs(contiguous(weight.as_slice::<f32>()?, weight_layout)?);
        let mut outputs = vec![0.0; rows * geometry.output_count()];
        let each = images.chunks_exact(geometry.input_count()).zip(outputs.chunks_exact_mut(geometry.output_count()));
        for (image, output) in each {
            workspace.convolve(&weight, &[], image, output);
        }
        Ok((CpuStorage::F32(outputs), (rows, geometry.output_count()).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        _outputs: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let of_images = with_values(&gradient, |gradient| {
            let gradients = gradient.chunks_exact(self.geometry.output_count());
            backward(self.geometry, images, weight, &self.weight, gradients, |gradient, place| {
                place.copy_from_slice(gradient);
            })
        })??;
        Ok((of_images, None))
    }
}

struct PooledOperation {
    geometry: Geometry,
    weight: Gradient,
    bias: Gradient,
    /// Which of four places won, for each value of the output; known after the forward pass.
    winners: OnceLock<Vec<u8>>,
}

impl PooledOperation {
    const fn pooled_count(&self) -> usize {
        (self.geometry.out_height / 2) * (self.geometry.out_width / 2) * self.geometry.filters
    }
}

impl CustomOp3 for PooledOperation {
    fn name(&self) -> &'static str {
        "pooled-convolution"
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
        let geometry = self.geometry;
        let rows = checked_rows(&geometry, images_layout.shape(), weight_layout.shape())?;
        let images = contiguous(images.as_slice::<f32>()?, images_layout)?;
        let bias = contiguous(bias.as_slice::<f32>()?, bias_layout)?;
        let mut workspace = Workspace::new(geometry);
        let weight = workspace.for_outputs(contiguous(weight.as_slice::<f32>()?, weight_layout)?);
        let count = self.pooled_count();
        let (mut pooled, mut winners) = (vec![0.0; rows * count], vec![0; rows * count]);
        let mut outputs = vec![0.0; geometry.output_count()];
        let targets = pooled.chunks_exact_mut(count.max(1)).zip(winners.chunks_exact_mut(count.max(1)));
        for (image, (pooled, winners)) in images.chunks_exact(geometry.input_count()).zip(targets) {
            workspace.convolve(&weight, bias, image, &mut outputs);
            pool(&outputs, geometry.out_width, geometry.filters, pooled, winners);
        }
        // An operation is applied once; a second time would find the same winners.
        let _ = self.winners.set(winners);
        Ok((CpuStorage::F32(pooled), (rows, count).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _pooled: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (geometry, count) = (self.geometry, self.pooled_count().max(1));
        let gradient = gradient.contiguous()?;
        let winners = self.winners.get().map(Vec::as_slice).unwrap_or_default();
        let mut bias = self.bias.sums(geometry.filters);
        let of_images = with_values(&gradient, |gradient| {
            for (place, winners) in gradient.chunks_exact(geometry.filters).zip(winners.chunks_exact(geometry.filters))
            {
                for ((sum, value), winner) in bias.iter_mut().zip(place).zip(winners) {
                    *sum += if usize::from(*winner) < PLACES { *value } else { 0.0 };
                }
            }
            let gradients = gradient.chunks_exact(count).zip(winners.chunks_exact(count));
            backward(geometry, images, weight, &self.weight, gradients, |(gradient, winners), place| {
                unpool(gradient, winners, geometry.out_width, geometry.filters, place);
            })
        })??;
        Ok((of_images, None, None))
    }
}

/// Places that pooling makes one of.
const PLACES: usize = 4;

/// Adds the gradient of the weight, and gives that of the images where they have one. `gradients` are those of each image's
/// output in a form that `write` turns into `[places, filters]`.
fn backward<G>(
    geometry: Geometry,
    images: &Tensor,
    weight: &Tensor,
    weight_gradient: &Gradient,
    gradients: impl Iterator<Item = G>,
    write: impl Fn(G, &mut [f32]),
) -> Result<Option<Tensor>> {
    let rows = images.dim(0)?;
    let mut workspace = Workspace::new(geometry);
    // Records have no gradient.
    let wanted = images.track_op();
    let by_filter = if wanted { Some(with_values(weight, |weight| workspace.for_inputs(weight))?) } else { None };
    let mut of_images = vec![0.0; if wanted { rows * geometry.input_count() } else { 0 }];
    let mut of_filters = vec![0.0; geometry.patch() * geometry.filters];
    let mut output_gradient = vec![0.0; geometry.output_count()];
    with_values(images, |images| {
        let mut of_images = of_images.chunks_exact_mut(geometry.input_count());
        for (image, gradient) in images.chunks_exact(geometry.input_count()).zip(gradients) {
            write(gradient, &mut output_gradient);
            workspace.add_filter_gradient(image, &output_gradient, &mut of_filters);
            if let (Some(weight), Some(of_image)) = (&by_filter, of_images.next()) {
                workspace.image_gradient(weight, &output_gradient, of_image);
            }
        }
    })?;
    geometry.add_by_filter(&of_filters, &mut weight_gradient.sums(weight.elem_count()));
    match wanted {
        true => Ok(Some(Tensor::from_vec(of_images, (rows, geometry.input_count()), images.device())?)),
        false => Ok(None),
    }
}
