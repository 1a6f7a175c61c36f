//! How much main memory a training and the evaluation of its model will take, before either begins.
//!
//! The estimate is the sum of what is held at the fullest moment:
//!
//! | what | bytes |
//! |---|---|
//! | records | each value as it is held: four bytes in a table, one in an image; [`ROW_BYTES`] for each row |
//! | model | four for each parameter, as many for its gradient, and as many for each of the optimiser's moments: two of Adam and AdamW, one of SGD with momentum, none without; and a layer's weights in the order in which products read them |
//! | a pass | four for each value that a layer keeps, of each row that is computed at a time, and the copies of the largest layer's that its gradient takes |
//! | a batch | four for each value and label |
//! | evaluation | four for each parameter, a pass without gradients, and for each test row its logits and [`SCORE_BYTES`] |
//!
//! and [`FIXED_BYTES`] for what does not grow. A node does not train and evaluate at the same time, so only the larger of
//! both counts; to an evaluation, up to [`LEFT_BYTES_MAX`] are added that a training has left and that it may not find. `tests/memory.rs` measures trainings and evaluations: none takes more than was estimated, and the estimate
//! without [`FIXED_BYTES`] is at most 1.5 times as much as was taken.
//!
//! Not part of it are the node itself with its connections and the state of the ledger, other data sets that the node keeps
//! in memory, what it takes to read a table, and the memory of a device beside the processor and of its libraries.

mod layers;

use serde::Serialize;

use self::layers::Layers;
use crate::{
    table::Table,
    training::{Optimizer, TrainingSettings, rows_per_pass},
};

/// Size of a 32-bit float.
const VALUE_BYTES: u64 = 4;

/// Bytes of a row beside its values: its label, its place in the order, its group, and its number in the file.
const ROW_BYTES: u64 = 18;

/// Bytes of an image's label while images are read: as it stands in the file, and as a class.
const READ_LABEL_BYTES: u64 = 16;

/// Bytes that it takes to hold a row's outputs against its label: its score in the order of all scores, of which a part is
/// there twice while those of a group are gathered.
const SCORE_BYTES: u64 = 24;

/// Bytes for each row where there are several classes: the logarithm of the sum of its exponentials.
const NORMALIZER_BYTES: u64 = 8;

/// What a training takes however small it is: its thread's stack, buffers of files, and memory that was given back and is kept
/// for the next step.
const FIXED_BYTES: u64 = 16 * 1024 * 1024;

/// Most bytes that stay with the process after a training: what the C library keeps of freed memory.
const LEFT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A site's records as they are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    /// Rows to train on.
    pub train_rows: u64,
    /// Rows to test on.
    pub test_rows: u64,
    /// Values of a row.
    pub columns: u64,
    /// Bytes of a value.
    pub value_bytes: u64,
}

/// What a training will take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Weights, gradients and the optimiser's moments.
    pub model_bytes: u64,
    /// Values of all layers in a pass, their gradients, and the batch.
    pub activations_bytes: u64,
    /// The site's records.
    pub data_bytes: u64,
    /// The evaluation of the model, which takes the place of the training: weights, a pass, and the outputs for all test rows.
    pub evaluation_bytes: u64,
    /// Records, the larger one of training and evaluation, and what does not grow.
    pub total_bytes: u64,
}

impl From<&Table> for Records {
    fn from(table: &Table) -> Self {
        Self {
            train_rows: table.manifest.train_rows,
            test_rows: table.manifest.test_rows,
            columns: table.manifest.feature_count,
            value_bytes: table.train.value_bytes(),
        }
    }
}

/// What a training with these settings will take at a site with these records, and an evaluation of its model. All sums
/// saturate.
pub fn estimate(settings: &TrainingSettings, records: &Records) -> MemoryEstimate {
    let Records { train_rows, test_rows, columns, value_bytes } = *records;
    let layers = Layers::of(&settings.architecture);
    let parameters = settings.architecture.parameter_count();
    let pass = rows_per_pass(&settings.architecture) as u64;
    let batch = u64::from(settings.batch_size).min(train_rows);
    let row_of_batch = floats(columns.saturating_add(1));

    let model_bytes = floats(parameters.saturating_mul(2 + moments(&settings.optimizer)));
    let model_bytes = model_bytes.saturating_add(layers.weights_in_order());
    let of_pass = batch.min(pass).saturating_mul(layers.training_bytes()).saturating_add(layers.bytes_of_an_image());
    let activations_bytes = of_pass.saturating_add(batch.saturating_mul(row_of_batch));

    let of_pass = test_rows.min(pass).saturating_mul(layers.kept_bytes().saturating_add(row_of_batch));
    let outputs = u64::from(settings.architecture.outputs());
    let of_row = floats(outputs).saturating_add(SCORE_BYTES + if outputs > 2 { NORMALIZER_BYTES } else { 0 });
    let evaluation = [floats(parameters), layers.weights_in_order(), of_pass, test_rows.saturating_mul(of_row)];
    let evaluation_bytes = sum(evaluation);

    let rows = train_rows.saturating_add(test_rows);
    let beside_values = ROW_BYTES + if value_bytes < VALUE_BYTES { READ_LABEL_BYTES } else { 0 };
    let data_bytes = rows.saturating_mul(columns.saturating_mul(value_bytes).saturating_add(beside_values));
    let training_bytes = model_bytes.saturating_add(activations_bytes);
    let larger = training_bytes.max(evaluation_bytes.saturating_add(training_bytes.min(LEFT_BYTES_MAX)));
    let total_bytes = sum([data_bytes, larger, FIXED_BYTES]);
    MemoryEstimate { model_bytes, activations_bytes, data_bytes, evaluation_bytes, total_bytes }
}

fn sum(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// Bytes of so many 32-bit floats.
const fn floats(values: u64) -> u64 {
    values.saturating_mul(VALUE_BYTES)
}

/// Values that an optimiser remembers for each parameter.
fn moments(optimizer: &Optimizer) -> u64 {
    match optimizer {
        Optimizer::Sgd { momentum, .. } => u64::from(*momentum > 0.0),
        Optimizer::Adam { .. } | Optimizer::AdamW { .. } => 2,
    }
}

#[cfg(test)]
mod tests;
