//! The same round by a program of the site.

use std::{fs, path::Path, sync::Arc, time::Instant};

use fedledger_federation::{
    command::{FileRef, RoundKey},
    plan::Plan,
    tensors,
};
use fedledger_ledger::Digest;

use super::{
    Base, ExternalTraining, Leaving, LocalRound, LocalRoundError, ROUND, Trained, base, base::Held,
    leaving::unknown_version,
};
use crate::{
    evaluation::report_of_program,
    node::{
        ExternalSettings, GivenWeights, TrainerProgram, TrainerRecords, TrainerResults, Trial,
        core::{DataSummary, Site, TrainedUpdate},
    },
    table::SiteData,
    training::{SettingsError, WeightsFile},
};

/// Name of the file of weights that the site would have trained alone.
const AFTER_FILE: &str = "after.safetensors";

/// A program of the site, and what it trains on.
#[derive(Debug, Clone, Copy)]
pub struct Equipment<'a> {
    /// The program.
    pub program: &'a Arc<TrainerProgram>,
    /// The records.
    pub records: &'a TrainerRecords,
    /// Where the node's own records come from.
    pub source: &'a SiteData,
}

/// Trains one round of a plan with a program of the site from `base`, and lets it evaluate the result if it can.
///
/// It works in `folder`, which must be empty; the caller removes it. `progress` is told how far the program says that it is,
/// from 0 to 100.
///
/// # Errors
///
/// [`LocalRoundError`].
pub async fn run_external(
    plan: &Plan,
    (site, data): (&Site, &DataSummary),
    Equipment { program, records, source }: Equipment<'_>,
    base: Base<'_>,
    folder: &Path,
    progress: &mut dyn FnMut(u8),
) -> Result<LocalRound, LocalRoundError> {
    plan.architecture.validate()?;
    let settings = ExternalSettings::from_plan(plan, &site.member).ok_or(SettingsError::BuiltIn)?;
    let (path, file) = base::as_file(base, plan, folder)?;
    let given = GivenWeights { path: &path, file };
    let examples_min = site.policy.examples_min;
    let trial = Trial { program, settings: &settings, records: (records, source), examples_min, folder };
    let before = trial.evaluate(given).await?;
    let key = RoundKey { plan: plan.id(), round: ROUND, attempt: 1 };
    let began = Instant::now();
    let dtype = plan.aggregation.update_dtype;
    let trained = trial.train(&key, given, dtype, |told| progress(told.percent)).await?;
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let layout = plan.update_layout()?;
    let update = tensors::read_f32(&trained.update, &layout)?;
    let after = if program.evaluates {
        let held = Held::File(WeightsFile::new(&path, file, plan.architecture.layout()?));
        let weights = tensors::write_tensors(&held.plus(&update)?)?;
        evaluate(&trial, &weights, folder).await?
    } else {
        None
    };
    let TrainerResults { examples, metrics, skipped_rows } = trained.results;
    let contributed = TrainedUpdate {
        file: trained.file,
        examples,
        metrics: metrics.clone(),
        data_manifest: records.manifest,
        skipped_rows,
        trainer: Some(trained.program),
    };
    let evaluation = after.as_ref().map(|TrainerResults { examples, metrics, .. }| {
        report_of_program(unknown_version(), *examples, metrics, site.policy.suppress_below)
    });
    let leaving = Leaving::of(plan, (site, data), key, &contributed, &layout, &update, evaluation.as_ref());
    Ok(LocalRound {
        plan: key.plan,
        round: ROUND,
        base: file.digest,
        examples,
        training: Trained::External(ExternalTraining {
            trainer: program.name.clone(),
            program: trained.program,
            training_metrics: metrics,
            memory_peak_bytes: trained.peak_bytes,
            memory_max_bytes: program.limits.memory,
        }),
        test_examples: after.as_ref().map_or(0, |results| results.examples),
        before: before.map(|results| results.metrics),
        after: after.map(|results| results.metrics),
        duration_ms,
        leaving,
    })
}

/// Lets the program evaluate weights that are no file yet.
async fn evaluate(trial: &Trial<'_>, weights: &[u8], folder: &Path) -> Result<Option<TrainerResults>, LocalRoundError> {
    let path = folder.join(AFTER_FILE);
    fs::write(&path, weights).map_err(|source| LocalRoundError::Base { path: path.clone(), source })?;
    let file = FileRef { digest: Digest::of(weights), size: weights.len() as u64 };
    Ok(trial.evaluate(GivenWeights { path: &path, file }).await?)
}
