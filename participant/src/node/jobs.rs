//! The work of a round: training, giving the update to a replica, and evaluating versions.
//!
//! Each job runs in a task of its own until it is done or cancelled, and answers with an [`Input`]. Failures of the network
//! are waited out; failures of the work itself are answered.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use fedledger_federation::{
    command::{FileRef, RoundKey},
    tensors::{self, Tensor},
};
use fedledger_proto::endpoint::BlobError;
use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    core::{EvaluationTask, Input, TrainedUpdate, TrainingTask},
    files::{Losses, OutcomeOf},
};
use crate::{
    evaluation::{Evaluation, MILLIONTHS, evaluate},
    training::{LocalCheckpoint, Resumption, TrainingError, TrainingOutcome, train_resumable},
};

/// Optimiser steps after which a training looks up: whether it is cancelled, and whether a local checkpoint is due.
const LOOK_UP_STEPS: u64 = 100;

/// Time from one local checkpoint to the next: little work is lost, and little time is spent on the disk.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("training failed: {0}")]
    Training(#[from] TrainingError),
    #[error("the base weights are not those of the model: {0}")]
    Weights(#[from] tensors::ReadError),
    #[error("the model is too large for a file: {0}")]
    Layout(#[from] tensors::LayoutError),
    #[error("the update cannot be encoded: {0}")]
    Encoding(#[from] tensors::WriteError),
    #[error("the update cannot be stored: {0}")]
    Storage(#[from] io::Error),
    #[error("evaluation failed: {0}")]
    Evaluation(#[from] crate::evaluation::EvaluationError),
    #[error("the task ended unexpectedly")]
    Task,
}

/// Trains a round, or finds the update that an earlier process left; none once cancelled.
pub async fn train(context: Arc<Context>, task: TrainingTask, stop: CancellationToken) -> Option<Input> {
    let key = task.key;
    let _permit = tokio::select! {
        () = stop.cancelled() => return None,
        permit = context.compute.acquire() => permit.ok()?,
    };
    let found = {
        let (context, task) = (Arc::clone(&context), task.clone());
        tokio::task::spawn_blocking(move || context.files.outcome(&outcome_of(&task, &context))).await.ok()?
    };
    if let Some(update) = found {
        return Some(Input::Trained(key, update));
    }
    let weights = context.fetch(task.weights, &stop).await?;
    let (trainer, cancelled) = (Arc::clone(&context), stop.clone());
    let trained = tokio::task::spawn_blocking(move || train_blocking(&trainer, &task, &weights, &cancelled)).await;
    match trained.unwrap_or(Err(JobError::Task)) {
        Ok(update) => Some(Input::Trained(key, update)),
        Err(_) if stop.is_cancelled() => None,
        Err(error) => Some(Input::TrainingFailed(key, described(&error))),
    }
}

/// Gives an update to a replica; none once cancelled.
pub async fn upload(context: Arc<Context>, key: RoundKey, file: FileRef, stop: CancellationToken) -> Option<Input> {
    let mut failures = 0;
    loop {
        for replica in context.available(failures as usize) {
            let sending = put(&context, &replica.key, file);
            let result = tokio::select! {
                () = stop.cancelled() => return None,
                result = sending => result,
            };
            match result {
                Ok(()) => return Some(Input::Uploaded(key)),
                Err(error) => tracing::debug!(replica = replica.name, %error, "uploading failed"),
            }
        }
        if !context.wait(failures, &stop).await {
            return None;
        }
        failures = failures.saturating_add(1);
    }
}

/// Evaluates a version on the site's test examples; none once cancelled.
pub async fn evaluate_version(context: Arc<Context>, task: EvaluationTask, stop: CancellationToken) -> Option<Input> {
    let version = task.version;
    let weights = context.fetch(task.weights, &stop).await?;
    let _permit = tokio::select! {
        () = stop.cancelled() => return None,
        permit = context.compute.acquire() => permit.ok()?,
    };
    let table = Arc::clone(&context.table);
    let evaluated = tokio::task::spawn_blocking(move || -> Result<Evaluation, JobError> {
        let weights = tensors::read_f32(&weights, &task.architecture.layout()?)?;
        Ok(evaluate(&task.architecture, &weights, &table.test)?)
    });
    let evaluation = match evaluated.await.unwrap_or(Err(JobError::Task)) {
        Ok(evaluation) => Some(evaluation),
        Err(error) => {
            tracing::warn!(%version, error = described(&error), "a version cannot be evaluated here");
            None
        }
    };
    Some(Input::Evaluated(version, evaluation))
}

async fn put(context: &Context, peer: &fedledger_ledger::PublicKey, file: FileRef) -> Result<(), BlobError> {
    let source = context.files.blobs().source(&file.digest).await.map_err(BlobError::Local)?;
    let source = source.ok_or_else(|| BlobError::Local(io::ErrorKind::NotFound.into()))?;
    context.endpoint.put_blob(*peer, file.digest, source).await.map(drop)
}

fn outcome_of<'a>(task: &'a TrainingTask, context: &'a Context) -> OutcomeOf<'a> {
    OutcomeOf { plan: &task.key.plan, round: task.key.round, base: &task.base, data_manifest: &context.data_manifest }
}

fn train_blocking(
    context: &Context,
    task: &TrainingTask,
    weights: &[u8],
    stop: &CancellationToken,
) -> Result<TrainedUpdate, JobError> {
    let base = tensors::read_f32(weights, &task.settings.architecture.layout()?)?;
    let outcome = match run(context, task, &base, stop) {
        // Left by a run with other data or settings, or damaged.
        Err(TrainingError::ForeignCheckpoint) => {
            context.files.discard_local_checkpoint(&task.key.plan, task.key.round)?;
            run(context, task, &base, stop)?
        }
        result => result?,
    };
    let bytes = tensors::write_tensors(&outcome.delta)?;
    let losses = Losses {
        examples: outcome.example_count,
        first_millionths: millionths(outcome.first_loss),
        last_millionths: millionths(outcome.last_loss),
    };
    Ok(context.files.save_outcome(&outcome_of(task, context), &bytes, losses)?)
}

/// One run from the local checkpoint, if there is one, to the end, or to a local checkpoint soon after cancellation.
fn run(
    context: &Context,
    task: &TrainingTask,
    base: &[Tensor],
    stop: &CancellationToken,
) -> Result<TrainingOutcome, TrainingError> {
    let (plan, round) = (&task.key.plan, task.key.round);
    let mut saved_at = Instant::now();
    let mut save = |checkpoint: &LocalCheckpoint| {
        if stop.is_cancelled() || saved_at.elapsed() >= CHECKPOINT_INTERVAL {
            context.files.save_local_checkpoint(plan, round, checkpoint)?;
            saved_at = Instant::now();
        }
        if stop.is_cancelled() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    };
    let resume_from = context.files.local_checkpoint(plan, round);
    let resumption = Resumption { resume_from, every_steps: LOOK_UP_STEPS, save: &mut save };
    train_resumable(&task.settings, &context.table.train, base, resumption)
}

/// A float-to-integer cast saturates, and a mean loss is never NaN after a training that did not diverge.
fn millionths(value: f64) -> i64 {
    (value * MILLIONTHS as f64).round() as i64
}

/// An error with its causes, on one line.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
