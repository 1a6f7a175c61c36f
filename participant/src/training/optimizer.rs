//! Optimiser steps, in place and in the order of operations of PyTorch's SGD, Adam and AdamW.
//!
//! candle-nn has some of them, but allocates eight tensors per parameter and step, and its Adam divides in another order.
//! For the small models of a federation that overhead is most of the time of a step.

use std::cell::RefCell;

use candle_core::{CpuStorage, Error, InplaceOp1, Layout, Result};
use pulp::{Simd, WithSimd};

use super::{network::Network, parameter::Parameter, settings::Optimizer, vector::vectorized};

/// An optimiser with what it remembers from step to step.
pub(super) struct OptimizerState {
    optimizer: Optimizer,
    /// Adam's decays to the power of the steps done, for the bias correction.
    powers: [f64; 2],
    /// Of each parameter in the order of their names.
    moments: Vec<Moments>,
}

/// What is remembered of one parameter: the mean gradient or the last step, and the mean squared gradient; empty where the
/// optimiser has no use for it.
#[derive(Default)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl OptimizerState {
    /// An optimiser that has not done any step.
    pub(super) fn new(optimizer: &Optimizer, network: &Network) -> Self {
        let zeros = |parameter: &Parameter| vec![0.0; parameter.count()];
        let moments = network.parameters().iter().map(|parameter| match optimizer {
            Optimizer::Sgd { momentum, .. } if *momentum == 0.0 => Moments::default(),
            Optimizer::Sgd { .. } => Moments { first: zeros(parameter), second: Vec::new() },
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => {
                Moments { first: zeros(parameter), second: zeros(parameter) }
            }
        });
        Self { optimizer: *optimizer, powers: [1.0; 2], moments: moments.collect() }
    }

    /// Moves every parameter of `network` against the sum of its gradients, and begins the sum anew.
    pub(super) fn step(&mut self, network: &Network) -> Result<()> {
        self.count_step();
        let rule = self.rule();
        for (parameter, moments) in network.parameters().iter().zip(&mut self.moments) {
            let gradient = parameter.gradient();
            let mut gradient = gradient.sums(parameter.count());
            let operation = StepOperation { rule, gradient: &gradient, moments: RefCell::new(moments) };
            parameter.tensor().inplace_op1(&operation)?;
            gradient.fill(0.0);
        }
        Ok(())
    }

    /// Makes the step counter that of an optimiser that has done `steps` steps.
    pub(super) fn skip(&mut self, steps: u64) {
        // Repeated, not `powi`: the powers must have the very bits that the interrupted run had.
        (0..steps).for_each(|_| self.count_step());
    }

    /// All that is remembered, parameter by parameter.
    pub(super) fn moments(&self) -> impl Iterator<Item = &[f32]> {
        self.moments.iter().flat_map(|moments| [moments.first.as_slice(), moments.second.as_slice()])
    }

    /// The same, to be restored.
    pub(super) fn moments_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.moments.iter_mut().flat_map(|moments| [moments.first.as_mut_slice(), moments.second.as_mut_slice()])
    }

    fn count_step(&mut self) {
        if let Optimizer::Adam { beta1, beta2, .. } | Optimizer::AdamW { beta1, beta2, .. } = self.optimizer {
            self.powers = [self.powers[0] * beta1, self.powers[1] * beta2];
        }
    }

    /// What is done to every value in the present step.
    fn rule(&self) -> Rule {
        let [power1, power2] = self.powers;
        let adam = |learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64| {
            Rule::Adam(AdamRule {
                kept: (1.0 - learning_rate * weight_decay) as f32,
                first: [beta1 as f32, (1.0 - beta1) as f32],
                second: [beta2 as f32, (1.0 - beta2) as f32],
                step_size: (learning_rate / (1.0 - power1)) as f32,
                correction: (1.0 - power2).sqrt() as f32,
                epsilon: epsilon as f32,
            })
        };
        match self.optimizer {
            Optimizer::Sgd { learning_rate, momentum, weight_decay } => Rule::Sgd(SgdRule {
                learning_rate: learning_rate as f32,
                momentum: momentum as f32,
                weight_decay: weight_decay as f32,
            }),
            Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => adam(learning_rate, beta1, beta2, epsilon, 0.0),
            Optimizer::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } => {
                adam(learning_rate, beta1, beta2, epsilon, weight_decay)
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Rule {
    Sgd(SgdRule),
    Adam(AdamRule),
}

/// `g += weight decay * w; b = momentum * b + g; w -= learning rate * b`.
#[derive(Clone, Copy)]
struct SgdRule {
    learning_rate: f32,
    momentum: f32,
    weight_decay: f32,
}

/// `w *= kept; m = β₁ m + (1 - β₁) g; v = β₂ v + (1 - β₂) g²; w -= step size * m / (√v / correction + epsilon)`.
#[derive(Clone, Copy)]
struct AdamRule {
    /// One less learning rate times weight decay.
    kept: f32,
    /// Decay and weight of the mean gradient.
    first: [f32; 2],
    /// Decay and weight of the mean squared gradient.
    second: [f32; 2],
    step_size: f32,
    correction: f32,
    epsilon: f32,
}

/// The step of one parameter.
struct StepOperation<'a> {
    rule: Rule,
    gradient: &'a [f32],
    moments: RefCell<&'a mut Moments>,
}

impl InplaceOp1 for StepOperation<'_> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = storage else { candle_core::bail!("parameters are 32-bit floats") };
        let range = layout.contiguous_offsets().and_then(|(start, end)| values.get_mut(start..end));
        let weights = range.ok_or_else(|| Error::RequiresContiguous { op: "optimizer" }.bt())?;
        let mut moments = self.moments.borrow_mut();
        let Moments { first, second } = &mut **moments;
        vectorized(Step { rule: self.rule, weights, gradient: self.gradient, first, second });
        Ok(())
    }
}

struct Step<'a> {
    rule: Rule,
    weights: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { rule, weights, gradient, first, second } = self;
        let values = weights.iter_mut().zip(gradient);
        match rule {
            Rule::Sgd(SgdRule { learning_rate, weight_decay, .. }) if first.is_empty() => {
                for (weight, gradient) in values {
                    *weight -= learning_rate * (gradient + weight_decay * *weight);
                }
            }
            Rule::Sgd(SgdRule { learning_rate, momentum, weight_decay }) => {
                for ((weight, gradient), last) in values.zip(first) {
                    *last = momentum * *last + (gradient + weight_decay * *weight);
                    *weight -= learning_rate * *last;
                }
            }
            Rule::Adam(AdamRule { kept, first: decay1, second: decay2, step_size, correction, epsilon }) => {
                for (((weight, gradient), first), second) in values.zip(first).zip(second) {
                    *first = decay1[0] * *first + decay1[1] * gradient;
                    *second = decay2[0] * *second + decay2[1] * gradient * gradient;
                    *weight = *weight * kept - step_size * (*first / (second.sqrt() / correction + epsilon));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fedledger_federation::architecture::Architecture;

    use super::*;

    #[test]
    fn three_steps_are_those_of_pytorch() {
        // Bias 0.5 and weight (1, -2) after these gradients, by `torch.optim` of PyTorch 1.13 in double precision.
        let gradients = [[0.1, 0.3, -0.2], [-0.4, 0.05, 0.6], [0.2, 0.0, 1.0]];
        let momentum = Optimizer::Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let cases = [
            (momentum, [0.526_095_4, 0.903_713_8, -2.148_605_6]),
            (Optimizer::adam(0.1), [0.466_967_7, 0.761_115_8, -2.023_828_4]),
            (Optimizer::adamw(0.1, 0.01), [0.465_613_2, 0.758_397_1, -2.017_984_8]),
        ];
        for (optimizer, expected) in cases {
            let bias = Parameter::new(vec![0.5], &[1]).unwrap();
            let weight = Parameter::new(vec![1.0, -2.0], &[1, 2]).unwrap();
            let network = Network::of_parameters(&Architecture::logistic_regression(2), vec![bias, weight]).unwrap();
            let mut state = OptimizerState::new(&optimizer, &network);
            for [bias, weight @ ..] in gradients {
                network.parameters()[0].gradient().sums(1)[0] += bias;
                network.parameters()[1].gradient().sums(2).copy_from_slice(&weight);
                state.step(&network).unwrap();
            }
            let found =
                network.parameters().iter().flat_map(|parameter| parameter.with_values(<[f32]>::to_vec).unwrap());
            for (found, expected) in found.zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{optimizer:?}: {found} is not {expected}");
            }
        }
    }
}
