//! How much memory a training will take, before anything is allocated.
//!
//! The estimate is the sum of what the trainer holds at its fullest moment:
//!
//! | what | values of four bytes each |
//! |---|---|
//! | weights | one per parameter |
//! | gradients | five per parameter: of the batch, of a part of it, and what the library makes on the way from one to the other |
//! | optimiser | one per parameter and moment: two for Adam and AdamW, one for SGD with momentum, none without |
//! | activations | four per value of a layer, and of what convolutions multiply with their filters, and row that is computed at a time |
//! | batch | two per value of a row and its label, and row of a batch |
//! | records | one per value of a row and its label; three per row of the order and the numbers |
//!
//! and [`FIXED_BYTES`] for what does not grow. It is meant to be somewhat too high, never too low. The node itself, with its
//! connections and the state of the ledger, is not part of it.

use serde::Serialize;

use crate::training::{Optimizer, TrainingSettings, rows_per_pass};

/// Size of a value.
const VALUE_BYTES: u64 = 4;

/// Copies of the gradients that there are at a time, as measured with the widest layers.
const GRADIENT_COPIES: u64 = 5;

/// Copies of a layer's values that a pass holds: the values before and after the rectified linear unit, and the gradients of
/// both.
const ACTIVATION_COPIES: u64 = 4;

/// Copies of a batch: its rows, and those of the part that is computed.
const BATCH_COPIES: u64 = 2;

/// Values per record of the order in which they are visited, and of their numbers in the file.
const ROW_ORDER_VALUES: u64 = 3;

/// What a training takes however small it is: its thread's stack, buffers of files and of matrix products.
const FIXED_BYTES: u64 = 16 * 1024 * 1024;

/// What a training will take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Weights, gradients and the optimiser's moments.
    pub model_bytes: u64,
    /// Activations of a pass, and the batch.
    pub activations_bytes: u64,
    /// The site's records.
    pub data_bytes: u64,
    /// All of it, and what does not grow.
    pub total_bytes: u64,
}

/// What a training with these settings will take at a site with so many records, of so many values each. All sums saturate.
pub fn estimate(settings: &TrainingSettings, rows: u64, columns: u64) -> MemoryEstimate {
    let parameters = settings.architecture.parameter_count();
    let copies = 1 + GRADIENT_COPIES + moments(&settings.optimizer);
    let model_bytes = bytes(parameters, copies);
    let batch = u64::from(settings.batch_size).min(rows);
    let pass = batch.min(rows_per_pass(&settings.architecture) as u64);
    let of_pass = bytes(pass.saturating_mul(values_per_row(settings)), ACTIVATION_COPIES);
    let row = columns.saturating_add(1);
    let activations_bytes = of_pass.saturating_add(bytes(batch.saturating_mul(row), BATCH_COPIES));
    let data_bytes = bytes(rows, row.saturating_add(ROW_ORDER_VALUES));
    let parts = [model_bytes, activations_bytes, data_bytes, FIXED_BYTES];
    let total_bytes = parts.into_iter().fold(0, u64::saturating_add);
    MemoryEstimate { model_bytes, activations_bytes, data_bytes, total_bytes }
}

fn bytes(values: u64, copies: u64) -> u64 {
    values.saturating_mul(copies).saturating_mul(VALUE_BYTES)
}

/// Values that an optimiser remembers for each parameter.
fn moments(optimizer: &Optimizer) -> u64 {
    match optimizer {
        Optimizer::Sgd { momentum, .. } => u64::from(*momentum > 0.0),
        Optimizer::Adam { .. } | Optimizer::AdamW { .. } => 2,
    }
}

/// Values of all layers for one row, inputs and outputs; of convolutions also what is multiplied with their filters.
fn values_per_row(settings: &TrainingSettings) -> u64 {
    let architecture = &settings.architecture;
    let linear = architecture.layers().into_iter().map(|layer| u64::from(layer.inputs) + u64::from(layer.outputs));
    let blocks = architecture.residual_blocks().into_iter();
    let blocks = blocks.flat_map(|block| [Some(block.first), Some(block.second), block.shortcut]).flatten();
    let convolutions = architecture.convolutions().into_iter().chain(architecture.stem()).chain(blocks);
    let convolved = convolutions.map(|layer| {
        let output = layer.output();
        let places = u64::from(output.height).saturating_mul(output.width.into());
        places.saturating_mul(layer.fan_in().saturating_add(2 * u64::from(output.channels)))
    });
    linear.chain(convolved).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use fedledger_federation::architecture::Architecture;

    use super::*;

    fn settings(architecture: Architecture, optimizer: Optimizer, batch_size: u32) -> TrainingSettings {
        TrainingSettings { architecture, optimizer, steps: 1, batch_size, seed: 1, round: 1, member: "va".to_owned() }
    }

    #[test]
    fn every_part_counts() {
        let sgd = Optimizer::sgd(0.1);
        let perceptron = |hidden| Architecture::multilayer_perceptron(10, &[hidden]);
        let least = estimate(&settings(perceptron(100), sgd, 4), 1000, 10);
        // 10 x 100 weights and 100 biases, then 100 weights and a bias.
        assert_eq!(least.model_bytes, 1201 * 6 * 4);
        // 10 and 100 values, then 100 and 1; a batch of 11 values a row.
        assert_eq!(least.activations_bytes, 4 * (10 + 100 + 100 + 1) * 4 * 4 + 4 * 11 * 2 * 4);
        assert_eq!(least.data_bytes, 1000 * 14 * 4);
        let parts = least.model_bytes + least.activations_bytes + least.data_bytes;
        assert_eq!(least.total_bytes, parts + FIXED_BYTES);
        for more in [
            estimate(&settings(perceptron(101), sgd, 4), 1000, 10),
            estimate(&settings(perceptron(100), Optimizer::adam(0.1), 4), 1000, 10),
            estimate(&settings(perceptron(100), sgd, 5), 1000, 10),
            estimate(&settings(perceptron(100), sgd, 4), 1001, 10),
            estimate(&settings(perceptron(100), sgd, 4), 1000, 11),
        ] {
            assert!(more.total_bytes > least.total_bytes);
        }
    }

    #[test]
    fn what_cannot_be_counted_is_too_much() {
        let huge = Architecture::multilayer_perceptron(u32::MAX, &[u32::MAX; 8]);
        let estimate = estimate(&settings(huge, Optimizer::adam(0.1), u32::MAX), u64::MAX, u64::MAX);
        assert_eq!(estimate.total_bytes, u64::MAX);
    }
}
