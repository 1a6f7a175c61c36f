//! Linear layers, with or without rectified linear units behind them, as one operation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{
    parameter::{Gradient, Parameter, contiguous, with_all_values, with_values},
    vector::{Matrix, add_dot_products, add_product},
};

/// A layer's parameters.
pub(super) struct Linear {
    /// `[outputs, inputs]`.
    pub(super) weight: Parameter,
    /// `[outputs]`.
    pub(super) bias: Parameter,
}

/// What comes behind a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    /// `max(x, 0)`, with a gradient of 0 at 0.
    Rectified,
}

impl Linear {
    /// `inputs · weightᵀ + bias`, that is `[rows, outputs]` from `[rows, inputs]`.
    pub(super) fn forward(&self, inputs: &Tensor, activation: Activation) -> Result<Tensor> {
        let operation = LinearOperation { activation, weight: self.weight.gradient(), bias: self.bias.gradient() };
        inputs.apply_op3(self.weight.tensor(), self.bias.tensor(), operation)
    }
}

/// The layer and where its gradients are added.
struct LinearOperation {
    activation: Activation,
    weight: Gradient,
    bias: Gradient,
}

impl CustomOp3 for LinearOperation {
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
        let mut outputs = contiguous(bias.as_slice::<f32>()?, bias_layout)?.repeat(rows);
        if output_count == 1 {
            add_dot_products(&mut outputs, inputs, weight);
        } else {
            let right = Matrix::new(weight, input_count).transposed();
            add_product(&mut outputs, Matrix::new(inputs, input_count), right);
        }
        if self.activation == Activation::Rectified {
            outputs.iter_mut().for_each(|value| *value = value.max(0.0));
        }
        Ok((CpuStorage::F32(outputs), (rows, output_count).into()))
    }

    fn bwd(
        &self,
        inputs: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        outputs: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, output_count) = outputs.dims2()?;
        let input_count = inputs.dim(1)?;
        let gradient = gradient.contiguous()?;
        let gradient = match self.activation {
            Activation::None => with_values(&gradient, <[f32]>::to_vec)?,
            Activation::Rectified => with_all_values([&gradient, outputs], |[gradient, outputs]| {
                let passed = |(gradient, output): (&f32, &f32)| if *output > 0.0 { *gradient } else { 0.0 };
                gradient.iter().zip(outputs).map(passed).collect()
            })?,
        };
        let by_row = Matrix::new(&gradient, output_count);
        with_values(inputs, |inputs| {
            let mut sums = self.weight.sums(weight.elem_count());
            add_product(&mut sums, by_row.transposed(), Matrix::new(inputs, input_count));
        })?;
        let mut sums = self.bias.sums(output_count);
        for row in gradient.chunks_exact(output_count.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        // Records have no gradient.
        if !inputs.track_op() {
            return Ok((None, None, None));
        }
        let mut of_inputs = vec![0.0; rows * input_count];
        with_values(weight, |weight| add_product(&mut of_inputs, by_row, Matrix::new(weight, input_count)))?;
        Ok((Some(Tensor::from_vec(of_inputs, (rows, input_count), inputs.device())?), None, None))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + count) % 19) as f32 / 9.0 - 1.0).collect()
    }

    fn close(left: &[f32], right: &Tensor) -> bool {
        let right = right.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let scale = right.iter().fold(1.0f32, |most, value| most.max(value.abs()));
        left.len() == right.len() && left.iter().zip(right).all(|(l, r)| (l - r).abs() < 1e-5 * scale)
    }

    #[test]
    fn values_and_gradients_are_those_of_the_numeric_library() {
        for (rows, inputs, outputs) in [(4, 13, 1), (1, 1, 1), (5, 20, 1), (7, 13, 32), (3, 40, 2), (6, 600, 30)] {
            for activation in [Activation::None, Activation::Rectified] {
                let input = Var::from_vec(values(rows * inputs), (rows, inputs), &Device::Cpu).unwrap();
                let (wide, narrow) = (outputs as u64, inputs as u64);
                let layer = Linear {
                    weight: Parameter::new(values(outputs * inputs), &[wide, narrow]).unwrap(),
                    bias: Parameter::new(vec![0.25; outputs], &[wide]).unwrap(),
                };
                let own = layer.forward(&input, activation).unwrap();
                let own_input = own.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&input).unwrap().clone();

                let (weight, bias) = (layer.weight.tensor(), layer.bias.tensor());
                let plain = input.matmul(&weight.t().unwrap()).unwrap().broadcast_add(bias).unwrap();
                let plain = if activation == Activation::Rectified { plain.relu().unwrap() } else { plain };
                let gradients = plain.sqr().unwrap().sum_all().unwrap().backward().unwrap();

                let case = format!("{rows} x {inputs} x {outputs}, {activation:?}");
                let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(close(&flat(&own), &plain), "values of {case}");
                assert!(close(&flat(&own_input), gradients.get(&input).unwrap()), "inputs of {case}");
                for parameter in [&layer.weight, &layer.bias] {
                    let sums = parameter.gradient().sums(parameter.count()).clone();
                    assert!(close(&sums, gradients.get(parameter.tensor()).unwrap()), "parameters of {case}");
                }
            }
        }
    }

    #[test]
    fn matrices_that_do_not_fit_are_an_error() {
        let layer = Linear {
            weight: Parameter::new(values(10), &[2, 5]).unwrap(),
            bias: Parameter::new(values(2), &[2]).unwrap(),
        };
        let input = Tensor::from_vec(values(12), (3, 4), &Device::Cpu).unwrap();
        assert!(layer.forward(&input, Activation::None).is_err());
    }
}
