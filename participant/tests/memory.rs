//! The estimate of a training's memory is not below what a training takes. It has a process of its own, because a process
//! has one peak.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::fs::{self, File};

use fedledger_federation::{
    architecture::Architecture,
    command::FileRef,
    tensors::{Tensor, TensorWriter},
};
use fedledger_participant::{
    memory::{PeakMeasurement, estimate, peak_bytes},
    table::Dataset,
    training::{Optimizer, Resumption, TrainingSettings, WeightsFile, train_to_file},
};

const ROWS: usize = 20_000;
const COLUMNS: u32 = 200;

/// Memory of this process now, in bytes.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Writes the initial weights of a model, of which nothing stays in memory.
fn weights(architecture: &Architecture, folder: &std::path::Path) -> WeightsFile {
    let (path, layout) = (folder.join("weights"), architecture.layout().unwrap());
    let mut writer = TensorWriter::new(layout.clone(), File::create(&path).unwrap()).unwrap();
    for (name, shape, values) in architecture.initial_weights(1).unwrap() {
        writer.push(&Tensor { name, shape, values }.values).unwrap();
    }
    let file: FileRef = writer.finish().unwrap();
    WeightsFile::new(&path, file, layout)
}

#[test]
fn a_training_takes_no_more_than_was_estimated_and_not_much_less() {
    let Some(before) = resident_bytes() else {
        println!("skipped: this system does not tell how much memory a process has");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let features: Vec<f32> = (0..ROWS * COLUMNS as usize).map(|index| (index % 97) as f32 / 97.0).collect();
    let labels = (0..ROWS).map(|row| if row % 3 == 0 { 1.0 } else { 0.0 }).collect();
    let data = Dataset::new(features, labels, COLUMNS as usize).unwrap();
    // From small to large, because the peak of a process never falls.
    let models: [(&[u32], Optimizer); 3] =
        [(&[64], Optimizer::sgd(0.01)), (&[2048, 512], Optimizer::sgd(0.01)), (&[4096, 2048], Optimizer::adam(0.001))];
    let train = |hidden: &[u32], optimizer: Optimizer| {
        let architecture = Architecture::multilayer_perceptron(COLUMNS, hidden);
        let base = weights(&architecture, folder.path());
        let settings = TrainingSettings {
            architecture: architecture.clone(),
            optimizer,
            steps: 1,
            batch_size: 256,
            seed: 1,
            round: 1,
            member: "va".to_owned(),
        };
        let resumption = Resumption { resume_from: None, every_steps: 0, report: &mut |_| Ok(()) };
        let layout = architecture.layout().unwrap();
        train_to_file(&settings, &data, &base, resumption, layout, std::io::sink()).unwrap();
        (peak_bytes().unwrap().saturating_sub(before), estimate(&settings, ROWS as u64, COLUMNS.into()))
    };
    let mut largest = 0;
    for (hidden, optimizer) in models {
        let (taken, expected) = train(hidden, optimizer);
        largest = taken;
        println!("{hidden:?}: {taken} bytes taken, {expected:?}");
        assert!(taken <= expected.total_bytes, "{hidden:?}: {taken} bytes taken, {expected:?}");
        assert!(taken * 3 >= expected.total_bytes, "{hidden:?}: {taken} bytes taken, {expected:?}");
    }

    // The peak of a process falls where a measurement begins, and only there.
    assert!(train(&[64], Optimizer::sgd(0.01)).0 >= largest);
    let _measurement = PeakMeasurement::begin();
    let (taken, _) = train(&[64], Optimizer::sgd(0.01));
    assert!(taken < largest / 2, "a small training was told the {largest} bytes of a large one: {taken}");
    train(&[2048, 512], Optimizer::sgd(0.01));
    let peak = peak_bytes();
    drop(PeakMeasurement::begin());
    assert!(peak_bytes() >= peak, "a measurement was spoilt by another one that began later");
}
