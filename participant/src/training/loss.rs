//! Cross-entropy of logits, in a form that neither overflows nor loses small losses.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::parameter::{contiguous, with_all_values};

/// Sum of the losses over `logits` of `[rows, outputs]` and `labels` of `[rows]`, divided by `examples`: the share of these
/// rows in the mean loss of a batch of so many. Of one output the loss is the binary cross-entropy
/// `-(y ln σ(x) + (1 - y) ln(1 - σ(x)))`, of several the cross-entropy of their softmax.
pub(super) fn cross_entropy(logits: &Tensor, labels: &Tensor, examples: usize) -> Result<Tensor> {
    logits.apply_op2(labels, CrossEntropy { share: 1.0 / examples.max(1) as f64 })
}

/// One operation instead of a graph of ten, in double precision; its gradient is the probability, less one for the class
/// that is right.
struct CrossEntropy {
    share: f64,
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        labels: &CpuStorage,
        labels_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, outputs) = logits_layout.shape().dims2()?;
        let logits = contiguous(logits.as_slice::<f32>()?, logits_layout)?;
        let labels = contiguous(labels.as_slice::<f32>()?, labels_layout)?;
        let rows = logits.chunks_exact(outputs.max(1)).zip(labels);
        let sum: f64 = rows.map(|(logits, &label)| example_loss(logits, label)).sum();
        Ok((CpuStorage::F32(vec![(sum * self.share) as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        _loss: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let share = f64::from(gradient.to_scalar::<f32>()?) * self.share;
        let (rows, outputs) = logits.dims2()?;
        let mut gradient = Vec::with_capacity(rows * outputs);
        with_all_values([logits, labels], |[logits, labels]| {
            for (logits, &label) in logits.chunks_exact(outputs.max(1)).zip(labels) {
                push_gradient(&mut gradient, logits, label, share);
            }
        })?;
        Ok((Some(Tensor::from_vec(gradient, (rows, outputs), logits.device())?), None))
    }
}

/// The loss of one example: of one logit the [binary](binary_loss) cross-entropy, and of several the logarithm of the sum of
/// their exponentials, less the logit of the label.
pub(crate) fn example_loss(logits: &[f32], label: f32) -> f64 {
    if let [logit] = logits {
        return binary_loss(f64::from(*logit), f64::from(label));
    }
    let (largest, sum) = exponentials(logits);
    let right = logits.get(label as usize).copied().map_or(f64::NAN, f64::from);
    largest - right + sum.ln()
}

/// `max(x, 0) - x y + ln(1 + e^-|x|)`, which equals the binary cross-entropy for every logit x.
pub(crate) fn binary_loss(logit: f64, label: f64) -> f64 {
    logit.max(0.0) - logit * label + (-logit.abs()).exp().ln_1p()
}

fn push_gradient(gradient: &mut Vec<f32>, logits: &[f32], label: f32, share: f64) {
    if let [logit] = logits {
        let probability = 1.0 / (1.0 + (-f64::from(*logit)).exp());
        gradient.push(((probability - f64::from(label)) * share) as f32);
        return;
    }
    let (largest, sum) = exponentials(logits);
    gradient.extend(logits.iter().enumerate().map(|(class, &logit)| {
        let probability = (f64::from(logit) - largest).exp() / sum;
        let right = if class == label as usize { 1.0 } else { 0.0 };
        ((probability - right) * share) as f32
    }));
}

/// The largest logit, and the sum of the exponentials of the logits less that one.
fn exponentials(logits: &[f32]) -> (f64, f64) {
    let largest = logits.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max);
    (largest, logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn loss_and_gradient_of_two_classes_are_those_of_the_formula() {
        let logits = [-3.0f32, -0.5, 0.0, 2.0];
        let labels = [0.0f32, 1.0, 1.0, 0.0];
        let variable = Var::from_slice(&logits, (4, 1), &Device::Cpu).unwrap();
        let targets = Tensor::new(&labels, &Device::Cpu).unwrap();
        let loss = cross_entropy(&variable, &targets, 4).unwrap();
        let gradients = loss.backward().unwrap();
        let found = gradients.get(&variable).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();

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
    fn loss_and_gradient_of_several_classes_are_those_of_the_formula() {
        let logits = [[1.0f32, -2.0, 0.5], [0.0, 3.0, 0.25]];
        let variable = Var::new(&logits, &Device::Cpu).unwrap();
        let targets = Tensor::new(&[2.0f32, 1.0], &Device::Cpu).unwrap();
        let loss = cross_entropy(&variable, &targets, 2).unwrap();
        let gradients = loss.backward().unwrap();
        let found = gradients.get(&variable).unwrap().to_vec2::<f32>().unwrap();
        let mut expected_loss = 0.0;
        for ((logits, found), label) in logits.iter().zip(found).zip([2, 1]) {
            let exponentials = logits.map(|logit| f64::from(logit).exp());
            let sum: f64 = exponentials.iter().sum();
            expected_loss -= (exponentials[label] / sum).ln() / 2.0;
            for (class, found) in found.into_iter().enumerate() {
                let right = if class == label { 1.0 } else { 0.0 };
                assert!((f64::from(found) - (exponentials[class] / sum - right) / 2.0).abs() < 1e-7);
            }
        }
        assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - expected_loss).abs() < 1e-6);
    }

    #[test]
    fn extreme_logits_have_finite_losses() {
        assert_eq!(example_loss(&[1000.0], 1.0), 0.0);
        assert_eq!(example_loss(&[1000.0], 0.0), 1000.0);
        assert_eq!(example_loss(&[-1000.0], 1.0), 1000.0);
        assert!(example_loss(&[-40.0], 0.0) > 0.0, "a small loss is not rounded to zero");
        assert_eq!(example_loss(&[1000.0, -1000.0, 0.0], 1.0), 2000.0);
        assert_eq!(example_loss(&[1000.0, -1000.0, 0.0], 0.0), 0.0);
    }

    #[test]
    fn a_label_that_is_no_class_has_no_loss() {
        assert!(example_loss(&[1.0, 2.0], 2.0).is_nan());
    }
}
