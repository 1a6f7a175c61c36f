use proptest::prelude::*;

use super::*;

/// Twenty rows of two classes, of which the first eight are one group and the others another one.
const LABELS: [f32; 20] = [1., 0., 1., 1., 0., 0., 1., 0., 1., 0., 0., 1., 1., 0., 0., 1., 0., 1., 0., 0.];
const LOGITS: [f32; 20] = [
    2.5, -1.5, 0.5, -0.25, 0.75, -2.0, 1.25, -0.5, 3.0, 0.5, -3.5, 0.125, -1.0, -0.75, 1.5, 2.0, -0.125, 0.75, -1.25,
    0.25,
];

fn two_classes(logits: &[f32], labels: &[f32]) -> Scores {
    score(&Outputs { logits: logits.to_vec(), classes: 2 }, labels, None).unwrap().all
}

fn groups(of_row: Vec<u16>) -> Groups {
    Groups { names: ["first", "second", "third"].map(str::to_owned).to_vec(), of_row }
}

/// What scikit-learn 1.9.1 says (accuracy_score, log_loss, roc_auc_score, f1_score), and numpy for the calibration error and
/// DeLong's interval, each from its definition.
#[test]
fn two_classes_are_scored_as_scikit_learn_does() {
    let scores = two_classes(&LOGITS, &LABELS);
    assert_eq!((scores.examples, scores.correct, scores.class_examples.as_slice()), (20, 14, &[11, 9][..]));
    assert_eq!((scores.accuracy_millionths, scores.loss_millionths), (700_000, 544_048));
    assert_eq!((scores.auc_millionths, scores.f1_millionths), (Some(787_879), Some(700_000)));
    assert_eq!(scores.auc_interval, Some(Interval { low_millionths: 525_196, high_millionths: 925_773 }));
    assert_eq!(scores.calibration_error_millionths, 217_590);
}

#[test]
fn each_group_is_scored_as_if_it_were_alone() {
    let outputs = Outputs { logits: LOGITS.to_vec(), classes: 2 };
    let of_row = (0..20).map(|row| u16::from(row >= 8)).collect();
    let evaluation = score(&outputs, &LABELS, Some(&groups(of_row))).unwrap();
    assert_eq!(evaluation.all, two_classes(&LOGITS, &LABELS));
    assert_eq!(evaluation.groups.keys().collect::<Vec<_>>(), ["first", "second"], "the third has no rows");
    assert_eq!(evaluation.groups["first"], two_classes(&LOGITS[..8], &LABELS[..8]));
    let second = &evaluation.groups["second"];
    assert_eq!((second.accuracy_millionths, second.loss_millionths), (666_667, 609_236));
    assert_eq!((second.auc_millionths, second.f1_millionths), (Some(742_857), Some(666_667)));
    assert_eq!(second.auc_interval, Some(Interval { low_millionths: 353_935, high_millionths: 938_401 }));
    assert_eq!(second.calibration_error_millionths, 262_659);
}

/// Twelve rows of three classes.
const SEVERAL: [[f32; 3]; 12] = [
    [1.5, 0.25, -1.0],
    [0.5, 0.75, -0.25],
    [-2.0, 1.0, 2.5],
    [0.125, 0.5, 0.25],
    [3.0, -1.0, 0.0],
    [-0.5, 2.0, 1.5],
    [0.75, 0.5, 1.0],
    [1.0, 1.25, -0.5],
    [-1.5, -0.25, 0.5],
    [0.0, -0.5, 2.0],
    [2.0, 0.5, 1.75],
    [0.25, 1.5, -2.0],
];
const CLASSES: [f32; 12] = [0., 1., 2., 0., 0., 1., 2., 1., 1., 2., 2., 0.];

fn several(rows: &[[f32; 3]], labels: &[f32]) -> Scores {
    score(&Outputs { logits: rows.concat(), classes: 3 }, labels, None).unwrap().all
}

/// By scikit-learn: `roc_auc_score` with `multi_class="ovr"`, and both means are macro means.
#[test]
fn several_classes_are_scored_as_scikit_learn_does() {
    let scores = several(&SEVERAL, &CLASSES);
    assert_eq!((scores.correct, scores.class_examples.as_slice()), (8, &[4, 4, 4][..]));
    assert_eq!((scores.accuracy_millionths, scores.loss_millionths), (666_667, 715_405));
    assert_eq!((scores.auc_millionths, scores.f1_millionths), (Some(843_750), Some(662_698)));
    assert_eq!(scores.calibration_error_millionths, 267_653);
    assert_eq!(scores.auc_interval, None);
}

#[test]
fn without_rows_of_every_class_there_is_no_area() {
    // The third and fourth rows are taken for the classes 2 and 1.
    let scores = several(&SEVERAL[2..4], &[1.0, 0.0]);
    assert_eq!((scores.auc_millionths, scores.f1_millionths), (None, Some(0)));
    let scores = two_classes(&[1.0, -1.0], &[1.0, 1.0]);
    assert_eq!((scores.auc_millionths, scores.f1_millionths), (None, Some(666_667)));
    let scores = two_classes(&[-1.0, -1.0], &[0.0, 0.0]);
    assert_eq!((scores.auc_millionths, scores.f1_millionths), (None, None), "nothing is positive or taken for it");
}

#[test]
fn of_equal_logits_the_first_class_is_predicted_and_a_probability_of_one_half_is_negative() {
    let scores = several(&[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], &[0.0, 1.0]);
    assert_eq!(scores.correct, 2);
    assert_eq!(two_classes(&[0.0, -0.0], &[0.0, 1.0]).correct, 1);
}

#[test]
fn losses_of_any_finite_output_are_bounded() {
    for scores in [two_classes(&[f32::MAX, 0.0], &[0.0, 1.0]), several(&[[f32::MAX, f32::MIN, 0.0]], &[1.0])] {
        assert_eq!(scores.loss_millionths, LOSS_MILLIONTHS_MAX);
        assert!((0..=1_000_000).contains(&scores.calibration_error_millionths));
    }
}

#[test]
fn outputs_that_do_not_fit_the_rows_are_refused() {
    let refused = |logits: &[f32], classes, labels: &[f32]| {
        score(&Outputs { logits: logits.to_vec(), classes }, labels, None).unwrap_err()
    };
    assert!(matches!(refused(&[], 2, &[]), EvaluationError::NoRows));
    assert!(matches!(refused(&[0.0; 5], 2, &[0.0; 2]), EvaluationError::OutputCount { rows: 2, found: 5 }));
    assert!(matches!(refused(&[0.0; 2], 2, &[0.0, 2.0]), EvaluationError::Label { row: 1, classes: 2 }));
    assert!(matches!(refused(&[0.0; 6], 3, &[3.0, 0.0]), EvaluationError::Label { row: 0, classes: 3 }));
    for bad in [f32::NAN, f32::INFINITY] {
        let logits = [0.0, 0.0, 0.0, 0.0, bad, 0.0];
        assert!(matches!(refused(&logits, 3, &[0.0; 2]), EvaluationError::NotFinite { row: 1 }));
    }
}

proptest! {
    #[test]
    fn one_logit_and_the_difference_of_two_are_the_same_model(
        rows in prop::collection::vec((-40i16..40, -40i16..40, any::<bool>()), 1..40)
    ) {
        let labels: Vec<f32> = rows.iter().map(|row| if row.2 { 1.0 } else { 0.0 }).collect();
        // Quarters are exact.
        let quarter = |number: i16| f32::from(number) / 4.0;
        let one: Vec<f32> = rows.iter().map(|row| quarter(row.1) - quarter(row.0)).collect();
        let two: Vec<f32> = rows.iter().flat_map(|row| [quarter(row.0), quarter(row.1)]).collect();
        prop_assert_eq!(two_classes(&one, &labels), two_classes(&two, &labels));
    }

    #[test]
    fn everything_is_within_what_the_ledger_takes(
        rows in prop::collection::vec((prop::array::uniform3(-1e3f32..1e3), 0u8..3, 0u16..3), 1..60)
    ) {
        let outputs = Outputs { logits: rows.iter().flat_map(|row| row.0).collect(), classes: 3 };
        let labels: Vec<f32> = rows.iter().map(|row| f32::from(row.1)).collect();
        let named = groups(rows.iter().map(|row| row.2).collect());
        let evaluation = score(&outputs, &labels, Some(&named)).unwrap();
        prop_assert_eq!(evaluation.groups.values().map(|group| group.examples).sum::<u64>(), rows.len() as u64);
        for scores in evaluation.groups.values().chain([&evaluation.all]) {
            for (name, value) in scores.metrics(true) {
                let range = fedledger_federation::metrics::range(&name).unwrap();
                prop_assert!(range.contains(&value), "{} {}", name, value);
            }
        }
    }
}
