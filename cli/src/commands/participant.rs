//! `fedledger participant`: a hospital's participant as a daemon.

use std::path::PathBuf;

use clap::Args;
use fedledger_participant::node::{NodeEvent, NodeOptions, ParticipantNode};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    context::Context,
    error::{Exit, Failure, chain},
};

/// One in the fixed-point numbers of events.
const MILLIONTHS: f64 = 1_000_000.0;

/// Arguments of `fedledger participant`.
#[derive(Debug, Args)]
pub(crate) struct ParticipantArgs {
    /// The participant's directory, as `fedledger provision` wrote it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the participant until it is told to stop.
pub(crate) fn run(context: &Context, args: &ParticipantArgs) -> Result<(), Failure> {
    context.block_on(async {
        let stop = stop_signal()?;
        let started = ParticipantNode::start(&args.dir, NodeOptions::default()).await;
        let mut node = started.map_err(|error| {
            let what = format!("the participant in {} cannot be started", args.dir.display());
            Failure::because(Exit::Failed, what, chain(&error))
        })?;
        let name = node.name().to_owned();
        tracing::info!(node = name, "the participant runs");
        tokio::spawn(log_events(node.events()));
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

async fn log_events(mut events: Receiver<NodeEvent>) {
    loop {
        match events.recv().await {
            Ok(event) => log_event(&event),
            Err(RecvError::Lagged(count)) => tracing::info!(count, "events were left out"),
            Err(RecvError::Closed) => return,
        }
    }
}

fn log_event(event: &NodeEvent) {
    match event {
        NodeEvent::Connected { replica } => tracing::info!(replica, "connected"),
        NodeEvent::Disconnected { replica, reason } => tracing::info!(replica, reason, "disconnected"),
        NodeEvent::CaughtUp { size } => tracing::info!(size, "caught up"),
        NodeEvent::Consented { plan } => tracing::info!(%plan, "consented"),
        NodeEvent::ConsentWithheld { plan, reason } => tracing::info!(%plan, reason, "consent is not given"),
        NodeEvent::Joined { key } => tracing::info!(round = key.round, attempt = key.attempt, "joined"),
        NodeEvent::Declined { key, reason } => tracing::info!(round = key.round, reason, "declined"),
        NodeEvent::Trained { key, loss_millionths } => {
            let loss = *loss_millionths as f64 / MILLIONTHS;
            tracing::info!(round = key.round, loss, "trained");
        }
        NodeEvent::Contributed { key, index } => tracing::info!(round = key.round, index, "contributed"),
        NodeEvent::Evaluated { number, accuracy_millionths, .. } => {
            let accuracy = *accuracy_millionths as f64 / MILLIONTHS;
            tracing::info!(version = number, accuracy, "evaluated");
        }
        NodeEvent::Rejected { intent, code } => tracing::warn!(intent, code, "the ledger rejected a transaction"),
        NodeEvent::Witnessed { replica, size } => tracing::debug!(replica, size, "head verified"),
        NodeEvent::Distrusted { replica, reason } => tracing::error!(replica, reason, "not trusted any more"),
    }
}
