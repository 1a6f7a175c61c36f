//! Local checkpoints: a trainer's saved progress within one round.
//!
//! Numbers are kept as their bits, so that whatever format the caller stores a checkpoint in gives back the very same
//! numbers and the resumed run the very same update.

use fedledger_federation::{architecture::Architecture, tensors::Tensor};
use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

use super::settings::{Optimizer, TrainingSettings};
use crate::table::Dataset;

/// A trainer's saved progress. It resumes only the run that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalCheckpoint {
    /// Digest of settings, records and base weights.
    pub(super) identity: Digest,
    /// Steps done.
    pub(super) step: u64,
    /// Bits of the parameters, in the order of their names.
    parameters: Vec<Vec<u32>>,
    /// Bits of the optimiser's moments.
    moments: Vec<Vec<u32>>,
    first_loss: SavedSum,
    last_loss: SavedSum,
}

/// Bits of a sum of losses, and the examples in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSum {
    sum: u64,
    examples: u64,
}

/// Losses of the first and of the last pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LossSums {
    pub(super) first: LossSum,
    pub(super) last: LossSum,
}

/// A mean in the making.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LossSum {
    sum: f64,
    examples: u64,
}

impl LossSum {
    /// Adds a batch with this mean loss.
    pub(super) fn add(&mut self, mean: f64, examples: u64) {
        self.sum += mean * examples as f64;
        self.examples += examples;
    }

    /// Mean per example; 0 if there is none.
    pub(super) fn mean(self) -> f64 {
        if self.examples == 0 { 0.0 } else { self.sum / self.examples as f64 }
    }

    fn save(self) -> SavedSum {
        SavedSum { sum: self.sum.to_bits(), examples: self.examples }
    }

    fn restore(saved: SavedSum) -> Self {
        Self { sum: f64::from_bits(saved.sum), examples: saved.examples }
    }
}

impl LocalCheckpoint {
    pub(super) fn new(
        identity: Digest,
        step: u64,
        parameters: &[Vec<f32>],
        moments: &[Vec<f32>],
        losses: &LossSums,
    ) -> Self {
        Self {
            identity,
            step,
            parameters: bits(parameters),
            moments: bits(moments),
            first_loss: losses.first.save(),
            last_loss: losses.last.save(),
        }
    }

    /// Optimiser steps that were done when it was made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The parameters under their names; none if there are too few or too many. Lengths are left to the caller to check.
    pub(super) fn parameters(&self, architecture: &Architecture) -> Option<Vec<Tensor>> {
        let expected = architecture.parameters();
        let named = expected.into_iter().zip(floats(&self.parameters));
        let parameters: Vec<_> = named.map(|((name, shape), values)| Tensor { name, shape, values }).collect();
        (parameters.len() == self.parameters.len()).then_some(parameters)
    }

    pub(super) fn moments(&self) -> Vec<Vec<f32>> {
        floats(&self.moments)
    }

    pub(super) fn losses(&self) -> LossSums {
        LossSums { first: LossSum::restore(self.first_loss), last: LossSum::restore(self.last_loss) }
    }
}

/// Digest of everything that the outcome of a run depends on.
pub(super) fn identity(settings: &TrainingSettings, data: &Dataset, base: &[Tensor]) -> Digest {
    let TrainingSettings { architecture, optimizer, steps, batch_size, seed, round, member } = settings;
    let optimizer = match *optimizer {
        Optimizer::Sgd { learning_rate } => vec![learning_rate.to_bits()],
        Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => {
            [learning_rate, beta1, beta2, epsilon].map(f64::to_bits).to_vec()
        }
    };
    let settings = codec::encode(&(architecture, optimizer, steps, batch_size, seed, round, member));
    let values = [data.features(), data.labels()].into_iter().chain(base.iter().map(|tensor| tensor.values.as_slice()));
    let parts: Vec<Digest> = values.map(digest_of_floats).chain([Digest::of(&settings)]).collect();
    Digest::of(&codec::encode(&parts))
}

fn digest_of_floats(values: &[f32]) -> Digest {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Digest::of(&bytes)
}

fn bits(tensors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    tensors.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
}

fn floats(tensors: &[Vec<u32>]) -> Vec<Vec<f32>> {
    tensors.iter().map(|values| values.iter().map(|&bits| f32::from_bits(bits)).collect()).collect()
}
