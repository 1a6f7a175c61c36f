mod encoding;
mod examples;
mod properties;
mod rejections;
mod running;
mod streaming;

use std::io::{self, Cursor, Read};

use fedledger_ledger::Digest;

use super::*;
use crate::{
    command::FileRef,
    tensors::{Input, Tensor, TensorSpec, read_f32, write_tensors},
};

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

/// A reader that hands out at most `size` bytes at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.size.min(buffer.len());
        self.rest.read(&mut buffer[..count])
    }
}

fn file_ref(file: &[u8]) -> FileRef {
    FileRef { digest: Digest::of(file), size: file.len() as u64 }
}

fn input(file: &[u8], size: usize) -> Input<Pieces<'_>> {
    Input { file: file_ref(file), reader: Pieces { rest: file, size } }
}

fn term(contributor: usize, example_count: u64, update: &[u8]) -> Term {
    Term { contributor: format!("site-{contributor}"), digest: Digest::of(update), example_count }
}

/// The new version from files that are read in pieces of `size` bytes.
fn from_files(
    aggregation: &Aggregation,
    base: Base<'_>,
    sums: Sums<'_, Pieces<'_>>,
    threads: usize,
    size: usize,
) -> Result<Outputs, StreamError> {
    let state = base.optimizer_state.map(|state| vec![input(state, size), input(state, size)]);
    let inputs = BaseInputs { weights: input(base.weights, size), optimizer_state: state.unwrap_or_default() };
    let (mut weights, mut state) = (Vec::new(), Cursor::new(Vec::new()));
    let destination = Destination { weights: &mut weights, optimizer_state: Some(&mut state) };
    let files = aggregate_files(aggregation, inputs, sums, destination, threads)?;
    let outputs = Outputs { weights, optimizer_state: files.optimizer_state.map(|_| state.into_inner()) };
    assert_eq!(files.weights, file_ref(&outputs.weights));
    assert_eq!(files.optimizer_state, outputs.optimizer_state.as_deref().map(file_ref));
    Ok(outputs)
}

/// Adds a whole update to a sum, in chunks of `size` bytes.
fn add(sum: &RunningSum, term: Term, update: &[u8], size: usize) -> Result<(), AdditionError> {
    let mut addition = sum.begin(term).expect("the weight is in range").expect("there is room");
    update.chunks(size).try_for_each(|chunk| addition.push(chunk))?;
    addition.finish()
}
