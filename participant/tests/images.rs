//! Networks for images learn what a linear model cannot.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use fedledger_federation::{architecture::Architecture, tensors::Tensor};
use fedledger_participant::{
    evaluation::evaluate,
    table::Dataset,
    training::{ComputeDevice, Optimizer, TrainingSettings, train},
};

const SIDE: usize = 12;

/// Small numbers without a pattern: a linear congruential generator with Knuth's constants, of which the upper bits are used.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Images with a line of seven places somewhere, upright (class 0), level (1) or falling (2), of either sign, and with noise.
/// The mean of every place is about the same in each class, so that a linear model learns next to nothing.
fn lines(rows: usize, seed: u64) -> Dataset {
    let (mut numbers, mut features, mut labels) = (Numbers(seed), Vec::new(), Vec::new());
    for row in 0..rows {
        let class = row % 3;
        let mut image: Vec<f32> = (0..SIDE * SIDE).map(|_| numbers.below(1000) as f32 / 2000.0 - 0.25).collect();
        let (along, across) = (numbers.below(SIDE - 7), numbers.below(SIDE - 7));
        let sign = if numbers.below(2) == 0 { 1.0 } else { -1.0 };
        for place in 0..7 {
            let (y, x) = match class {
                0 => (along + place, across + 3),
                1 => (along + 3, across + place),
                _ => (along + place, across + place),
            };
            image[y * SIDE + x] += sign;
        }
        features.extend(image);
        labels.push(class as f32);
    }
    Dataset::new(features, labels, SIDE * SIDE).unwrap()
}

/// Share of new images that are told right after training, in millionths.
fn accuracy(architecture: &Architecture, steps: u64) -> i64 {
    let weights = architecture.initial_weights(3).unwrap().into_iter();
    let mut weights: Vec<Tensor> = weights.map(|(name, shape, values)| Tensor { name, shape, values }).collect();
    let settings = TrainingSettings {
        architecture: architecture.clone(),
        optimizer: Optimizer::adamw(0.005, 0.01),
        steps,
        batch_size: 32,
        seed: 1,
        round: 1,
        member: "cleveland".to_owned(),
        device: ComputeDevice::Cpu,
    };
    let outcome = train(&settings, &lines(600, 1), &weights).unwrap();
    for (weights, delta) in weights.iter_mut().zip(outcome.delta) {
        weights.values.iter_mut().zip(delta.values).for_each(|(weight, delta)| *weight += delta);
    }
    evaluate(architecture, &weights, &lines(300, 2)).unwrap().all.accuracy_millionths
}

#[test]
fn networks_for_images_tell_lines_apart_and_a_linear_model_does_not() {
    let (channels, height, width, classes) = (1, SIDE as u32, SIDE as u32, Some(3));
    let (convolutions, hidden) = (vec![8, 16], vec![16]);
    let convolutional =
        Architecture::Convolutional { channels, height, width, convolutions, kernel: 3, hidden, classes };
    let residual = Architecture::Residual { channels, height, width, widths: vec![8, 16], blocks: 1, classes };
    let linear = Architecture::LogisticRegression { features: 144, classes };
    for architecture in [convolutional, residual] {
        let accuracy = accuracy(&architecture, 150);
        assert!(accuracy > 950_000, "{architecture:?}: {accuracy} millionths");
    }
    let accuracy = accuracy(&linear, 150);
    assert!(accuracy < 600_000, "the task is too easy: {accuracy} millionths");
}
