//! From a plan to the settings of local training.

use fedledger_federation::{
    decimal::Decimal,
    member::MemberId,
    plan::{self, Plan},
};

use super::{core::TrainingMethod, external::ExternalSettings};
use crate::training::{ComputeDevice, Optimizer, SettingsError, TrainingSettings};

impl TrainingMethod {
    /// How `member` trains in `round` of a plan, and with which trainer.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] for a plan beyond what this software trains.
    pub fn from_plan(plan: &Plan, round: u64, member: &MemberId) -> Result<Self, SettingsError> {
        match ExternalSettings::from_plan(plan, member) {
            Some(settings) => Ok(Self::External(settings)),
            None => TrainingSettings::from_plan(plan, round, member).map(Self::BuiltIn),
        }
    }

    /// The same, with the gradients of built-in training computed on `device`. What an external trainer computes on is for
    /// itself to choose.
    #[must_use]
    pub fn on(self, device: ComputeDevice) -> Self {
        match self {
            Self::BuiltIn(settings) => Self::BuiltIn(TrainingSettings { device, ..settings }),
            Self::External(settings) => Self::External(settings),
        }
    }
}

impl TrainingSettings {
    /// How `member` trains in `round` of a plan, on the processor. They depend on nothing else, so every attempt gives the same
    /// update.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] for a plan beyond what this software trains.
    pub fn from_plan(plan: &Plan, round: u64, member: &str) -> Result<Self, SettingsError> {
        let training = plan.training.as_ref().ok_or(SettingsError::External)?;
        let settings = Self {
            architecture: plan.architecture.clone(),
            optimizer: optimizer(&training.optimizer),
            steps: training.steps,
            batch_size: training.batch_size,
            seed: plan.seed,
            round,
            member: member.to_owned(),
            device: ComputeDevice::default(),
        };
        settings.validate()?;
        Ok(settings)
    }
}

fn optimizer(optimizer: &plan::Optimizer) -> Optimizer {
    let or_zero = |decimal: &Option<Decimal>| decimal.as_ref().map_or(0.0, value);
    match optimizer {
        plan::Optimizer::Sgd { learning_rate, momentum, weight_decay } => Optimizer::Sgd {
            learning_rate: value(learning_rate),
            momentum: or_zero(momentum),
            weight_decay: or_zero(weight_decay),
        },
        plan::Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => Optimizer::Adam {
            learning_rate: value(learning_rate),
            beta1: value(beta1),
            beta2: value(beta2),
            epsilon: value(epsilon),
        },
        plan::Optimizer::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } => Optimizer::AdamW {
            learning_rate: value(learning_rate),
            beta1: value(beta1),
            beta2: value(beta2),
            epsilon: value(epsilon),
            weight_decay: value(weight_decay),
        },
    }
}

/// The nearest float; a decimal is always a number, and validation would refuse the NaN.
fn value(decimal: &Decimal) -> f64 {
    decimal.as_str().parse().unwrap_or(f64::NAN)
}
