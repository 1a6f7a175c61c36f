//! Optimiser steps, in place and in the order of operations of PyTorch's SGD and Adam.
//!
//! candle-nn has both, but allocates eight tensors per parameter and step, and its Adam divides in another order. For the
//! small models of a federation that overhead is most of the time of a step.

use candle_core::{CpuStorage, Error, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, backprop::GradStore};

use super::{loss::contiguous, network::Network, settings::Optimizer};

/// Gradients of the parameters, in the order of their names, summed over the parts of a batch.
#[derive(Default)]
pub(super) struct Gradients(Vec<Tensor>);

impl Gradients {
    /// Adds the gradients of one part.
    pub(super) fn add(&mut self, network: &Network, part: &GradStore) -> Result<()> {
        let part = network.variables().map(|variable| match part.get(variable) {
            Some(gradient) => gradient.contiguous(),
            None => variable.zeros_like(),
        });
        if self.0.is_empty() {
            self.0 = part.collect::<Result<_>>()?;
            return Ok(());
        }
        self.0.iter_mut().zip(part).try_for_each(|(sum, part)| {
            *sum = (&*sum + part?)?;
            Ok(())
        })
    }
}

/// An optimiser with what it remembers from step to step.
pub(super) enum OptimizerState {
    Sgd { learning_rate: f64 },
    Adam(Adam),
}

/// Adam's hyperparameters, moments and the powers of its decays (for the bias correction).
pub(super) struct Adam {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    beta1_power: f64,
    beta2_power: f64,
    moments: Vec<Moments>,
}

struct Moments {
    first: Var,
    second: Var,
}

impl OptimizerState {
    /// An optimiser that has not done any step.
    pub(super) fn new(optimizer: &Optimizer, network: &Network) -> Result<Self> {
        match *optimizer {
            Optimizer::Sgd { learning_rate } => Ok(Self::Sgd { learning_rate }),
            Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => {
                let zeros = |variable: &Var| Var::zeros(variable.shape(), variable.dtype(), variable.device());
                let moments = network
                    .variables()
                    .map(|variable| Ok(Moments { first: zeros(variable)?, second: zeros(variable)? }))
                    .collect::<Result<_>>()?;
                let (beta1_power, beta2_power) = (1.0, 1.0);
                Ok(Self::Adam(Adam { learning_rate, beta1, beta2, epsilon, beta1_power, beta2_power, moments }))
            }
        }
    }

    /// Moves every parameter of `network` against its gradient.
    pub(super) fn step(&mut self, network: &Network, gradients: &Gradients) -> Result<()> {
        if let Self::Adam(adam) = self {
            adam.count_step();
        }
        for (index, (variable, gradient)) in network.variables().zip(&gradients.0).enumerate() {
            match self {
                Self::Sgd { learning_rate } => {
                    variable.inplace_op2(gradient, &Descend { learning_rate: *learning_rate as f32 })?;
                }
                Self::Adam(adam) => adam.update(index, variable, gradient)?,
            }
        }
        Ok(())
    }

    /// Makes the step counter that of an optimiser that has done `steps` steps.
    pub(super) fn skip(&mut self, steps: u64) {
        if let Self::Adam(adam) = self {
            // Repeated, not `powi`: the powers must have the very bits that the interrupted run had.
            (0..steps).for_each(|_| adam.count_step());
        }
    }

    /// The moments, first and second of each parameter in turn; none for SGD.
    pub(super) fn moments(&self) -> impl Iterator<Item = &Var> {
        let moments = match self {
            Self::Sgd { .. } => &[],
            Self::Adam(adam) => adam.moments.as_slice(),
        };
        moments.iter().flat_map(|moments| [&moments.first, &moments.second])
    }
}

impl Adam {
    fn count_step(&mut self) {
        self.beta1_power *= self.beta1;
        self.beta2_power *= self.beta2;
    }

    fn update(&self, index: usize, variable: &Var, gradient: &Tensor) -> Result<()> {
        let Some(Moments { first, second }) = self.moments.get(index) else {
            candle_core::bail!("parameter {index} has no moments");
        };
        first.inplace_op2(gradient, &Average { decay: self.beta1 as f32, weight: (1.0 - self.beta1) as f32 })?;
        let (decay, weight) = (self.beta2 as f32, (1.0 - self.beta2) as f32);
        second.inplace_op2(gradient, &AverageSquare { decay, weight })?;
        let step = AdamStep {
            step_size: (self.learning_rate / (1.0 - self.beta1_power)) as f32,
            correction: (1.0 - self.beta2_power).sqrt() as f32,
            epsilon: self.epsilon as f32,
        };
        variable.inplace_op3(first, second, &step)
    }
}

/// `w -= learning rate * g`.
struct Descend {
    learning_rate: f32,
}

/// `m = decay * m + weight * g`.
struct Average {
    decay: f32,
    weight: f32,
}

/// `v = decay * v + weight * g * g`.
struct AverageSquare {
    decay: f32,
    weight: f32,
}

/// `w -= step size * m / (sqrt(v) / correction + epsilon)`.
struct AdamStep {
    step_size: f32,
    correction: f32,
    epsilon: f32,
}

impl InplaceOp2 for Descend {
    fn name(&self) -> &'static str {
        "sgd-step"
    }

    fn cpu_fwd(&self, weight: &mut CpuStorage, own: &Layout, gradient: &CpuStorage, other: &Layout) -> Result<()> {
        let learning_rate = self.learning_rate;
        zip(weight, own, gradient, other, |weight, gradient| *weight -= learning_rate * gradient)
    }
}

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "first-moment"
    }

    fn cpu_fwd(&self, moment: &mut CpuStorage, own: &Layout, gradient: &CpuStorage, other: &Layout) -> Result<()> {
        let Self { decay, weight } = *self;
        zip(moment, own, gradient, other, |moment, gradient| *moment = decay * *moment + weight * gradient)
    }
}

impl InplaceOp2 for AverageSquare {
    fn name(&self) -> &'static str {
        "second-moment"
    }

    fn cpu_fwd(&self, moment: &mut CpuStorage, own: &Layout, gradient: &CpuStorage, other: &Layout) -> Result<()> {
        let Self { decay, weight } = *self;
        zip(moment, own, gradient, other, |moment, gradient| {
            *moment = decay * *moment + weight * gradient * gradient;
        })
    }
}

impl InplaceOp3 for AdamStep {
    fn name(&self) -> &'static str {
        "adam-step"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        own: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let Self { step_size, correction, epsilon } = *self;
        let first = contiguous(first.as_slice::<f32>()?, first_layout)?;
        let second = contiguous(second.as_slice::<f32>()?, second_layout)?;
        for ((weight, first), second) in contiguous_mut(weight, own)?.iter_mut().zip(first).zip(second) {
            *weight -= step_size * (first / (second.sqrt() / correction + epsilon));
        }
        Ok(())
    }
}

/// Applies `update` to each value of `target` and its counterpart.
fn zip(
    target: &mut CpuStorage,
    target_layout: &Layout,
    source: &CpuStorage,
    source_layout: &Layout,
    update: impl Fn(&mut f32, f32),
) -> Result<()> {
    let source = contiguous(source.as_slice::<f32>()?, source_layout)?;
    for (target, &source) in contiguous_mut(target, target_layout)?.iter_mut().zip(source) {
        update(target, source);
    }
    Ok(())
}

fn contiguous_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(values) = storage else {
        candle_core::bail!("parameters are 32-bit floats");
    };
    let range = layout.contiguous_offsets().and_then(|(start, end)| values.get_mut(start..end));
    range.ok_or_else(|| Error::RequiresContiguous { op: "optimizer" }.bt())
}
