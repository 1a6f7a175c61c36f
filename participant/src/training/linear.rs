//! Linear layers: plain loops for small ones, the matrix library for large ones.
//!
//! The library asks the operating system for the number of processors at every product, which takes longer than a whole step
//! of a small model; the answer could be given only in the environment, before the process starts. Plain loops over
//! contiguous rows need no answer, allocate once and are vectorised by the compiler. Which of the two is used depends on the
//! shapes alone, and both give the same bytes for any number of threads.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::loss::contiguous;

/// Largest number of multiplications that is done in plain loops. Above it, the library's better use of the processor
/// outweighs what it spends before it begins.
const PLAIN_PRODUCTS_MAX: usize = 1 << 22;

/// `inputs · weightᵀ + bias`, that is `[rows, outputs]` from `[rows, inputs]`, `[outputs, inputs]` and `[outputs]`.
pub(super) fn linear(inputs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (rows, _) = inputs.dims2()?;
    if rows.saturating_mul(weight.elem_count()) <= PLAIN_PRODUCTS_MAX {
        plain(inputs, weight, bias)
    } else {
        library(inputs, weight, bias)
    }
}

fn plain(inputs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    inputs.contiguous()?.apply_op3(weight, bias, Linear)
}

fn library(inputs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    inputs.matmul(&weight.t()?)?.broadcast_add(bias)
}

/// The layer and its gradients.
struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        inputs: &CpuStorage,
        inputs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, input_count), (output_count, weight_columns)) =
            (inputs_layout.shape().dims2()?, weight_layout.shape().dims2()?);
        if input_count != weight_columns || bias_layout.shape().dims1()? != output_count {
            candle_core::bail!("a layer of {input_count} inputs cannot use weights {:?}", weight_layout.shape());
        }
        let inputs = contiguous(inputs.as_slice::<f32>()?, inputs_layout)?;
        let weight = contiguous(weight.as_slice::<f32>()?, weight_layout)?;
        let bias = contiguous(bias.as_slice::<f32>()?, bias_layout)?;
        let outputs = bias.repeat(rows);
        let outputs = if output_count == 1 {
            dot_products(outputs, inputs, weight)
        } else {
            multiply(outputs, output_count, Left::rows(inputs, input_count), &transposed(weight, input_count))
        };
        Ok((CpuStorage::F32(outputs), (rows, output_count).into()))
    }

    fn bwd(
        &self,
        inputs: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _outputs: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        // Records have no gradient.
        let of_inputs = match inputs.track_op() {
            true => Some(gradient.apply_op2_no_bwd(weight, &Product { transpose_left: false })?),
            false => None,
        };
        let of_weight = gradient.apply_op2_no_bwd(inputs, &Product { transpose_left: true })?;
        Ok((of_inputs, Some(of_weight), Some(gradient.sum(0)?)))
    }
}

/// `left · right`, or `leftᵀ · right`.
struct Product {
    transpose_left: bool,
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear-gradient"
    }

    fn cpu_fwd(
        &self,
        left: &CpuStorage,
        left_layout: &Layout,
        right: &CpuStorage,
        right_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((left_rows, left_columns), (inner, columns)) =
            (left_layout.shape().dims2()?, right_layout.shape().dims2()?);
        let left = contiguous(left.as_slice::<f32>()?, left_layout)?;
        let right = contiguous(right.as_slice::<f32>()?, right_layout)?;
        let (rows, common, left) = if self.transpose_left {
            (left_columns, left_rows, Left::columns(left, left_columns))
        } else {
            (left_rows, left_columns, Left::rows(left, left_columns))
        };
        if common != inner {
            candle_core::bail!("{:?} and {:?} cannot be multiplied", left_layout.shape(), right_layout.shape());
        }
        let product = multiply(vec![0.0; rows * columns], columns, left, right);
        Ok((CpuStorage::F32(product), (rows, columns).into()))
    }
}

/// The left factor of a product, read row by row.
#[derive(Clone, Copy)]
struct Left<'a> {
    values: &'a [f32],
    row_stride: usize,
    stride: usize,
    inner: usize,
}

impl<'a> Left<'a> {
    /// A row-major matrix with rows of `columns` values.
    fn rows(values: &'a [f32], columns: usize) -> Self {
        Self { values, row_stride: columns, stride: 1, inner: columns }
    }

    /// The transpose of that.
    fn columns(values: &'a [f32], columns: usize) -> Self {
        Self { values, row_stride: 1, stride: columns.max(1), inner: values.len() / columns.max(1) }
    }

    fn row(self, row: usize) -> impl Iterator<Item = f32> {
        let from = self.values.get(row * self.row_stride..).unwrap_or_default();
        from.iter().step_by(self.stride).take(self.inner).copied()
    }
}

/// Adds `left · right` to `sums`; `right` and `sums` are row-major with `columns` values a row.
fn multiply(mut sums: Vec<f32>, columns: usize, left: Left<'_>, right: &[f32]) -> Vec<f32> {
    for (row, sums) in sums.chunks_exact_mut(columns.max(1)).enumerate() {
        for (factor, right) in left.row(row).zip(right.chunks_exact(columns.max(1))) {
            for (sum, value) in sums.iter_mut().zip(right) {
                *sum += factor * value;
            }
        }
    }
    sums
}

/// Adds to each sum the product of one row of `rows` with `vector`, in eight interleaved partial sums.
fn dot_products(mut sums: Vec<f32>, rows: &[f32], vector: &[f32]) -> Vec<f32> {
    const LANES: usize = 8;
    let (vector_lanes, vector_rest) = vector.as_chunks::<LANES>();
    for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(vector.len().max(1))) {
        let (row_lanes, row_rest) = row.as_chunks::<LANES>();
        let mut partial = [0.0; LANES];
        for (row, vector) in row_lanes.iter().zip(vector_lanes) {
            for ((partial, value), weight) in partial.iter_mut().zip(row).zip(vector) {
                *partial += value * weight;
            }
        }
        *sum += partial.iter().sum::<f32>();
        *sum += row_rest.iter().zip(vector_rest).map(|(value, weight)| value * weight).sum::<f32>();
    }
    sums
}

/// The transpose of a row-major matrix with rows of `columns` values.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn matrix(rows: usize, columns: usize) -> Var {
        let values = (0..rows * columns).map(|index| ((index * 37 + rows) % 19) as f32 / 9.0 - 1.0);
        Var::from_vec(values.collect(), (rows, columns), &Device::Cpu).unwrap()
    }

    fn close(left: &Tensor, right: &Tensor) -> bool {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        left.dims() == right.dims() && values(left).iter().zip(values(right)).all(|(l, r)| (l - r).abs() < 1e-4)
    }

    #[test]
    fn loops_and_library_agree_on_values_and_gradients() {
        for (rows, inputs, outputs) in [(4, 13, 1), (1, 1, 1), (5, 20, 1), (7, 13, 32), (3, 40, 2)] {
            let (input, weight) = (matrix(rows, inputs), matrix(outputs, inputs));
            let bias = Var::from_vec(vec![0.5f32; outputs], outputs, &Device::Cpu).unwrap();
            let results = [plain, library].map(|layer| {
                let output = layer(&input, &weight, &bias).unwrap();
                let gradients = output.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let gradients = [&input, &weight, &bias].map(|variable| gradients.get(variable).unwrap().clone());
                (output, gradients)
            });
            let [plain, library] = results;
            assert!(close(&plain.0, &library.0), "values of {rows} x {inputs} x {outputs}");
            for (plain, library) in plain.1.iter().zip(&library.1) {
                assert!(close(plain, library), "gradients of {rows} x {inputs} x {outputs}");
            }
        }
    }

    #[test]
    fn matrices_that_do_not_fit_are_an_error() {
        let bias = Var::from_vec(vec![0.0f32; 2], 2, &Device::Cpu).unwrap();
        assert!(plain(&matrix(3, 4), &matrix(2, 5), &bias).is_err());
        assert!(plain(&matrix(3, 4), &matrix(1, 4), &bias).is_err());
    }
}
