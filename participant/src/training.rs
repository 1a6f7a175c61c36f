//! Local training: base weights and records in, the update of one round out.
//!
//! The result is a function of settings, records and base weights alone. Batch order is a position in a stream that plan
//! seed and member determine, everything runs on one thread, and a run that was interrupted continues from a local
//! checkpoint to the same bytes. Products and convolutions have the same order of sums on every processor; exponentials are
//! the C library's, so last digits may differ between systems, and on other devices everything may. Nothing in the protocol
//! relies on repeating somebody else's training.

mod batches;
mod checkpoint;
mod convolution;
mod device;
mod images;
mod library;
mod linear;
pub(crate) mod loss;
pub(crate) mod network;
mod normalization;
mod optimizer;
mod parameter;
mod settings;
mod vector;
mod weights;

use std::{
    io::{self, Read, Write},
    thread,
};

use candle_core::Device;
use fedledger_federation::{
    architecture::ArchitectureError,
    command::FileRef,
    tensors::{FileError, StreamWriteError, Tensor, TensorLayout, TensorWriter},
};

use self::{
    batches::Batches,
    checkpoint::{LossSums, Restored},
    device::accelerator,
    library::LibraryNetwork,
    network::{LoadError, Network, WeightsError},
    optimizer::OptimizerState,
};
use crate::table::Dataset;

pub use checkpoint::Progress;
pub use device::{ComputeDevice, DeviceError, check_device};
pub use network::WeightsError as BaseWeightsError;
pub(crate) use network::rows_per_pass;
pub use settings::{BATCH_SIZE_MAX, Optimizer, STEPS_MAX, SettingsError, TrainingSettings};
pub use weights::{BaseWeights, WeightPieces, WeightsFile};

/// What a participant contributes to a round, before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOutcome {
    /// Trained weights minus base weights, sorted by name.
    pub delta: Vec<Tensor>,
    /// What is reported of the run.
    pub summary: TrainingSummary,
}

/// What is reported of a run beside its update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingSummary {
    /// Rows that were trained on: the weight of the update.
    pub example_count: u64,
    /// Mean loss per example over the first pass through the rows, or over all steps if there are fewer.
    pub first_loss: f64,
    /// The same over the last pass.
    pub last_loss: f64,
    /// Optimiser steps done.
    pub steps: u64,
}

/// How a run reports its progress and where it begins.
pub struct Resumption<'a> {
    /// The local checkpoint of an interrupted run; none to begin at the base weights.
    pub resume_from: Option<Box<dyn Read + Send + 'a>>,
    /// Steps from one report to the next; 0 for one per pass through the rows.
    pub every_steps: u64,
    /// Is told of the progress, and may save it; of a run that goes on from a local checkpoint also before its first step.
    /// An error stops the training and is returned as [`TrainingError::Stopped`], so this is also the way to cancel a run.
    pub report: &'a mut (dyn FnMut(&Progress<'_>) -> io::Result<()> + Send),
}

/// Why there is no update.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The settings are out of bounds.
    #[error("the training settings are not valid")]
    Settings(#[from] SettingsError),
    /// The architecture is out of bounds.
    #[error("the architecture is not valid")]
    Architecture(#[from] ArchitectureError),
    /// The base weights do not belong to the architecture.
    #[error("the base weights do not fit the architecture")]
    BaseWeights(#[from] WeightsError),
    /// The base weights cannot be read.
    #[error("the base weights cannot be read")]
    BaseFile(#[from] FileError),
    /// The update cannot be written, or a value of it does not fit the plan's element type.
    #[error("the update cannot be written")]
    Update(#[from] StreamWriteError),
    /// The records have another number of features than the model.
    #[error("the records have {found} features, the model expects {expected}: check the schema")]
    FeatureCount {
        /// Features of the model.
        expected: u32,
        /// Features of a row.
        found: usize,
    },
    /// A record of a class that the model does not know.
    #[error(
        "the label of record {row} is none of the model's {classes} classes: check the schema or the plan's classes"
    )]
    Label {
        /// The record, from 0.
        row: usize,
        /// Classes of the model.
        classes: u32,
    },
    /// A model that only external trainers understand.
    #[error("a custom architecture cannot be trained by the built-in trainer: use an external one")]
    Custom,
    /// No record, or more than 2^32 - 1.
    #[error("{found} records cannot be trained on")]
    RowCount {
        /// Rows given.
        found: usize,
    },
    /// The loss or a weight is no longer a finite number.
    #[error("training diverged at step {step}: use a smaller learning rate or normalise the features")]
    Diverged {
        /// Steps done, from the start of the round.
        step: u64,
    },
    /// The device that the site wants gradients computed on cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The local checkpoint was made by a run with other settings, records or base weights or on another device, or is damaged.
    #[error("the local checkpoint is damaged or belongs to another run: delete it to train from the base weights")]
    ForeignCheckpoint,
    /// A local checkpoint was not saved, or the training was cancelled.
    #[error("stopped after {step} steps")]
    Stopped {
        /// Steps done.
        step: u64,
        /// What the callback returned.
        source: io::Error,
    },
    /// The thread to train on could not be started.
    #[error("the training thread cannot be started")]
    Thread(#[from] rayon::ThreadPoolBuildError),
    /// The numeric library failed.
    #[error("the numeric library failed")]
    Numeric(#[from] candle_core::Error),
}

impl From<LoadError> for TrainingError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Weights(error) => error.into(),
            LoadError::File(error) => error.into(),
            LoadError::Numeric(error) => error.into(),
        }
    }
}

/// Trains one round in memory, without local checkpoints.
///
/// `base` are the parameters of the architecture in the order of their names.
///
/// # Errors
///
/// [`TrainingError`]; nothing is left behind.
pub fn train(settings: &TrainingSettings, data: &Dataset, base: &[Tensor]) -> Result<TrainingOutcome, TrainingError> {
    let resumption = Resumption { resume_from: None, every_steps: settings.steps, report: &mut |_| Ok(()) };
    train_resumable(settings, data, base, resumption)
}

/// Trains one round in memory, with local checkpoints; the outcome is the same as without.
///
/// # Errors
///
/// [`TrainingError`]; after [`TrainingError::Stopped`] the last saved local checkpoint continues the run.
pub fn train_resumable(
    settings: &TrainingSettings,
    data: &Dataset,
    base: &[Tensor],
    resumption: Resumption<'_>,
) -> Result<TrainingOutcome, TrainingError> {
    check(settings, data)?;
    network::check_weights(&settings.architecture, base)?;
    let empty = |tensor: &Tensor| {
        let values = Vec::with_capacity(tensor.values.len());
        Tensor { name: tensor.name.clone(), shape: tensor.shape.clone(), values }
    };
    let mut delta: Vec<Tensor> = base.iter().map(empty).collect();
    let summary = train_from(settings, data, base, resumption, |position, values| {
        if let Some(tensor) = delta.get_mut(position) {
            tensor.values.extend_from_slice(values);
        }
        Ok(())
    })?;
    Ok(TrainingOutcome { delta, summary })
}

/// Trains one round from a file to a file. In memory are the model, its gradients, what the optimiser remembers, and the
/// records.
///
/// The update has the tensors of `layout`, each value rounded to the nearest of its type, ties to even; it is written from
/// beginning to end, and its digest and size are returned.
///
/// # Errors
///
/// As [`train_resumable`], and [`TrainingError::BaseFile`] or [`TrainingError::Update`]; what was written is of no use then.
pub fn train_to_file<B: BaseWeights + ?Sized>(
    settings: &TrainingSettings,
    data: &Dataset,
    base: &B,
    resumption: Resumption<'_>,
    layout: TensorLayout,
    update: impl Write + Send,
) -> Result<(TrainingSummary, FileRef), TrainingError> {
    let mut writer = TensorWriter::new(layout, update).map_err(StreamWriteError::Io)?;
    let summary = train_from(settings, data, base, resumption, |_, values| Ok(writer.push(values)?))?;
    Ok((summary, writer.finish()?))
}

/// Trains one round, and gives the update piece by piece: the position of a tensor and its next values.
fn train_from<B: BaseWeights + ?Sized>(
    settings: &TrainingSettings,
    data: &Dataset,
    base: &B,
    resumption: Resumption<'_>,
    give: impl FnMut(usize, &[f32]) -> Result<(), TrainingError> + Send,
) -> Result<TrainingSummary, TrainingError> {
    check(settings, data)?;
    let Resumption { resume_from, every_steps, report } = resumption;
    on_one_thread(move || {
        let identity = checkpoint::identity(settings, data, base);
        let mut run = match resume_from {
            Some(saved) => Run::resume(settings, data, checkpoint::read(saved, identity, settings)?)?,
            None => Run::begin(settings, data, base)?,
        };
        let every = if every_steps == 0 { run.batches.per_epoch() } else { every_steps };
        let mut tell = |run: &Run<'_>| {
            let step = run.step;
            report(&Progress::new(run, identity)).map_err(|source| TrainingError::Stopped { step, source })
        };
        if run.resumed_at.is_some() {
            tell(&run)?;
        }
        while run.step < settings.steps {
            run.step()?;
            if run.step % every == 0 && run.step < settings.steps {
                tell(&run)?;
            }
        }
        run.finish(base, give)
    })
}

/// What can be refused before the base weights are read.
fn check(settings: &TrainingSettings, data: &Dataset) -> Result<(), TrainingError> {
    settings.validate()?;
    settings.architecture.validate()?;
    let expected = settings.architecture.inputs().ok_or(TrainingError::Custom)?;
    if data.columns() != expected as usize {
        return Err(TrainingError::FeatureCount { expected, found: data.columns() });
    }
    let classes = settings.architecture.classes();
    if let Some(row) = row_of_other_class(data, classes) {
        return Err(TrainingError::Label { row, classes });
    }
    if data.rows() == 0 || u32::try_from(data.rows()).is_err() {
        return Err(TrainingError::RowCount { found: data.rows() });
    }
    Ok(())
}

/// The first row whose label is none of so many classes.
pub(crate) fn row_of_other_class(data: &Dataset, classes: u32) -> Option<usize> {
    data.labels().iter().position(|&label| f64::from(label) >= f64::from(classes))
}

/// Has the C library keep memory that is given back, up to 64 MiB, in place of returning it to the system and asking for it,
/// page by page, in every step. glibc takes the size of the largest block that was freed, up to 32 MiB, for what a program
/// goes on using (mallopt(3), M_MMAP_THRESHOLD); this block is neither touched nor zeroed, so it costs nothing. Elsewhere nothing
/// changes.
fn keep_freed_memory() {
    const LARGEST_BLOCK: usize = (32 << 20) - (64 << 10);
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST_BLOCK)));
}

/// Runs `work` inside a pool of one thread: the matrix library divides its work among the threads of the pool that it is
/// called in, and one is the fastest for models of this size.
pub(crate) fn on_one_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E>
where
    T: Send,
    E: From<rayon::ThreadPoolBuildError> + Send,
{
    keep_freed_memory();
    let mut thread = None;
    let start = |worker: rayon::ThreadBuilder| {
        thread = Some(thread::Builder::new().name("training".to_owned()).spawn(|| worker.run())?);
        Ok(())
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).spawn_handler(start).build()?;
    let result = pool.install(work);
    drop(pool);
    // Only when this thread is gone can the next one use the memory that it leaves: glibc keeps it by threads.
    if let Some(thread) = thread {
        thread.join().ok();
    }
    result
}

/// Passes that are made one on a device, which has more memory and wants more work at a time.
const PASSES_ON_ACCELERATOR: usize = 32;

/// One round's training in progress.
struct Run<'a> {
    settings: &'a TrainingSettings,
    network: Network,
    /// Where gradients are computed, if not on the processor.
    accelerator: Option<Device>,
    optimizer: OptimizerState,
    batches: Batches<'a>,
    losses: LossSums,
    step: u64,
    /// Steps that an earlier run had done; none if this run began at the base weights.
    resumed_at: Option<u64>,
}

impl<'a> Run<'a> {
    fn begin<B: BaseWeights + ?Sized>(
        settings: &'a TrainingSettings,
        data: &'a Dataset,
        base: &B,
    ) -> Result<Self, TrainingError> {
        let network = Network::load(&settings.architecture, base)?;
        let optimizer = OptimizerState::new(&settings.optimizer, &network);
        let batches = Batches::new(data, settings);
        let (accelerator, losses) = (accelerator(settings.device)?, LossSums::default());
        Ok(Self { settings, network, accelerator, optimizer, batches, losses, step: 0, resumed_at: None })
    }

    fn resume(settings: &'a TrainingSettings, data: &'a Dataset, saved: Restored) -> Result<Self, TrainingError> {
        let Restored { step, network, mut optimizer, losses } = saved;
        let mut batches = Batches::new(data, settings);
        batches.skip(step);
        optimizer.skip(step);
        let accelerator = accelerator(settings.device)?;
        Ok(Self { settings, network, accelerator, optimizer, batches, losses, step, resumed_at: Some(step) })
    }

    /// One optimiser step over the next batch.
    fn step(&mut self) -> Result<(), TrainingError> {
        let batch = self.batches.next(&Device::Cpu)?;
        let together = if self.accelerator.is_some() { PASSES_ON_ACCELERATOR } else { 1 };
        let rows_per_pass = network::rows_per_pass(&self.settings.architecture) * together;
        let copy = self.accelerator.as_ref();
        let copy = copy.map(|device| LibraryNetwork::copy_of(&self.settings.architecture, &self.network, device));
        let copy = copy.transpose()?;
        let mut loss = 0.0;
        for start in (0..batch.rows).step_by(rows_per_pass) {
            let rows = rows_per_pass.min(batch.rows - start);
            let (features, labels) = (batch.features.narrow(0, start, rows)?, batch.labels.narrow(0, start, rows)?);
            let part = match &copy {
                Some(copy) => copy.add_gradients(&self.network, &features, &labels, batch.rows)?,
                None => self.network.add_gradients(&features, &labels, batch.rows)?,
            };
            loss += f64::from(part);
        }
        self.optimizer.step(&self.network)?;

        self.step += 1;
        if !loss.is_finite() {
            return Err(TrainingError::Diverged { step: self.step });
        }
        let window = self.batches.per_epoch().min(self.settings.steps);
        let examples = batch.rows as u64;
        if self.step <= window {
            self.losses.first.add(loss, examples);
        }
        if self.step > self.settings.steps - window {
            self.losses.last.add(loss, examples);
        }
        Ok(())
    }

    /// Gives the trained weights minus the base weights, piece by piece.
    fn finish<B: BaseWeights + ?Sized>(
        self,
        base: &B,
        mut give: impl FnMut(usize, &[f32]) -> Result<(), TrainingError>,
    ) -> Result<TrainingSummary, TrainingError> {
        let diverged = || TrainingError::Diverged { step: self.step };
        let mut pieces = base.read()?;
        let (mut tensor, mut element, mut delta) = (0, 0, Vec::new());
        while let Some((position, base)) = pieces.next_piece()? {
            if position != tensor {
                (tensor, element) = (position, 0);
            }
            let parameter = self.network.parameters().get(position).ok_or_else(diverged)?;
            parameter.with_values(|trained| {
                let trained = trained.get(element..).unwrap_or_default();
                delta.clear();
                delta.extend(trained.iter().zip(base).map(|(trained, base)| trained - base));
            })?;
            if delta.iter().any(|value| !value.is_finite()) {
                return Err(diverged());
            }
            give(position, &delta)?;
            element += base.len();
        }
        Ok(TrainingSummary {
            example_count: self.batches.rows() as u64,
            first_loss: self.losses.first.mean(),
            last_loss: self.losses.last.mean(),
            steps: self.step,
        })
    }
}
