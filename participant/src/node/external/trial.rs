//! A round that a program of the site trains on trial: as in a round, with the same supervision and limits, but in a folder
//! that is thrown away, and for nobody.

use std::path::Path;

use fedledger_federation::{
    VersionId,
    command::{FileRef, RoundKey},
    plan::UpdateDtype,
};
use fedledger_ledger::Digest;
use tokio_util::sync::CancellationToken;

use super::{
    EVALUATED_MAX, ExternalError, ExternalSettings, GivenWeights, Places, Program, Progress, Results, checked_digest,
    limits, make_ready, read_results, run, task::Occasion, write_update,
};

/// A program and what a plan asks of it.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The program.
    pub program: &'a Program,
    /// What is asked.
    pub settings: &'a ExternalSettings,
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
    /// The most memory that the program was seen to have, in bytes; none where the system does not tell.
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
        let Self { program, settings, folder } = *self;
        let (places, limits) = (Places::within(folder), limits(program, settings));
        let digest = checked_digest(program, settings)?;
        let occasion = Occasion::Train { key, base: &nameless() };
        make_ready(&places, &digest, base, (settings, program), occasion, limits)?;
        let peak_bytes = run(program, &places, limits, &CancellationToken::new(), tell).await?;
        if program.digest()? != digest {
            return Err(ExternalError::Changed(program.name.clone()));
        }
        let results = read_results(&places, &program.name, settings.examples_max)?;
        let mut update = Vec::new();
        let file = write_update(&places, (settings, program), base, dtype, &mut update)?;
        places.discard()?;
        Ok(TrialOutcome { results, update, file, program: digest, peak_bytes })
    }

    /// Evaluates weights, if the program can.
    ///
    /// # Errors
    ///
    /// [`ExternalError`].
    pub async fn evaluate(&self, weights: GivenWeights<'_>) -> Result<Option<Results>, ExternalError> {
        let Self { program, settings, folder } = *self;
        if !program.evaluates {
            return Ok(None);
        }
        let (places, limits) = (Places::within(folder), limits(program, settings));
        let digest = checked_digest(program, settings)?;
        let occasion = Occasion::Evaluate { version: &nameless() };
        make_ready(&places, &digest, weights, (settings, program), occasion, limits)?;
        run(program, &places, limits, &CancellationToken::new(), |_| ()).await?;
        let results = read_results(&places, &program.name, EVALUATED_MAX)?;
        places.discard()?;
        Ok(Some(results))
    }
}

/// In place of a version that has no name yet.
const fn nameless() -> VersionId {
    VersionId::of_manifest(Digest::from_bytes([0; 32]))
}
