//! The work of a round: training, giving the update to a replica, and evaluating versions.
//!
//! Each job runs in a task of its own until it is done or cancelled, and answers with an [`Input`]. Failures of the network
//! are waited out; failures of the work itself are answered.

mod saving;

use std::{io, sync::Arc, time::Instant};

use fedledger_federation::{
    architecture::Architecture,
    command::{FileRef, RoundKey},
    data_description::DataDescription,
    limits::LOSS_MILLIONTHS_MAX,
    tensors::{FileError, LayoutError, TensorLayout},
};
use fedledger_ledger::{Digest, PublicKey};
use fedledger_proto::{
    endpoint::{BlobError, CallError},
    fault_point::fault_point,
    wire::CheckpointRequest,
};
use tokio_util::sync::CancellationToken;

use self::saving::Saving;
use super::{
    context::Context,
    core::{
        DataRef, DataSummary, EvaluationTask, Input, LOSS_FIRST, LOSS_LAST, TrainedUpdate, TrainingMethod, TrainingTask,
    },
    error::described,
    event::NodeEvent,
    external::{self, ExternalError, ExternalSettings, Records, Results as TrainerResults},
    files::{OutcomeOf, PartialUpdate, TrainingReport},
    trainer_thread,
    turn::Turn,
};
use crate::{
    evaluation::{Evaluation, EvaluationError, MILLIONTHS, evaluate_from},
    memory::{self, PeakMeasurement},
    table::{Dataset, Table},
    training::{Progress, Resumption, TrainingError, TrainingSettings, TrainingSummary, WeightsFile, train_to_file},
};

/// Attempts in a row to read an update before it is taken for lost.
const UNREADABLE_MAX: u32 = 5;

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("training failed: {0}")]
    Training(#[from] TrainingError),
    #[error("training failed: {0}")]
    External(#[from] ExternalError),
    #[error("the model is too large for a file: {0}")]
    Layout(#[from] LayoutError),
    #[error("the update cannot be stored: {0}")]
    Storage(#[from] io::Error),
    #[error("evaluation failed: {0}")]
    Evaluation(#[from] EvaluationError),
    #[error("the built-in trainer needs the node's own records")]
    NoTable,
    #[error("the task ended unexpectedly")]
    Task,
}

/// Reads the site's records as a plan describes them; none once cancelled.
pub async fn read_data(context: Arc<Context>, description: DataDescription, stop: CancellationToken) -> Option<Input> {
    let read = context.data.obtain(Some(&description), &stop).await?;
    let summary = read.map(|table| DataSummary::from(table.as_ref()));
    if let Err(reason) = &summary {
        tracing::warn!(reason, "the records cannot be read as a plan describes them");
    }
    Some(Input::DataRead(description.digest(), summary))
}

impl JobError {
    /// What was wrong with the local copy of a file that was fetched, if that is why.
    fn damage(&self) -> Option<&FileError> {
        let error = match self {
            Self::Training(TrainingError::BaseFile(error)) | Self::Evaluation(EvaluationError::File(error)) => error,
            Self::External(error) => error.of_base()?,
            _ => return None,
        };
        Some(error).filter(|error| is_damage(error))
    }
}

/// Trains a round, or finds the update that an earlier process left; none once cancelled.
pub async fn train(context: Arc<Context>, task: TrainingTask, stop: CancellationToken) -> Option<Input> {
    let key = task.key;
    if let Some(data) = &task.data
        && let Some(update) = find_outcome(&context, &task, data.manifest).await
    {
        return Some(Input::Trained(key, update));
    }
    if let Some(delay) = context.delay(key.round) {
        stop.run_until_cancelled(tokio::time::sleep(delay)).await?;
    }
    let table = match table_of(&context, task.data.as_ref(), &stop).await? {
        Ok(table) => table,
        Err(reason) => return Some(Input::TrainingFailed(key, reason)),
    };
    let records = match records_of(&context, &task, table, &stop).await {
        Ok(records) => records,
        Err(_) if stop.is_cancelled() => return None,
        Err(error) => return Some(failed(&task, &error)),
    };
    if task.data.is_none()
        && let Some(update) = find_outcome(&context, &task, records.manifest).await
    {
        return Some(Input::Trained(key, update));
    }
    loop {
        // Others may train while this waits for its base.
        context.obtain(task.weights, &stop).await?;
        let error = match attempt(&context, &task, &records, &stop).await? {
            Ok(update) => return Some(Input::Trained(key, update)),
            Err(_) if stop.is_cancelled() => return None,
            Err(error) => error,
        };
        let Some(damage) = error.damage() else { return Some(failed(&task, &error)) };
        discard_damaged(&context, &task.weights, damage);
    }
}

/// The update that an earlier process left of the same inputs.
async fn find_outcome(context: &Arc<Context>, task: &TrainingTask, data_manifest: Digest) -> Option<TrainedUpdate> {
    let (context, task) = (Arc::clone(context), task.clone());
    let found = tokio::task::spawn_blocking(move || context.files.outcome(&outcome_of(&task, &data_manifest)));
    found.await.ok().flatten()
}

/// The table that a task is about, if it is about one; none once cancelled.
async fn table_of(
    context: &Context,
    data: Option<&DataRef>,
    stop: &CancellationToken,
) -> Option<Result<Option<Arc<Table>>, String>> {
    let Some(data) = data else { return Some(Ok(None)) };
    Some(context.data.obtain_unchanged(data, stop).await?.map(Some))
}

/// The records that a training is about.
async fn records_of(
    context: &Arc<Context>,
    task: &TrainingTask,
    table: Option<Arc<Table>>,
    stop: &CancellationToken,
) -> Result<Records, JobError> {
    let table = table.zip(task.data.as_ref());
    match (&task.method, table) {
        (TrainingMethod::External(settings), table) => Ok(external::records(context, settings, table, stop).await?),
        (TrainingMethod::BuiltIn(_), Some((table, data))) => Ok(Records::of_table(table, data.description.clone())),
        (TrainingMethod::BuiltIn(_), None) => Err(JobError::NoTable),
    }
}

/// One attempt at a training; none once cancelled.
async fn attempt(
    context: &Arc<Context>,
    task: &TrainingTask,
    records: &Records,
    stop: &CancellationToken,
) -> Option<Result<TrainedUpdate, JobError>> {
    let settings = match &task.method {
        TrainingMethod::BuiltIn(settings) => settings.clone(),
        TrainingMethod::External(settings) => {
            let trained = external::train(context, task, (settings, records), stop).await;
            return Some(trained.map_err(JobError::from));
        }
    };
    let Some((table, _)) = records.table.clone() else { return Some(Err(JobError::NoTable)) };
    let turn = Turn::begin(&context.compute, stop).await?;
    let (trainer, work) = (Arc::clone(context), task.clone());
    let trained = trainer_thread::run(move || {
        let measurement = PeakMeasurement::begin();
        let trained = train_blocking(&trainer, &work, (&settings, &table), turn);
        if trained.is_ok() {
            tell_of_memory(&trainer, &work, (&settings, &table), &measurement);
        }
        trained
    });
    Some(trained.await.unwrap_or(Err(JobError::Task)))
}

/// Says why a round is not trained: the ledger what may stand there for good, and the log of the site everything.
fn failed(task: &TrainingTask, error: &JobError) -> Input {
    tracing::warn!(round = task.key.round, error = described(error), "a round could not be trained");
    let reason = match error {
        JobError::External(error) => format!("training failed: {}", error.code()),
        error => described(error),
    };
    Input::TrainingFailed(task.key, reason)
}

/// Tells how much memory was in use, where the system tells it.
fn tell_of_memory(
    context: &Context,
    task: &TrainingTask,
    (settings, table): (&TrainingSettings, &Table),
    measurement: &PeakMeasurement,
) {
    let Some(peak_bytes) = measurement.peak_bytes() else { return };
    let estimated_bytes = memory::estimate(settings, &memory::Records::from(table)).total_bytes;
    context.tell(NodeEvent::TrainingMemory { key: task.key, peak_bytes, estimated_bytes });
}

/// Gives an update to a replica; none once cancelled. Answers that the update is lost if the local file is gone, is found
/// damaged, or cannot be read for some time.
pub async fn upload(context: Arc<Context>, key: RoundKey, file: FileRef, stop: CancellationToken) -> Option<Input> {
    let (mut failures, mut unreadable) = (0u32, 0u32);
    loop {
        for replica in context.available(failures as usize) {
            fault_point("uploading");
            let sending = put(&context, &replica.key, file, failures);
            let result = tokio::select! {
                () = stop.cancelled() => return None,
                result = sending => result,
            };
            match result {
                Ok(()) => {
                    fault_point("uploaded");
                    return Some(Input::Uploaded(key));
                }
                Err(error) => {
                    tell_of_failure(&replica.name, &error, failures);
                    match is_usable(&context, &file, &error).await {
                        Ok(true) => unreadable = 0,
                        Ok(false) => return Some(Input::UpdateLost(key)),
                        Err(error) => {
                            tracing::warn!(file = %file.digest, %error, "an update cannot be read");
                            unreadable = unreadable.saturating_add(1);
                        }
                    }
                }
            }
            if unreadable >= UNREADABLE_MAX {
                return Some(Input::UpdateLost(key));
            }
        }
        if !context.wait(failures, &stop).await {
            return None;
        }
        failures = failures.saturating_add(1);
    }
}

/// Whether an update may be offered again after a failure: it is there, and undamaged if the failure speaks against it.
async fn is_usable(context: &Context, file: &FileRef, error: &BlobError) -> io::Result<bool> {
    if error.doubts_own_copy() { context.files.blobs().verify(&file.digest).await } else { Ok(true) }
}

/// What a peer, or the own disk, objects to is told aloud, and the more seldom the longer it goes on; networks come and go.
fn tell_of_failure(replica: &str, error: &BlobError, failures: u32) {
    let is_objection = error.doubts_own_copy() || matches!(error, BlobError::Call(CallError::Refused(_)));
    if is_objection && (failures == 0 || failures.is_power_of_two()) {
        tracing::warn!(replica, %error, failures, "an update could not be uploaded");
    } else {
        tracing::debug!(replica, %error, "uploading failed");
    }
}

/// Evaluates a version on the site's test examples; none once cancelled.
pub async fn evaluate_version(context: Arc<Context>, task: EvaluationTask, stop: CancellationToken) -> Option<Input> {
    let version = task.version;
    let table = match table_of(&context, task.data.as_ref(), &stop).await? {
        Ok(table) => table,
        Err(reason) => {
            tracing::warn!(%version, reason, "a version cannot be evaluated here");
            return Some(Input::Evaluated(version, None));
        }
    };
    loop {
        context.obtain(task.weights, &stop).await?;
        let error = match evaluate(&context, &task, table.as_ref(), &stop).await? {
            Ok(found) => return Some(found),
            Err(error) => error,
        };
        if let Some(damage) = error.damage() {
            discard_damaged(&context, &task.weights, damage);
            continue;
        }
        tracing::warn!(%version, error = described(&error), "a version cannot be evaluated here");
        return Some(Input::Evaluated(version, None));
    }
}

/// One attempt at an evaluation; none once cancelled.
async fn evaluate(
    context: &Arc<Context>,
    task: &EvaluationTask,
    table: Option<&Arc<Table>>,
    stop: &CancellationToken,
) -> Option<Result<Input, JobError>> {
    let evaluated = if let Some(settings) = &task.external {
        let found = evaluate_externally(context, task, (settings, table), stop).await;
        found.map(|found| Input::EvaluatedExternally(task.version, Some(found))).map_err(JobError::from)
    } else {
        let Some(table) = table else { return Some(Err(JobError::NoTable)) };
        let _turn = Turn::begin(&context.compute, stop).await?;
        let (evaluator, work, table) = (Arc::clone(context), task.clone(), Arc::clone(table));
        let evaluated = trainer_thread::run(move || evaluate_blocking(&evaluator, &work, &table)).await;
        evaluated.unwrap_or(Err(JobError::Task)).map(|found| Input::Evaluated(task.version, Some(found)))
    };
    if stop.is_cancelled() { None } else { Some(evaluated) }
}

async fn evaluate_externally(
    context: &Arc<Context>,
    task: &EvaluationTask,
    (settings, table): (&ExternalSettings, Option<&Arc<Table>>),
    stop: &CancellationToken,
) -> Result<TrainerResults, ExternalError> {
    let table = table.cloned().zip(task.data.as_ref());
    let records = external::records(context, settings, table, stop).await?;
    external::evaluate(context, task, (settings, &records), stop).await
}

fn evaluate_blocking(context: &Context, task: &EvaluationTask, table: &Table) -> Result<Evaluation, JobError> {
    let weights = weights_file(context, task.weights, &task.architecture)?;
    Ok(evaluate_from(&task.architecture, &weights, &table.test)?)
}

/// Whether a file is not what it was when it was fetched, or is gone.
fn is_damage(error: &FileError) -> bool {
    match error {
        FileError::Damaged { .. } => true,
        FileError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        FileError::Content { .. } => false,
    }
}

/// Makes room for a good copy.
fn discard_damaged(context: &Context, file: &FileRef, damage: &FileError) {
    tracing::warn!(%damage, "a file was damaged on this disk: it is fetched anew");
    if let Err(error) = context.files.discard_blob(&file.digest) {
        tracing::warn!(file = %file.digest, %error, "a damaged file cannot be removed");
    }
}

fn weights_file(context: &Context, file: FileRef, architecture: &Architecture) -> Result<WeightsFile, LayoutError> {
    Ok(WeightsFile::new(&context.files.blob_path(&file.digest), file, architecture.layout()?))
}

/// Gives a file to a replica, after so many failures. Files may take long, so whether it is there at all is asked before.
async fn put(context: &Context, peer: &PublicKey, file: FileRef, failures: u32) -> Result<(), BlobError> {
    context.endpoint.call(*peer, &CheckpointRequest::Latest { known: None }, context.patience(failures)).await?;
    let source = context.files.blobs().source(&file.digest).await.map_err(BlobError::Local)?;
    let source = source.ok_or_else(|| BlobError::Local(io::ErrorKind::NotFound.into()))?;
    let putting = context.endpoint.put_blob_in_turn(*peer, file.digest, source, context.turn(failures));
    let put = context.endpoint.while_there(*peer, context.replica_timeout, putting).await;
    put.ok_or(BlobError::Call(CallError::TimedOut))??;
    Ok(())
}

fn outcome_of<'a>(task: &'a TrainingTask, data_manifest: &'a Digest) -> OutcomeOf<'a> {
    OutcomeOf { plan: &task.key.plan, round: task.key.round, base: &task.base, data_manifest }
}

fn train_blocking(
    context: &Context,
    task: &TrainingTask,
    (settings, table): (&TrainingSettings, &Table),
    mut turn: Turn,
) -> Result<TrainedUpdate, JobError> {
    fault_point("training");
    tracing::info!(round = task.key.round, device = %settings.device, "a round is trained");
    let base = weights_file(context, task.weights, &settings.architecture)?;
    let layout = settings.architecture.update_layout(task.update_dtype)?;
    let mut attempt = || -> Result<_, JobError> {
        let mut update = context.files.begin_update(&task.key.plan, task.key.round)?;
        let data = (&base, &table.train);
        let (summary, file) = run(context, (task, settings), data, (&layout, &mut update), &mut turn)?;
        Ok((update, summary, file))
    };
    let (update, summary, file) = match attempt() {
        // Left by a run with other data or settings, or damaged.
        Err(JobError::Training(TrainingError::ForeignCheckpoint)) => {
            context.files.discard_local_checkpoint(&task.key.plan, task.key.round)?;
            attempt()?
        }
        trained => trained?,
    };
    let losses = [(LOSS_FIRST, summary.first_loss), (LOSS_LAST, summary.last_loss)];
    let metrics = losses.map(|(name, loss)| (name.to_owned(), millionths(loss))).into();
    let skipped_rows = table.manifest.skipped_rows.clone();
    let report = TrainingReport { examples: summary.example_count, metrics, skipped_rows, trainer: None };
    let data_manifest = table.manifest.digest();
    Ok(context.files.save_outcome(&outcome_of(task, &data_manifest), update, file, report)?)
}

/// One run from the local checkpoint, if there is one, to the end, or to a local checkpoint soon after cancellation.
fn run(
    context: &Context,
    (task, settings): (&TrainingTask, &TrainingSettings),
    (base, data): (&WeightsFile, &Dataset),
    (layout, update): (&TensorLayout, &mut PartialUpdate),
    turn: &mut Turn,
) -> Result<(TrainingSummary, FileRef), TrainingError> {
    let (plan, round) = (&task.key.plan, task.key.round);
    let mut saving = Saving::begin(Instant::now(), context.checkpoint_steps_max);
    let mut report = |progress: &Progress<'_>| {
        if progress.ends_pass() {
            fault_point("passed");
        }
        let now = Instant::now();
        if progress.resumes() {
            context.tell(NodeEvent::Resumed { key: task.key, step: progress.step() });
            saving.go_on_from(progress.step());
        } else if turn.is_cancelled() || saving.is_due(now, progress.step(), progress.ends_pass()) {
            // Training goes on in memory: a full disk that is emptied meanwhile costs nothing.
            match context.files.save_local_checkpoint(plan, round, |file| progress.write_to(file)) {
                Ok(()) => {}
                Err(error) => tracing::warn!(round, %error, "a local checkpoint cannot be saved: training goes on"),
            }
            fault_point("checkpointed");
            saving = saving.saved(now, Instant::now(), progress.step());
        }
        turn.share()
    };
    let resume_from = context.files.local_checkpoint(plan, round);
    let resume_from = resume_from.map(|file| -> Box<dyn io::Read + Send> { Box::new(io::BufReader::new(file)) });
    let resumption = Resumption { resume_from, every_steps: 1, report: &mut report };
    train_to_file(settings, data, base, resumption, layout.clone(), update)
}

/// As the ledger takes it. A float-to-integer cast saturates, and a mean loss is never NaN after a training that did not
/// diverge.
fn millionths(value: f64) -> i64 {
    ((value * MILLIONTHS as f64).round() as i64).clamp(0, LOSS_MILLIONTHS_MAX)
}
