mod encoding;
mod examples;
mod properties;
mod rejections;

use super::*;
use crate::tensors::{Tensor, TensorSpec, read_f32, write_tensors};

const FED_AVG: Rule = Rule::FedAvg { server_learning_rate: 1.0 };
const FED_YOGI: Rule = Rule::FedYogi { server_learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 0.001 };

/// Aggregation over one vector `w` in `F32`.
fn vector(rule: Rule, length: usize, example_scale: u64, cohort: usize) -> Aggregation {
    let layout = TensorLayout::new(vec![TensorSpec::new("w", [length as u64], Dtype::F32)]).unwrap();
    Aggregation::new(rule, FixedPoint::new(example_scale, cohort).unwrap(), layout).unwrap()
}

/// The `F32` file of one vector `w`.
fn file(values: &[f32]) -> Vec<u8> {
    write_tensors(&[Tensor { name: "w".into(), shape: vec![values.len() as u64], values: values.to_vec() }]).unwrap()
}

/// The values of a weights file, all tensors in one row.
fn values(file: &[u8], layout: &TensorLayout) -> Vec<f32> {
    read_f32(file, layout).unwrap().into_iter().flat_map(|tensor| tensor.values).collect()
}

/// A base version without optimiser state.
fn base(weights: &[u8]) -> Base<'_> {
    Base { weights, optimizer_state: None }
}
