//! Federated rounds without nodes: the trainer, the update files and the aggregation of production, in one process.
//!
//! What is left out is everything that does not change the weights: ledger, network, deadlines, and hospitals that fail.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use fedledger_federation::{
    aggregation::{Aggregation, AggregationError, Base, aggregate},
    tensors::{ReadError, Tensor, read_f32},
};
use fedledger_participant::{
    table::Dataset,
    training::{Progress, Resumption, TrainingError, TrainingSettings, TrainingSummary, train_to_file},
};

/// The version that a federation has come to.
#[derive(Debug, Clone)]
pub struct Federated {
    aggregation: Aggregation,
    weights: Vec<u8>,
    optimizer_state: Option<Vec<u8>>,
}

/// A hospital in a round.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// How it trains, and its name.
    pub settings: TrainingSettings,
    /// What it trains on.
    pub data: &'a Dataset,
}

/// Is told from all threads how many optimiser steps were done since it was told last.
pub type Told<'a> = &'a (dyn Fn(u64) + Sync);

/// A round that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum FederatedError {
    /// A hospital could not train.
    #[error("training at {member}")]
    Training {
        /// The hospital.
        member: String,
        /// Why.
        source: TrainingError,
    },
    /// The updates do not make a version.
    #[error("the updates cannot be aggregated")]
    Aggregation(#[from] AggregationError),
    /// The weights are not those of the model.
    #[error("the weights cannot be read")]
    Weights(#[from] ReadError),
}

/// What a hospital contributes: its examples, its update file and what is reported.
type Contribution = Result<(TrainingSummary, Vec<u8>), FederatedError>;

impl Federated {
    /// Begins with the weights in the file `weights`.
    pub const fn new(aggregation: Aggregation, weights: Vec<u8>) -> Self {
        Self { aggregation, weights, optimizer_state: None }
    }

    /// The weights.
    ///
    /// # Errors
    ///
    /// [`FederatedError::Weights`] if they are not those of the model.
    pub fn weights(&self) -> Result<Vec<Tensor>, FederatedError> {
        Ok(read_f32(&self.weights, self.aggregation.weights_layout())?)
    }

    /// The file of the weights.
    pub fn weights_file(&self) -> &[u8] {
        &self.weights
    }

    /// Trains at all sites, so many at a time, and aggregates: what is reported of each training, in the order of the sites.
    ///
    /// # Errors
    ///
    /// [`FederatedError`] of the first site that failed; the version is then what it was.
    pub fn round(
        &mut self,
        sites: &[Site<'_>],
        threads: usize,
        told: Told<'_>,
    ) -> Result<Vec<TrainingSummary>, FederatedError> {
        let weights = self.weights()?;
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some((index, site)) = take(sites, &next) {
                let contribution = self.contribution(site, &weights, told);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((index, contribution));
            }
        };
        std::thread::scope(|scope| (0..threads.clamp(1, sites.len().max(1))).for_each(|_| drop(scope.spawn(work))));
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        let (mut summaries, mut contributions) = (Vec::new(), Vec::new());
        for (_, contribution) in done {
            let (summary, update) = contribution?;
            summaries.push(summary);
            contributions.push((summary.example_count, update));
        }
        let base = Base { weights: &self.weights, optimizer_state: self.optimizer_state.as_deref() };
        let outputs = aggregate(&self.aggregation, base, &contributions, threads)?;
        (self.weights, self.optimizer_state) = (outputs.weights, outputs.optimizer_state);
        Ok(summaries)
    }

    /// A site's update as it would be sent.
    fn contribution(&self, site: &Site<'_>, weights: &[Tensor], told: Told<'_>) -> Contribution {
        let Site { settings, data } = site;
        let mut seen = 0;
        let mut report = |progress: &Progress<'_>| {
            told(progress.step().saturating_sub(seen));
            seen = progress.step();
            Ok(())
        };
        let resumption = Resumption { resume_from: None, every_steps: 1, report: &mut report };
        let (layout, mut update) = (self.aggregation.update_layout().clone(), Vec::new());
        let trained = train_to_file(settings, data, weights, resumption, layout, &mut update);
        let (summary, _) =
            trained.map_err(|source| FederatedError::Training { member: settings.member.clone(), source })?;
        told(summary.steps.saturating_sub(seen));
        Ok((summary, update))
    }
}

/// The next site that nobody has begun with.
fn take<'a, 'b>(sites: &'a [Site<'b>], next: &AtomicUsize) -> Option<(usize, &'a Site<'b>)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, sites.get(index)?))
}
