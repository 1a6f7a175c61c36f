//! Reproduction of FLamby's Fed-Heart-Disease benchmark with the real training and aggregation cores.
//!
//! FLamby (Ogier du Terrail et al., NeurIPS 2022, arXiv 2210.04620) publishes what federated strategies reach on four real
//! hospitals. Running the same protocol through our own loader, trainer, update files, fixed-point aggregation and server
//! optimisers tells whether they compute what the field means by these names. Only the random numbers differ, so results
//! are compared over many seeds.

mod report;

use std::sync::atomic::{AtomicU64, Ordering};

use fedledger_federation::{
    aggregation::{Aggregation, AggregationError, EncodeError, FixedPoint, Rule},
    architecture::{Architecture, ArchitectureError},
    tensors::{Tensor, WriteError, write_tensors},
};
use fedledger_participant::{
    evaluation::{EvaluationError, evaluate},
    table::{Dataset, DatasetError, Normalization, Normalize},
    training::{ComputeDevice, Optimizer, TrainingError, TrainingSettings, train},
};

use crate::{
    federated::{Federated, FederatedError, Site},
    heart::{self, HeartError, SITES},
};

pub use report::{Band, Check, Comparison, Reference, Report, StrategyReport};

/// Hospitals.
pub const CENTRES: usize = SITES.len();

/// Input features after categories were expanded.
const FEATURES: u32 = 13;

/// Rows of a batch, everywhere in the protocol.
const BATCH_SIZE: u32 = 4;

/// Local steps of a round.
const STEPS_PER_ROUND: u64 = 100;

/// Rounds of the federated strategies: FLamby gives them as many steps as 50 epochs of the pooled data.
const ROUNDS: u64 = 15;

/// Passes through the rows for the strategies without federation.
const EPOCHS: u64 = 50;

/// Weight one of the fixed-point encoding: the next power of two above Cleveland's 199 training rows.
const EXAMPLE_SCALE: u64 = 256;

/// Training and test rows of each centre.
const EXPECTED_ROWS: [(usize, usize); CENTRES] = [(199, 104), (172, 89), (30, 16), (85, 45)];

/// Positive and negative rows of Cleveland. The widespread re-encoding of its file has them the other way round.
const EXPECTED_CLEVELAND: (usize, usize) = (139, 164);

/// First seed of a reproduction, as in FLamby's own runs.
pub const FIRST_SEED: u64 = 42;

/// A way to get a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// One model on the rows of all centres, which no federation may see.
    Pooled,
    /// One model on the rows of the centre with this index.
    Local(usize),
    /// Weighted mean of the updates.
    FedAvg,
    /// Adam on the server.
    FedAdam,
    /// Yogi on the server.
    FedYogi,
    /// Adagrad on the server.
    FedAdagrad,
}

/// Every strategy, in the order of the report.
pub const STRATEGIES: [Strategy; 9] = [
    Strategy::Pooled,
    Strategy::Local(0),
    Strategy::Local(1),
    Strategy::Local(2),
    Strategy::Local(3),
    Strategy::FedAvg,
    Strategy::FedAdam,
    Strategy::FedYogi,
    Strategy::FedAdagrad,
];

/// Test accuracies of one model, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracies {
    /// On each centre's test rows, normalised with that centre's training rows. FLamby tests the pooled model on these too,
    /// although it was trained in another normalisation.
    pub centres: [f64; CENTRES],
    /// On all test rows together, normalised with all training rows together.
    pub pooled: f64,
}

/// Why a reproduction failed before it had a result.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the error of the part that it is named for")]
pub enum FlambyError {
    /// The data are not FLamby's.
    #[error("{what}: found {found}, FLamby has {expected}")]
    Guard { what: &'static str, found: String, expected: String },
    /// No seed, or more than can be counted.
    #[error("{0} seeds: use 1 to 10000")]
    Seeds(u64),
    #[error(transparent)]
    Heart(#[from] HeartError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Aggregation(#[from] AggregationError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Federated(#[from] FederatedError),
}

/// The rows of all centres, in both normalisations of the protocol.
#[derive(Debug)]
pub struct Centres {
    /// Training and test rows of each centre, normalised with its own training rows.
    own: Vec<(Dataset, Dataset)>,
    /// Training and test rows of all centres, normalised with all training rows together.
    pooled: (Dataset, Dataset),
}

impl Centres {
    /// Reads the records and checks that they are FLamby's.
    ///
    /// # Errors
    ///
    /// [`FlambyError::Guard`] if a count differs from FLamby's, [`FlambyError::Heart`] if the files are damaged.
    pub fn load() -> Result<Self, FlambyError> {
        let read = |normalize: Normalize| {
            SITES
                .iter()
                .map(|site| heart::table(site, normalize.clone()).map(|table| (table.train, table.test)))
                .collect::<Result<Vec<_>, _>>()
        };
        let (own, raw) = (read(Normalize::Site)?, read(Normalize::None)?);
        guard(&raw)?;
        let mut train = Dataset::concatenate(raw.iter().map(|(train, _)| train))?;
        let mut test = Dataset::concatenate(raw.iter().map(|(_, test)| test))?;
        let normalization = Normalization::fit(&train);
        normalization.apply(&mut train);
        normalization.apply(&mut test);
        Ok(Self { own, pooled: (train, test) })
    }

    /// Trains one model with `strategy` and tests it on every centre.
    ///
    /// # Errors
    ///
    /// [`FlambyError`] if a part of the system refuses its input.
    pub fn run(&self, strategy: Strategy, seed: u64) -> Result<Accuracies, FlambyError> {
        let (beta1, beta2, tau) = (0.9, 0.999, 1e-8);
        let weights = match strategy {
            Strategy::Pooled => alone(&self.pooled.0, "pooled", seed)?,
            Strategy::Local(centre) => {
                let (Some((train, _)), Some(site)) = (self.own.get(centre), SITES.get(centre)) else {
                    return Err(guard_error("centre", centre, format!("0 to {}", CENTRES - 1)));
                };
                alone(train, site, seed)?
            }
            Strategy::FedAvg => self.federated(Rule::FedAvg { server_learning_rate: 1.0 }, 0.001, seed)?,
            Strategy::FedAdam => {
                self.federated(Rule::FedAdam { server_learning_rate: 0.01, beta1, beta2, tau }, 0.01, seed)?
            }
            Strategy::FedYogi => {
                self.federated(Rule::FedYogi { server_learning_rate: 0.01, beta1, beta2, tau }, 0.003162, seed)?
            }
            Strategy::FedAdagrad => {
                self.federated(Rule::FedAdagrad { server_learning_rate: 0.316228, beta1, tau }, 0.003162, seed)?
            }
        };
        self.test(&weights)
    }

    fn test(&self, weights: &[Tensor]) -> Result<Accuracies, FlambyError> {
        let mut centres = [0.0; CENTRES];
        for (result, (_, test)) in centres.iter_mut().zip(&self.own) {
            *result = accuracy(weights, test)?;
        }
        Ok(Accuracies { centres, pooled: accuracy(weights, &self.pooled.1)? })
    }

    /// Fifteen rounds of all centres, from update files to weights files.
    fn federated(&self, rule: Rule, learning_rate: f64, seed: u64) -> Result<Vec<Tensor>, FlambyError> {
        let architecture = architecture();
        let fixed_point = FixedPoint::new(EXAMPLE_SCALE, CENTRES)?;
        let aggregation = Aggregation::new(rule, fixed_point, architecture.layout().map_err(AggregationError::from)?)?;
        let mut federated = Federated::new(aggregation, write_tensors(&initial_weights(seed)?)?);
        for round in 1..=ROUNDS {
            let sites = self.own.iter().zip(SITES).map(|((data, _), name)| {
                let settings = settings(Optimizer::sgd(learning_rate), STEPS_PER_ROUND, name, seed);
                Site { settings: TrainingSettings { round, ..settings }, data }
            });
            let sites: Vec<Site<'_>> = sites.collect();
            federated.round(&sites, 1, &|_| ())?;
        }
        Ok(federated.weights()?)
    }
}

/// Runs `strategies` with `seeds` seeds on `threads` threads, each training on one, and compares with the reference.
///
/// # Errors
///
/// The [`FlambyError`] of the lowest seed that failed.
pub fn reproduce(strategies: &[Strategy], seeds: u64, threads: usize) -> Result<Report, FlambyError> {
    if !(1..=10_000).contains(&seeds) {
        return Err(FlambyError::Seeds(seeds));
    }
    let centres = Centres::load()?;
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= seeds {
                return done;
            }
            let results = strategies.iter().map(|&strategy| centres.run(strategy, FIRST_SEED + index));
            done.push((index, results.collect::<Result<Vec<_>, _>>()));
        }
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    let by_seed = done.into_iter().map(|(_, results)| results).collect::<Result<Vec<_>, _>>()?;
    Ok(Report::new(strategies, &by_seed))
}

/// Adam over the rows of one data set, without any federation.
fn alone(data: &Dataset, member: &str, seed: u64) -> Result<Vec<Tensor>, FlambyError> {
    let steps = EPOCHS * data.rows().div_ceil(BATCH_SIZE as usize) as u64;
    let mut weights = initial_weights(seed)?;
    let outcome = train(&settings(Optimizer::adam(0.001), steps, member, seed), data, &weights)?;
    for (tensor, delta) in weights.iter_mut().zip(outcome.delta) {
        tensor.values.iter_mut().zip(delta.values).for_each(|(value, delta)| *value += delta);
    }
    Ok(weights)
}

fn architecture() -> Architecture {
    Architecture::logistic_regression(FEATURES)
}

fn initial_weights(seed: u64) -> Result<Vec<Tensor>, FlambyError> {
    let weights = architecture().initial_weights(seed)?;
    Ok(weights.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect())
}

fn settings(optimizer: Optimizer, steps: u64, member: &str, seed: u64) -> TrainingSettings {
    let (architecture, batch_size, member) = (architecture(), BATCH_SIZE, member.to_owned());
    TrainingSettings { architecture, optimizer, steps, batch_size, seed, round: 1, member, device: ComputeDevice::Cpu }
}

fn accuracy(weights: &[Tensor], test: &Dataset) -> Result<f64, FlambyError> {
    let evaluation = evaluate(&architecture(), weights, test)?;
    Ok(evaluation.all.correct as f64 / evaluation.all.examples as f64)
}

/// Checks the counts that FLamby's loader gives.
fn guard(centres: &[(Dataset, Dataset)]) -> Result<(), FlambyError> {
    for (train, test) in centres {
        if [train, test].iter().any(|data| data.columns() != FEATURES as usize) {
            return Err(guard_error("features", train.columns(), FEATURES));
        }
    }
    let rows: Vec<_> = centres.iter().map(|(train, test)| (train.rows(), test.rows())).collect();
    if rows != EXPECTED_ROWS {
        return Err(guard_error("training and test rows", format!("{rows:?}"), format!("{EXPECTED_ROWS:?}")));
    }
    let cleveland = centres.first().map(|(train, test)| {
        let positives = train.positives() + test.positives();
        (positives, train.rows() + test.rows() - positives)
    });
    if cleveland != Some(EXPECTED_CLEVELAND) {
        let expected = format!("{EXPECTED_CLEVELAND:?}");
        return Err(guard_error("positive and negative rows of Cleveland", format!("{cleveland:?}"), expected));
    }
    Ok(())
}

fn guard_error(what: &'static str, found: impl ToString, expected: impl ToString) -> FlambyError {
    FlambyError::Guard { what, found: found.to_string(), expected: expected.to_string() }
}
