//! The work of a round: training, giving the update to a replica, and evaluating versions.
//!
//! Each job runs in a task of its own until it is done or cancelled, and answers with an [`Input`]. Failures of the network
//! are waited out; failures of the work itself are answered.

use std::{
    io,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use fedledger_federation::{
    architecture::Architecture,
    command::{FileRef, RoundKey},
    data_description::DataDescription,
    limits::LOSS_MILLIONTHS_MAX,
    tensors::{FileError, LayoutError, TensorLayout},
};
use fedledger_ledger::PublicKey;
use fedledger_proto::{
    endpoint::{BlobError, CallError},
    fault_point::fault_point,
    wire::CheckpointRequest,
};
use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    core::{DataSummary, EvaluationTask, Input, LOSS_FIRST, LOSS_LAST, TrainedUpdate, TrainingMethod, TrainingTask},
    error::described,
    event::NodeEvent,
    external::{self, ExternalError},
    files::{OutcomeOf, PartialUpdate, TrainingReport},
    trainer_thread,
    turn::Turn,
};
use crate::{
    evaluation::{Evaluation, EvaluationError, MILLIONTHS, evaluate_from},
    memory::{self, Records},
    table::{Dataset, Table},
    training::{Progress, Resumption, TrainingError, TrainingSettings, TrainingSummary, WeightsFile, train_to_file},
};

/// Shortest time from one local checkpoint to the next.
const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// Training between two local checkpoints takes at least this many times as long as saving one took.
const CHECKPOINT_COST_FACTOR: u32 = 20;

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
    let found = {
        let (context, task) = (Arc::clone(&context), task.clone());
        tokio::task::spawn_blocking(move || context.files.outcome(&outcome_of(&task))).await.ok()?
    };
    if let Some(update) = found {
        return Some(Input::Trained(key, update));
    }
    if let Some(delay) = context.delay(key.round) {
        stop.run_until_cancelled(tokio::time::sleep(delay)).await?;
    }
    let table = match context.data.obtain_unchanged(&task.data, &stop).await? {
        Ok(table) => table,
        Err(reason) => return Some(Input::TrainingFailed(key, reason)),
    };
    loop {
        // Others may train while this waits for its base.
        context.obtain(task.weights, &stop).await?;
        let trained = match &task.method {
            TrainingMethod::BuiltIn(settings) => {
                let turn = Turn::begin(&context.compute, &stop).await?;
                let (trainer, work, settings) = (Arc::clone(&context), task.clone(), settings.clone());
                let records = Arc::clone(&table);
                let trained = trainer_thread::run(move || {
                    let trained = train_blocking(&trainer, &work, (&settings, &records), turn);
                    if trained.is_ok() {
                        tell_of_memory(&trainer, &work, &settings, &records);
                    }
                    trained
                });
                trained.await.unwrap_or(Err(JobError::Task))
            }
            TrainingMethod::External(settings) => {
                external::train(&context, &task, settings, &stop).await.map_err(JobError::from)
            }
        };
        let error = match trained {
            Ok(update) => return Some(Input::Trained(key, update)),
            Err(_) if stop.is_cancelled() => return None,
            Err(error) => error,
        };
        let Some(damage) = error.damage() else { return Some(Input::TrainingFailed(key, described(&error))) };
        discard_damaged(&context, &task.weights, damage);
    }
}

/// Tells how much memory was in use, where the system tells it.
fn tell_of_memory(context: &Context, task: &TrainingTask, settings: &TrainingSettings, table: &Table) {
    let Some(peak_bytes) = memory::peak_bytes() else { return };
    let estimated_bytes = memory::estimate(settings, &Records::from(table)).total_bytes;
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
    let table = match context.data.obtain_unchanged(&task.data, &stop).await? {
        Ok(table) => table,
        Err(reason) => {
            tracing::warn!(%version, reason, "a version cannot be evaluated here");
            return Some(Input::Evaluated(version, None));
        }
    };
    loop {
        context.obtain(task.weights, &stop).await?;
        let error = match evaluate(&context, &task, &table, &stop).await? {
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
    table: &Arc<Table>,
    stop: &CancellationToken,
) -> Option<Result<Input, JobError>> {
    let evaluated = if let Some(settings) = &task.external {
        let found = external::evaluate(context, task, settings, stop).await;
        found.map(|found| Input::EvaluatedExternally(task.version, Some(found))).map_err(JobError::from)
    } else {
        let _turn = Turn::begin(&context.compute, stop).await?;
        let (evaluator, work, table) = (Arc::clone(context), task.clone(), Arc::clone(table));
        let evaluated = trainer_thread::run(move || evaluate_blocking(&evaluator, &work, &table)).await;
        evaluated.unwrap_or(Err(JobError::Task)).map(|found| Input::Evaluated(task.version, Some(found)))
    };
    if stop.is_cancelled() { None } else { Some(evaluated) }
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

fn outcome_of(task: &TrainingTask) -> OutcomeOf<'_> {
    OutcomeOf { plan: &task.key.plan, round: task.key.round, base: &task.base, data_manifest: &task.data.manifest }
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
    let report = TrainingReport { examples: summary.example_count, metrics, trainer: None };
    Ok(context.files.save_outcome(&outcome_of(task), update, file, report)?)
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
            saving.last_step = progress.step();
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

/// When local checkpoints are saved: at the end of a pass through the rows, and in the middle of one that takes long; so
/// often that little work is lost, and so seldom that little time is spent on the disk, unless the site wants one after a
/// number of steps.
#[derive(Debug, Clone, Copy)]
struct Saving {
    last: Instant,
    last_step: u64,
    interval: Duration,
    steps_max: Option<NonZeroU64>,
}

impl Saving {
    const fn begin(now: Instant, steps_max: Option<NonZeroU64>) -> Self {
        Self { last: now, last_step: 0, interval: CHECKPOINT_INTERVAL_MIN, steps_max }
    }

    /// At the end of a pass earlier than in the middle of one.
    fn is_due(self, now: Instant, step: u64, ends_pass: bool) -> bool {
        if self.steps_max.is_some_and(|most| step.saturating_sub(self.last_step) >= most.get()) {
            return true;
        }
        let interval = if ends_pass { self.interval / 2 } else { self.interval };
        now.saturating_duration_since(self.last) >= interval
    }

    fn saved(self, began: Instant, ended: Instant, step: u64) -> Self {
        let cost = ended.saturating_duration_since(began);
        let interval = CHECKPOINT_INTERVAL_MIN.max(cost.saturating_mul(CHECKPOINT_COST_FACTOR));
        Self { last: ended, last_step: step, interval, ..self }
    }
}

/// As the ledger takes it. A float-to-integer cast saturates, and a mean loss is never NaN after a training that did not
/// diverge.
fn millionths(value: f64) -> i64 {
    ((value * MILLIONTHS as f64).round() as i64).clamp(0, LOSS_MILLIONTHS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_as_seldom_as_they_are_slow() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let quick = Saving::begin(start, None);
        assert!(!quick.is_due(after(499), 99, false) && quick.is_due(after(500), 99, false));
        assert!(
            !quick.is_due(after(249), 99, true) && quick.is_due(after(250), 99, true),
            "sooner at the end of a pass"
        );
        let slow = quick.saved(after(500), after(2500), 99);
        assert!(!slow.is_due(after(2500 + 39_999), 999, false) && slow.is_due(after(2500 + 40_000), 999, false));
        let quick_again = slow.saved(after(50_000), after(50_010), 1000);
        assert!(quick_again.is_due(after(50_510), 1001, false));
    }

    #[test]
    fn a_site_can_have_checkpoints_after_a_number_of_steps() {
        let start = Instant::now();
        let saving = Saving::begin(start, NonZeroU64::new(100));
        assert!(!saving.is_due(start, 99, false) && saving.is_due(start, 100, false));
        let saved = saving.saved(start, start + Duration::from_secs(10), 100);
        assert!(
            !saved.is_due(start, 199, false) && saved.is_due(start, 200, false),
            "however long it takes to save one"
        );
    }
}
