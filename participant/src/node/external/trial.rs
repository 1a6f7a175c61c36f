//! A round that a program of the site trains on trial: as in a round, with the same supervision and limits, but in a folder
//! that is thrown away, and for nobody.

use std::{path::Path, sync::Arc};

use fedledger_federation::{
    VersionId,
    command::{FileRef, RoundKey},
    plan::UpdateDtype,
};
use fedledger_ledger::Digest;
use tokio_util::sync::CancellationToken;

use super::{
    ExternalError, ExternalSettings, GivenWeights, Places, Program, Progress, Records, Results, check_inputs,
    checked_digest, make_ready,
    processors::Processors,
    read_results, run,
    task::{Occasion, Work},
    write_update,
};
use crate::table::SiteData;

/// A program and what a plan asks of it.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The program.
    pub program: &'a Arc<Program>,
    /// What is asked.
    pub settings: &'a ExternalSettings,
    /// The records, and where the node's own come from.
    pub records: (&'a Records, &'a SiteData),
    /// Fewest examples of which the site lets an update leave.
    pub examples_min: u64,
    /// An empty folder, which the caller removes in the end.
    pub folder: &'a Path,
}

/// What a training came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialOutcome {
    /// What the program reports.
    pub results: Results,
    /// The update.
    pub update: Vec<u8>,
    /// Its digest and size.
    pub file: FileRef,
    /// The program's digest.
    pub program: Digest,
    /// The most memory that its processes were seen to have, in bytes; none where the system does not tell.
    pub peak_bytes: Option<u64>,
}

impl Trial<'_> {
    /// Trains. The base is of no version that has a name, and the program is told zeros in its place.
    ///
    /// # Errors
    ///
    /// [`ExternalError`].
    pub async fn train(
        &self,
        key: &RoundKey,
        base: GivenWeights<'_>,
        dtype: UpdateDtype,
        tell: impl FnMut(Progress),
    ) -> Result<TrialOutcome, ExternalError> {
        let (work, places, stop) = (self.work(), Places::within(self.folder), CancellationToken::new());
        let digest = checked_digest(&work)?;
        let occasion = Occasion::Train { key, base: &nameless() };
        make_ready(&places, &digest, base, &work, occasion)?;
        let peak_bytes = run(&work, &places, &Processors::default().order(), &stop, tell).await?;
        check_inputs(&work, digest, self.records.1, &stop)?;
        let results = read_results(&places, &work, &work.allowed_of_training())?;
        let mut update = Vec::new();
        let file = write_update(&places, &work, base, dtype, &mut update)?;
        places.discard()?;
        Ok(TrialOutcome { results, update, file, program: digest, peak_bytes })
    }

    /// Evaluates weights, if the program can.
    ///
    /// # Errors
    ///
    /// [`ExternalError`].
    pub async fn evaluate(&self, weights: GivenWeights<'_>) -> Result<Option<Results>, ExternalError> {
        if !self.program.evaluates {
            return Ok(None);
        }
        let (work, places, stop) = (self.work(), Places::within(self.folder), CancellationToken::new());
        let digest = checked_digest(&work)?;
        let occasion = Occasion::Evaluate { version: &nameless() };
        make_ready(&places, &digest, weights, &work, occasion)?;
        run(&work, &places, &Processors::default().order(), &stop, |_| ()).await?;
        let results = read_results(&places, &work, &work.allowed_of_evaluation())?;
        places.discard()?;
        Ok(Some(results))
    }

    fn work(&self) -> Work {
        Work::new(self.program, self.settings, self.records.0.clone(), self.examples_min)
    }
}

/// In place of a version that has no name yet.
const fn nameless() -> VersionId {
    VersionId::of_manifest(Digest::from_bytes([0; 32]))
}
