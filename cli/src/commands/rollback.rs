//! `fedledger rollback`: moving a branch back to an earlier version.

use std::time::Duration;

use clap::Args;
use fedledger_federation::{Command, Event, VersionId, command::MoveBranch, records::PlanStatus};
use fedledger_ledger::Digest;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    context::Context,
    error::{Exit, Failure},
    follow::Follower,
    names::{self, Short},
    output::list,
    writing::Writer,
};

/// Arguments of `fedledger rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The version to go back to: number, tag, or the beginning of an id
    #[arg(long, value_name = "VERSION")]
    to: String,
    /// Why, for the record
    #[arg(long)]
    reason: String,
    /// The branch to move
    #[arg(long, default_value = "main")]
    branch: String,
    /// Revoke the versions in between: nobody may use them any more
    #[arg(long)]
    revoke: bool,
    /// Wait until the replica has moved the branch and, while a plan runs on it, the next round begins with that version
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
    wait_seconds: u64,
}

/// Moves the branch.
pub(crate) fn run(context: &Context, args: RollbackArgs) -> Result<(), Failure> {
    let writer = Writer::connect(context)?;
    let mut follower = context.block_on(Follower::current(&writer.client))?;
    let state = follower.state();
    let to = names::version(state, &args.to)?;
    let from = *state.branches().get(&args.branch).ok_or_else(|| {
        let branches = list(state.branches().iter().map(|(name, _)| name));
        Failure::because(Exit::Failed, format!("there is no branch {:?}", args.branch), format!("there are {branches}"))
    })?;
    if from != to && !state.is_ancestor(&to, &from) {
        let short = Short::of(state);
        let what = format!("{} was never on branch {}", short.number(&to), args.branch);
        return Err(Failure::new(Exit::Failed, what)
            .next("a rollback goes back; `fedledger branch move` sets a branch to any version"));
    }
    let branch = args.branch.clone();
    let command = Command::MoveBranch(MoveBranch { branch, from: Some(from), to, revoke: args.revoke, reason: args.reason });
    let submitted = writer.submit(context, &command)?;
    let next_round = if args.wait {
        let progress = context.output.progress("waiting until the branch has moved and training goes on from there");
        let waiting = wait(&mut follower, submitted.index, &args.branch, &to);
        let waited = context.block_on(timeout(Duration::from_secs(args.wait_seconds), waiting));
        drop(progress);
        waited.unwrap_or_else(|_| Err(late(&args.branch, submitted.index)))?
    } else {
        None
    };
    let short = Short::of(follower.state());
    let text = format!("moved {} back from {} to {}", args.branch, short.number(&from), short.number(&to));
    let about = json!({
        "branch": args.branch, "from": from, "to": to, "revoke": args.revoke, "next_round_index": next_round,
    });
    writer.show(context, &command, &submitted, about, || text)
}

/// Waits until the branch has moved, and for the round that begins with the new head if a plan runs on the branch; index
/// of that round's opening.
async fn wait(follower: &mut Follower, index: u64, branch: &str, to: &VersionId) -> Result<Option<u64>, Failure> {
    while follower.next().await?.index < index {}
    loop {
        if running(follower, branch).is_none() {
            return Ok(None);
        }
        let entry = follower.next().await?;
        if let Some(Event::RoundOpened { key, base, .. }) = &entry.event
            && base == to
            && running(follower, branch) == Some(key.plan)
        {
            return Ok(Some(entry.index));
        }
    }
}

/// The plan that will open another round on the branch.
fn running(follower: &Follower, branch: &str) -> Option<Digest> {
    let (id, record) = follower.state().active_plan(branch)?;
    (record.status == PlanStatus::Running).then_some(*id)
}

fn late(branch: &str, index: u64) -> Failure {
    let what = format!("{branch} has moved (entry {index}), but no round has begun with it in time");
    Failure::new(Exit::TimedOut, what).next("look at `fedledger status`; the rollback itself needs no repetition")
}
