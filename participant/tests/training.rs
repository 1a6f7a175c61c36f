//! Training: right gradients, and the same bytes whatever happens on the way.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::io;

use fedledger_federation::{architecture::Architecture, tensors::Tensor};
use fedledger_participant::{
    table::Dataset,
    training::{
        ComputeDevice, DeviceError, Optimizer, Progress, Resumption, SettingsError, TrainingError, TrainingOutcome,
        TrainingSettings, train, train_resumable,
    },
};

/// 37 rows of 5 features, some of them negative, with both labels.
fn data() -> Dataset {
    let features = (0..37 * 5).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0);
    let labels = (0..37).map(|row| if row % 3 == 0 { 1.0 } else { 0.0 });
    Dataset::new(features.collect(), labels.collect(), 5).unwrap()
}

fn settings(architecture: Architecture, optimizer: Optimizer) -> TrainingSettings {
    let (steps, batch_size, seed, round) = (25, 4, 42, 3);
    let (member, device) = ("cleveland".to_owned(), ComputeDevice::Cpu);
    TrainingSettings { architecture, optimizer, steps, batch_size, seed, round, member, device }
}

fn logistic() -> Architecture {
    Architecture::logistic_regression(5)
}

fn perceptron() -> Architecture {
    Architecture::multilayer_perceptron(5, &[8, 3])
}

fn convolutional() -> Architecture {
    let (channels, height, width, convolutions, hidden) = (2, 12, 10, vec![5, 6], vec![7]);
    Architecture::Convolutional { channels, height, width, convolutions, kernel: 3, hidden, classes: Some(3) }
}

fn residual() -> Architecture {
    let (channels, height, width, widths) = (1, 6, 7, vec![4, 6]);
    Architecture::Residual { channels, height, width, widths, blocks: 1, classes: Some(3) }
}

/// Rows that the architecture takes, of all its classes.
fn data_for(architecture: &Architecture) -> Dataset {
    let columns = architecture.inputs().unwrap();
    let value = |index: u32| (index.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0;
    let labels = (0..37).map(|row| (row % architecture.classes()) as f32).collect();
    Dataset::new((0..37 * columns).map(value).collect(), labels, columns as usize).unwrap()
}

fn base(architecture: &Architecture) -> Vec<Tensor> {
    let weights = architecture.initial_weights(7).unwrap();
    weights.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect()
}

const SGD: Optimizer = Optimizer::sgd(0.05);
const MOMENTUM: Optimizer = Optimizer::Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.1 };
const ADAM: Optimizer = Optimizer::adam(0.05);
const ADAMW: Optimizer = Optimizer::adamw(0.05, 0.1);

fn all_cases() -> Vec<TrainingSettings> {
    let architectures = [logistic(), perceptron(), convolutional(), residual()];
    let optimizers = [SGD, MOMENTUM, ADAM, ADAMW];
    architectures.into_iter().flat_map(|of| optimizers.map(|optimizer| settings(of.clone(), optimizer))).collect()
}

fn bits(outcome: &TrainingOutcome) -> (Vec<u32>, [u64; 2]) {
    let values = outcome.delta.iter().flat_map(|tensor| tensor.values.iter().map(|value| value.to_bits()));
    (values.collect(), [outcome.summary.first_loss.to_bits(), outcome.summary.last_loss.to_bits()])
}

/// Bias and weights after a step over all rows, in double precision, written out by hand.
struct Reference {
    parameters: [f64; 6],
    first: [f64; 6],
    second: [f64; 6],
}

impl Reference {
    fn gradient(&self, data: &Dataset) -> ([f64; 6], f64) {
        let (mut gradient, mut loss) = ([0.0; 6], 0.0);
        let share = 1.0 / data.rows() as f64;
        for (row, label) in data.iter() {
            let inputs: Vec<f64> = std::iter::once(1.0).chain(row.iter().map(|&value| f64::from(value))).collect();
            let logit: f64 = inputs.iter().zip(self.parameters).map(|(input, parameter)| input * parameter).sum();
            let probability = 1.0 / (1.0 + (-logit).exp());
            let label = f64::from(label);
            loss -= share * (label * probability.ln() + (1.0 - label) * (1.0 - probability).ln());
            for (sum, input) in gradient.iter_mut().zip(inputs) {
                *sum += share * (probability - label) * input;
            }
        }
        (gradient, loss)
    }

    fn step(&mut self, gradient: [f64; 6], step: i32, optimizer: Optimizer) {
        for (index, g) in gradient.into_iter().enumerate() {
            let (weight, first, second) =
                (&mut self.parameters[index], &mut self.first[index], &mut self.second[index]);
            match optimizer {
                Optimizer::Sgd { learning_rate, momentum, weight_decay } => {
                    *first = momentum * *first + g + weight_decay * *weight;
                    *weight -= learning_rate * *first;
                }
                Optimizer::Adam { learning_rate, beta1, beta2, epsilon }
                | Optimizer::AdamW { learning_rate, beta1, beta2, epsilon, .. } => {
                    if let Optimizer::AdamW { weight_decay, .. } = optimizer {
                        *weight -= learning_rate * weight_decay * *weight;
                    }
                    *first = beta1 * *first + (1.0 - beta1) * g;
                    *second = beta2 * *second + (1.0 - beta2) * g * g;
                    let (first, second) = (*first / (1.0 - beta1.powi(step)), *second / (1.0 - beta2.powi(step)));
                    *weight -= learning_rate * first / (second.sqrt() + epsilon);
                }
            }
        }
    }
}

#[test]
fn logistic_regression_follows_the_gradient_computed_by_hand() {
    let (data, base) = (data(), base(&logistic()));
    let start: Vec<f64> = base.iter().flat_map(|tensor| tensor.values.iter().map(|&value| value.into())).collect();
    for optimizer in [SGD, MOMENTUM, ADAM, ADAMW] {
        let mut settings = settings(logistic(), optimizer);
        settings.batch_size = 37;
        let outcome = train(&settings, &data, &base).unwrap();

        let mut reference =
            Reference { parameters: start.clone().try_into().unwrap(), first: [0.0; 6], second: [0.0; 6] };
        let mut losses = Vec::new();
        for step in 1..=25 {
            let (gradient, loss) = reference.gradient(&data);
            losses.push(loss);
            reference.step(gradient, step, optimizer);
        }
        let delta = outcome.delta.iter().flat_map(|tensor| &tensor.values);
        for ((found, start), expected) in delta.zip(&start).zip(reference.parameters) {
            let expected = expected - start;
            assert!((f64::from(*found) - expected).abs() < 2e-6, "{optimizer:?}: {found} is not {expected}");
        }
        assert!(
            (outcome.summary.first_loss - losses[0]).abs() < 1e-6
                && (outcome.summary.last_loss - losses[24]).abs() < 1e-6
        );
        assert!(outcome.summary.last_loss < outcome.summary.first_loss);
        assert_eq!((outcome.summary.example_count, outcome.summary.steps), (37, 25));
    }
}

#[test]
fn hidden_layers_get_the_gradient_of_the_loss() {
    // Differences of the loss instead of formulas: one step of SGD over all rows moves each parameter by
    // -learning rate * gradient.
    let (data, base) = (data(), base(&perceptron()));
    let mut settings = settings(perceptron(), Optimizer::sgd(1.0));
    (settings.batch_size, settings.steps) = (37, 1);
    let outcome = train(&settings, &data, &base).unwrap();
    let h = 1e-4;
    for (tensor, delta) in outcome.delta.iter().enumerate() {
        for (index, found) in delta.values.iter().enumerate() {
            let mut shifted = [parameters(&base), parameters(&base)];
            shifted[0][tensor][index] += h;
            shifted[1][tensor][index] -= h;
            let [up, down] = shifted.map(|parameters| mean_loss(&parameters, &data));
            let expected = -(up - down) / (2.0 * h);
            let name = &delta.name;
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{name}[{index}]: {found} is not {expected}");
        }
    }
}

#[test]
fn a_batch_computed_in_parts_has_the_gradient_of_the_whole() {
    // A hidden layer so wide that 37 rows do not go through at once; only the first unit is connected to the output.
    let wide = Architecture::multilayer_perceptron(5, &[4096]);
    let data = data();
    let mut base = base(&wide);
    base[3].values[1..].fill(0.0);
    let mut settings = settings(wide, Optimizer::sgd(1.0));
    (settings.batch_size, settings.steps) = (37, 1);
    let outcome = train(&settings, &data, &base).unwrap();
    let first_unit = |tensors: &[Tensor]| {
        let mut parameters = parameters(tensors);
        for (values, length) in parameters.iter_mut().zip([1, 5, 1, 1]) {
            values.truncate(length);
        }
        parameters
    };
    let (small, found, h) = (first_unit(&base), first_unit(&outcome.delta), 1e-4);
    for (tensor, found) in found.iter().enumerate() {
        for (index, found) in found.iter().enumerate() {
            let mut shifted = [small.clone(), small.clone()];
            shifted[0][tensor][index] += h;
            shifted[1][tensor][index] -= h;
            let [up, down] = shifted.map(|parameters| mean_loss(&parameters, &data));
            let expected = -(up - down) / (2.0 * h);
            assert!((found - expected).abs() < 1e-5, "tensor {tensor}, value {index}: {found} is not {expected}");
        }
    }
    assert!((outcome.summary.first_loss - mean_loss(&small, &data)).abs() < 1e-6);
}

fn parameters(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    tensors.iter().map(|tensor| tensor.values.iter().map(|&value| value.into()).collect()).collect()
}

/// Mean loss of a perceptron in double precision; bias and weights of each layer in turn.
fn mean_loss(parameters: &[Vec<f64>], data: &Dataset) -> f64 {
    let losses = data.iter().map(|(row, label)| {
        let mut values: Vec<f64> = row.iter().map(|&value| value.into()).collect();
        for (index, layer) in parameters.chunks(2).enumerate() {
            if index > 0 {
                values.iter_mut().for_each(|value| *value = value.max(0.0));
            }
            let rows = layer[1].chunks(values.len()).zip(&layer[0]);
            values = rows.map(|(row, bias)| bias + row.iter().zip(&values).map(|(w, x)| w * x).sum::<f64>()).collect();
        }
        let probability = 1.0 / (1.0 + (-values[0]).exp());
        if label == 1.0 { -probability.ln() } else { -(1.0 - probability).ln() }
    });
    losses.sum::<f64>() / data.rows() as f64
}

#[test]
fn the_same_settings_give_the_same_bytes_for_any_number_of_threads() {
    for settings in all_cases() {
        let data = data_for(&settings.architecture);
        let base = base(&settings.architecture);
        let outcomes: Vec<_> = [1, 2, 4]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                bits(&pool.install(|| train(&settings, &data, &base).unwrap()))
            })
            .collect();
        assert_eq!(outcomes[0], outcomes[1], "{settings:?}");
        assert_eq!(outcomes[0], outcomes[2], "{settings:?}");
    }
}

#[test]
fn concurrent_runs_do_not_disturb_each_other() {
    let (data, settings) = (data(), settings(perceptron(), ADAM));
    let base = base(&settings.architecture);
    let alone = bits(&train(&settings, &data, &base).unwrap());
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| bits(&train(&settings, &data, &base).unwrap()))).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), alone);
        }
    });
}

#[test]
fn a_run_resumed_at_any_step_ends_with_the_same_bytes() {
    for settings in all_cases() {
        let data = data_for(&settings.architecture);
        let base = base(&settings.architecture);
        let undisturbed = bits(&train(&settings, &data, &base).unwrap());
        for checkpoint in checkpoints(&settings, &data, &base) {
            let resumed = resume(&settings, &data, &base, &checkpoint.bytes).unwrap();
            assert_eq!(bits(&resumed), undisturbed, "resumed after {} steps, {settings:?}", checkpoint.step);
        }
    }
}

/// A local checkpoint, as a file would hold it.
struct Checkpoint {
    step: u64,
    bytes: Vec<u8>,
}

/// The checkpoints after each step of a run.
fn checkpoints(settings: &TrainingSettings, data: &Dataset, base: &[Tensor]) -> Vec<Checkpoint> {
    let mut saved = Vec::new();
    let mut report = |progress: &Progress<'_>| {
        let mut bytes = Vec::new();
        progress.write_to(&mut bytes)?;
        saved.push(Checkpoint { step: progress.step(), bytes });
        Ok(())
    };
    let resumption = Resumption { resume_from: None, every_steps: 1, report: &mut report };
    train_resumable(settings, data, base, resumption).unwrap();
    assert_eq!(saved.len() as u64, settings.steps - 1, "a finished run needs no checkpoint");
    saved
}

fn resume(
    settings: &TrainingSettings,
    data: &Dataset,
    base: &[Tensor],
    checkpoint: &[u8],
) -> Result<TrainingOutcome, TrainingError> {
    let resume_from: Option<Box<dyn io::Read + Send>> = Some(Box::new(checkpoint));
    train_resumable(settings, data, base, Resumption { resume_from, every_steps: 0, report: &mut |_| Ok(()) })
}

#[test]
fn progress_is_reported_after_each_pass_unless_told_otherwise() {
    let (data, settings) = (data(), settings(logistic(), SGD));
    let mut steps = Vec::new();
    let mut report = |progress: &Progress<'_>| {
        assert!(progress.ends_pass());
        steps.push(progress.step());
        Ok(())
    };
    let resumption = Resumption { resume_from: None, every_steps: 0, report: &mut report };
    train_resumable(&settings, &data, &base(&logistic()), resumption).unwrap();
    assert_eq!(steps, [10, 20], "37 rows are ten batches of 4");
}

#[test]
fn an_error_while_saving_stops_the_run() {
    let (data, settings) = (data(), settings(logistic(), SGD));
    let mut report = |_: &Progress<'_>| Err(io::Error::other("disk full"));
    let resumption = Resumption { resume_from: None, every_steps: 5, report: &mut report };
    let error = train_resumable(&settings, &data, &base(&logistic()), resumption).unwrap_err();
    assert!(matches!(error, TrainingError::Stopped { step: 5, .. }), "{error}");
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (data, base) = (data(), base(&logistic()));
    let own = settings(logistic(), ADAM);
    let checkpoint = checkpoints(&own, &data, &base).remove(3).bytes;
    assert!(resume(&own, &data, &base, &checkpoint).is_ok());
    let others = [
        TrainingSettings { round: 4, ..own.clone() },
        TrainingSettings { seed: 1, ..own.clone() },
        TrainingSettings { member: "va".to_owned(), ..own.clone() },
        TrainingSettings { optimizer: Optimizer::adam(0.01), ..own.clone() },
        TrainingSettings { optimizer: ADAMW, ..own.clone() },
        TrainingSettings { device: ComputeDevice::Cuda, ..own.clone() },
    ];
    for other in &others {
        let outcome = resume(other, &data, &base, &checkpoint);
        assert!(matches!(outcome, Err(TrainingError::ForeignCheckpoint)), "{other:?}");
    }
    let mut moved = base.clone();
    moved[1].values[0] += 1.0;
    assert!(matches!(resume(&own, &data, &moved, &checkpoint), Err(TrainingError::ForeignCheckpoint)));
    let flipped = Dataset::new(data.features().to_vec(), data.labels().iter().map(|y| 1.0 - y).collect(), 5).unwrap();
    assert!(matches!(resume(&own, &flipped, &base, &checkpoint), Err(TrainingError::ForeignCheckpoint)));
}

#[test]
fn a_damaged_checkpoint_is_refused_wherever_the_damage_is() {
    let (data, base) = (data(), base(&logistic()));
    let own = settings(logistic(), ADAM);
    let checkpoint = checkpoints(&own, &data, &base).remove(7).bytes;
    let refused = |damaged: &[u8]| matches!(resume(&own, &data, &base, damaged), Err(TrainingError::ForeignCheckpoint));
    for at in 0..checkpoint.len() {
        for bit in [1, 0x80] {
            let mut damaged = checkpoint.clone();
            damaged[at] ^= bit;
            assert!(refused(&damaged), "bit {bit:#x} of byte {at}");
        }
        assert!(refused(&checkpoint[..at]), "cut at byte {at}");
    }
    assert!(refused(&[&checkpoint[..], &[0]].concat()), "something follows");
}

#[test]
fn rounds_continue_the_order_of_examples() {
    // SGD keeps nothing from step to step, so 25 steps twice are 50 steps at once.
    let (data, base) = (data(), base(&logistic()));
    let round = |round, steps, from: &[Tensor]| {
        let settings = TrainingSettings { round, steps, ..settings(logistic(), SGD) };
        let delta = train(&settings, &data, from).unwrap().delta;
        let mut weights = from.to_vec();
        for (tensor, delta) in weights.iter_mut().zip(delta) {
            tensor.values.iter_mut().zip(delta.values).for_each(|(value, delta)| *value += delta);
        }
        weights
    };
    let twice = round(2, 25, &round(1, 25, &base));
    let once = round(1, 50, &base);
    for (twice, once) in twice.iter().zip(&once) {
        for (twice, once) in twice.values.iter().zip(&once.values) {
            assert!((twice - once).abs() < 1e-6, "{twice} is not {once}");
        }
    }
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let (data, base, own) = (data(), base(&logistic()), settings(logistic(), SGD));
    let refused = |settings: TrainingSettings| train(&settings, &data, &base).unwrap_err();
    let settings_error = |settings| match refused(settings) {
        TrainingError::Settings(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(settings_error(TrainingSettings { steps: 0, ..own.clone() }), SettingsError::Steps(0));
    assert_eq!(settings_error(TrainingSettings { batch_size: 0, ..own.clone() }), SettingsError::BatchSize(0));
    assert_eq!(settings_error(TrainingSettings { round: 0, ..own.clone() }), SettingsError::Round(0));
    assert_eq!(settings_error(TrainingSettings { round: u64::MAX, ..own.clone() }), SettingsError::Round(u64::MAX));
    for learning_rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let optimizer = Optimizer::sgd(learning_rate);
        assert!(matches!(
            settings_error(TrainingSettings { optimizer, ..own.clone() }),
            SettingsError::Hyperparameter { name: "learning_rate", .. }
        ));
    }
    let optimizer = Optimizer::Adam { learning_rate: 0.1, beta1: 1.0, beta2: 0.9, epsilon: 1e-8 };
    assert!(matches!(
        settings_error(TrainingSettings { optimizer, ..own.clone() }),
        SettingsError::Hyperparameter { name: "beta1", .. }
    ));
    let optimizer = Optimizer::Sgd { learning_rate: 0.1, momentum: 1.0, weight_decay: 0.0 };
    assert!(matches!(
        settings_error(TrainingSettings { optimizer, ..own.clone() }),
        SettingsError::Hyperparameter { name: "momentum", .. }
    ));
    let optimizer = Optimizer::adamw(0.1, -1.0);
    assert!(matches!(
        settings_error(TrainingSettings { optimizer, ..own.clone() }),
        SettingsError::Hyperparameter { name: "weight_decay", .. }
    ));
    let third_class = Dataset::new(vec![0.0; 10], vec![1.0, 2.0], 5).unwrap();
    let label = train(&own, &third_class, &base).unwrap_err();
    assert!(matches!(label, TrainingError::Label { row: 1, classes: 2 }), "{label}");
    let architecture = Architecture::logistic_regression(6);
    assert!(matches!(
        refused(TrainingSettings { architecture, ..own.clone() }),
        TrainingError::FeatureCount { expected: 6, found: 5 }
    ));
    assert!(matches!(
        refused(TrainingSettings { architecture: perceptron(), ..own.clone() }),
        TrainingError::BaseWeights(_)
    ));
    let empty = Dataset::new(vec![], vec![], 5).unwrap();
    assert!(matches!(train(&own, &empty, &base), Err(TrainingError::RowCount { found: 0 })));
}

#[test]
fn base_weights_must_be_those_of_the_architecture() {
    let (data, own) = (data(), settings(logistic(), SGD));
    let damage: [fn(&mut Vec<Tensor>); 5] = [
        |weights| weights.truncate(1),
        |weights| weights.swap(0, 1),
        |weights| weights[1].shape = vec![5, 1],
        |weights| weights[1].values.truncate(4),
        |weights| weights[1].values[2] = f32::NAN,
    ];
    for damage in damage {
        let mut weights = base(&logistic());
        damage(&mut weights);
        assert!(matches!(train(&own, &data, &weights), Err(TrainingError::BaseWeights(_))), "{weights:?}");
    }
}

#[test]
fn divergence_is_an_error_and_not_an_update() {
    let rows = Dataset::new(vec![3e38, 3e38], vec![1.0, 0.0], 1).unwrap();
    let settings = settings(Architecture::logistic_regression(1), Optimizer::sgd(1e30));
    let error = train(&settings, &rows, &base(&settings.architecture)).unwrap_err();
    assert!(matches!(error, TrainingError::Diverged { .. }), "{error}");
}

#[test]
fn a_device_that_cannot_be_used_is_an_error_and_nothing_takes_its_place() {
    if cfg!(feature = "cuda") {
        println!("skipped: this build may find a CUDA device");
        return;
    }
    let settings = TrainingSettings { device: ComputeDevice::Cuda, ..settings(logistic(), SGD) };
    let error = train(&settings, &data(), &base(&logistic())).unwrap_err();
    assert!(matches!(error, TrainingError::Device(DeviceError::NotBuilt)), "{error}");
    assert!(error.to_string().contains("built without CUDA"), "{error}");
}
