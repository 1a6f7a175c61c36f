//! Versions computed again, one row each.

use fedledger_ledger::Digest;
use serde::Serialize;

use super::AuditError;
use crate::{
    Federation, Rejection, VersionId,
    command::OutputFiles,
    history::Source,
    verify::{Recomputation, recompute},
};

/// What came of computing a version again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayRow {
    /// The version.
    pub version: VersionId,
    /// Its number, once it is attested.
    pub number: Option<u64>,
    /// The round of its plan; 0 for an initial version.
    pub round: u64,
    /// What came of it.
    pub result: ReplayResult,
    /// Why it was not computed, or cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the ledger says.
    pub recorded: Option<FileDigests>,
    /// What was computed.
    pub computed: Option<FileDigests>,
    /// Index at which the version was proposed.
    pub index: u64,
}

/// What came of computing a version again, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayResult {
    /// The same bits.
    Match,
    /// Other bits, or a recipe that cannot be carried out.
    Mismatch,
    /// Not computed.
    Skipped,
}

/// SHA-256 of a version's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FileDigests {
    /// The weights.
    pub weights: Digest,
    /// The server optimiser's state, for rules that keep one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer_state: Option<Digest>,
}

impl From<OutputFiles> for FileDigests {
    fn from(files: OutputFiles) -> Self {
        let optimizer_state = files.optimizer_state.map(|file| file.digest);
        Self { weights: files.weights.digest, optimizer_state }
    }
}

/// Computes one version again, or with `None` all of them in the order in which they were proposed.
///
/// # Errors
///
/// [`AuditError::Ledger`] for an unknown version, [`AuditError::Source`] where a file cannot be read.
pub fn replay<S: Source + ?Sized>(
    source: &S,
    state: &Federation,
    version: Option<&VersionId>,
    threads: usize,
) -> Result<Vec<ReplayRow>, AuditError> {
    let mut records: Vec<_> = match version {
        Some(id) => {
            let record = state.versions().get(id).ok_or(Rejection::UnknownVersion(*id))?;
            vec![(id, record)]
        }
        None => state.versions().iter().collect(),
    };
    records.sort_by_key(|(_, record)| record.created_index);
    let rows = records.into_iter().map(|(id, record)| {
        let recorded = record.manifest.outputs().map(FileDigests::from);
        let (result, computed, reason) = match recompute(source, state, record, threads)? {
            Recomputation::Match => (ReplayResult::Match, recorded, None),
            Recomputation::Mismatch(files) => (ReplayResult::Mismatch, Some(files.into()), None),
            Recomputation::Impossible(reason) => (ReplayResult::Mismatch, None, Some(reason)),
            Recomputation::Skipped(reason) => (ReplayResult::Skipped, None, Some(reason)),
        };
        Ok(ReplayRow {
            version: *id,
            number: record.number(),
            round: record.manifest.round,
            result,
            reason,
            recorded,
            computed,
            index: record.created_index,
        })
    });
    rows.collect()
}
