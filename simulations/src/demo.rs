//! The demo: a whole consortium on this machine, live.
//!
//! Four hospitals (the UCI heart disease sites), each with a replica and a participant, run in one process with the code that
//! runs in production: real sockets on loopback, real Raft with synced disks, real training. Afterwards the whole ledger is
//! verified from the files of one replica alone.

mod chaos;
mod consortium;
mod follow;
mod plan;
mod summary;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fedledger_coordinator::NodeError;
use fedledger_participant::node::ParticipantError;
use fedledger_proto::{
    api::ApiError,
    kit::{KitError, ProvisionError, WriteError},
};

pub use chaos::{Chaos, ChaosError, ChaosEvent, SLOWED_BY};
pub use plan::{DemoRule, ROUND_DURATION};
pub use summary::{Missing, RoundSummary, Summary, Verified};

use crate::heart::HeartError;
use consortium::Consortium;

/// What to run.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where the nodes lie; empty or not there yet.
    pub directory: PathBuf,
    /// Whether a consortium that is there already is replaced.
    pub force: bool,
    /// Rounds to train.
    pub rounds: u64,
    /// Seed of the plan: the same seed gives the same final weights.
    pub seed: u64,
    /// How updates become versions.
    pub rule: DemoRule,
    /// When a round closes without those that are missing; [`ROUND_DURATION`] unless somebody asks for another.
    pub round_duration: Duration,
    /// What goes wrong, and when.
    pub chaos: Vec<Chaos>,
    /// Whether the nodes keep running afterwards.
    pub serve: bool,
}

/// What happens, for progress displays.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Keys, genesis and data are written.
    Provisioned,
    /// Every node runs.
    NodesStarted {
        /// Replicas.
        replicas: usize,
        /// Participants.
        participants: usize,
    },
    /// Every hospital has consented and the plan runs.
    PlanStarted,
    /// Something of [`DemoOptions::chaos`] was done.
    Chaos(String),
    /// A round led to a version that every live hospital has evaluated.
    Round(RoundSummary),
    /// Training is done; the ledger is being verified.
    Verifying {
        /// Entries in the ledger.
        entries: u64,
    },
}

/// A finished demo, whose nodes may still run.
#[derive(Debug)]
pub struct Demo {
    /// What came out.
    pub summary: Summary,
    consortium: Option<Consortium>,
}

/// Why the demo could not be completed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum DemoError {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("{0}")]
    Heart(#[from] HeartError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("no free port could be found: {0}")]
    Port(std::io::Error),
    #[error("the operating system gives no randomness: {0}")]
    Randomness(String),
    #[error("replica {name}: {source}")]
    Replica { name: String, source: NodeError },
    #[error("participant {name}: {source}")]
    Participant { name: String, source: ParticipantError },
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("a transaction of the operator was rejected: {0}")]
    Rejected(String),
    #[error("the ledger could not be followed: {0}")]
    Follow(String),
    #[error("nothing has happened for {seconds} s while waiting for {what}; the nodes' files are in the directory")]
    Stalled { what: String, seconds: u64 },
    #[error("the ledger could not be read for verification: {0}")]
    Verify(String),
    #[error("chaos: {0}")]
    Chaos(#[from] ChaosError),
}

/// Runs the demo and reports on the way.
///
/// # Errors
///
/// [`DemoError`]; the nodes are stopped.
pub async fn run(options: DemoOptions, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Demo, DemoError> {
    let started = Instant::now();
    chaos::check(&options.chaos, options.rounds)?;
    let mut consortium = Consortium::provision(&options)?;
    progress(Progress::Provisioned);
    consortium.start().await?;
    progress(Progress::NodesStarted { replicas: consortium.replicas(), participants: consortium.participants() });
    let trained = train(&options, &mut consortium, progress).await;
    let (rounds, mut kept) = match trained {
        Ok(rounds) if options.serve => (rounds, Some(consortium)),
        Ok(rounds) => {
            consortium.stop().await?;
            (rounds, None)
        }
        Err(error) => {
            let _ = consortium.stop().await;
            return Err(error);
        }
    };
    let summary = summary::finish(&options, rounds, started, progress).await;
    match summary {
        Ok(summary) => Ok(Demo { summary, consortium: kept }),
        Err(error) => {
            if let Some(consortium) = &mut kept {
                let _ = consortium.stop().await;
            }
            Err(error)
        }
    }
}

impl Demo {
    /// Stops the nodes that still run.
    ///
    /// # Errors
    ///
    /// [`DemoError`] of the first node that could not be stopped cleanly.
    pub async fn stop(mut self) -> Result<(), DemoError> {
        match &mut self.consortium {
            Some(consortium) => consortium.stop().await,
            None => Ok(()),
        }
    }
}

async fn train(
    options: &DemoOptions,
    consortium: &mut Consortium,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<RoundSummary>, DemoError> {
    let plan = plan::plan(options);
    let mut follower = follow::Follower::new(consortium.genesis())?;
    consortium.propose(&plan).await?;
    follower.consents(consortium, &plan.id()).await?;
    consortium.start_plan(&plan.id()).await?;
    progress(Progress::PlanStarted);
    follower.rounds(consortium, options, &plan.id(), progress).await
}

/// The replica whose files are read after the demo.
fn ledger_directory(directory: &Path) -> PathBuf {
    directory.join(crate::heart::SITES[0]).join("replica")
}
