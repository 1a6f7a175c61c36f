//! Checking updates and computing versions, both from file to file.
//!
//! An update is added to its round's running sum in the same pass that checks it, so that closing a round costs what its
//! base costs, whatever the number of updates. The sums are all that grows with the model, and they are bounded; a round
//! without one, after a restart say, is computed from the files of its updates.

use std::{fs::File, sync::Arc};

use fedledger_federation::{
    Federation,
    aggregation::Destination,
    command::{FileRef, OutputFiles, RoundKey},
    conductor::Report,
    plan::Plan,
    recipe::{Recipe, RecipeError, RoundSum, Update, WRONG_DIGEST, check_and_add},
    records::Phase,
};
use fedledger_ledger::Digest;
use fedledger_proto::fault_point::fault_point;

use super::Inner;
use crate::{blobs::BlobStore, fetching::Found, shared::SharedView};

/// Largest running sums of all rounds in progress together, in bytes: one round of the largest model.
pub(super) const SUMS_SIZE_BYTES_MAX: u64 = 2 << 30;

impl Inner {
    /// Gives back the memory of sums that are of no more use.
    pub(super) fn drop_finished_sums(&self, state: &Federation) {
        let finished =
            self.sums.remove_others(|key| state.plans().get(&key.plan).is_some_and(|record| record.open == Some(*key)));
        if !finished.is_empty() {
            // To unmap gigabytes takes long.
            tokio::task::spawn_blocking(move || drop(finished));
        }
    }

    pub(super) async fn check(&self, key: RoundKey, plan: Plan, cohort: usize, update: Update) {
        let member = update.member.clone();
        // Before the update is here: one that comes after its round is only checked.
        let sum = self.sums.begin(&key, &plan, cohort);
        let verdict = self.checked(&key, plan, cohort, update, sum).await;
        self.report(match verdict {
            Ok(verdict) => Report::Checked { key, member, verdict },
            Err(reason) => {
                // The conductor excludes what is not checked at the deadline, and asks again before that.
                tracing::warn!(member, reason, "an update could not be checked");
                Report::CheckFailed { key, member }
            }
        })
        .await;
    }

    async fn checked(
        &self,
        key: &RoundKey,
        plan: Plan,
        cohort: usize,
        update: Update,
        sum: Option<Arc<RoundSum>>,
    ) -> Result<Result<(), String>, String> {
        let (member, digest) = (update.member.clone(), update.file.digest);
        tokio::select! {
            fetched = self.fetch_update(key, &update) => if !fetched {
                return Err(format!("no live node has file {digest}"));
            },
            // Nobody waits for it any more, and whoever has the file could take for ever.
            () = self.view.until_over(key) => return Err("the attempt is over".to_owned()),
        }
        let path = self.blobs.path(&digest);
        let checked = tokio::task::spawn_blocking(move || {
            let sum = sum.as_deref().and_then(RoundSum::get);
            check_and_add(&plan, cohort, &update, sum, || File::open(&path))
        });
        let verdict = checked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if let Err((WRONG_DIGEST, reason)) = &verdict {
            // What was fetched was verified, so the disk has changed it since. That is not the contributor's fault.
            self.discard(&digest);
            return Err(reason.clone());
        }
        Ok(verdict.map_err(|(code, reason)| {
            tracing::warn!(member, code, reason, "an update cannot be aggregated");
            code.to_owned()
        }))
    }

    /// Has an update here when this returns true. Tells the conductor every time that nobody has it.
    async fn fetch_update(&self, key: &RoundKey, update: &Update) -> bool {
        let mut search = self.fetching.begin(&key.plan, &update.file);
        while let Some(found) = search.next(|turn| self.sources(Some(&update.member), turn)).await {
            match found {
                Found::Here => return true,
                Found::Elsewhere => {}
                Found::Nowhere => self.report(Report::NotFound { key: *key, member: update.member.clone() }).await,
            }
        }
        false
    }

    fn discard(&self, digest: &Digest) {
        tracing::error!(%digest, "a file was damaged on this disk: it is removed and fetched anew");
        if let Err(error) = self.blobs.discard(digest) {
            tracing::error!(%digest, %error, "a damaged file cannot be removed");
        }
    }

    pub(super) async fn compute(&self, recipe: Recipe) {
        let key = recipe.key;
        let report = match self.computed(recipe).await {
            Ok(outputs) => Report::Computed { key, outputs },
            Err(failure) => {
                tracing::error!(round = key.round, reason = failure.reason, "a version could not be computed");
                Report::ComputeFailed { key, permanent: failure.permanent }
            }
        };
        self.report(report).await;
    }

    async fn computed(&self, recipe: Recipe) -> Result<OutputFiles, Failure> {
        tokio::select! {
            fetched = self.fetch_all(&recipe) => fetched?,
            () = self.until_abandoned(recipe.key) => {
                return Err(Failure::passing("the attempt was given up".to_owned()));
            }
        }
        let permit = self.computations.acquire().await;
        let _permit = permit.map_err(|_| Failure::passing("the replica is stopping".to_owned()))?;
        let (key, view, blobs, threads) = (recipe.key, self.view.clone(), self.blobs.clone(), self.threads);
        let sum = self.sums.get(&key);
        let computed = tokio::task::spawn_blocking(move || {
            let outputs = compute_into(&recipe, &view, &blobs, sum, threads);
            outputs.map_err(Box::new)
        });
        match computed.await {
            Ok(Ok(outputs)) => {
                let finished = self.sums.remove(&key);
                tokio::task::spawn_blocking(move || drop(finished));
                Ok(outputs)
            }
            Ok(Err(error)) => {
                if let RecipeError::Digest { expected, .. } = &*error {
                    self.discard(expected);
                }
                Err(Failure::of(&error))
            }
            Err(error) => Err(Failure::passing(error.to_string())),
        }
    }

    /// Has all files here that a version is made of.
    async fn fetch_all(&self, recipe: &Recipe) -> Result<(), Failure> {
        for file in recipe.files() {
            let member = recipe.updates.iter().find(|update| update.file == file).map(|update| update.member.clone());
            if !self.fetch(&recipe.key.plan, &file, member.as_ref()).await {
                return Err(Failure::passing(format!("no live node has file {}", file.digest)));
            }
        }
        Ok(())
    }

    /// Waits until an attempt is given up. The version of one that is completed is computed all the same, to be attested.
    async fn until_abandoned(&self, key: RoundKey) {
        self.view.until_over(&key).await;
        let asked = self.handle.query(move |replica| {
            let round = replica.log().machine().rounds().get(&key);
            round.is_some_and(|round| matches!(round.phase, Phase::Abandoned { .. }))
        });
        if asked.await != Some(true) {
            std::future::pending().await
        }
    }
}

/// Makes the version's files and keeps them under their digests.
fn compute_into(
    recipe: &Recipe,
    view: &SharedView,
    blobs: &BlobStore,
    sum: Option<Arc<RoundSum>>,
    threads: usize,
) -> Result<OutputFiles, RecipeError> {
    fault_point("aggregating");
    let (incoming_weights, mut weights) = blobs.incoming().map_err(RecipeError::Output)?;
    let (incoming_state, mut state) = blobs.incoming().map_err(RecipeError::Output)?;
    let open = |file: &FileRef| File::open(blobs.path(&file.digest));
    let destination = Destination { weights: &mut weights, optimizer_state: Some(&mut state) };
    let outputs = recipe.compute_into(open, destination, sum.as_deref().and_then(RoundSum::get), threads)?;
    // The files are closed before they are made durable and named.
    drop((weights, state));
    // The ledger does not name them before the version is proposed.
    let files = outputs.optimizer_state.iter().chain([&outputs.weights]);
    view.expect_computed(&recipe.key, files.map(|file| file.digest));
    // A file of that name may be damaged, and these bytes have just been hashed.
    blobs.keep(incoming_weights, &outputs.weights.digest).map_err(RecipeError::Output)?;
    if let Some(file) = &outputs.optimizer_state {
        blobs.keep(incoming_state, &file.digest).map_err(RecipeError::Output)?;
    }
    Ok(outputs)
}

/// Why a version could not be computed.
struct Failure {
    reason: String,
    /// The code of a reason that will not go away.
    permanent: Option<String>,
}

impl Failure {
    fn passing(reason: String) -> Self {
        Self { reason, permanent: None }
    }

    fn of(error: &RecipeError) -> Self {
        let permanent = match error {
            RecipeError::Io { .. }
            | RecipeError::Digest { .. }
            | RecipeError::Ledger(_)
            | RecipeError::Output(_)
            | RecipeError::Memory(_) => None,
            RecipeError::Aggregation(_) | RecipeError::Architecture(_) | RecipeError::Update { .. } => {
                Some("aggregation_failed".to_owned())
            }
        };
        Self { reason: error.to_string(), permanent }
    }
}
