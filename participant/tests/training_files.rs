//! Training from a file to a file: the update of training in memory, in the plan's element type.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{fs, io};

use fedledger_federation::{
    architecture::Architecture,
    command::FileRef,
    plan::UpdateDtype,
    tensors::{FileError, Input, StreamWriteError, Tensor, read_tensors, write_tensors},
};
use fedledger_ledger::Digest;
use fedledger_participant::{
    evaluation::{EvaluationError, evaluate, evaluate_from},
    table::Dataset,
    training::{
        ComputeDevice, Optimizer, Progress, Resumption, TrainingError, TrainingSettings, TrainingSummary, WeightsFile,
        train, train_to_file,
    },
};
use tempfile::TempDir;

fn data() -> Dataset {
    let features = (0..37 * 5).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0);
    let labels = (0..37).map(|row| if row % 3 == 0 { 1.0 } else { 0.0 });
    Dataset::new(features.collect(), labels.collect(), 5).unwrap()
}

/// Wide enough that a tensor comes in several pieces.
fn settings(learning_rate: f64) -> TrainingSettings {
    TrainingSettings {
        architecture: Architecture::multilayer_perceptron(5, &[8000]),
        optimizer: Optimizer::sgd(learning_rate),
        steps: 6,
        batch_size: 4,
        seed: 42,
        round: 1,
        member: "cleveland".to_owned(),
        device: ComputeDevice::Cpu,
    }
}

/// The base weights in memory and on disk.
struct Base {
    directory: TempDir,
    tensors: Vec<Tensor>,
    file: FileRef,
}

impl Base {
    fn of(architecture: &Architecture) -> Self {
        let weights = architecture.initial_weights(7).unwrap();
        let tensors: Vec<_> = weights.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
        let bytes = write_tensors(&tensors).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("weights"), &bytes).unwrap();
        Self { directory, tensors, file: FileRef { digest: Digest::of(&bytes), size: bytes.len() as u64 } }
    }

    fn weights(&self, architecture: &Architecture) -> WeightsFile {
        WeightsFile::new(&self.directory.path().join("weights"), self.file, architecture.layout().unwrap())
    }
}

fn to_file(
    settings: &TrainingSettings,
    base: &Base,
    dtype: UpdateDtype,
    resume_from: Option<&[u8]>,
    report: &mut (dyn FnMut(&Progress<'_>) -> io::Result<()> + Send),
) -> Result<(TrainingSummary, FileRef, Vec<u8>), TrainingError> {
    let mut update = Vec::new();
    let resume_from = resume_from.map(|bytes| -> Box<dyn io::Read + Send> { Box::new(bytes) });
    let resumption = Resumption { resume_from, every_steps: 1, report };
    let layout = settings.architecture.update_layout(dtype).unwrap();
    let weights = base.weights(&settings.architecture);
    let (summary, file) = train_to_file(settings, &data(), &weights, resumption, layout, &mut update)?;
    Ok((summary, file, update))
}

#[test]
fn the_update_is_that_of_training_in_memory_rounded_to_the_plans_type() {
    let settings = settings(0.05);
    let base = Base::of(&settings.architecture);
    let outcome = train(&settings, &data(), &base.tensors).unwrap();
    for dtype in [UpdateDtype::F32, UpdateDtype::F16, UpdateDtype::BF16] {
        let (summary, file, update) = to_file(&settings, &base, dtype, None, &mut |_| Ok(())).unwrap();
        assert_eq!(summary, outcome.summary);
        assert_eq!(file, FileRef { digest: Digest::of(&update), size: settings.architecture.update_size_bytes(dtype) });
        let layout = settings.architecture.update_layout(dtype).unwrap();
        let found = read_tensors(Input { file, reader: &update[..] }, &layout).unwrap();
        // The nearest value of the type: nothing that the type can hold lies between it and the exact one.
        let digits = match dtype {
            UpdateDtype::F32 => 24,
            UpdateDtype::F16 => 11,
            UpdateDtype::BF16 => 8,
        };
        for (found, exact) in found.iter().zip(&outcome.delta) {
            assert_eq!((&found.name, &found.shape), (&exact.name, &exact.shape));
            for (found, exact) in found.values.iter().zip(&exact.values) {
                let half_a_unit = (exact.abs() / 2_f32.powi(digits)).max(2_f32.powi(-25));
                let tolerance = if dtype == UpdateDtype::F32 { 0.0 } else { half_a_unit };
                assert!((found - exact).abs() <= tolerance, "{dtype:?}: {found} for {exact}");
            }
        }
    }
}

#[test]
fn what_a_type_cannot_hold_is_an_error_and_not_clamped() {
    // Steps so long that the update exceeds 65,504, the largest binary16.
    let settings = settings(1e7);
    let base = Base::of(&settings.architecture);
    to_file(&settings, &base, UpdateDtype::BF16, None, &mut |_| Ok(())).unwrap();
    let error = to_file(&settings, &base, UpdateDtype::F16, None, &mut |_| Ok(())).unwrap_err();
    let TrainingError::Update(StreamWriteError::NotRepresentable { value, .. }) = error else { panic!("{error}") };
    assert!(value.abs() > 65_504.0);
}

#[test]
fn a_run_from_a_file_is_resumed_from_a_file() {
    let settings = settings(0.05);
    let base = Base::of(&settings.architecture);
    let mut checkpoint = Vec::new();
    let mut report = |progress: &Progress<'_>| {
        if progress.step() < 3 {
            return Ok(());
        }
        progress.write_to(&mut checkpoint)?;
        Err(io::ErrorKind::Interrupted.into())
    };
    let stopped = to_file(&settings, &base, UpdateDtype::F32, None, &mut report).unwrap_err();
    assert!(matches!(stopped, TrainingError::Stopped { step: 3, .. }), "{stopped}");
    let whole = to_file(&settings, &base, UpdateDtype::F32, None, &mut |_| Ok(())).unwrap();
    let mut steps = Vec::new();
    let resumed = to_file(&settings, &base, UpdateDtype::F32, Some(&checkpoint), &mut |progress| {
        steps.push((progress.step(), progress.resumes()));
        Ok(())
    });
    assert_eq!((resumed.unwrap(), steps), (whole, vec![(3, true), (4, false), (5, false)]));
}

#[test]
fn a_damaged_base_leads_to_no_update() {
    let settings = settings(0.05);
    let base = Base::of(&settings.architecture);
    let path = base.directory.path().join("weights");
    let whole = fs::read(&path).unwrap();
    let flipped = [0, 20, whole.len() / 2, whole.len() - 1].map(|at| {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        damaged
    });
    // A value that no weight may have is damage as well, where the digest says so.
    let value = whole.len() / 2 / 4 * 4;
    let not_finite = [&whole[..value], &[0xff; 8], &whole[value + 8..]].concat();
    for damaged in flipped.into_iter().chain([not_finite]) {
        fs::write(&path, damaged).unwrap();
        let error = to_file(&settings, &base, UpdateDtype::F32, None, &mut |_| Ok(())).unwrap_err();
        let TrainingError::BaseFile(FileError::Damaged { file, .. }) = error else { panic!("{error}") };
        assert_eq!(file, base.file.digest);
        let weights = base.weights(&settings.architecture);
        let error = evaluate_from(&settings.architecture, &weights, &data()).unwrap_err();
        assert!(matches!(error, EvaluationError::File(FileError::Damaged { .. })), "{error}");
    }
    // Damaged while it is trained on: it is read again at the end.
    fs::write(&path, &whole).unwrap();
    let mut damage = |progress: &Progress<'_>| {
        if progress.step() == 2 { fs::write(&path, &whole[..whole.len() - 1]) } else { Ok(()) }
    };
    let error = to_file(&settings, &base, UpdateDtype::F32, None, &mut damage).unwrap_err();
    assert!(matches!(error, TrainingError::BaseFile(FileError::Damaged { .. })), "{error}");
}

#[test]
fn weights_in_a_file_are_evaluated_as_in_memory() {
    let settings = settings(0.05);
    let base = Base::of(&settings.architecture);
    let weights = base.weights(&settings.architecture);
    let found = evaluate_from(&settings.architecture, &weights, &data()).unwrap();
    assert_eq!(found, evaluate(&settings.architecture, &base.tensors, &data()).unwrap());
}
