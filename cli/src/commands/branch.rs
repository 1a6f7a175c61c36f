//! `fedledger branch`: branches and their heads.

use clap::{Args, Subcommand};
use fedledger_federation::{Command, VersionId, command::MoveBranch, history::Keep};
use serde::Serialize;
use serde_json::json;

use crate::{
    context::Context,
    error::Failure,
    follow::Follower,
    names::{self, Short},
    output::Table,
    writing::Writer,
};

/// Arguments of `fedledger branch`.
#[derive(Debug, Args)]
pub(crate) struct BranchArgs {
    /// What to do; lists the branches by default
    #[command(subcommand)]
    command: Option<BranchCommand>,
}

/// What to do with branches.
#[derive(Debug, Subcommand)]
pub(crate) enum BranchCommand {
    /// List the branches
    List,
    /// Create a branch, or move it to another version: promotion (operator)
    Move {
        /// The branch, such as `production`
        branch: String,
        /// Number, branch, tag, or the beginning of an id
        version: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Serialize)]
struct BranchRow {
    branch: String,
    version: VersionId,
    number: Option<u64>,
}

/// Shows or moves branches.
pub(crate) fn run(context: &Context, args: BranchArgs) -> Result<(), Failure> {
    match args.command.unwrap_or(BranchCommand::List) {
        BranchCommand::List => list(context),
        BranchCommand::Move { branch, version, reason } => move_branch(context, branch, &version, reason),
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let state = history.state();
    let rows = state.branches().iter().map(|(branch, version)| BranchRow {
        branch: branch.clone(),
        version: *version,
        number: state.head(branch).and_then(|(_, record)| record.number()),
    });
    let rows: Vec<BranchRow> = rows.collect();
    context.output.array(&rows, || {
        let short = Short::of(state);
        let mut table = Table::new(&["branch", "version", "id"]);
        for row in &rows {
            table.row(vec![row.branch.clone(), short.number(&row.version), short.version(&row.version)]);
        }
        context.output.table(&table)
    })
}

fn move_branch(context: &Context, branch: String, version: &str, reason: String) -> Result<(), Failure> {
    let writer = Writer::connect(context)?;
    let follower = context.block_on(Follower::current(&writer.client))?;
    let state = follower.state();
    let to = names::version(state, version)?;
    let from = state.branches().get(&branch).copied();
    let number = Short::of(state).number(&to);
    let about = json!({ "branch": branch, "from": from, "to": to });
    let text = format!("moved {branch} to {number}");
    let command = Command::MoveBranch(MoveBranch { branch, from, to, revoke: false, reason });
    let submitted = writer.submit(context, &command)?;
    writer.show(context, &command, &submitted, about, || text)
}
