//! Training and evaluation by a program of the hospital's own.
//!
//! A plan names a trainer, and the site's `node.toml` says which program that is; no other program is ever run. In a folder of
//! its own the program finds the base weights and what it is to do (`configuration.json`), and leaves trained weights and
//! metrics there. Everything that it writes is checked as if a stranger had written it.
//!
//! ```text
//!  program  which programs there are, and their digests
//!  task     what a program is told                          folder   what it finds and leaves
//!  process  one run: limits, supervision, its end           output   what it prints
//!  results  metrics.json and progress                       weights  trained weights to update
//!  trial    a round on trial, of which nothing is kept      footprint  how much memory it has
//! ```
//!
//! One training and one evaluation run at a time at a node, beside what the built-in trainer computes: a program may take
//! hours and cannot be asked to let others in, so it runs with low priority instead of taking turns.

mod folder;
#[cfg(unix)]
mod footprint;
mod output;
#[cfg(unix)]
mod process;
#[cfg(not(unix))]
#[path = "external/no_process.rs"]
mod process;
mod program;
mod results;
mod task;
mod text;
mod trial;
mod weights;

use std::{
    io::{self, BufReader, Write},
    path::Path,
    sync::Arc,
};

use fedledger_federation::{
    command::FileRef,
    plan::UpdateDtype,
    tensors::{FileError, LayoutError},
};
use fedledger_ledger::Digest;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use folder::{Places, PrepareError};
pub use program::{Program, ProgramError, programs};
pub use results::{Progress, Results, ResultsError};
pub use task::ExternalSettings;
pub use trial::{Trial, TrialOutcome};
pub use weights::UpdateError;

use self::{
    output::Output,
    process::Ended,
    program::Limits,
    results::RESULTS_SIZE_BYTES_MAX,
    task::{Occasion, RESULTS_FILE, TRAINED_FILE, configuration},
};
use super::{
    context::Context,
    core::{EvaluationTask, TrainedUpdate, TrainingTask},
    event::NodeEvent,
    files::{OutcomeOf, TrainingReport},
};
use crate::training::WeightsFile;

/// Most examples that a version can be evaluated on.
const EVALUATED_MAX: u64 = 1 << 32;

/// The right to run a program: one at a time for each of the two things that it is called for, so that a version is evaluated
/// while the next round is trained.
#[derive(Debug)]
pub struct Slots {
    trainings: Semaphore,
    evaluations: Semaphore,
}

impl Default for Slots {
    fn default() -> Self {
        Self { trainings: Semaphore::new(1), evaluations: Semaphore::new(1) }
    }
}

/// Weights that a program is given: where they lie, and which they must be.
#[derive(Debug, Clone, Copy)]
pub struct GivenWeights<'a> {
    /// Their file.
    pub path: &'a Path,
    /// What it must be.
    pub file: FileRef,
}

/// Why a trainer has led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The site has no such trainer.
    #[error("node.toml of this site names no trainer {0:?}")]
    UnknownTrainer(String),
    /// A file of the program cannot be read.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The plan requires another program.
    #[error("the plan requires program {expected} as trainer {trainer:?}, this site has {found}")]
    WrongProgram {
        /// The trainer.
        trainer: String,
        /// Digest in the plan.
        expected: Digest,
        /// Digest of the site's program.
        found: Digest,
    },
    /// A file of the program is not what it was when the training began.
    #[error("trainer {0:?} was changed while it ran: leave its files alone during a round")]
    Changed(String),
    /// The folder could not be made ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The program could not be started or waited for.
    #[error("trainer {trainer:?} cannot be run: {source}")]
    Run {
        /// The trainer.
        trainer: String,
        /// What the system says.
        source: io::Error,
    },
    /// The program ended, but not well.
    #[error("trainer {trainer:?} failed with {status}: {last_lines}")]
    Failed {
        /// The trainer.
        trainer: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it printed last.
        last_lines: String,
    },
    /// The program took too long.
    #[error("trainer {trainer:?} took longer than the {seconds} s that it is allowed: {last_lines}")]
    TimeUp {
        /// The trainer.
        trainer: String,
        /// Seconds that it was allowed.
        seconds: u64,
        /// What it printed last.
        last_lines: String,
    },
    /// A file that the program should have left is not there, or is no file.
    #[error("trainer {trainer:?} has left no {file} that can be read: {source}")]
    Missing {
        /// The trainer.
        trainer: String,
        /// The file.
        file: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The results are of no use.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The trained weights are of no use.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The model is too large for a file.
    #[error("the model is too large for a file: {0}")]
    Layout(#[from] LayoutError),
    /// The node's own disk refuses.
    #[error("the update cannot be stored: {0}")]
    Storage(#[from] io::Error),
    /// The node has no use for the result any more.
    #[error("the work was cancelled")]
    Cancelled,
    /// The node's own task did not end as it should.
    #[error("the task ended unexpectedly")]
    Task,
}

impl ExternalError {
    /// What was wrong with the node's own copy of the base weights, if that is why.
    pub fn of_base(&self) -> Option<&FileError> {
        match self {
            Self::Prepare(PrepareError::Base(error)) | Self::Update(UpdateError::Base(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the program itself is to blame, so that nothing that it has left is worth going on with.
    const fn is_programs_own(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. } | Self::Missing { .. } | Self::Results(_) | Self::Update(_) | Self::Changed(_)
        )
    }
}

/// Trains a round. The folder outlives a cancelled run and the node itself, and the next run of the same inputs is told so.
///
/// # Errors
///
/// [`ExternalError`].
pub async fn train(
    context: &Arc<Context>,
    task: &TrainingTask,
    settings: &ExternalSettings,
    stop: &CancellationToken,
) -> Result<TrainedUpdate, ExternalError> {
    let _slot = slot(&context.external.trainings, stop).await?;
    let program = program_of(context, settings)?;
    let limits = limits(&program, settings);
    let places = context.files.trainer_places(&task.key.plan, task.key.round)?;
    let (digest, resumed) = {
        let (context, task, settings, program, places) =
            (Arc::clone(context), task.clone(), settings.clone(), Arc::clone(&program), places.clone());
        blocking(move || prepare_training(&context, &task, &settings, &program, &places, limits)).await?
    };
    let key = task.key;
    context.tell(NodeEvent::TrainerStarted { key, trainer: program.name.clone(), program: digest, resumed });
    let tell = |Progress { percent, message }| context.tell(NodeEvent::Progress { key, percent, message });
    let trained = match run(&program, &places, limits, stop, tell).await {
        Ok(peak_bytes) => {
            if let Some(peak_bytes) = peak_bytes {
                context.tell(NodeEvent::TrainerMemory { key, peak_bytes, allowed_bytes: limits.memory });
            }
            let (context, task, settings, places) =
                (Arc::clone(context), task.clone(), settings.clone(), places.clone());
            blocking(move || finish_training(&context, &task, &settings, (&program, digest), &places)).await
        }
        Err(error) => Err(error),
    };
    if trained.as_ref().map_or_else(ExternalError::is_programs_own, |_| true) {
        discard(places).await;
    }
    trained
}

/// Evaluates a version.
///
/// # Errors
///
/// [`ExternalError`].
pub async fn evaluate(
    context: &Arc<Context>,
    task: &EvaluationTask,
    settings: &ExternalSettings,
    stop: &CancellationToken,
) -> Result<Results, ExternalError> {
    let _slot = slot(&context.external.evaluations, stop).await?;
    let program = program_of(context, settings)?;
    let limits = limits(&program, settings);
    let places = context.files.evaluation_places()?;
    {
        let (context, task, settings, program, places) =
            (Arc::clone(context), task.clone(), settings.clone(), Arc::clone(&program), places.clone());
        blocking(move || prepare_evaluation(&context, &task, &settings, &program, &places, limits)).await?;
    }
    let evaluated = match run(&program, &places, limits, stop, |_| ()).await {
        Ok(_) => {
            let (places, trainer) = (places.clone(), program.name.clone());
            blocking(move || read_results(&places, &trainer, EVALUATED_MAX)).await
        }
        Err(error) => Err(error),
    };
    discard(places).await;
    evaluated
}

async fn slot<'a>(
    slots: &'a Semaphore,
    stop: &CancellationToken,
) -> Result<tokio::sync::SemaphorePermit<'a>, ExternalError> {
    // Nobody closes the semaphores.
    let acquired = stop.run_until_cancelled(slots.acquire()).await;
    acquired.and_then(Result::ok).ok_or(ExternalError::Cancelled)
}

fn program_of(context: &Context, settings: &ExternalSettings) -> Result<Arc<Program>, ExternalError> {
    let name = &settings.training.trainer;
    context.trainers.get(name).cloned().ok_or_else(|| ExternalError::UnknownTrainer(name.clone()))
}

/// The site's limits, or the plan's where it allows less time.
fn limits(program: &Program, settings: &ExternalSettings) -> Limits {
    Limits { time: program.limits.time.min(settings.time_max), ..program.limits }
}

/// Runs work that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExternalError> + Send + 'static,
) -> Result<T, ExternalError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ExternalError::Task))
}

/// The program's digest as it is now, which must be the plan's if that names one.
fn checked_digest(program: &Program, settings: &ExternalSettings) -> Result<Digest, ExternalError> {
    let found = program.digest()?;
    match settings.training.program {
        Some(expected) if expected != found => {
            Err(ExternalError::WrongProgram { trainer: program.name.clone(), expected, found })
        }
        Some(_) | None => Ok(found),
    }
}

/// The program's digest, and whether an interrupted run is gone on with.
fn prepare_training(
    context: &Context,
    task: &TrainingTask,
    settings: &ExternalSettings,
    program: &Program,
    places: &Places,
    limits: Limits,
) -> Result<(Digest, bool), ExternalError> {
    let digest = checked_digest(program, settings)?;
    let run = task::identity(settings, &digest, &task.weights, &task.data.manifest);
    let path = context.files.blob_path(&task.weights.digest);
    let weights = GivenWeights { path: &path, file: task.weights };
    let occasion = Occasion::Train { key: &task.key, base: &task.base };
    Ok((digest, make_ready(places, &run, weights, (settings, program), occasion, limits)?))
}

/// Makes a folder ready for a run: whether an interrupted one is gone on with.
fn make_ready(
    places: &Places,
    run: &Digest,
    weights: GivenWeights<'_>,
    (settings, program): (&ExternalSettings, &Program),
    occasion: Occasion<'_>,
    limits: Limits,
) -> Result<bool, ExternalError> {
    let resumes = places.prepare(run).map_err(PrepareError::Io)?;
    places.give_base(weights.path, weights.file)?;
    let text = configuration(settings, program, occasion, limits.time, resumes);
    places.give_configuration(&text).map_err(PrepareError::Io)?;
    Ok(resumes)
}

fn prepare_evaluation(
    context: &Context,
    task: &EvaluationTask,
    settings: &ExternalSettings,
    program: &Program,
    places: &Places,
    limits: Limits,
) -> Result<(), ExternalError> {
    let digest = checked_digest(program, settings)?;
    // What an earlier process has left is of no use.
    places.discard().map_err(PrepareError::Io)?;
    let path = context.files.blob_path(&task.weights.digest);
    let weights = GivenWeights { path: &path, file: task.weights };
    let occasion = Occasion::Evaluate { version: &task.version };
    make_ready(places, &digest, weights, (settings, program), occasion, limits).map(drop)
}

/// Runs a program to its good end: the most memory that it was seen to have, in bytes.
async fn run(
    program: &Program,
    places: &Places,
    limits: Limits,
    stop: &CancellationToken,
    tell: impl FnMut(Progress),
) -> Result<Option<u64>, ExternalError> {
    let trainer = || program.name.clone();
    let failed = |source| ExternalError::Run { trainer: trainer(), source };
    let mut output = Output::open(&places.log).map_err(failed)?;
    let run = process::run(program, &places.folder, limits, stop, &mut output, tell).await.map_err(failed)?;
    match run.ended {
        Ended::Exited(status) if status.success() => Ok(run.peak_bytes),
        // A node that is being stopped may have asked it to end in the same moment.
        Ended::Exited(_) | Ended::Cancelled if stop.is_cancelled() => Err(ExternalError::Cancelled),
        Ended::Cancelled => Err(ExternalError::Cancelled),
        Ended::Exited(status) => {
            Err(ExternalError::Failed { trainer: trainer(), status, last_lines: output.last_lines() })
        }
        Ended::TimeUp => {
            let (seconds, last_lines) = (limits.time.as_secs(), output.last_lines());
            Err(ExternalError::TimeUp { trainer: trainer(), seconds, last_lines })
        }
    }
}

fn read_results(places: &Places, trainer: &str, examples_max: u64) -> Result<Results, ExternalError> {
    let file = RESULTS_FILE;
    let bytes = places.read(file, RESULTS_SIZE_BYTES_MAX).map_err(|source| ExternalError::Missing {
        trainer: trainer.to_owned(),
        file,
        source,
    })?;
    Ok(results::parse(&bytes, examples_max)?)
}

/// From what the program has left to the update of the round.
fn finish_training(
    context: &Context,
    task: &TrainingTask,
    settings: &ExternalSettings,
    (program, digest): (&Program, Digest),
    places: &Places,
) -> Result<TrainedUpdate, ExternalError> {
    if program.digest()? != digest {
        return Err(ExternalError::Changed(program.name.clone()));
    }
    let Results { examples, metrics } = read_results(places, &program.name, settings.examples_max)?;
    let path = context.files.blob_path(&task.weights.digest);
    let base = GivenWeights { path: &path, file: task.weights };
    let mut update = context.files.begin_update(&task.key.plan, task.key.round)?;
    let file = write_update(places, (settings, program), base, task.update_dtype, &mut update)?;
    let report = TrainingReport { examples, metrics, trainer: Some(digest) };
    let of =
        OutcomeOf { plan: &task.key.plan, round: task.key.round, base: &task.base, data_manifest: &task.data.manifest };
    Ok(context.files.save_outcome(&of, update, file, report)?)
}

/// Writes the update that follows from the weights that the program has left.
fn write_update(
    places: &Places,
    (settings, program): (&ExternalSettings, &Program),
    base: GivenWeights<'_>,
    dtype: UpdateDtype,
    sink: impl Write,
) -> Result<FileRef, ExternalError> {
    let missing = |source| ExternalError::Missing { trainer: program.name.clone(), file: TRAINED_FILE, source };
    let trained = BufReader::new(places.open(TRAINED_FILE).map_err(missing)?);
    let model = settings.architecture.layout()?;
    let layout = model.with_dtype(dtype.into())?;
    let base = WeightsFile::new(base.path, base.file, model.clone());
    Ok(weights::write_update(&base, trained, &model, layout, sink)?)
}

async fn discard(places: Places) {
    let discarded = tokio::task::spawn_blocking(move || places.discard()).await;
    if let Ok(Err(error)) = discarded {
        tracing::warn!(%error, "a trainer's folder cannot be removed yet");
    }
}
