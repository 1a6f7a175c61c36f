//! What is refused, with which reason, and that it leaves no trace.

use super::*;
use crate::tensors::{LayoutMismatch, ReadError};

/// Streams `bytes` as an update that is only checked, in chunks of 64 bytes.
fn offer(aggregation: &Aggregation, example_count: u64, bytes: &[u8]) -> Result<Digest, ContributionError> {
    let mut stream = ContributionStream::new(aggregation, example_count)?;
    for chunk in bytes.chunks(64) {
        stream.push(chunk)?;
    }
    stream.finish()
}

/// Expects `refused` of a check, of a running sum, from files and in memory, and the result of a good contribution beside it
/// unchanged.
fn assert_refused(example_count: u64, update: &[u8], refused: impl Into<ContributionError>) {
    let refused = refused.into();
    let aggregation = vector(FED_AVG, 40, 4, 2);
    let weights = file(&[0.25; 40]);
    let good = (2, file(&[0.5; 40]));
    assert_eq!(offer(&aggregation, example_count, update).unwrap_err(), refused);

    let sum = RunningSum::new(aggregation.clone()).unwrap();
    add(&sum, term(0, 2, &good.1), &good.1, 64).unwrap();
    let bad = term(1, example_count, update);
    match sum.begin(bad) {
        Err(error) => assert_eq!(ContributionError::from(error), refused),
        Ok(None) => panic!("there is room for a second update"),
        Ok(Some(mut addition)) => {
            let pushed = update.chunks(64).try_for_each(|chunk| addition.push(chunk)).map_err(AdditionError::from);
            assert_eq!(pushed.and_then(|()| addition.finish()).unwrap_err(), refused.clone().into());
            addition.take_back(update).unwrap();
        }
    }
    assert_eq!(sum.terms().unwrap(), [term(0, 2, &good.1)]);
    let outputs = from_files(&aggregation, base(&weights), Sums::Running(&sum), 1, 64).unwrap();
    assert_eq!(outputs.weights, file(&[0.75; 40]));

    let error = AggregationError::Contribution { index: 1, source: refused };
    let files = vec![(2, input(&good.1, 64)), (example_count, input(update, 64))];
    match from_files(&aggregation, base(&weights), Sums::Files(files), 1, 64).unwrap_err() {
        StreamError::Aggregation(found) => assert_eq!(found, error),
        other => panic!("{other}"),
    }
    let contributions = [good, (example_count, update.to_vec())];
    assert_eq!(aggregate(&aggregation, base(&weights), &contributions, 1).unwrap_err(), error);
}

/// An otherwise good update with one element replaced.
fn with_element(element: usize, value: f32) -> Vec<u8> {
    let mut values = [0.5; 40];
    values[element] = value;
    file(&values)
}

fn zeros(specs: Vec<TensorSpec>) -> Vec<u8> {
    let layout = TensorLayout::new(specs).unwrap();
    let mut file = layout.header().to_vec();
    file.resize(layout.file_size_bytes(), 0);
    file
}

#[test]
fn infinities_and_nans() {
    let nan_with_payload = f32::from_bits(0xffc0_1234);
    for (element, value) in [(0, f32::NAN), (17, f32::INFINITY), (39, f32::NEG_INFINITY), (38, nan_with_payload)] {
        assert_refused(1, &with_element(element, value), EncodeError::NotFinite { tensor: "w".into(), element });
    }
}

#[test]
fn values_beyond_the_fixed_point_format() {
    // A cohort of two leaves 2^61, which with weight one is 2^21.
    let too_large = |element| EncodeError::TooLarge { tensor: "w".into(), element };
    assert_refused(4, &with_element(39, 2_f32.powi(21).next_up()), too_large(39));
    assert_refused(1, &with_element(3, -f32::MAX), too_large(3));
    assert!(offer(&vector(FED_AVG, 40, 4, 2), 4, &with_element(39, 2_f32.powi(21))).is_ok());
}

#[test]
fn example_counts() {
    assert_refused(0, &file(&[0.5; 40]), EncodeError::NoExamples);
    assert_refused(5, &file(&[0.5; 40]), EncodeError::TooManyExamples { found: 5, example_scale: 4 });
}

#[test]
fn wrong_names_shapes_and_dtypes() {
    let mismatch = |mismatch: LayoutMismatch| ReadError::LayoutMismatch(mismatch);
    let other_name = zeros(vec![TensorSpec::new("x", [40], Dtype::F32)]);
    assert_refused(1, &other_name, mismatch(LayoutMismatch::Missing { tensor: "w".into() }));
    let extra = zeros(vec![TensorSpec::new("w", [40], Dtype::F32), TensorSpec::new("x", [40], Dtype::F32)]);
    assert_refused(1, &extra, mismatch(LayoutMismatch::Unexpected { tensor: "x".into() }));
    let shape = LayoutMismatch::Shape { tensor: "w".into(), expected: vec![40], found: vec![8, 5] };
    assert_refused(1, &zeros(vec![TensorSpec::new("w", [8, 5], Dtype::F32)]), mismatch(shape));
    let dtype = LayoutMismatch::Dtype { tensor: "w".into(), expected: Dtype::F32, found: Dtype::F16 };
    assert_refused(1, &zeros(vec![TensorSpec::new("w", [40], Dtype::F16)]), mismatch(dtype));
}

#[test]
fn truncated_and_trailing_bytes() {
    let mut update = file(&[0.5; 40]);
    let expected = update.len();
    assert_refused(1, &update[..expected - 1], ReadError::Truncated { expected, found: expected - 1 });
    update.push(0);
    assert_refused(1, &update, ReadError::TooLong { expected });
}

#[test]
fn the_first_error_is_reported_for_any_number_of_threads() {
    let length = 5 * crate::aggregation::blocks::BLOCK_ELEMENTS;
    let aggregation = vector(FED_AVG, length, 1, 2);
    let bad_at = |elements: &[usize]| {
        let mut values = vec![0.0; length];
        elements.iter().for_each(|element| values[*element] = f32::NAN);
        file(&values)
    };
    let contributions = [(1, bad_at(&[length - 1, 9000])), (1, bad_at(&[8999, 20_000]))];
    let results: Vec<_> = (1..6)
        .map(|threads| aggregate(&aggregation, base(&file(&vec![0.0; length])), &contributions, threads).unwrap_err())
        .collect();
    // Both are in the third block; within a block the first contribution comes first.
    let source = EncodeError::NotFinite { tensor: "w".into(), element: 9000 }.into();
    assert_eq!(results, vec![AggregationError::Contribution { index: 0, source }; 5]);
}

#[test]
fn more_contributions_than_the_cohort_and_none_at_all() {
    let aggregation = vector(FED_AVG, 1, 1, 2);
    let weights = file(&[0.0]);
    let too_many = AggregationError::TooManyContributions { found: 3, cohort: 2 };
    let contributions = vec![(1, file(&[1.0])); 3];
    assert_eq!(aggregate(&aggregation, base(&weights), &contributions, 1), Err(too_many.clone()));
    assert_eq!(aggregate(&aggregation, base(&weights), &contributions[..0], 1), Err(AggregationError::NoContributions));

    let sum = RunningSum::new(aggregation.clone()).unwrap();
    let none = from_files(&aggregation, base(&weights), Sums::Running(&sum), 1, 64).unwrap_err();
    assert!(matches!(none, StreamError::Aggregation(AggregationError::NoContributions)), "{none}");
    let updates = [1.0, 2.0, 3.0].map(|x| file(&[x]));
    for (index, update) in updates.iter().take(2).enumerate() {
        add(&sum, term(index, 1, update), update, 64).unwrap();
    }
    assert!(sum.begin(term(2, 1, &updates[2])).unwrap().is_none(), "the cohort is complete");
    let files = updates.iter().map(|update| (1, input(update, 64))).collect();
    let error = from_files(&aggregation, base(&weights), Sums::Files(files), 1, 64).unwrap_err();
    let too_many = AggregationError::TooManyContributions { found: 3, cohort: 2 };
    assert!(matches!(error, StreamError::Aggregation(found) if found == too_many));
}

#[test]
fn a_sum_of_another_aggregation() {
    let aggregation = vector(FED_AVG, 2, 4, 2);
    let (weights, update) = (file(&[0.0; 2]), file(&[1.0; 2]));
    for other in [vector(FED_AVG, 2, 8, 2), vector(FED_AVG, 2, 4, 3)] {
        let sum = RunningSum::new(other).unwrap();
        add(&sum, term(0, 1, &update), &update, 64).unwrap();
        let error = from_files(&aggregation, base(&weights), Sums::Running(&sum), 1, 64).unwrap_err();
        assert!(matches!(error, StreamError::Aggregation(AggregationError::OtherAggregation)), "{error}");
    }
}

#[test]
fn base_files_that_do_not_fit() {
    let contributions = [(1, file(&[1.0, 1.0]))];
    let run = |rule, weights: &[u8], optimizer_state: Option<&[u8]>| {
        let error =
            aggregate(&vector(rule, 2, 1, 1), Base { weights, optimizer_state }, &contributions, 1).unwrap_err();
        let AggregationError::Base(error) = error else { panic!("{error}") };
        error
    };
    let weights = file(&[0.0, 0.0]);
    assert!(matches!(run(FED_AVG, &file(&[0.0]), None), StateFileError::Weights(ReadError::LayoutMismatch(_))));
    assert_eq!(run(FED_AVG, &weights, Some(&weights)), StateFileError::UnexpectedOptimizerState);
    let mismatch = run(FED_YOGI, &weights, Some(&weights));
    assert!(matches!(mismatch, StateFileError::OptimizerState(ReadError::LayoutMismatch(_))));
}

#[test]
fn results_that_are_not_finite() {
    let contributions = [(1, file(&[0.0, 1.0]))];
    let not_finite = Err(AggregationError::NotFinite { tensor: "w".into(), element: 1 });
    let run = |aggregation: &Aggregation, weights: &[f32], state: Option<&[u8]>| {
        let weights = file(weights);
        aggregate(aggregation, Base { weights: &weights, optimizer_state: state }, &contributions, 1)
    };
    let steep = vector(Rule::FedAvg { server_learning_rate: 1e300 }, 2, 1, 1);
    assert_eq!(run(&steep, &[0.0, 0.0], None), not_finite);
    assert_eq!(run(&vector(FED_AVG, 2, 1, 1), &[0.0, f32::NAN], None), not_finite);

    let yogi = vector(FED_YOGI, 2, 1, 1);
    let state_layout = yogi.optimizer_state_layout().unwrap();
    let mut state = state_layout.header().to_vec();
    for moment in [0.0, 0.0, 0.0, f64::INFINITY] {
        state.extend_from_slice(&f64::to_le_bytes(moment));
    }
    assert_eq!(run(&yogi, &[0.0, 0.0], Some(&state)), not_finite);
}

#[test]
fn recipes_out_of_range() {
    let layout = |dtype| TensorLayout::new(vec![TensorSpec::new("w", [1], dtype)]).unwrap();
    let make = |rule, dtype| Aggregation::new(rule, FixedPoint::new(1, 1).unwrap(), layout(dtype));
    assert_eq!(make(FED_AVG, Dtype::F64), Err(AggregationError::UpdateDtype { tensor: "w".into() }));
    let refused = |rule| match make(rule, Dtype::F32) {
        Err(AggregationError::Rule(error)) => error.parameter,
        other => panic!("{other:?}"),
    };
    for server_learning_rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(Rule::FedAvg { server_learning_rate }), "server_learning_rate");
    }
    assert_eq!(refused(Rule::FedAvgM { server_learning_rate: 1.0, momentum: 1.0 }), "momentum");
    assert_eq!(refused(Rule::FedAdagrad { server_learning_rate: 1.0, beta1: -0.1, tau: 1.0 }), "beta1");
    assert_eq!(refused(Rule::FedAdam { server_learning_rate: 1.0, beta1: 0.9, beta2: f64::NAN, tau: 1.0 }), "beta2");
    assert_eq!(refused(Rule::FedYogi { server_learning_rate: 1.0, beta1: 0.9, beta2: 0.9, tau: 0.0 }), "tau");
}
