//! Training and evaluation by a program of the hospital's own.
//!
//! A plan names a trainer, and the site's `node.toml` says which program that is; no other program is ever run. In a folder of
//! its own the program finds the base weights and what it is to do (`configuration.json`), and leaves trained weights and
//! metrics there. Everything that it writes is checked as if a stranger had written it.
//!
//! ```text
//!  program  which programs there are, and their digests     data        the records, and their digest
//!  task     what a program is told                          folder      what it finds and leaves
//!  process  one run: limits, supervision, its end           output      what it prints
//!  watch    what the run uses                               processors  those that it is bound to
//!  results  metrics.json and progress                       weights     trained weights to update
//!  trial    a round on trial, of which nothing is kept      error       what is told of a failure, and to whom
//! ```
//!
//! One training and one evaluation run at a time at a node, beside what the built-in trainer computes: a program may take
//! hours and cannot be asked to let others in, so it runs with low priority instead of taking turns.

mod data;
mod error;
mod folder;
mod output;
#[cfg(unix)]
mod process;
#[cfg(not(unix))]
#[path = "external/no_process.rs"]
mod process;
#[cfg(target_os = "linux")]
mod processors;
#[cfg(not(target_os = "linux"))]
#[path = "external/no_processors.rs"]
mod processors;
mod program;
mod results;
mod task;
mod text;
mod trial;
#[cfg(unix)]
mod watch;
mod weights;

use std::{
    io::{BufReader, Write},
    path::Path,
    sync::Arc,
};

use fedledger_federation::{command::FileRef, plan::UpdateDtype};
use fedledger_ledger::Digest;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use data::{DataError, Records};
pub use error::ExternalError;
pub use folder::{Places, PrepareError};
pub use program::{Program, ProgramError, programs};
pub use results::{Progress, Results};
pub use task::ExternalSettings;
pub use trial::{Trial, TrialOutcome};

use self::{
    output::Output,
    process::Ended,
    processors::Processors,
    results::{Allowed, RESULTS_SIZE_BYTES_MAX},
    task::{Occasion, RESULTS_FILE, TRAINED_FILE, Work, configuration},
};
use super::{
    context::Context,
    core::{DataRef, EvaluationTask, TrainedUpdate, TrainingTask},
    event::NodeEvent,
    files::{OutcomeOf, TrainingReport},
};
use crate::{
    table::{SiteData, Table},
    training::WeightsFile,
};

/// The right to run a program: one at a time for each of the two things that it is called for, so that a version is evaluated
/// while the next round is trained.
#[derive(Debug)]
pub struct Slots {
    trainings: Semaphore,
    evaluations: Semaphore,
    processors: Processors,
}

impl Default for Slots {
    fn default() -> Self {
        Self { trainings: Semaphore::new(1), evaluations: Semaphore::new(1), processors: Processors::default() }
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

/// The records that a task is about, as its program finds them: the node's table, or data of the program's own, which are read.
///
/// # Errors
///
/// [`ExternalError`].
pub async fn records(
    context: &Arc<Context>,
    settings: &ExternalSettings,
    table: Option<(Arc<Table>, &DataRef)>,
    stop: &CancellationToken,
) -> Result<Records, ExternalError> {
    let program = program_of(context, settings)?;
    if let Some((table, data)) = table {
        return Ok(Records::of_table(table, data.description.clone()));
    }
    let stop = stop.clone();
    blocking(move || Ok(Records::own(&program, &|| !stop.is_cancelled())?)).await
}

/// Trains a round. The folder outlives a cancelled run and the node itself, and the next run of the same inputs is told so.
///
/// # Errors
///
/// [`ExternalError`].
pub async fn train(
    context: &Arc<Context>,
    task: &TrainingTask,
    (settings, records): (&ExternalSettings, &Records),
    stop: &CancellationToken,
) -> Result<TrainedUpdate, ExternalError> {
    let _slot = slot(&context.external.trainings, stop).await?;
    let work = Work::new(&program_of(context, settings)?, settings, records.clone(), context.examples_min);
    let places = context.files.trainer_places(&task.key.plan, task.key.round)?;
    let (digest, resumed) = {
        let (context, task, work, places) = (Arc::clone(context), task.clone(), work.clone(), places.clone());
        let stop = stop.clone();
        blocking(move || prepare_training(&context, &task, &work, &places, &stop)).await?
    };
    let (key, trainer) = (task.key, work.program.name.clone());
    context.tell(NodeEvent::TrainerStarted { key, trainer, program: digest, resumed });
    let tell = |Progress { percent, message }| context.tell(NodeEvent::Progress { key, percent, message });
    let order = context.external.processors.order();
    let trained = match run(&work, &places, &order, stop, tell).await {
        Ok(peak_bytes) => {
            if let Some(peak_bytes) = peak_bytes {
                context.tell(NodeEvent::TrainerMemory { key, peak_bytes, allowed_bytes: work.limits.memory });
            }
            let (context, task, places, stop) = (Arc::clone(context), task.clone(), places.clone(), stop.clone());
            blocking(move || finish_training(&context, &task, (&work, digest), &places, &stop)).await
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
    (settings, records): (&ExternalSettings, &Records),
    stop: &CancellationToken,
) -> Result<Results, ExternalError> {
    let _slot = slot(&context.external.evaluations, stop).await?;
    let work = Work::new(&program_of(context, settings)?, settings, records.clone(), context.examples_min);
    let places = context.files.evaluation_places()?;
    {
        let (context, task, work, places) = (Arc::clone(context), task.clone(), work.clone(), places.clone());
        let stop = stop.clone();
        blocking(move || prepare_evaluation(&context, &task, &work, &places, &stop)).await?;
    }
    let order = context.external.processors.order();
    let evaluated = match run(&work, &places, &order, stop, |_| ()).await {
        Ok(_) => {
            let places = places.clone();
            blocking(move || read_results(&places, &work, &work.allowed_of_evaluation())).await
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

/// Runs work that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExternalError> + Send + 'static,
) -> Result<T, ExternalError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ExternalError::Task))
}

/// The program's digest as it is now, which must be the plan's if that names one; so must that of its data.
fn checked_digest(work: &Work) -> Result<Digest, ExternalError> {
    let Work { program, settings, records, .. } = work;
    let (found, trainer) = (program.digest()?, || program.name.clone());
    if let Some(expected) = settings.training.program.filter(|expected| *expected != found) {
        return Err(ExternalError::WrongProgram { trainer: trainer(), expected, found });
    }
    match settings.data_manifest.filter(|expected| *expected != records.manifest) {
        Some(expected) => Err(ExternalError::WrongData { trainer: trainer(), expected, found: records.manifest }),
        None => Ok(found),
    }
}

/// The program's digest, and whether an interrupted run is gone on with.
fn prepare_training(
    context: &Context,
    task: &TrainingTask,
    work: &Work,
    places: &Places,
    stop: &CancellationToken,
) -> Result<(Digest, bool), ExternalError> {
    let digest = checked_digest(work)?;
    if work.records.table.is_some() {
        work.records.check(&work.program, context.data.source(), &|| !stop.is_cancelled())?;
    }
    let run = task::identity(&work.settings, &digest, &task.weights, &work.records.manifest);
    let path = context.files.blob_path(&task.weights.digest);
    let weights = GivenWeights { path: &path, file: task.weights };
    let occasion = Occasion::Train { key: &task.key, base: &task.base };
    Ok((digest, make_ready(places, &run, weights, work, occasion)?))
}

/// Makes a folder ready for a run: whether an interrupted one is gone on with.
fn make_ready(
    places: &Places,
    run: &Digest,
    weights: GivenWeights<'_>,
    work: &Work,
    occasion: Occasion<'_>,
) -> Result<bool, ExternalError> {
    let resumes = places.prepare(run).map_err(PrepareError::Io)?;
    places.give_base(weights.path, weights.file)?;
    if let Some((table, _)) = &work.records.table {
        places.give_rows(&table.records).map_err(PrepareError::Io)?;
    }
    places.give_configuration(&configuration(work, occasion, resumes)).map_err(PrepareError::Io)?;
    Ok(resumes)
}

fn prepare_evaluation(
    context: &Context,
    task: &EvaluationTask,
    work: &Work,
    places: &Places,
    stop: &CancellationToken,
) -> Result<(), ExternalError> {
    let digest = checked_digest(work)?;
    // It is told the numbers of its test rows, which hold in this file only.
    if work.records.table.is_some() {
        work.records.check(&work.program, context.data.source(), &|| !stop.is_cancelled())?;
    }
    // What an earlier process has left is of no use.
    places.discard().map_err(PrepareError::Io)?;
    let path = context.files.blob_path(&task.weights.digest);
    let weights = GivenWeights { path: &path, file: task.weights };
    let occasion = Occasion::Evaluate { version: &task.version };
    make_ready(places, &digest, weights, work, occasion).map(drop)
}

/// Runs a program to its good end: the most memory that its processes were seen to have, in bytes.
async fn run(
    work: &Work,
    places: &Places,
    processors: &[usize],
    stop: &CancellationToken,
    tell: impl FnMut(Progress),
) -> Result<Option<u64>, ExternalError> {
    let Work { program, limits, .. } = work;
    let trainer = || program.name.clone();
    let failed = |source| ExternalError::Run { trainer: trainer(), source };
    let mut output = Output::open(&places.log).map_err(failed)?;
    let run = process::run(program, &places.folder, *limits, processors, stop, &mut output, tell).await;
    let run = run.map_err(failed)?;
    let last_lines = || output.last_lines();
    match run.ended {
        Ended::Exited(status) if status.success() => Ok(run.peak_bytes),
        // A node that is being stopped may have asked it to end in the same moment.
        Ended::Exited(_) | Ended::Cancelled if stop.is_cancelled() => Err(ExternalError::Cancelled),
        Ended::Cancelled => Err(ExternalError::Cancelled),
        Ended::Exited(status) => Err(ExternalError::Failed { trainer: trainer(), status, last_lines: last_lines() }),
        Ended::TimeUp => {
            let seconds = limits.time.as_secs();
            Err(ExternalError::TimeUp { trainer: trainer(), seconds, last_lines: last_lines() })
        }
        Ended::Exceeded(excess) => {
            Err(ExternalError::Exceeded { trainer: trainer(), excess, last_lines: last_lines() })
        }
    }
}

fn read_results(places: &Places, work: &Work, allowed: &Allowed) -> Result<Results, ExternalError> {
    let file = RESULTS_FILE;
    let bytes = places.read(file, RESULTS_SIZE_BYTES_MAX).map_err(|source| ExternalError::Missing {
        trainer: work.program.name.clone(),
        file,
        source,
    })?;
    Ok(results::parse(&bytes, allowed)?)
}

/// From what the program has left to the update of the round.
fn finish_training(
    context: &Context,
    task: &TrainingTask,
    (work, digest): (&Work, Digest),
    places: &Places,
    stop: &CancellationToken,
) -> Result<TrainedUpdate, ExternalError> {
    check_inputs(work, digest, context.data.source(), stop)?;
    let Results { examples, metrics, skipped_rows } = read_results(places, work, &work.allowed_of_training())?;
    let path = context.files.blob_path(&task.weights.digest);
    let base = GivenWeights { path: &path, file: task.weights };
    let mut update = context.files.begin_update(&task.key.plan, task.key.round)?;
    let file = write_update(places, work, base, task.update_dtype, &mut update)?;
    let report = TrainingReport { examples, metrics, skipped_rows, trainer: Some(digest) };
    let data_manifest = &work.records.manifest;
    let of = OutcomeOf { plan: &task.key.plan, round: task.key.round, base: &task.base, data_manifest };
    Ok(context.files.save_outcome(&of, update, file, report)?)
}

/// Whether the program and its data are what they were before it ran.
fn check_inputs(work: &Work, digest: Digest, source: &SiteData, stop: &CancellationToken) -> Result<(), ExternalError> {
    if work.program.digest()? != digest {
        return Err(ExternalError::Changed(work.program.name.clone()));
    }
    Ok(work.records.check(&work.program, source, &|| !stop.is_cancelled())?)
}

/// Writes the update that follows from the weights that the program has left.
fn write_update(
    places: &Places,
    work: &Work,
    base: GivenWeights<'_>,
    dtype: UpdateDtype,
    sink: impl Write,
) -> Result<FileRef, ExternalError> {
    let missing = |source| ExternalError::Missing { trainer: work.program.name.clone(), file: TRAINED_FILE, source };
    let trained = BufReader::new(places.open(TRAINED_FILE).map_err(missing)?);
    let model = work.settings.architecture.layout()?;
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
