//! What a plan says about local training.

use fedledger_federation::architecture::Architecture;

use super::ComputeDevice;

/// Most optimiser steps of one round.
pub const STEPS_MAX: u64 = 1_000_000_000;

/// Most rows of a batch; with the width of the model it bounds the memory of a step.
pub const BATCH_SIZE_MAX: u32 = 1 << 20;

/// Everything that decides how one member trains in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSettings {
    /// The model.
    pub architecture: Architecture,
    /// How weights follow gradients. Its state begins anew in every round.
    pub optimizer: Optimizer,
    /// Optimiser steps of the round.
    pub steps: u64,
    /// Rows of a batch; the last batch of a pass through the rows may be smaller.
    pub batch_size: u32,
    /// The plan's seed.
    pub seed: u64,
    /// The round, from 1.
    pub round: u64,
    /// The member's id, as in the genesis file.
    pub member: String,
    /// What computes the gradients: the site's choice, not the plan's. It decides their last digits.
    pub device: ComputeDevice,
}

/// How weights follow gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Factor of the gradient.
        learning_rate: f64,
        /// Share of the previous step that is kept; 0 for none.
        momentum: f64,
        /// Share of the weight that is added to its gradient; 0 for none.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba, arXiv 1412.6980) with bias correction.
    Adam {
        /// Step size.
        learning_rate: f64,
        /// Decay of the mean gradient.
        beta1: f64,
        /// Decay of the mean squared gradient.
        beta2: f64,
        /// Added to the root of the mean squared gradient.
        epsilon: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).
    AdamW {
        /// Step size.
        learning_rate: f64,
        /// Decay of the mean gradient.
        beta1: f64,
        /// Decay of the mean squared gradient.
        beta2: f64,
        /// Added to the root of the mean squared gradient.
        epsilon: f64,
        /// Share of the weight, times the step size, that every step takes away.
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Stochastic gradient descent without momentum and weight decay.
    pub const fn sgd(learning_rate: f64) -> Self {
        Self::Sgd { learning_rate, momentum: 0.0, weight_decay: 0.0 }
    }

    /// Adam with the paper's decays and epsilon: 0.9, 0.999 and 1e-8.
    pub const fn adam(learning_rate: f64) -> Self {
        Self::Adam { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }

    /// AdamW with the same decays and epsilon.
    pub const fn adamw(learning_rate: f64, weight_decay: f64) -> Self {
        Self::AdamW { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay }
    }

    /// Every number of it by name, and whether it is in range.
    pub(super) fn hyperparameters(&self) -> Vec<(&'static str, f64, bool)> {
        let adam = |learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64| {
            vec![
                ("learning_rate", learning_rate, learning_rate > 0.0),
                ("beta1", beta1, (0.0..1.0).contains(&beta1)),
                ("beta2", beta2, (0.0..1.0).contains(&beta2)),
                ("epsilon", epsilon, epsilon > 0.0),
            ]
        };
        match *self {
            Self::Sgd { learning_rate, momentum, weight_decay } => vec![
                ("learning_rate", learning_rate, learning_rate > 0.0),
                ("momentum", momentum, (0.0..1.0).contains(&momentum)),
                ("weight_decay", weight_decay, weight_decay >= 0.0),
            ],
            Self::Adam { learning_rate, beta1, beta2, epsilon } => adam(learning_rate, beta1, beta2, epsilon),
            Self::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } => {
                let mut numbers = adam(learning_rate, beta1, beta2, epsilon);
                numbers.push(("weight_decay", weight_decay, weight_decay >= 0.0));
                numbers
            }
        }
    }
}

/// Settings out of bounds.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// No step, or more than [`STEPS_MAX`].
    #[error("{0} steps: use 1 to {STEPS_MAX}")]
    Steps(u64),
    /// An empty batch, or one of more than [`BATCH_SIZE_MAX`] rows.
    #[error("a batch of {0} rows: use 1 to {BATCH_SIZE_MAX}")]
    BatchSize(u32),
    /// Round 0, or one so far on that its first step cannot be counted.
    #[error("round {0} cannot be trained: rounds are counted from 1")]
    Round(u64),
    /// Another trainer is meant.
    #[error("the plan leaves the training to a program of the site")]
    External,
    /// The built-in trainer is meant.
    #[error("the plan leaves nothing to a program of the site")]
    BuiltIn,
    /// A number of the optimiser that makes no sense.
    #[error("{name} of {value} is out of range")]
    Hyperparameter {
        /// The hyperparameter.
        name: &'static str,
        /// What was given.
        value: f64,
    },
}

impl TrainingSettings {
    /// Checks every bound except the architecture's own.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the first bound that is broken.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if !(1..=STEPS_MAX).contains(&self.steps) {
            return Err(SettingsError::Steps(self.steps));
        }
        if !(1..=BATCH_SIZE_MAX).contains(&self.batch_size) {
            return Err(SettingsError::BatchSize(self.batch_size));
        }
        if self.round == 0 || self.round.checked_mul(self.steps).is_none() {
            return Err(SettingsError::Round(self.round));
        }
        let mut numbers = self.optimizer.hyperparameters().into_iter();
        match numbers.find(|(_, value, in_range)| !(value.is_finite() && *in_range)) {
            Some((name, value, _)) => Err(SettingsError::Hyperparameter { name, value }),
            None => Ok(()),
        }
    }

    /// Step of the plan at which this round begins, from 0. Only for validated settings.
    pub(super) fn first_step(&self) -> u64 {
        self.round.saturating_sub(1).saturating_mul(self.steps)
    }
}
