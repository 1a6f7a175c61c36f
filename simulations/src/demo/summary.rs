//! What came out of a demo.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Instant,
};

use fedledger_coordinator::blobs::path_in;
use fedledger_federation::{
    VersionId,
    history::StorageSource,
    verify::{self, Options},
};
use fedledger_ledger::{Digest, storage::rocks::RocksStorage};
use serde::Serialize;

use super::{DemoError, DemoOptions, Progress, ledger_directory};

/// Format of the summary.
pub const DEMO_SCHEMA: &str = "fedledger.demo/1";

/// What came out of a demo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// [`DEMO_SCHEMA`].
    pub schema: &'static str,
    /// Where the nodes lie.
    pub dir: PathBuf,
    /// Seed of the plan.
    pub seed: u64,
    /// The rounds in order.
    pub rounds: Vec<RoundSummary>,
    /// The last version.
    pub final_version: VersionId,
    /// SHA-256 of its weights file.
    pub final_weights: Digest,
    /// Entries in the ledger.
    pub ledger_size: u64,
    /// What verification found.
    pub verified: Verified,
    /// Duration of the whole demo, in milliseconds.
    pub duration_ms: u64,
}

/// A completed round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundSummary {
    /// Its number, from 1.
    pub round: u64,
    /// The version that it led to.
    pub version: VersionId,
    /// Accuracy of the version on each hospital's test patients.
    pub accuracy: BTreeMap<String, f64>,
    /// Their mean.
    pub accuracy_mean: f64,
    /// Hospitals whose updates were aggregated.
    pub contributed: Vec<String>,
    /// The others, and why.
    pub missing: Vec<Missing>,
    /// From the round's opening to the attested version, in milliseconds.
    pub duration_ms: u64,
}

/// A hospital whose update is not in a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The hospital.
    pub member: String,
    /// Why.
    pub reason: String,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Entries checked.
    pub entries: u64,
    /// Versions computed again, bit for bit.
    pub versions_recomputed: u64,
    /// Whether everything was as recorded.
    pub ok: bool,
}

/// The mean of the hospitals' accuracies, each hospital counting once.
pub(super) fn mean(accuracy: &BTreeMap<String, f64>) -> f64 {
    if accuracy.is_empty() { 0.0 } else { accuracy.values().sum::<f64>() / accuracy.len() as f64 }
}

/// Verifies the whole ledger from the files of one replica, and sums up.
pub(super) async fn finish(
    options: &DemoOptions,
    rounds: Vec<RoundSummary>,
    started: Instant,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Summary, DemoError> {
    let last = rounds.last().map(|round| round.version);
    let last = last.ok_or_else(|| DemoError::Verify("no round was completed".to_owned()))?;
    let directory = ledger_directory(&options.directory);
    let storage = RocksStorage::open_read_only(&directory.join("ledger")).map_err(verify_error)?;
    let size = fedledger_ledger::log::Log::<fedledger_federation::Federation>::load(&storage).map_err(verify_error)?;
    let size = size.ok_or_else(|| DemoError::Verify("there is no ledger".to_owned()))?;
    progress(Progress::Verifying { entries: size.size() });
    let record = size.machine().versions().get(&last);
    let weights = record.and_then(|record| record.manifest.weights());
    let weights = weights.ok_or_else(|| DemoError::Verify("the last version has no weights".to_owned()))?;
    let verified = tokio::task::spawn_blocking(move || verify_directory(storage, &directory.join("blobs")));
    let report = verified.await.map_err(verify_error)??;
    Ok(Summary {
        schema: DEMO_SCHEMA,
        dir: options.directory.clone(),
        seed: options.seed,
        rounds,
        final_version: last,
        final_weights: weights.digest,
        ledger_size: report.entries,
        verified: Verified {
            entries: report.entries,
            versions_recomputed: report.versions_recomputed,
            ok: report.ok && report.versions_skipped.is_empty(),
        },
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn verify_directory(storage: RocksStorage, blobs: &Path) -> Result<verify::Report, DemoError> {
    let blobs = blobs.to_owned();
    let source = StorageSource::new(storage, move |digest: &Digest| open(&blobs, digest));
    let report = verify::verify(&source, &Options::default()).map_err(verify_error)?;
    for problem in &report.problems {
        tracing::error!(?problem, "verification found a problem");
    }
    Ok(report)
}

fn open(folder: &Path, digest: &Digest) -> io::Result<Option<File>> {
    match File::open(path_in(folder, digest)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn verify_error(error: impl std::fmt::Display) -> DemoError {
    DemoError::Verify(error.to_string())
}
