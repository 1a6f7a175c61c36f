//! Results computed by hand, published or computed by another program.

use fedledger_ledger::Digest;

use super::*;

/// The rule applied to mean updates `deltas`, one round each, from the weight `start`.
fn run_rounds(rule: Rule, start: f32, deltas: &[f32]) -> Vec<f32> {
    let aggregation = vector(rule, 1, 1, 1);
    let (mut weights, mut optimizer_state) = (file(&[start]), None);
    let mut path = Vec::new();
    for delta in deltas {
        let base = Base { weights: &weights, optimizer_state: optimizer_state.as_deref() };
        let outputs = aggregate(&aggregation, base, &[(1, file(&[*delta]))], 1).unwrap();
        path.extend(values(&outputs.weights, aggregation.weights_layout()));
        (weights, optimizer_state) = (outputs.weights, outputs.optimizer_state);
    }
    path
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-6, "found {found}, expected {expected}");
    }
}

#[test]
fn fed_avg_weighs_by_examples() {
    let aggregation = vector(FED_AVG, 2, 4, 2);
    let contributions = [(1, file(&[0.5, 1.0])), (3, file(&[-0.5, 2.0]))];
    let outputs = aggregate(&aggregation, base(&file(&[1.0, -2.0])), &contributions, 1).unwrap();
    // (0.5 - 3 * 0.5) / 4 = -0.25 and (1 + 3 * 2) / 4 = 1.75.
    assert_eq!(values(&outputs.weights, aggregation.weights_layout()), [0.75, -0.25]);
    assert_eq!(outputs.weights, file(&[0.75, -0.25]));
    assert_eq!(outputs.optimizer_state, None);
}

#[test]
fn the_server_learning_rate_scales_the_mean() {
    let half = Rule::FedAvg { server_learning_rate: 0.5 };
    assert_eq!(run_rounds(half, 1.0, &[0.5, -1.0]), [1.25, 0.75]);
}

/// The vector of Flower's FedAdagrad test: weights 0.1, two equal clients at 0.2 and 1.0.
#[test]
fn fed_adagrad_agrees_with_flower() {
    let rule = Rule::FedAdagrad { server_learning_rate: 0.1, beta1: 0.0, tau: 0.5 };
    let aggregation = vector(rule, 1, 1, 2);
    let contributions = [(1, file(&[0.2 - 0.1])), (1, file(&[1.0 - 0.1]))];
    let outputs = aggregate(&aggregation, base(&file(&[0.1])), &contributions, 1).unwrap();
    assert_close(&values(&outputs.weights, aggregation.weights_layout()), &[0.15]);
}

#[test]
fn fed_avg_m_keeps_its_momentum() {
    let rule = Rule::FedAvgM { server_learning_rate: 1.0, momentum: 0.5 };
    // m: 1, 0.5 + 1 = 1.5, 0.75 + 0 = 0.75.
    assert_eq!(run_rounds(rule, 0.0, &[1.0, 1.0, 0.0]), [1.0, 2.5, 3.25]);
}

#[test]
fn fed_adagrad_sums_squares() {
    let rule = Rule::FedAdagrad { server_learning_rate: 1.0, beta1: 0.5, tau: 1.0 };
    // m: 1.5, 2.75; v: 9, 25; steps 1.5 / (3 + 1) and 2.75 / (5 + 1).
    assert_close(&run_rounds(rule, 0.0, &[3.0, 4.0]), &[0.375, 0.375 + 2.75 / 6.0]);
}

#[test]
fn fed_adam_decays_squares_without_bias_correction() {
    let rule = Rule::FedAdam { server_learning_rate: 1.0, beta1: 0.5, beta2: 0.75, tau: 1.0 };
    // m: 1, 1.5; v: 0.25 * 4 = 1, 0.75 + 1 = 1.75; with bias correction the first step would be 2 / (2 + 1).
    assert_close(&run_rounds(rule, 0.0, &[2.0, 2.0]), &[0.5, 0.5 + 1.5 / (1.75_f64.sqrt() + 1.0)]);
}

#[test]
fn fed_yogi_moves_squares_by_their_sign() {
    let rule = Rule::FedYogi { server_learning_rate: 1.0, beta1: 0.0, beta2: 0.75, tau: 1.0 };
    // v: 0 + 0.25 * 16 = 4; then delta^2 = 1 < 4, so 4 - 0.25 = 3.75; then delta^2 = 9 > 3.75, so 3.75 + 2.25 = 6.
    let steps = [4.0 / 3.0, 1.0 / (3.75_f64.sqrt() + 1.0), 3.0 / (6_f64.sqrt() + 1.0)];
    let expected = [steps[0], steps[0] + steps[1], steps[0] + steps[1] + steps[2]];
    assert_close(&run_rounds(rule, 0.0, &[4.0, 1.0, 3.0]), &expected);
}

#[test]
fn fed_yogi_keeps_a_second_moment_that_equals_the_square() {
    let rule = Rule::FedYogi { server_learning_rate: 1.0, beta1: 0.0, beta2: 0.75, tau: 1.0 };
    // v: 4, and delta^2 = 4 has sign zero: v stays 4.
    assert_close(&run_rounds(rule, 0.0, &[4.0, 2.0]), &[4.0 / 3.0, 4.0 / 3.0 + 2.0 / 3.0]);
}

#[test]
fn the_state_file_names_its_moments() {
    let aggregation = vector(FED_YOGI, 3, 1, 1);
    let names: Vec<_> =
        aggregation.optimizer_state_layout().unwrap().tensors().iter().map(|t| (t.name.as_str(), t.dtype)).collect();
    assert_eq!(names, [("m.w", Dtype::F64), ("v.w", Dtype::F64)]);
    let contributions = [(1, file(&[1.0, 2.0, 4.0]))];
    let state = aggregate(&aggregation, base(&file(&[0.0; 3])), &contributions, 1).unwrap().optimizer_state.unwrap();
    let moments = values(&state, aggregation.optimizer_state_layout().unwrap());
    assert_close(&moments, &[0.1, 0.2, 0.4, 0.01, 0.04, 0.16]);
}

#[test]
fn half_precision_updates_are_exact() {
    let numbers = [1.0_f32, -0.375, 6.5];
    let contributions = |dtype: Dtype| {
        let layout = TensorLayout::new(vec![TensorSpec::new("w", [3], dtype)]).unwrap();
        let mut update = layout.header().to_vec();
        for x in numbers {
            match dtype {
                Dtype::BF16 => update.extend_from_slice(&half::bf16::from_f32(x).to_le_bytes()),
                _ => update.extend_from_slice(&half::f16::from_f32(x).to_le_bytes()),
            }
        }
        let aggregation = Aggregation::new(FED_AVG, FixedPoint::new(2, 1).unwrap(), layout).unwrap();
        aggregate(&aggregation, base(&file(&[0.0; 3])), &[(2, update)], 1).unwrap().weights
    };
    assert_eq!(contributions(Dtype::BF16), file(&numbers));
    assert_eq!(contributions(Dtype::F16), file(&numbers));
}

#[test]
fn decimals_are_parsed_and_everything_else_is_refused() {
    let parsed = ["0", "-0.5", "0.1", "12.25", "00012345678901234567"].map(|text| parse_decimal(text).unwrap());
    assert_eq!(parsed, [0.0, -0.5, 0.1, 12.25, 12_345_678_901_234_567.0]);
    let refused = [
        "",
        "-",
        ".",
        ".5",
        "5.",
        "+1",
        "--1",
        "1e3",
        "1E3",
        "inf",
        "nan",
        "NaN",
        " 1",
        "1 ",
        "1_000",
        "1,5",
        "1.2.3",
        "0x10",
        "\u{0661}",
        "000000000000000000000",
        "0.00000000000000000001",
    ];
    for text in refused {
        assert_eq!(parse_decimal(text), Err(DecimalError { found: text.into() }));
    }
}

/// Inputs of the golden test: `count` values around 0.07 * `seed`, from integers, so that any program can make them.
fn golden_tensors(seed: u64) -> Vec<u8> {
    let mut next = 0;
    let mut tensor = |name: &str, shape: &[u64]| {
        let count: u64 = shape.iter().product();
        let values = (next..next + count).map(|i| {
            let integer = (i * 7919 + seed * 104_729) % 20_011;
            ((integer as f64 - 10_005.0) / (1000.0 * 7.0)) as f32
        });
        let values = values.collect();
        next += count;
        Tensor { name: name.into(), shape: shape.to_vec(), values }
    };
    write_tensors(&[tensor("0.bias", &[37]), tensor("0.weight", &[37, 131]), tensor("1.scale", &[])]).unwrap()
}

/// The digests were computed by a separate program (Python floats, `round`, `struct`), not by this one.
#[test]
fn fixed_inputs_give_fixed_bytes() {
    let base_weights = golden_tensors(0);
    let layout = crate::tensors::layout_of(&base_weights).unwrap();
    let contributions: Vec<_> = (1..=5_u64).map(|member| (member * 83, golden_tensors(member))).collect();
    let outputs = |rule: Rule| {
        let aggregation = Aggregation::new(rule, FixedPoint::new(512, 5).unwrap(), layout.clone()).unwrap();
        aggregate(&aggregation, base(&base_weights), &contributions, 2).unwrap()
    };
    let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
    let fed_avg = outputs(Rule::FedAvg { server_learning_rate: 0.9 });
    assert_eq!(digest(&fed_avg.weights), "bd285b559904f615653fd30506d2caee6165abdeb70010f5bddaf2f853a469ca");
    let fed_yogi = outputs(FED_YOGI);
    assert_eq!(digest(&fed_yogi.weights), "136a796f4fdbc02f7ad2e967006130b3ee4eb124598938693c5ca35804d54afa");
    assert_eq!(
        digest(&fed_yogi.optimizer_state.unwrap()),
        "a9a73404d3aabf51c67413e7278fb1b6df6ea9bca64e34a23d465a1c89783bea"
    );
}
