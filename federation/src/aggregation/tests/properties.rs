//! The bytes do not depend on order, chunks, threads or grouping.

use proptest::prelude::*;

use super::*;
use crate::aggregation::blocks::BLOCK_ELEMENTS;

/// Tensors of three dtypes, one of them over several blocks, one empty, one a scalar.
fn layout() -> TensorLayout {
    let long = 2 * BLOCK_ELEMENTS as u64 + 5;
    TensorLayout::new(vec![
        TensorSpec::new("a", [7], Dtype::F32),
        TensorSpec::new("b", [long], Dtype::F32),
        TensorSpec::new("c", [0, 9], Dtype::F32),
        TensorSpec::new("d", [11, 100], Dtype::BF16),
        TensorSpec::new("e", [300], Dtype::F16),
        TensorSpec::new("f", [], Dtype::F32),
    ])
    .unwrap()
}

/// Finite elements of moderate size in any of the dtypes: the exponents of 1/8 to 2.
fn payload(layout: &TensorLayout, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut file = layout.header().to_vec();
    for block in layout.blocks(0..layout.element_count(), usize::MAX / 2) {
        for _ in block.elements {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = (state >> 40) as f32 / 2_f32.powi(23) - 1.0;
            match block.dtype {
                Dtype::F16 => file.extend_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                Dtype::BF16 => file.extend_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
                Dtype::F32 => file.extend_from_slice(&value.to_le_bytes()),
                Dtype::F64 => unreachable!("updates have no f64"),
            }
        }
    }
    file
}

#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    example_counts: Vec<u64>,
    permutation: Vec<usize>,
    chunk_size: usize,
    threads: usize,
    /// For each contribution, which of three threads adds it to the running sum.
    adders: Vec<usize>,
}

fn any_case() -> impl Strategy<Value = Case> {
    (1_usize..6).prop_flat_map(|count| {
        (
            any::<u64>(),
            prop::collection::vec(1_u64..=4096, count),
            Just((0..count).collect::<Vec<_>>()).prop_shuffle(),
            1_usize..70_000,
            2_usize..9,
            prop::collection::vec(0_usize..3, count),
        )
            .prop_map(|(seed, example_counts, permutation, chunk_size, threads, adders)| Case {
                seed,
                example_counts,
                permutation,
                chunk_size,
                threads,
                adders,
            })
    })
}

fn check(case: &Case, rule: Rule) -> Result<(), TestCaseError> {
    let fixed_point = FixedPoint::new(4096, case.example_counts.len()).unwrap();
    let aggregation = Aggregation::new(rule, fixed_point, layout()).unwrap();
    let weights = payload(aggregation.weights_layout(), case.seed);
    let contributions: Vec<_> = (1..)
        .zip(&case.example_counts)
        .map(|(i, n)| (*n, payload(aggregation.update_layout(), case.seed.wrapping_add(i))))
        .collect();
    let expected = aggregate(&aggregation, base(&weights), &contributions, 1).unwrap();

    let permuted: Vec<_> = case.permutation.iter().map(|i| contributions[*i].clone()).collect();
    prop_assert_eq!(&aggregate(&aggregation, base(&weights), &permuted, case.threads).unwrap(), &expected);

    let sum = RunningSum::new(aggregation.clone()).unwrap();
    std::thread::scope(|scope| {
        for adder in 0..3 {
            let (sum, contributions) = (&sum, &contributions);
            scope.spawn(move || {
                for (i, _) in case.permutation.iter().zip(&case.adders).filter(|(_, chosen)| **chosen == adder) {
                    let (example_count, file) = &contributions[*i];
                    add(sum, term(*i, *example_count, file), file, case.chunk_size).unwrap();
                }
            });
        }
    });
    prop_assert_eq!(sum.terms().unwrap().len(), contributions.len());
    for (threads, size) in [(1, 70_000), (case.threads, case.chunk_size)] {
        let running = from_files(&aggregation, base(&weights), Sums::Running(&sum), threads, size).unwrap();
        prop_assert_eq!(&running, &expected);
        let files = permuted.iter().map(|(n, file)| (*n, input(file, size))).collect();
        prop_assert_eq!(
            &from_files(&aggregation, base(&weights), Sums::Files(files), threads, size).unwrap(),
            &expected
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn fed_avg_gives_the_same_bytes_however_it_is_computed(case in any_case()) {
        check(&case, FED_AVG)?;
    }

    #[test]
    fn fed_yogi_gives_the_same_bytes_however_it_is_computed(case in any_case()) {
        check(&case, FED_YOGI)?;
    }
}

/// The next round, from a state that is not zero, over parts of every size.
#[test]
fn moments_are_continued_in_every_part() {
    let aggregation = Aggregation::new(FED_YOGI, FixedPoint::new(8, 1).unwrap(), layout()).unwrap();
    let weights = payload(aggregation.weights_layout(), 1);
    let contributions = [(5, payload(aggregation.update_layout(), 2))];
    let first = aggregate(&aggregation, base(&weights), &contributions, 1).unwrap();
    let next = Base { weights: &first.weights, optimizer_state: first.optimizer_state.as_deref() };
    let expected = aggregate(&aggregation, next, &contributions, 1).unwrap();
    assert_ne!(expected.optimizer_state, first.optimizer_state);
    for threads in [0, 2, 3, 4, 100] {
        assert_eq!(aggregate(&aggregation, next, &contributions, threads).unwrap(), expected);
        let files = contributions.iter().map(|(n, file)| (*n, input(file, 1000))).collect();
        assert_eq!(from_files(&aggregation, next, Sums::Files(files), threads, 1000).unwrap(), expected);
    }
}
