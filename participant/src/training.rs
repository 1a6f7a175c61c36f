//! Local training: base weights and records in, the update of one round out.
//!
//! The result is a function of settings, records and base weights alone. Batch order is a position in a stream that plan
//! seed and member determine, everything runs on one thread, and a run that was interrupted continues from a local
//! checkpoint to the same bytes. Bytes may differ between processor types, because matrix kernels are chosen by processor
//! features; nothing in the protocol relies on repeating somebody else's training.

mod batches;
mod checkpoint;
mod linear;
pub(crate) mod loss;
pub(crate) mod network;
mod optimizer;
mod settings;

use std::io;

use candle_core::Device;
use fedledger_federation::{architecture::ArchitectureError, tensors::Tensor};

use self::{
    batches::Batches,
    checkpoint::LossSums,
    network::{Network, WeightsError},
    optimizer::{Gradients, OptimizerState},
};
use crate::table::Dataset;

pub use checkpoint::LocalCheckpoint;
pub use network::WeightsError as BaseWeightsError;
pub use settings::{BATCH_SIZE_MAX, Optimizer, STEPS_MAX, SettingsError, TrainingSettings};

/// What a participant contributes to a round, before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOutcome {
    /// Trained weights minus base weights, sorted by name.
    pub delta: Vec<Tensor>,
    /// Rows that were trained on: the weight of this update.
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
    /// Where an interrupted run had come to; none to begin at the base weights.
    pub resume_from: Option<LocalCheckpoint>,
    /// Steps from one local checkpoint to the next; 0 for one per pass through the rows.
    pub every_steps: u64,
    /// Saves a local checkpoint. An error stops the training and is returned as [`TrainingError::Stopped`], so this is
    /// also the way to cancel a run.
    pub save: &'a mut (dyn FnMut(&LocalCheckpoint) -> io::Result<()> + Send),
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
    /// The records have another number of features than the model.
    #[error("the records have {found} features, the model expects {expected}: check the schema")]
    FeatureCount {
        /// Features of the model.
        expected: u32,
        /// Features of a row.
        found: usize,
    },
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
    /// The local checkpoint was made by a run with other settings, records or base weights.
    #[error("the local checkpoint belongs to another run: delete it to train from the base weights")]
    ForeignCheckpoint,
    /// A local checkpoint was not saved, or the training was cancelled.
    #[error("stopped at a local checkpoint after {step} steps")]
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

/// Trains one round without local checkpoints.
///
/// `base` are the parameters of the architecture in the order of their names.
///
/// # Errors
///
/// [`TrainingError`]; nothing is left behind.
pub fn train(settings: &TrainingSettings, data: &Dataset, base: &[Tensor]) -> Result<TrainingOutcome, TrainingError> {
    check(settings, data, base)?;
    on_one_thread(|| Run::begin(settings, data, base)?.finish(base))
}

/// Trains one round with local checkpoints; the outcome is the same as without.
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
    check(settings, data, base)?;
    let Resumption { resume_from, every_steps, save } = resumption;
    let identity = checkpoint::identity(settings, data, base);
    on_one_thread(move || {
        let mut run = match resume_from {
            Some(saved) if saved.identity == identity => Run::resume(settings, data, saved)?,
            Some(_) => return Err(TrainingError::ForeignCheckpoint),
            None => Run::begin(settings, data, base)?,
        };
        let every = if every_steps == 0 { run.batches.per_epoch() } else { every_steps };
        while run.step < settings.steps {
            run.step()?;
            if run.step % every == 0 && run.step < settings.steps {
                let step = run.step;
                save(&run.checkpoint(identity)?).map_err(|source| TrainingError::Stopped { step, source })?;
            }
        }
        run.finish(base)
    })
}

/// Everything that can be refused before the first step.
fn check(settings: &TrainingSettings, data: &Dataset, base: &[Tensor]) -> Result<(), TrainingError> {
    settings.validate()?;
    settings.architecture.validate()?;
    let expected = settings.architecture.features();
    if data.columns() != expected as usize {
        return Err(TrainingError::FeatureCount { expected, found: data.columns() });
    }
    if data.rows() == 0 || u32::try_from(data.rows()).is_err() {
        return Err(TrainingError::RowCount { found: data.rows() });
    }
    network::check_weights(&settings.architecture, base)?;
    Ok(())
}

/// Runs `work` inside a pool of one thread: the matrix library divides its work among the threads of the pool that it is
/// called in, and one is the fastest for models of this size.
pub(crate) fn on_one_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E>
where
    T: Send,
    E: From<rayon::ThreadPoolBuildError> + Send,
{
    let name = |_| "training".to_owned();
    rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(name).build()?.install(work)
}

/// One round's training in progress.
struct Run<'a> {
    settings: &'a TrainingSettings,
    network: Network,
    optimizer: OptimizerState,
    batches: Batches<'a>,
    losses: LossSums,
    step: u64,
}

impl<'a> Run<'a> {
    fn begin(settings: &'a TrainingSettings, data: &'a Dataset, base: &[Tensor]) -> Result<Self, TrainingError> {
        let network = Network::new(base)?;
        let optimizer = OptimizerState::new(&settings.optimizer, &network)?;
        let batches = Batches::new(data, settings);
        Ok(Self { settings, network, optimizer, batches, losses: LossSums::default(), step: 0 })
    }

    fn resume(
        settings: &'a TrainingSettings,
        data: &'a Dataset,
        saved: LocalCheckpoint,
    ) -> Result<Self, TrainingError> {
        let parameters = saved.parameters(&settings.architecture).ok_or(TrainingError::ForeignCheckpoint)?;
        network::check_weights(&settings.architecture, &parameters)?;
        if saved.step > settings.steps {
            return Err(TrainingError::ForeignCheckpoint);
        }
        let network = Network::new(&parameters)?;
        let mut optimizer = OptimizerState::new(&settings.optimizer, &network)?;
        optimizer.restore(&saved.moments()).ok_or(TrainingError::ForeignCheckpoint)??;
        let mut batches = Batches::new(data, settings);
        batches.skip(saved.step);
        optimizer.skip(saved.step);
        Ok(Self { settings, network, optimizer, batches, losses: saved.losses(), step: saved.step })
    }

    /// One optimiser step over the next batch.
    fn step(&mut self) -> Result<(), TrainingError> {
        let batch = self.batches.next(&Device::Cpu)?;
        let rows_per_pass = network::rows_per_pass(&self.settings.architecture);
        let mut loss = 0.0;
        let mut gradients = Gradients::default();
        for start in (0..batch.rows).step_by(rows_per_pass) {
            let rows = rows_per_pass.min(batch.rows - start);
            let logits = self.network.forward(&batch.features.narrow(0, start, rows)?)?;
            let labels = batch.labels.narrow(0, start, rows)?;
            let part = loss::binary_cross_entropy(&logits, &labels, batch.rows)?;
            gradients.add(&self.network, &part.backward()?)?;
            loss += f64::from(part.to_scalar::<f32>()?);
        }
        self.optimizer.step(&self.network, &gradients)?;

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

    /// Does the steps that are left and subtracts the base weights.
    fn finish(mut self, base: &[Tensor]) -> Result<TrainingOutcome, TrainingError> {
        while self.step < self.settings.steps {
            self.step()?;
        }
        let trained = self.network.parameters()?;
        let delta: Vec<Tensor> = trained
            .into_iter()
            .zip(base)
            .map(|(trained, base)| {
                let values = trained.iter().zip(&base.values).map(|(trained, base)| trained - base).collect();
                Tensor { name: base.name.clone(), shape: base.shape.clone(), values }
            })
            .collect();
        if delta.iter().any(|tensor| tensor.values.iter().any(|value| !value.is_finite())) {
            return Err(TrainingError::Diverged { step: self.step });
        }
        Ok(TrainingOutcome {
            delta,
            example_count: self.batches.rows() as u64,
            first_loss: self.losses.first.mean(),
            last_loss: self.losses.last.mean(),
            steps: self.step,
        })
    }

    fn checkpoint(&self, identity: fedledger_ledger::Digest) -> Result<LocalCheckpoint, TrainingError> {
        let parameters = self.network.parameters()?;
        Ok(LocalCheckpoint::new(identity, self.step, &parameters, &self.optimizer.moments()?, &self.losses))
    }
}
