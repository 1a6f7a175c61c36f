//! From the ledger to arithmetic: which files a version is made of, and making it.
//!
//! The coordinator, every attesting replica and every auditor run the same [`Recipe`], so that they compute the same bytes.

mod arithmetic;
mod check;
mod compute;
mod sums;

#[cfg(test)]
mod tests;

use std::{collections::TryReserveError, io};

use fedledger_ledger::Digest;

pub use check::{Verdict, WRONG_DIGEST, check_and_add, check_update};
pub use sums::{RoundSum, RunningSums};

use crate::{
    Federation, VersionId,
    aggregation::{AggregationError, ContributionError, EncodeError, Outputs},
    apply,
    architecture::ArchitectureError,
    command::{Contribute, FileRef, OutputFiles, RoundKey},
    manifest::Manifest,
    member::MemberId,
    plan::Plan,
    records::{Participation, Phase},
    rejection::Rejection,
    tensors::{LayoutError, StreamWriteError},
};

/// What a version is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The attempt; round 0 for an initial version.
    pub key: RoundKey,
    plan: Plan,
    cohort: usize,
    /// Files of the base version; none for an initial version.
    pub base: Option<OutputFiles>,
    /// The updates, by member.
    pub updates: Vec<Update>,
}

/// An update to be aggregated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Who contributed it.
    pub member: MemberId,
    /// The file.
    pub file: FileRef,
    /// Examples behind it.
    pub examples: u64,
}

/// Why a version cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The ledger does not say how.
    #[error(transparent)]
    Ledger(#[from] Rejection),
    /// The architecture has no initial weights.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// A file of the version could not be written.
    #[error("a file of the version could not be written: {0}")]
    Output(#[source] io::Error),
    /// The updates are too many to be read side by side, and their sum does not fit into memory.
    #[error("the sum of the updates does not fit into memory: {0}")]
    Memory(#[source] TryReserveError),
    /// A file could not be read.
    #[error("file {digest} could not be read: {source}")]
    Io {
        /// SHA-256 of the file.
        digest: Digest,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not the one that the ledger names.
    #[error("file {expected} has the SHA-256 {found}")]
    Digest {
        /// SHA-256 on the ledger.
        expected: Digest,
        /// SHA-256 of what was read.
        found: Digest,
    },
    /// An update cannot be aggregated.
    #[error("the update of {member} is refused: {source}")]
    Update {
        /// Who contributed it.
        member: MemberId,
        /// Why.
        source: ContributionError,
    },
    /// Aggregation failed.
    #[error(transparent)]
    Aggregation(#[from] AggregationError),
}

impl From<LayoutError> for RecipeError {
    fn from(error: LayoutError) -> Self {
        Self::Aggregation(error.into())
    }
}

impl From<StreamWriteError> for RecipeError {
    fn from(error: StreamWriteError) -> Self {
        match error {
            StreamWriteError::Io(source) => Self::Output(source),
            // Initial values are finite and as many as the architecture says.
            error => Self::Output(io::Error::other(error)),
        }
    }
}

impl From<EncodeError> for RecipeError {
    fn from(error: EncodeError) -> Self {
        Self::Aggregation(AggregationError::Contribution { index: 0, source: error.into() })
    }
}

impl Recipe {
    /// The recipe of an attempt whose contributions are fixed, or of the initial version for round 0.
    ///
    /// # Errors
    ///
    /// [`Rejection`] where the ledger knows no such attempt, or it is still collecting.
    pub fn of(state: &Federation, key: &RoundKey) -> Result<Self, Rejection> {
        let record = state.plans().get(&key.plan).ok_or(Rejection::UnknownPlan(key.plan))?;
        let plan = record.plan.clone();
        if key.round == 0 {
            return Ok(Self { key: *key, plan, cohort: 1, base: None, updates: Vec::new() });
        }
        let round = state.rounds().get(key).ok_or(Rejection::UnknownRound)?;
        let (Phase::Closed { excluded, .. } | Phase::Completed { excluded, .. }) = &round.phase else {
            return Err(Rejection::RoundCollecting);
        };
        let updates = state.participations(key).filter_map(|(member, participation)| match participation {
            Participation::Contributed { contribution, .. } if !excluded.contains_key(member) => {
                Some(Update::of(member, contribution))
            }
            _ => None,
        });
        let updates = updates.collect();
        let base = state.versions().get(&round.base).ok_or(Rejection::UnknownVersion(round.base))?;
        let mut files = base.manifest.outputs().ok_or(Rejection::WrongOutputs)?;
        // Moments belong to one plan; the next plan on the branch begins with zeros.
        if base.manifest.plan != key.plan {
            files.optimizer_state = None;
        }
        Ok(Self { key: *key, plan, cohort: round.cohort.len(), base: Some(files), updates })
    }

    /// Every file that is needed.
    pub fn files(&self) -> impl Iterator<Item = FileRef> {
        let base = self.base.into_iter().flat_map(|files| [Some(files.weights), files.optimizer_state]).flatten();
        base.chain(self.updates.iter().map(|update| update.file))
    }

    /// The manifest that these outputs lead to, and its id.
    ///
    /// # Errors
    ///
    /// [`Rejection`] where the ledger has moved on.
    pub fn manifest(&self, state: &Federation, outputs: &OutputFiles) -> Result<(Manifest, VersionId), Rejection> {
        let manifest = apply::versions::manifest(state, &self.key, outputs)?;
        let id = manifest.id();
        Ok((manifest, id))
    }
}

impl Update {
    /// The update that a contribution names.
    pub fn of(member: &MemberId, contribution: &Contribute) -> Self {
        let file = FileRef { digest: contribution.update, size: contribution.size };
        Self { member: member.clone(), file, examples: contribution.examples }
    }
}

impl OutputFiles {
    /// Digests and sizes of computed files.
    pub fn of(outputs: &Outputs) -> Self {
        let file = |bytes: &[u8]| FileRef { digest: Digest::of(bytes), size: bytes.len() as u64 };
        Self { weights: file(&outputs.weights), optimizer_state: outputs.optimizer_state.as_deref().map(file) }
    }
}
