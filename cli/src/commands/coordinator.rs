//! `fedledger coordinator`: a replica as a daemon.

use std::path::PathBuf;

use clap::Args;
use fedledger_coordinator::ReplicaNode;
use fedledger_proto::kit::ReplicaKit;

use crate::{
    commands::participant::stop_signal,
    context::Context,
    error::{Exit, Failure, chain},
};

/// Arguments of `fedledger coordinator`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    /// The replica's directory, as `fedledger provision` wrote it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the replica until it is told to stop.
pub(crate) fn run(context: &Context, args: &CoordinatorArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        let what = format!("the replica in {} cannot be started", args.dir.display());
        Failure::because(Exit::Failed, what, chain(error))
    };
    let kit = context.unlock(|passphrase| ReplicaKit::load_with(&args.dir, passphrase)).map_err(|e| failed(&e))?;
    context.block_on(async {
        let stop = stop_signal()?;
        let node = ReplicaNode::start_kit(kit).await.map_err(|error| failed(&error))?;
        tracing::info!(node = node.name(), "the replica runs");
        let reason = tokio::select! {
            () = stop => None,
            reason = node.ended() => Some(reason),
        };
        let name = node.name().to_owned();
        let stopped = node.shutdown().await;
        if let Some(reason) = reason {
            let failure = Failure::because(Exit::Failed, format!("replica {name} had to stop"), reason);
            return Err(failure.next("nothing acknowledged is lost; remove the cause and start it again"));
        }
        stopped.map_err(|error| {
            Failure::because(Exit::Failed, format!("replica {name} did not stop as it should"), chain(&error))
        })?;
        tracing::info!(node = name, "the replica has stopped");
        Ok(())
    })
}
