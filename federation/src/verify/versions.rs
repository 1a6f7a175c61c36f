//! Versions: computing them again.

use std::io;

use super::{Problem, ProblemKind, Report, SkippedVersion, pruned};
use crate::{
    Federation, VersionId,
    aggregation::Destination,
    command::{FileRef, OutputFiles},
    history::{Source, SourceError, hash},
    recipe::{Recipe, RecipeError},
    records::{VersionRecord, VersionStatus},
};

/// What came of computing a version again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recomputation {
    /// The recorded files, bit for bit.
    Match,
    /// Other files than recorded.
    Mismatch(OutputFiles),
    /// The ledger's own recipe cannot be carried out, so no honest replica can have proposed the version.
    Impossible(String),
    /// Not tried, and why.
    Skipped(String),
}

/// Computes a version again from the updates that the ledger names, with at most `threads` threads of the current rayon
/// pool.
///
/// # Errors
///
/// [`SourceError`] where a file cannot be read.
pub fn recompute<S: Source + ?Sized>(
    source: &S,
    state: &Federation,
    record: &VersionRecord,
    threads: usize,
) -> Result<Recomputation, SourceError> {
    match record.status {
        VersionStatus::Rejected => return Ok(Recomputation::Skipped("the replicas rejected it".to_owned())),
        VersionStatus::Withdrawn => {
            return Ok(Recomputation::Skipped("it was withdrawn before a majority of replicas attested it".to_owned()));
        }
        VersionStatus::Candidate | VersionStatus::Attested { .. } => {}
    }
    let recipe = match Recipe::of(state, &record.key) {
        Ok(recipe) => recipe,
        Err(rejection) => return Ok(Recomputation::Impossible(rejection.to_string())),
    };
    let mut failure = None;
    let mut missing = None;
    let open = |file: &FileRef| match source.blob(&file.digest) {
        Ok(Some(content)) => Ok(content),
        Ok(None) => {
            missing = Some(file.digest);
            Err(io::ErrorKind::NotFound.into())
        }
        Err(error) => {
            failure = Some(error);
            Err(io::ErrorKind::Other.into())
        }
    };
    // Of the files, only the digests matter. Moments are written in another order than they are hashed in.
    let optimizer_state = recipe.keeps_optimizer_state().then(|| source.scratch()).transpose()?;
    let destination = Destination { weights: io::sink(), optimizer_state };
    let computed = recipe.compute_into(open, destination, None, threads);
    if let Some(error) = failure {
        return Err(error);
    }
    if let Some(digest) = missing {
        let reason = pruned::reason(state, record, &digest).unwrap_or_else(|| format!("file {digest} is not there"));
        return Ok(Recomputation::Skipped(reason));
    }
    match computed {
        Ok(outputs) => {
            let matches = record.manifest.outputs() == Some(outputs);
            Ok(if matches { Recomputation::Match } else { Recomputation::Mismatch(outputs) })
        }
        Err(RecipeError::Io { source, .. } | RecipeError::Output(source)) => Err(source.into()),
        Err(error) => match damaged_file(source, &recipe)? {
            Some(reason) => Ok(Recomputation::Skipped(reason)),
            None => Ok(Recomputation::Impossible(error.to_string())),
        },
    }
}

/// Tells a recipe that fails for a damaged file from one that fails as it is.
fn damaged_file<S: Source + ?Sized>(source: &S, recipe: &Recipe) -> Result<Option<String>, SourceError> {
    for file in recipe.files() {
        if let Some(content) = source.blob(&file.digest)?
            && hash(content)?.0 != file.digest
        {
            return Ok(Some(format!("file {} is damaged", file.digest)));
        }
    }
    Ok(None)
}

/// Computes every version again whose files are there.
pub(super) fn check<S: Source + ?Sized>(
    report: &mut Report,
    source: &S,
    state: &Federation,
    threads: usize,
) -> Result<(), SourceError> {
    for (version, record) in state.versions().iter() {
        let recomputed = recompute(source, state, record, threads);
        let Some(recomputed) = report.settle(recomputed)? else { continue };
        match recomputed {
            Recomputation::Match => report.versions_recomputed += 1,
            Recomputation::Skipped(reason) => {
                report.versions_skipped.push(SkippedVersion { version: *version, reason });
            }
            Recomputation::Mismatch(found) => report.add(mismatch(version, record, &found)),
            Recomputation::Impossible(reason) => {
                let detail = format!("version {version} cannot come from its recipe: {reason}");
                report.add(Problem::new(ProblemKind::VersionMismatch, detail).at(record.created_index));
            }
        }
    }
    Ok(())
}

fn mismatch(version: &VersionId, record: &VersionRecord, found: &OutputFiles) -> Problem {
    let recorded = record.manifest.outputs();
    let weights = recorded.map(|files| files.weights.digest).unwrap_or_default();
    let detail = if weights == found.weights.digest {
        format!("version {version}: the optimizer state is not what the recipe makes")
    } else {
        let computed = found.weights.digest;
        format!("version {version}: the recorded weights are {weights}, the recipe makes {computed}")
    };
    Problem::new(ProblemKind::VersionMismatch, detail).at(record.created_index)
}
