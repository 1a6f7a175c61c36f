use fedledger_federation::architecture::Architecture;

use super::*;
use crate::training::ComputeDevice;

fn settings(architecture: Architecture, optimizer: Optimizer, batch_size: u32) -> TrainingSettings {
    let (member, device) = ("va".to_owned(), ComputeDevice::Cpu);
    TrainingSettings { architecture, optimizer, steps: 1, batch_size, seed: 1, round: 1, member, device }
}

const TABLE: Records = Records { train_rows: 1000, test_rows: 10, columns: 10, value_bytes: 4 };

#[test]
fn every_part_counts() {
    let sgd = Optimizer::sgd(0.1);
    let perceptron = |hidden| Architecture::multilayer_perceptron(10, &[hidden]);
    let least = estimate(&settings(perceptron(100), sgd, 4), &TABLE);
    // 10 x 100 weights and 100 biases, then 100 weights and a bias; 100 rows of 10 weights, filled up to 16, in order.
    assert_eq!(least.model_bytes, 1201 * 2 * 4 + 100 * 16 * 4);
    // 100 and 1 values, and six copies of the larger ones; a batch of 11 values a row.
    assert_eq!(least.activations_bytes, 4 * (100 + 1 + 6 * 100) * 4 + 4 * 11 * 4);
    assert_eq!(least.data_bytes, 1010 * (10 * 4 + ROW_BYTES));
    assert_eq!(least.evaluation_bytes, 1201 * 4 + 100 * 16 * 4 + 10 * (101 + 11) * 4 + 10 * (4 + SCORE_BYTES));
    // After so small a training, all that it took may be left.
    let training = least.model_bytes + least.activations_bytes;
    assert_eq!(least.total_bytes, training + least.evaluation_bytes + least.data_bytes + FIXED_BYTES);
    for more in [
        estimate(&settings(perceptron(101), sgd, 4), &TABLE),
        estimate(&settings(perceptron(100), Optimizer::adam(0.1), 4), &TABLE),
        estimate(&settings(perceptron(100), sgd, 5), &TABLE),
        estimate(&settings(perceptron(100), sgd, 4), &Records { train_rows: 1001, ..TABLE }),
        estimate(&settings(perceptron(100), sgd, 4), &Records { test_rows: 11, ..TABLE }),
        estimate(&settings(perceptron(100), sgd, 4), &Records { columns: 11, ..TABLE }),
    ] {
        assert!(more.total_bytes > least.total_bytes);
    }
}

#[test]
fn images_take_a_byte_for_each_value() {
    let images = Records { value_bytes: 1, ..TABLE };
    let of_images = estimate(&settings(Architecture::logistic_regression(10), Optimizer::sgd(0.1), 4), &images);
    assert_eq!(of_images.data_bytes, 1010 * (10 + ROW_BYTES + READ_LABEL_BYTES));
}

#[test]
fn outputs_for_many_classes_and_test_rows_take_more_than_the_training() {
    let many = Architecture::LogisticRegression { features: 2, classes: Some(1000) };
    let records = Records { train_rows: 10, test_rows: 100_000, columns: 2, value_bytes: 4 };
    let estimate = estimate(&settings(many, Optimizer::sgd(0.1), 4), &records);
    assert!(estimate.evaluation_bytes > 100_000 * 1000 * 4);
    let left = estimate.model_bytes + estimate.activations_bytes;
    assert_eq!(estimate.total_bytes, left + estimate.evaluation_bytes + estimate.data_bytes + FIXED_BYTES);
}

#[test]
fn a_large_training_takes_more_than_an_evaluation_beside_what_it_leaves() {
    let wide = Architecture::multilayer_perceptron(10, &[8192, 8192]);
    let estimate = estimate(&settings(wide, Optimizer::adam(0.1), 4), &TABLE);
    let training = estimate.model_bytes + estimate.activations_bytes;
    assert!(training > estimate.evaluation_bytes + LEFT_BYTES_MAX);
    assert_eq!(estimate.total_bytes, training + estimate.data_bytes + FIXED_BYTES);
}

#[test]
fn convolutions_keep_what_is_pooled_and_take_one_image_at_a_time() {
    let (channels, height, width, classes) = (1, 8, 8, None);
    let (convolutions, hidden) = (vec![16], vec![]);
    let architecture =
        Architecture::Convolutional { channels, height, width, convolutions, kernel: 5, hidden, classes };
    let layers = Layers::of(&architecture);
    // 4 x 4 places, pooled to 2 x 2 with a byte each; the same in another order; a logit.
    let (pooled, ordered, logit) = (2 * 2 * 16 * 5, 2 * 2 * 16 * 4, 4);
    assert_eq!(layers.kept_bytes(), pooled + ordered + logit);
    assert_eq!(layers.training_bytes(), layers.kept_bytes() + 6 * pooled);
    assert_eq!(layers.bytes_of_an_image(), (2 * 16 * 16 + 2 * 64) * 4);
    // 16 filters of 25 values, which are filled up to 32, five times.
    assert_eq!(layers.weights_in_order(), 16 * 32 * 4 * 5);
}

#[test]
fn what_cannot_be_counted_is_too_much() {
    let huge = Architecture::multilayer_perceptron(u32::MAX, &[u32::MAX; 8]);
    let records = Records { train_rows: u64::MAX, test_rows: u64::MAX, columns: u64::MAX, value_bytes: 4 };
    let estimate = estimate(&settings(huge, Optimizer::adam(0.1), u32::MAX), &records);
    assert_eq!(estimate.total_bytes, u64::MAX);
}
