//! `fedledger rollback`: moving a branch back to an earlier version.

use std::time::Duration;

use clap::Args;
use fedledger_federation::{Command, Event, Federation, VersionId, command::MoveBranch, records::PlanStatus};
use fedledger_ledger::Digest;
use fedledger_proto::api::{ApiError, Level, Submission, Submitted};
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

/// Code of the rejection of a move from another version than the head.
const HEAD_MOVED: &str = "head_moved";

/// How often the branch may move on while it is to be moved back.
const ATTEMPTS_MAX: u32 = 5;

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
    /// Wait until the branch has moved and, while a plan runs on it, the next round begins with that version
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
    wait_seconds: u64,
}

/// Moves the branch.
pub(crate) fn run(context: &Context, args: RollbackArgs) -> Result<(), Failure> {
    if args.wait && context.wait_for() == Level::Accepted {
        let failure = Failure::new(Exit::Usage, "--wait waits for more than --wait-for accepted allows");
        return Err(failure.next("leave one of them out, or say --wait-for committed, final or unanimous"));
    }
    let writer = Writer::connect(context)?;
    let mut follower = context.block_on(Follower::current(&writer.client))?;
    let to = names::version(follower.state(), &args.to)?;
    let (command, from, submitted) = submit(context, &writer, &mut follower, &args, to)?;
    let next_round = if args.wait
        && let Submission::Recorded(Submitted { index, .. }) = &submitted
    {
        let progress = context.output.progress("waiting until the branch has moved and training goes on from there");
        let limit = Duration::from_secs(args.wait_seconds);
        let waiting = async { timeout(limit, wait(&mut follower, *index, &args.branch, &to)).await };
        let waited = context.block_on(waiting);
        drop(progress);
        waited.unwrap_or_else(|_| Err(late(&args.branch, *index)))?
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

/// Submits the move. While a plan runs, its next version may come in between, which is one more to go back over.
fn submit(
    context: &Context,
    writer: &Writer,
    follower: &mut Follower,
    args: &RollbackArgs,
    to: VersionId,
) -> Result<(Command, VersionId, Submission), Failure> {
    let mut attempts = 1;
    loop {
        let from = check(follower.state(), args, &to)?;
        let (branch, reason) = (args.branch.clone(), args.reason.clone());
        let command = Command::MoveBranch(MoveBranch { branch, from: Some(from), to, revoke: args.revoke, reason });
        match writer.try_submit(context, &command)? {
            Err(ApiError::Rejected { index, code, .. }) if code == HEAD_MOVED && attempts < ATTEMPTS_MAX => {
                attempts += 1;
                context.block_on(follower.until(index))?;
            }
            result => {
                let submitted = result.map_err(|error| writer.refused(&command, error))?;
                return Ok((command, from, submitted));
            }
        }
    }
}

/// The head of the branch, if `to` lies behind it.
fn check(state: &Federation, args: &RollbackArgs, to: &VersionId) -> Result<VersionId, Failure> {
    let from = *state.branches().get(&args.branch).ok_or_else(|| {
        let branches = list(state.branches().iter().map(|(name, _)| name));
        Failure::because(Exit::Failed, format!("there is no branch {:?}", args.branch), format!("there are {branches}"))
            .next("`fedledger branch list` lists the branches")
    })?;
    let number = Short::of(state).number(to);
    if from == *to {
        let what = format!("{} is at {number} already", args.branch);
        return Err(Failure::new(Exit::Failed, what).next("`fedledger log` lists the versions behind it"));
    }
    if state.is_ancestor(to, &from) {
        return Ok(from);
    }
    let what = format!("{number} does not lie behind the head of {}", args.branch);
    Err(Failure::new(Exit::Failed, what)
        .next("a rollback goes back; `fedledger branch move` sets a branch to any version"))
}

/// Waits until the branch has moved, and for the round that begins with the new head if a plan runs on the branch;
/// index of that round's opening.
async fn wait(follower: &mut Follower, index: u64, branch: &str, to: &VersionId) -> Result<Option<u64>, Failure> {
    follower.until(index).await?;
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
