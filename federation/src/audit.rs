//! Views for auditors: what was contributed, what came of it, and how versions differ.
//!
//! These are the crate's only floats outside aggregation, and nothing that is recorded or compared depends on them:
//! metrics as numbers, norms and angles of updates, and differences between weights.

mod contributions;
mod diff;
mod means;
mod replays;
mod versions;

use std::collections::BTreeMap;

pub use self::{
    contributions::{ContributionRow, Verdict, contributions},
    diff::{ContributorChange, MetricChange, TensorChange, TensorPresence, VersionDiff, diff},
    means::{GroupMeans, area_interval, mean_groups, mean_metrics},
    replays::{FileDigests, ReplayResult, ReplayRow, replay},
    versions::{Finality, VersionRow, VersionState, branch_log, version_rows},
};
use crate::{
    Rejection, VersionId,
    command::Metrics,
    history::SourceError,
    tensors::{LayoutError, ReadError},
};

/// One in the fixed-point numbers of the ledger.
const METRIC_SCALE: f64 = 1_000_000.0;

/// Why a view cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The ledger does not know what is asked for.
    #[error(transparent)]
    Ledger(#[from] Rejection),
    /// There is no such branch.
    #[error("there is no branch {0:?}")]
    UnknownBranch(String),
    /// A version without a weights file.
    #[error("version {0} names no weights")]
    NoWeights(VersionId),
    /// The file is not there.
    #[error("the weights of version {version} ({digest}) are not there: export the bundle with its files")]
    MissingFile {
        /// The version.
        version: VersionId,
        /// SHA-256 of its weights.
        digest: fedledger_ledger::Digest,
    },
    /// The weights were let go.
    #[error("the weights of version {version} were pruned at entry {index}: compare versions that are kept")]
    Pruned {
        /// The version.
        version: VersionId,
        /// Index of the entry.
        index: u64,
    },
    /// A weights file is not what the ledger says.
    #[error("the weights of version {version} have the SHA-256 {found}, expected {expected}: the file is damaged")]
    Damaged {
        /// The version.
        version: VersionId,
        /// SHA-256 on the ledger.
        expected: fedledger_ledger::Digest,
        /// SHA-256 of the file.
        found: fedledger_ledger::Digest,
    },
    /// A weights file has other tensors than its plan says.
    #[error("the weights of version {version} cannot be read: {source}")]
    Weights {
        /// The version.
        version: VersionId,
        /// Why.
        source: ReadError,
    },
    /// The plan's model is too large for a file.
    #[error("the plan's model cannot be laid out: {0}")]
    Layout(#[from] LayoutError),
}

/// Fixed-point metrics as numbers.
pub fn as_numbers(metrics: &Metrics) -> BTreeMap<String, f64> {
    metrics.iter().map(|(name, millionths)| (name.clone(), *millionths as f64 / METRIC_SCALE)).collect()
}
