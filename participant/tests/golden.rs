//! Updates have known digests: the same in every build, with any number of threads and whatever vectors the processor has.
//!
//! Only exponentials come from outside: those of the C library, here glibc on x86-64 with fused multiply-add. Elsewhere the
//! last digits may be others, and the test says that it was skipped.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use fedledger_federation::{architecture::Architecture, plan::UpdateDtype, tensors::Tensor};
use fedledger_participant::{
    table::{Dataset, PixelScale},
    training::{ComputeDevice, Optimizer, Resumption, TrainingSettings, train_to_file},
};

const ROWS: u32 = 100;

/// SHA-256 of the updates of a logistic regression, a perceptron, a convolutional and a residual network.
const DIGESTS: [&str; 4] = [
    "46c33cfab00118939b72ab913d582ddf49fcf9fd7572964e8fa67ce95d61589b",
    "8a4cf13e2814d944fa511f4ce2f8e0ec82c1cfe9cb27fb53e24540fac37daf0f",
    "0b18b12146c85a43b9230d7ecf1ba1f8b259097884264cac5cc75c631e9972ce",
    "ea63e173b62f6501060f9032329c8e8a987093432dde8be054203ba0eff49c03",
];

/// Numbers without a pattern.
fn number(index: u32) -> u32 {
    index.wrapping_mul(2_654_435_761) >> 16
}

fn labels(classes: u32) -> Vec<f32> {
    (0..ROWS).map(|row| (number(row) % classes) as f32).collect()
}

/// Rows of a table, between -1 and 1.
fn table(columns: u32, classes: u32) -> Dataset {
    let features = (0..ROWS * columns).map(|index| number(index) as f32 / 32768.0 - 1.0);
    Dataset::new(features.collect(), labels(classes), columns as usize).unwrap()
}

fn images(values: u32, classes: u32) -> Dataset {
    let bytes = (0..ROWS * values).map(|index| number(index).to_le_bytes()[0]).collect();
    let scale = PixelScale { mean: 0.5, deviation: 0.25 };
    Dataset::of_images(bytes, scale, labels(classes), values as usize).unwrap()
}

/// SHA-256 of the update of 30 steps.
fn digest(architecture: &Architecture, optimizer: Optimizer, data: &Dataset) -> String {
    let weights = architecture.initial_weights(7).unwrap();
    let base: Vec<Tensor> = weights.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
    let settings = TrainingSettings {
        architecture: architecture.clone(),
        optimizer,
        steps: 30,
        batch_size: 16,
        seed: 42,
        round: 3,
        member: "cleveland".to_owned(),
        device: ComputeDevice::Cpu,
    };
    let resumption = Resumption { resume_from: None, every_steps: 0, report: &mut |_| Ok(()) };
    let layout = architecture.update_layout(UpdateDtype::F32).unwrap();
    let (_, file) = train_to_file(&settings, data, base.as_slice(), resumption, layout, std::io::sink()).unwrap();
    file.digest.to_string()
}

#[test]
fn updates_have_the_same_bytes_in_every_build() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    let known = std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
    let known = false;
    if !known {
        println!("skipped: the digests are those of glibc's exponentials on x86-64 with fused multiply-add");
        return;
    }
    let (channels, height, width, classes) = (1, 14, 12, Some(4));
    let (convolutions, hidden) = (vec![6, 8], vec![20]);
    let convolutional =
        Architecture::Convolutional { channels, height, width, convolutions, kernel: 3, hidden, classes };
    let (widths, blocks) = (vec![8, 12], 1);
    let residual = Architecture::Residual { channels: 3, height, width, widths, blocks, classes };
    let perceptron = Architecture::MultilayerPerceptron { features: 13, hidden: vec![32, 16], classes: Some(5) };
    let cases = [
        (Architecture::logistic_regression(13), Optimizer::sgd(0.05), table(13, 2)),
        (perceptron, Optimizer::adam(0.01), table(13, 5)),
        (convolutional, Optimizer::adamw(0.01, 0.01), images(14 * 12, 4)),
        (residual, Optimizer::sgd(0.05), images(3 * 14 * 12, 4)),
    ];
    for threads in [1, 3] {
        // Threads that the numeric library would spread work over if it were asked to.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = pool.install(|| cases.each_ref().map(|(model, optimizer, data)| digest(model, *optimizer, data)));
        assert_eq!(found, DIGESTS, "with {threads} threads");
    }
}
