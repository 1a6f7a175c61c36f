//! `fedledger participant`: a hospital's participant as a daemon, or what it would do, on trial.

mod check;

use std::path::PathBuf;

use clap::Args;
use fedledger_participant::node::{NodeOptions, ParticipantNode};
use fedledger_proto::kit::ParticipantKit;

use crate::{
    context::Context,
    error::{Exit, Failure, chain},
};

/// Arguments of `fedledger participant`.
#[derive(Debug, Args)]
pub(crate) struct ParticipantArgs {
    /// The participant's directory, as `fedledger provision` wrote it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Run one round of a plan here, send nothing, and show what would leave the site
    #[arg(long)]
    check: bool,
    /// With --check: the plan, as a file, or by name or id on the ledger that is named [default: DIR/plan.toml]
    #[arg(long, value_name = "FILE|ID", requires = "check")]
    plan: Option<String>,
    /// With --check: weights to train from, as `fedledger checkout` writes them [default: the plan's initial ones]
    #[arg(long, value_name = "FILE", requires = "check")]
    base: Option<PathBuf>,
}

impl ParticipantArgs {
    /// Whether the participant is to run until it is stopped.
    pub const fn is_daemon(&self) -> bool {
        !self.check
    }
}

/// Runs the participant until it is told to stop, or tries a round.
pub(crate) fn run(context: &Context, args: &ParticipantArgs) -> Result<(), Failure> {
    if args.check {
        return check::run(context, args);
    }
    let failed = |error: &dyn std::error::Error| {
        let what = format!("the participant in {} cannot be started", args.dir.display());
        Failure::because(Exit::Failed, what, chain(error))
    };
    let kit = context.unlock(|passphrase| ParticipantKit::load_with(&args.dir, passphrase)).map_err(|e| failed(&e))?;
    context.block_on(async {
        let stop = stop_signal()?;
        let started = ParticipantNode::start_kit(kit, NodeOptions::default()).await;
        let mut node = started.map_err(|error| failed(&error))?;
        let name = node.name().to_owned();
        tracing::info!(node = name, "the participant runs");
        let outcome = tokio::select! {
            () = stop => node.shutdown().await,
            ended = node.finished() => ended,
        };
        outcome.map_err(|error| {
            Failure::because(Exit::Failed, format!("participant {name} had to stop"), chain(&error))
                .next("its work is kept; remove the cause and start it again")
        })?;
        tracing::info!(node = name, "the participant has stopped");
        Ok(())
    })
}

/// Completes when the process is asked to stop. It listens from the moment of this call.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error| Failure::because(Exit::Failed, "the system does not let us listen for signals", error);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(windows)]
    {
        let mut interrupt = tokio::signal::windows::ctrl_c().map_err(failed)?;
        Ok(async move {
            interrupt.recv().await;
        })
    }
}
