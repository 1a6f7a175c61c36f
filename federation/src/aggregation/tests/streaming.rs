//! From files to files: every rule over several stripes, and damage that is never taken for anything else.

use super::*;
use crate::{
    aggregation::stripes::STRIPE_ELEMENTS,
    tensors::{FileError, ReadError},
};

const RULES: [Rule; 5] = [
    FED_AVG,
    Rule::FedAvgM { server_learning_rate: 0.5, momentum: 0.9 },
    Rule::FedAdagrad { server_learning_rate: 0.1, beta1: 0.9, tau: 0.001 },
    Rule::FedAdam { server_learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 0.001 },
    FED_YOGI,
];

fn numbers(length: usize, seed: usize) -> Vec<u8> {
    let values = (0..length).map(|element| ((element * 17 + seed * 5) % 4001) as f32 / 2000.0 - 1.0);
    file(&values.collect::<Vec<_>>())
}

#[test]
fn every_rule_gives_the_same_bytes_from_files() {
    let length = 2 * STRIPE_ELEMENTS + 77;
    let weights = numbers(length, 0);
    let updates = [(3, numbers(length, 1)), (4, numbers(length, 2)), (1, numbers(length, 3))];
    for rule in RULES {
        let aggregation = vector(rule, length, 4, 3);
        let mut outputs = aggregate(&aggregation, base(&weights), &updates, 1).unwrap();
        // A second round, so that moments are read as well.
        for round in 0..2 {
            let at = Base { weights: &outputs.weights, optimizer_state: outputs.optimizer_state.as_deref() };
            let expected = aggregate(&aggregation, at, &updates, 1).unwrap();
            for threads in [1, 2, 5] {
                let files = updates.iter().map(|(n, update)| (*n, input(update, 100_000))).collect();
                let found = from_files(&aggregation, at, Sums::Files(files), threads, 100_000).unwrap();
                assert!(found == expected, "{rule:?}, round {round}, {threads} threads");
            }
            outputs = expected;
        }
    }
}

#[test]
fn a_model_without_elements_has_files() {
    let aggregation = vector(FED_YOGI, 0, 4, 1);
    let files = vec![(1, file(&[]))];
    let expected = aggregate(&aggregation, base(&file(&[])), &files, 1).unwrap();
    let empty = file(&[]);
    let sums = Sums::Files(vec![(1, input(&empty, 64))]);
    assert_eq!(from_files(&aggregation, base(&empty), sums, 1, 64).unwrap(), expected);
}

/// Reads the files of a round, of which those given are `damaged`, each under the digest of the undamaged one.
fn with_damage(files: &[Vec<u8>; 3], damaged: [&[u8]; 3]) -> Result<OutputsOf, StreamError> {
    let aggregation = vector(FED_YOGI, 300, 4, 1);
    let input = |index: usize| {
        let reader = Pieces { rest: damaged[index], size: 64 };
        Input { file: file_ref(&files[index]), reader }
    };
    let inputs = BaseInputs { weights: input(0), optimizer_state: vec![input(1), input(1)] };
    let sums = Sums::Files(vec![(2, input(2))]);
    let destination = Destination { weights: Vec::new(), optimizer_state: Some(Cursor::new(Vec::new())) };
    aggregate_files(&aggregation, inputs, sums, destination, 2)
}

type OutputsOf = crate::command::OutputFiles;

#[test]
fn damage_of_any_file_is_named_whatever_it_leads_to() {
    let aggregation = vector(FED_YOGI, 300, 4, 1);
    let (weights, update) = (numbers(300, 0), numbers(300, 1));
    let state = aggregate(&aggregation, base(&weights), &[(2, update.clone())], 1).unwrap().optimizer_state.unwrap();
    let files = [weights, state, update];
    let whole = files.each_ref().map(Vec::as_slice);
    with_damage(&files, whole).unwrap();
    for (index, original) in files.iter().enumerate() {
        // The top bits of the floats among them: infinities and NaNs.
        let flips = (0..original.len()).step_by(13).flat_map(|at| [0x80, 0x40, 1].map(|bit| (at, bit)));
        let mut damages: Vec<Vec<u8>> = flips
            .map(|(at, bit)| {
                let mut damaged = original.clone();
                damaged[at] ^= bit;
                damaged
            })
            .collect();
        damages.push(original[..original.len() - 1].to_vec());
        damages.push(original[..5].to_vec());
        damages.push([original, &[0][..]].concat());
        damages.push(vec![0xff; original.len()]);
        for damaged in damages {
            let mut damaged_files = whole;
            damaged_files[index] = &damaged;
            match with_damage(&files, damaged_files) {
                Err(StreamError::File(FileError::Damaged { file, found })) => {
                    assert_eq!(file, Digest::of(original));
                    assert_ne!(found, file);
                }
                other => panic!("file {index}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_base_that_was_never_right_is_refused_as_such() {
    let aggregation = vector(FED_AVG, 2, 1, 1);
    let update = file(&[1.0, 1.0]);
    let run = |weights: &[u8]| {
        let sums = Sums::Files(vec![(1, input(&update, 64))]);
        from_files(&aggregation, base(weights), sums, 1, 64).unwrap_err()
    };
    let shorter = run(&file(&[0.0]));
    let StreamError::Aggregation(AggregationError::Base(StateFileError::Weights(error))) = shorter else {
        panic!("{shorter}");
    };
    assert!(matches!(error, ReadError::LayoutMismatch(_)), "{error}");
    let not_finite = run(&file(&[0.0, f32::NAN]));
    assert!(matches!(not_finite, StreamError::Aggregation(AggregationError::NotFinite { element: 1, .. })));
}

/// A file on a full disk.
struct Full;

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let aggregation = vector(FED_AVG, 2, 1, 1);
    let (weights, update) = (file(&[0.0; 2]), file(&[1.0; 2]));
    let inputs = BaseInputs { weights: input(&weights, 64), optimizer_state: vec![] };
    let destination = Destination { weights: Full, optimizer_state: None::<Cursor<Vec<u8>>> };
    let sums = Sums::Files(vec![(1, input(&update, 64))]);
    let error = aggregate_files(&aggregation, inputs, sums, destination, 1).unwrap_err();
    assert!(matches!(error, StreamError::Write(ref source) if source.kind() == io::ErrorKind::StorageFull), "{error}");
}
