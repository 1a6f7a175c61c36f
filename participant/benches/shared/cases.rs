//! What the benchmarks of training train.

use fedledger_federation::{architecture::Architecture, tensors::Tensor};
use fedledger_participant::{
    table::Dataset,
    training::{ComputeDevice, Optimizer, TrainingSettings},
};

const FEATURES: u32 = 13;
const ROWS: u32 = 2048;

/// A model and how it is trained.
pub struct Case {
    /// The same as in `simulations/benches/peers/pytorch.py`, where it is there.
    pub name: &'static str,
    architecture: Architecture,
    batch_size: u32,
    optimizer: Optimizer,
    /// Steps that take some milliseconds.
    pub steps: u64,
}

impl Case {
    /// Settings for so many steps.
    pub fn settings(&self, steps: u64) -> TrainingSettings {
        TrainingSettings {
            architecture: self.architecture.clone(),
            optimizer: self.optimizer,
            steps,
            batch_size: self.batch_size,
            seed: 1,
            round: 1,
            member: "cleveland".to_owned(),
            device: ComputeDevice::Cpu,
        }
    }

    /// Rows that the architecture takes, of all its classes.
    pub fn dataset(&self) -> Dataset {
        let columns = self.architecture.inputs().unwrap();
        let value = |index: u32| (index.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0;
        let labels = (0..ROWS).map(|row| (row % self.architecture.classes()) as f32).collect();
        Dataset::new((0..ROWS * columns).map(value).collect(), labels, columns as usize).unwrap()
    }

    /// The weights to begin with.
    pub fn base(&self) -> Vec<Tensor> {
        let weights = self.architecture.initial_weights(1).unwrap();
        weights.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect()
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let (sgd, adam) = (Optimizer::sgd(0.01), Optimizer::adam(0.001));
    let logistic = Architecture::logistic_regression(FEATURES);
    let perceptron = |width| Architecture::multilayer_perceptron(FEATURES, &[width]);
    let (channels, height, width, classes) = (1, 28, 28, Some(10));
    let (convolutions, kernel, hidden) = (vec![16, 32], 5, vec![128]);
    let convolutional = Architecture::Convolutional { channels, height, width, convolutions, kernel, hidden, classes };
    let (widths, blocks) = (vec![16, 32, 64], 2);
    let residual = Architecture::Residual { channels, height, width, widths, blocks, classes };
    let case =
        |name, architecture, batch_size, optimizer, steps| Case { name, architecture, batch_size, optimizer, steps };
    vec![
        case("logistic 13-1, batch 4, SGD", logistic.clone(), 4, sgd, 100),
        case("logistic 13-1, batch 4, Adam", logistic, 4, adam, 100),
        case("perceptron 13-32-1, batch 32, SGD", perceptron(32), 32, sgd, 100),
        case("perceptron 13-32-1, batch 32, Adam", perceptron(32), 32, adam, 100),
        case("perceptron 13-1024-1, batch 256, AdamW", perceptron(1024), 256, Optimizer::adamw(0.001, 0.01), 20),
        case("convolutional 16c5-32c5-128-10, batch 32, SGD", convolutional, 32, sgd, 10),
        case("residual 1-16-32-64-10, 2 blocks, batch 32, SGD", residual, 32, sgd, 2),
    ]
}
