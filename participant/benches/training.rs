//! Optimiser steps per second of local training, data loading included.
//!
//! `cargo bench -p fedledger-participant --bench training`; the figures are per step, so elements per second are steps per
//! second.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fedledger_federation::{architecture::Architecture, tensors::Tensor};
use fedledger_participant::{
    table::Dataset,
    training::{Optimizer, TrainingSettings, train},
};

const FEATURES: u32 = 13;
const ROWS: u32 = 2048;

/// Rows that the architecture takes, of all its classes.
fn dataset(architecture: &Architecture) -> Dataset {
    let columns = architecture.inputs().unwrap();
    let value = |index: u32| (index.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0;
    let labels = (0..ROWS).map(|row| (row % architecture.classes()) as f32).collect();
    Dataset::new((0..ROWS * columns).map(value).collect(), labels, columns as usize).unwrap()
}

fn steps_per_second(criterion: &mut Criterion) {
    let sgd = Optimizer::sgd(0.01);
    let adam = Optimizer::adam(0.001);
    let logistic = Architecture::logistic_regression(FEATURES);
    let perceptron = |width| Architecture::multilayer_perceptron(FEATURES, &[width]);
    let (channels, height, width, classes) = (1, 28, 28, Some(10));
    let (convolutions, kernel, hidden) = (vec![16, 32], 5, vec![128]);
    let convolutional = Architecture::Convolutional { channels, height, width, convolutions, kernel, hidden, classes };
    let residual = Architecture::Residual { channels, height, width, widths: vec![16, 32, 64], blocks: 2, classes };
    let cases = [
        ("logistic 13-1, batch 4, SGD", logistic.clone(), 4, sgd, 100),
        ("logistic 13-1, batch 4, Adam", logistic, 4, adam, 100),
        ("perceptron 13-32-1, batch 32, SGD", perceptron(32), 32, sgd, 100),
        ("perceptron 13-32-1, batch 32, Adam", perceptron(32), 32, adam, 100),
        ("perceptron 13-1024-1, batch 256, AdamW", perceptron(1024), 256, Optimizer::adamw(0.001, 0.01), 20),
        ("convolutional 16c5-32c5-128-10, batch 32, SGD", convolutional, 32, sgd, 10),
        ("residual 16-32-64, batch 32, SGD", residual, 32, sgd, 2),
    ];
    let mut group = criterion.benchmark_group("training");
    for (name, architecture, batch_size, optimizer, steps) in cases {
        let data = dataset(&architecture);
        let weights = architecture.initial_weights(1).unwrap();
        let base: Vec<_> = weights.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
        let (seed, round, member) = (1, 1, "cleveland".to_owned());
        let settings = TrainingSettings { architecture, optimizer, steps, batch_size, seed, round, member };
        group.throughput(Throughput::Elements(steps));
        group.bench_function(name, |bencher| bencher.iter(|| train(&settings, &data, &base).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, steps_per_second);
criterion_main!(benches);
