//! `fedledger demo`: a whole consortium on this machine.

use std::path::PathBuf;

use clap::Args;

use crate::{
    context::Context,
    error::{Exit, Failure},
};

/// Arguments of `fedledger demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where the nodes lie
    #[arg(long, value_name = "DIR", default_value = "fedledger-demo")]
    pub dir: PathBuf,
    /// Replace what an earlier demo left in the directory
    #[arg(long)]
    pub force: bool,
    /// Rounds to train
    #[arg(long, default_value_t = 15)]
    pub rounds: u64,
    /// Seed of initial weights and batches
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Aggregation rule: fed_avg, fed_avg_m, fed_adagrad, fed_adam or fed_yogi
    #[arg(long, default_value = "fed_avg")]
    pub rule: String,
    /// Keep the nodes running when training is done
    #[arg(long)]
    pub serve: bool,
    /// Make something go wrong: kill-leader@5, kill-replica:NAME@5, kill-participant:NAME@5, slow:NAME@5, poison:NAME@5
    #[arg(long, value_name = "EVENT@ROUND")]
    pub chaos: Vec<String>,
}

/// Runs the demo.
pub(crate) fn run(_context: &Context, args: DemoArgs) -> Result<(), Failure> {
    let what = format!("the demo in {} cannot be run by this build", args.dir.display());
    Err(Failure::new(Exit::Failed, what))
}
