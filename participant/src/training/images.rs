//! Operations on images whose channels lie side by side: their order in memory, means over places, and sums.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::parameter::{contiguous, with_all_values, with_values};

/// From channel after channel, as records and linear layers have them, to the channels of a place side by side.
pub(super) fn channels_last(images: &Tensor, channels: usize) -> Result<Tensor> {
    if channels == 1 { Ok(images.clone()) } else { images.apply_op1(Transpose { columns: Columns::Places(channels) }) }
}

/// The other way.
pub(super) fn channels_first(images: &Tensor, channels: usize) -> Result<Tensor> {
    if channels == 1 { Ok(images.clone()) } else { images.apply_op1(Transpose { columns: Columns::Count(channels) }) }
}

/// `[rows, channels]`: the mean of each channel over all places.
pub(super) fn means(images: &Tensor, channels: usize) -> Result<Tensor> {
    images.apply_op1(Means { channels })
}

/// `max(left + right, 0)`.
pub(super) fn add_rectified(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    left.apply_op2(right, AddRectified)
}

/// Transposes each row, which is a matrix.
struct Transpose {
    columns: Columns,
}

/// Columns of the matrix that is transposed.
#[derive(Clone, Copy)]
enum Columns {
    /// So many.
    Count(usize),
    /// As many as make so many rows.
    Places(usize),
}

impl Transpose {
    fn apply(&self, values: &[f32], rows: usize, inverse: bool) -> Vec<f32> {
        let length = values.len().checked_div(rows).unwrap_or(0);
        let (Columns::Count(given) | Columns::Places(given)) = self.columns;
        let whole = matches!(self.columns, Columns::Count(_)) != inverse;
        let columns = if whole { given } else { length / given.max(1) };
        let transpose = |row: &[f32]| {
            let mut transposed = Vec::with_capacity(row.len());
            for column in 0..columns {
                transposed.extend(row.iter().skip(column).step_by(columns.max(1)));
            }
            transposed
        };
        values.chunks_exact(length.max(1)).flat_map(transpose).collect()
    }
}

impl CustomOp1 for Transpose {
    fn name(&self) -> &'static str {
        "channel-order"
    }

    fn cpu_fwd(&self, images: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, _) = layout.shape().dims2()?;
        let values = contiguous(images.as_slice::<f32>()?, layout)?;
        Ok((CpuStorage::F32(self.apply(values, rows, false)), layout.shape().clone()))
    }

    fn bwd(&self, images: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let rows = images.dim(0)?;
        let gradient = with_values(&gradient.contiguous()?, |gradient| self.apply(gradient, rows, true))?;
        Ok(Some(Tensor::from_vec(gradient, images.shape(), images.device())?))
    }
}

struct Means {
    channels: usize,
}

impl CustomOp1 for Means {
    fn name(&self) -> &'static str {
        "means"
    }

    fn cpu_fwd(&self, images: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, length), channels) = (layout.shape().dims2()?, self.channels.max(1));
        let values = contiguous(images.as_slice::<f32>()?, layout)?;
        let places = (length / channels).max(1) as f64;
        let mut means = Vec::with_capacity(rows * channels);
        for image in values.chunks_exact(length.max(1)) {
            let mut sums = vec![0.0f64; channels];
            for place in image.chunks_exact(channels) {
                sums.iter_mut().zip(place).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            means.extend(sums.iter().map(|sum| (sum / places) as f32));
        }
        Ok((CpuStorage::F32(means), (rows, channels).into()))
    }

    fn bwd(&self, images: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, length) = images.dims2()?;
        let places = (length / self.channels.max(1)).max(1);
        let gradient = with_values(&gradient.contiguous()?, |gradient| {
            let mut spread = Vec::with_capacity(images.elem_count());
            for row in gradient.chunks_exact(self.channels.max(1)) {
                let shares: Vec<f32> = row.iter().map(|value| value / places as f32).collect();
                (0..places).for_each(|_| spread.extend_from_slice(&shares));
            }
            spread
        })?;
        Ok(Some(Tensor::from_vec(gradient, images.shape(), images.device())?))
    }
}

struct AddRectified;

impl CustomOp2 for AddRectified {
    fn name(&self) -> &'static str {
        "add-rectified"
    }

    fn cpu_fwd(
        &self,
        left: &CpuStorage,
        left_layout: &Layout,
        right: &CpuStorage,
        right_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let left = contiguous(left.as_slice::<f32>()?, left_layout)?;
        let right = contiguous(right.as_slice::<f32>()?, right_layout)?;
        if left.len() != right.len() {
            candle_core::bail!("{:?} and {:?} cannot be added", left_layout.shape(), right_layout.shape());
        }
        let sums = left.iter().zip(right).map(|(left, right)| (left + right).max(0.0)).collect();
        Ok((CpuStorage::F32(sums), left_layout.shape().clone()))
    }

    fn bwd(
        &self,
        left: &Tensor,
        _right: &Tensor,
        sums: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = with_all_values([&gradient.contiguous()?, sums], |[gradient, sums]| {
            let passed = |(gradient, sum): (&f32, &f32)| if *sum > 0.0 { *gradient } else { 0.0 };
            gradient.iter().zip(sums).map(passed).collect::<Vec<f32>>()
        })?;
        let gradient = Tensor::from_vec(gradient, left.shape(), left.device())?;
        Ok((Some(gradient.clone()), Some(gradient)))
    }
}
