//! A plan for images, carried out by hospitals that share one published data set.
//!
//! The training images are dealt out to so many hospitals, which then train the plan's rounds with the trainer, the update
//! files and the aggregation of production. Every version is tested on the data set's own test images, which no hospital
//! has, so that the result can be held against what others publish for the same data.

mod report;

use std::{fs, io, path::PathBuf, time::Instant};

use fedledger_federation::{
    aggregation::AggregationError, data_description::DataDescription, plan::Plan, plan::PlanError, recipe::RecipeError,
    seeds,
};
use fedledger_ledger::Digest;
use fedledger_participant::{
    evaluation::{EvaluationError, evaluate},
    table::{Dataset, DatasetError, OpenError, Schema, SchemaError, SiteData, Table},
    training::{SettingsError, TrainingSettings},
};

use crate::federated::{Federated, FederatedError, Site, Told};

pub use report::{Estimate, Report, RoundReport};

/// Separates the seeds by which images are dealt out from all others.
const DEALING_DOMAIN: &[u8] = b"fedledger/v1/simulated hospitals";

/// Most hospitals.
pub const HOSPITALS_MAX: usize = 1000;

/// Largest plan file, in bytes.
const PLAN_SIZE_BYTES_MAX: u64 = 1 << 20;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// The plan, as `fedledger plan propose` takes it.
    pub plan: Plan,
    /// The npz file, or the folder of the IDX files.
    pub data: PathBuf,
    /// The file that describes it; by default its arrays are called as MedMNIST and MNIST call theirs.
    pub schema: Option<PathBuf>,
    /// Hospitals that the training images are dealt out to.
    pub hospitals: usize,
    /// Rounds, if not the plan's.
    pub rounds: Option<u64>,
    /// Seed by which the images are dealt out.
    pub seed: u64,
    /// Hospitals that train at the same time.
    pub threads: usize,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the error of the part that it is named for")]
pub enum ImagesError {
    /// The plan's file cannot be read.
    #[error("{} cannot be read", path.display())]
    PlanFile { path: PathBuf, source: io::Error },
    /// The plan's file holds something else.
    #[error("{} is no plan", path.display())]
    PlanText { path: PathBuf, source: toml::de::Error },
    #[error("the plan cannot be carried out")]
    Plan(#[from] PlanError),
    /// The plan is about something else.
    #[error("the plan describes no images: it needs [data] with kind = \"images\"")]
    NoImages,
    /// Too few or too many hospitals for the images.
    #[error("{found} hospitals cannot share {images} images: use 1 to {}", HOSPITALS_MAX.min(*images))]
    Hospitals { found: usize, images: usize },
    /// There is nothing to test on.
    #[error("the data set has no test images: describe some with --schema, under [images] or [split]")]
    NoTestImages,
    #[error("the plan cannot be trained")]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error("the first version cannot be made")]
    Initial(#[from] RecipeError),
    #[error(transparent)]
    Aggregation(#[from] AggregationError),
    #[error(transparent)]
    Federated(#[from] FederatedError),
    #[error("the version cannot be tested")]
    Evaluation(#[from] EvaluationError),
}

/// Reads a plan.
///
/// # Errors
///
/// [`ImagesError`] names the file, or the rule that the plan breaks.
pub fn read_plan(path: PathBuf) -> Result<Plan, ImagesError> {
    let read = || {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(fs::File::open(&path)?, PLAN_SIZE_BYTES_MAX), &mut text)?;
        Ok(text)
    };
    let text: String = match read() {
        Ok(text) => text,
        Err(source) => return Err(ImagesError::PlanFile { path, source }),
    };
    let plan: Plan = match toml::from_str(&text) {
        Ok(plan) => plan,
        Err(source) => return Err(ImagesError::PlanText { path, source }),
    };
    plan.check()?;
    Ok(plan)
}

impl Simulation {
    /// Rounds that are carried out.
    pub fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(self.plan.rounds)
    }

    /// Optimiser steps of all rounds and hospitals.
    pub fn steps(&self) -> u64 {
        let steps = self.plan.training.as_ref().map_or(0, |training| training.steps);
        steps.saturating_mul(self.rounds()).saturating_mul(self.hospitals as u64)
    }

    /// Carries the plan out. `told` learns of every optimiser step, `show` of every version: its round, or 0 for the initial
    /// weights.
    ///
    /// # Errors
    ///
    /// [`ImagesError`].
    pub fn run(&self, told: Told<'_>, show: &mut dyn FnMut(&RoundReport)) -> Result<Report, ImagesError> {
        let began = Instant::now();
        let table = self.read()?;
        let parts = deal(&table.train, self.hospitals, self.seed)?;
        let mut federated = Federated::new(self.plan.arithmetic(self.hospitals)?, self.plan.initial_weights()?);
        let mut rounds = Vec::new();
        for round in 0..=self.rounds() {
            let began = Instant::now();
            let loss = if round == 0 { None } else { Some(self.train(&mut federated, &parts, round, told)?) };
            let evaluation = evaluate(&self.plan.architecture, &federated.weights()?, &table.test)?;
            let report = RoundReport::new(round, loss, &evaluation.all, began.elapsed());
            show(&report);
            rounds.push(report);
        }
        Ok(Report {
            name: self.plan.name.clone(),
            plan: self.plan.id(),
            data: table.manifest.digest(),
            hospitals: parts.iter().map(|(_, part)| part.rows() as u64).collect(),
            test_images: table.test.rows() as u64,
            rounds,
            weights: Digest::of(federated.weights_file()),
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// The images as the plan describes them.
    fn read(&self) -> Result<Table, ImagesError> {
        let description = self.plan.data.as_ref();
        if !matches!(description, Some(DataDescription::Images(_))) {
            return Err(ImagesError::NoImages);
        }
        let data = match &self.schema {
            Some(schema) => SiteData::open(&self.data, schema)?,
            None => SiteData::with_schema(&self.data, Schema::from_toml("")?, &PathBuf::new()),
        };
        let table = data.read(description)?;
        if table.test.rows() == 0 { Err(ImagesError::NoTestImages) } else { Ok(table) }
    }

    /// One round; the mean loss of the hospitals' last passes, weighted by images.
    fn train(
        &self,
        federated: &mut Federated,
        parts: &[(String, Dataset)],
        round: u64,
        told: Told<'_>,
    ) -> Result<f64, ImagesError> {
        let mut sites = Vec::new();
        for (member, data) in parts {
            sites.push(Site { settings: TrainingSettings::from_plan(&self.plan, round, member)?, data });
        }
        let summaries = federated.round(&sites, self.threads, told)?;
        let images: u64 = summaries.iter().map(|summary| summary.example_count).sum();
        let losses = summaries.iter().map(|summary| summary.last_loss * summary.example_count as f64);
        Ok(losses.sum::<f64>() / images.max(1) as f64)
    }
}

/// Deals images out to so many hospitals: at random, each as many as the others but for one, in the order of the file.
fn deal(images: &Dataset, hospitals: usize, seed: u64) -> Result<Vec<(String, Dataset)>, ImagesError> {
    let wrong = || ImagesError::Hospitals { found: hospitals, images: images.rows() };
    if !(1..=HOSPITALS_MAX.min(images.rows())).contains(&hospitals) {
        return Err(wrong());
    }
    let seed = *Digest::of_parts(&[DEALING_DOMAIN, &seed.to_le_bytes()]).as_bytes();
    let order = seeds::permutation(seed, 0, u32::try_from(images.rows()).map_err(|_| wrong())?);
    let part = |hospital: usize| {
        let mut rows: Vec<usize> = order.iter().skip(hospital).step_by(hospitals).map(|row| *row as usize).collect();
        rows.sort_unstable();
        Ok((format!("hospital-{}", hospital + 1), images.select(&rows)?))
    };
    (0..hospitals).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_goes_to_one_hospital() {
        let images = Dataset::new((0..11).map(|row| row as f32).collect(), vec![0.0; 11], 1).unwrap();
        let parts = deal(&images, 3, 1).unwrap();
        assert_eq!(parts.iter().map(|(_, part)| part.rows()).collect::<Vec<_>>(), [4, 4, 3]);
        assert_eq!(
            parts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["hospital-1", "hospital-2", "hospital-3"]
        );
        let mut all: Vec<f32> = parts.iter().flat_map(|(_, part)| part.features().to_vec()).collect();
        assert!(!all.is_sorted(), "they are dealt out at random");
        all.sort_by(f32::total_cmp);
        assert_eq!(all, images.features());
        assert_ne!(deal(&images, 3, 2).unwrap(), parts);
        assert_eq!(deal(&images, 3, 1).unwrap(), parts);
        for hospitals in [0, 12] {
            let error = deal(&images, hospitals, 1).unwrap_err().to_string();
            assert!(error.contains("use 1 to 11"), "{error}");
        }
    }
}
