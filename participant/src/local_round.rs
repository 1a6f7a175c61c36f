//! One round of a plan, trained on the spot and sent nowhere: what a site's people look at before they consent.
//!
//! It is the training, evaluation and encoding of the node itself, on the site's own records, from the initial weights of
//! the plan or from a file. No connection is opened. The built-in trainer writes nothing to the disk; a program of the site
//! works in a folder that the caller throws away.

mod base;
mod external;
mod leaving;

use std::{io, path::PathBuf, time::Instant};

use fedledger_federation::{
    architecture::ArchitectureError,
    command::{FileRef, Metrics, RoundKey},
    plan::Plan,
    recipe::RecipeError,
    tensors::{self, LayoutError, ReadError, Tensor, TensorLayout, WriteError},
};
use fedledger_ledger::Digest;
use serde::Serialize;

use crate::{
    evaluation::{Evaluation, EvaluationError, MILLIONTHS, evaluate_from, report},
    memory::{MemoryEstimate, PeakMeasurement, peak_bytes},
    node::{
        ExternalError,
        core::{DataSummary, LOSS_FIRST, LOSS_LAST, Site, TrainedUpdate},
        policy,
    },
    table::Table,
    training::{
        BaseWeights, Progress, Resumption, SettingsError, TrainingError, TrainingSettings, TrainingSummary,
        train_to_file,
    },
};

pub use base::Base;
pub use external::{Equipment, run_external};
pub use leaving::{Leaving, LeavingTensor};

use base::Held;
use leaving::unknown_version;

/// The round that is tried: the first, as every plan has it.
const ROUND: u64 = 1;

/// How often progress is told of in a training, about.
const REPORTS: u64 = 200;

/// What a round amounted to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalRound {
    /// The plan.
    pub plan: Digest,
    /// The round.
    pub round: u64,
    /// Digest of names, shapes and values of the weights that were trained on, or of their file.
    pub base: Digest,
    /// Records trained on.
    pub examples: u64,
    /// What trained, and what it says.
    #[serde(flatten)]
    pub training: Trained,
    /// Metrics of the base weights on the site's test records, in millionths; none if nobody can evaluate them.
    pub before: Option<Metrics>,
    /// The same of the weights that this site would have trained alone.
    pub after: Option<Metrics>,
    /// Records that they were evaluated on.
    pub test_examples: u64,
    /// Time of the training, in milliseconds.
    pub duration_ms: u64,
    /// What would leave the site.
    pub leaving: Leaving,
}

/// What trained, and what it says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Trained {
    /// The built-in trainer.
    BuiltIn(BuiltInTraining),
    /// A program of the site.
    External(ExternalTraining),
}

/// A training by the built-in trainer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuiltInTraining {
    /// Optimiser steps.
    pub steps: u64,
    /// Mean loss of the first pass through the records.
    pub loss_first: f64,
    /// The same of the last pass.
    pub loss_last: f64,
    /// Memory that a node's training was expected to take. This one has its base weights and its update in memory as well,
    /// where a node has files.
    pub memory_estimate: MemoryEstimate,
    /// The most memory that the process had before, in bytes; none where the system does not tell.
    pub memory_before_bytes: Option<u64>,
    /// The most memory that it had during the training.
    pub memory_peak_bytes: Option<u64>,
}

/// A training by a program of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExternalTraining {
    /// What node.toml calls it.
    pub trainer: String,
    /// Its digest.
    pub program: Digest,
    /// What it reports, in millionths.
    pub training_metrics: Metrics,
    /// The most memory that its processes were seen to have, in bytes; none where the system does not tell.
    pub memory_peak_bytes: Option<u64>,
    /// What they are allowed together, in bytes.
    pub memory_max_bytes: u64,
}

/// Why a round could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum LocalRoundError {
    /// The plan's training is beyond this software.
    #[error("the plan cannot be trained here")]
    Settings(#[from] SettingsError),
    /// The plan's model is out of bounds.
    #[error("the plan's model is not valid")]
    Architecture(#[from] ArchitectureError),
    /// The model does not fit into a file.
    #[error("the model is too large for a file")]
    Layout(#[from] LayoutError),
    /// The file of base weights cannot be read, or a file for the program cannot be written.
    #[error("{} cannot be read or written", path.display())]
    Base {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The initial weights cannot be made.
    #[error("the initial weights cannot be made")]
    Initial(#[from] RecipeError),
    /// The site's program came to nothing.
    #[error("the trainer came to nothing")]
    External(#[from] ExternalError),
    /// The weights that would be evaluated do not fit into a file.
    #[error("the trained weights cannot be written")]
    Weights(#[from] WriteError),
    /// The training has no result.
    #[error("the training failed")]
    Training(#[from] TrainingError),
    /// The weights cannot be evaluated.
    #[error("the evaluation failed")]
    Evaluation(#[from] EvaluationError),
    /// The update that was just written cannot be read.
    #[error("the update is damaged: memory of this machine may be faulty")]
    Update(#[from] ReadError),
}

impl From<tensors::FileError> for LocalRoundError {
    fn from(error: tensors::FileError) -> Self {
        TrainingError::from(error).into()
    }
}

/// Trains one round of a plan with the site's records from `base`, and evaluates the result on its test records.
///
/// `progress` is told how many optimiser steps are done.
///
/// # Errors
///
/// [`LocalRoundError`].
pub fn run(
    plan: &Plan,
    site: &Site,
    table: &Table,
    base: Base<'_>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<LocalRound, LocalRoundError> {
    let settings = TrainingSettings { device: site.device, ..TrainingSettings::from_plan(plan, ROUND, &site.member)? };
    let layout = settings.architecture.update_layout(plan.aggregation.update_dtype)?;
    let base = Held::open(base, plan)?;
    let data = DataSummary::from(table);
    let evaluate = |weights: &Held| -> Result<Option<Evaluation>, LocalRoundError> {
        let rows = table.test.rows() > 0;
        Ok(if rows { Some(evaluate_from(&settings.architecture, weights, &table.test)?) } else { None })
    };
    let before = evaluate(&base)?;
    let memory_before_bytes = peak_bytes();
    let measurement = PeakMeasurement::begin();
    let began = Instant::now();
    let (summary, file, update) = train(&settings, table, &base, &layout, progress)?;
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let memory_peak_bytes = measurement.peak_bytes();
    let update = tensors::read_f32(&update, &layout)?;
    let after = evaluate(&Held::Memory(base.plus(&update)?))?;
    let trained = TrainedUpdate {
        file,
        examples: summary.example_count,
        metrics: [(LOSS_FIRST, summary.first_loss), (LOSS_LAST, summary.last_loss)]
            .map(|(name, loss)| (name.to_owned(), millionths(loss)))
            .into(),
        data_manifest: table.manifest.digest(),
        skipped_rows: data.skipped_rows.clone(),
        trainer: None,
    };
    let key = RoundKey { plan: plan.id(), round: ROUND, attempt: 1 };
    let evaluation = after.as_ref().map(|found| report(unknown_version(), Some(found), site.policy.suppress_below));
    let leaving = Leaving::of(plan, (site, &data), key, &trained, &layout, &update, evaluation.as_ref());
    Ok(LocalRound {
        plan: key.plan,
        round: ROUND,
        base: base.identity(),
        examples: summary.example_count,
        training: Trained::BuiltIn(BuiltInTraining {
            steps: summary.steps,
            loss_first: summary.first_loss,
            loss_last: summary.last_loss,
            memory_estimate: policy::memory_of(&data, &settings),
            memory_before_bytes,
            memory_peak_bytes,
        }),
        before: before.as_ref().map(leaving::metrics),
        after: after.as_ref().map(leaving::metrics),
        test_examples: data.test_examples,
        duration_ms,
        leaving,
    })
}

/// The update as a file in memory, and what is said of it.
fn train(
    settings: &TrainingSettings,
    table: &Table,
    base: &Held,
    layout: &TensorLayout,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(TrainingSummary, FileRef, Vec<u8>), LocalRoundError> {
    let mut report = |now: &Progress<'_>| {
        progress(now.step());
        Ok(())
    };
    let every_steps = settings.steps.div_ceil(REPORTS);
    let resumption = Resumption { resume_from: None, every_steps, report: &mut report };
    let mut update = Vec::new();
    let (summary, file) = train_to_file(settings, &table.train, base, resumption, layout.clone(), &mut update)?;
    progress(summary.steps);
    Ok((summary, file, update))
}

/// A float-to-integer cast saturates, and a mean loss is never NaN after a training that did not diverge.
fn millionths(value: f64) -> i64 {
    (value * MILLIONTHS as f64).round() as i64
}

impl Held {
    /// These weights with an update, which has the same tensors.
    fn plus(&self, update: &[Tensor]) -> Result<Vec<Tensor>, LocalRoundError> {
        let mut trained = update.to_vec();
        let (mut tensor, mut element) = (0, 0);
        let mut pieces = self.read()?;
        while let Some((position, piece)) = pieces.next_piece()? {
            if position != tensor {
                (tensor, element) = (position, 0);
            }
            let values = trained.get_mut(position).map(|tensor| tensor.values.as_mut_slice()).unwrap_or_default();
            for (value, base) in values.iter_mut().skip(element).zip(piece) {
                *value += base;
            }
            element += piece.len();
        }
        Ok(trained)
    }
}
