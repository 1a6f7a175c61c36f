//! Binary cross-entropy of logits, in a form that neither overflows nor loses small losses.

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor};

/// Sum of `-(y ln σ(x) + (1 - y) ln(1 - σ(x)))` over `logits` and `labels` of `[rows]`, divided by `examples`: the share of
/// these rows in the mean loss of a batch of so many.
pub(super) fn binary_cross_entropy(logits: &Tensor, labels: &Tensor, examples: usize) -> Result<Tensor> {
    logits.apply_op2(labels, BinaryCrossEntropy { share: 1.0 / examples.max(1) as f64 })
}

/// One operation instead of a graph of ten: the logarithm of the sigmoid overflows for logits beyond -88, and its gradient
/// is simply `σ(x) - y`.
struct BinaryCrossEntropy {
    share: f64,
}

impl CustomOp2 for BinaryCrossEntropy {
    fn name(&self) -> &'static str {
        "binary-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        labels: &CpuStorage,
        labels_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let logits = contiguous(logits.as_slice::<f32>()?, logits_layout)?;
        let labels = contiguous(labels.as_slice::<f32>()?, labels_layout)?;
        let sum: f64 = logits.iter().zip(labels).map(|(&logit, &label)| example_loss(logit.into(), label.into())).sum();
        Ok((CpuStorage::F32(vec![(sum * self.share) as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        _loss: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let share = gradient.affine(self.share, 0.0)?;
        let difference = (candle_nn::ops::sigmoid(logits)? - labels)?;
        Ok((Some(difference.broadcast_mul(&share)?), None))
    }
}

/// `max(x, 0) - x y + ln(1 + e^-|x|)`, which equals the cross-entropy for every x.
pub(crate) fn example_loss(logit: f64, label: f64) -> f64 {
    logit.max(0.0) - logit * label + (-logit.abs()).exp().ln_1p()
}

/// The values of a tensor that lie one after the other.
pub(super) fn contiguous<'a>(values: &'a [f32], layout: &Layout) -> Result<&'a [f32]> {
    let range = layout.contiguous_offsets().and_then(|(start, end)| values.get(start..end));
    range.ok_or_else(|| Error::RequiresContiguous { op: "training" }.bt())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn loss_and_gradient_are_those_of_the_formula() {
        let logits = [-3.0f32, -0.5, 0.0, 2.0];
        let labels = [0.0f32, 1.0, 1.0, 0.0];
        let variable = Var::new(&logits, &Device::Cpu).unwrap();
        let targets = Tensor::new(&labels, &Device::Cpu).unwrap();
        let loss = binary_cross_entropy(&variable, &targets, 4).unwrap();
        let gradients = loss.backward().unwrap();
        let found = gradients.get(&variable).unwrap().to_vec1::<f32>().unwrap();

        let sigmoid = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
        let expected: f64 = logits
            .iter()
            .zip(labels)
            .map(|(&x, y)| if y == 1.0 { -sigmoid(x).ln() } else { -(1.0 - sigmoid(x)).ln() })
            .sum::<f64>()
            / 4.0;
        assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - expected).abs() < 1e-6);
        for ((&x, y), gradient) in logits.iter().zip(labels).zip(found) {
            assert!((f64::from(gradient) - (sigmoid(x) - f64::from(y)) / 4.0).abs() < 1e-7);
        }
    }

    #[test]
    fn extreme_logits_have_finite_losses() {
        assert_eq!(example_loss(1000.0, 1.0), 0.0);
        assert_eq!(example_loss(1000.0, 0.0), 1000.0);
        assert_eq!(example_loss(-1000.0, 1.0), 1000.0);
        assert!(example_loss(-40.0, 0.0) > 0.0, "a small loss is not rounded to zero");
    }
}
