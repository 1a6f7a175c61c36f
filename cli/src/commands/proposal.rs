//! `fedledger proposal`: what the members are asked to decide, and their votes.

mod new;
mod view;

use clap::{Args, Subcommand};
use fedledger_federation::{Command, Federation, governance::Vote, history::Keep};
use fedledger_ledger::Digest;
use fedledger_proto::api::{Submission, Submitted};
use serde_json::json;

pub(crate) use self::new::{ProposeArgs, admit_member, revoke_member, rotate_keys};
use self::{new::NewCommand, view::ProposalView};
use crate::{
    context::Context,
    error::{Exit, Failure},
    follow::Follower,
    names::{self, Short},
    output::Table,
    writing::Writer,
};

/// The form of a proposal as JSON.
const PROPOSAL_SCHEMA: &str = "fedledger.proposal/1";

/// What to do with proposals.
#[derive(Debug, Subcommand)]
pub(crate) enum ProposalCommand {
    /// List the proposals
    List {
        /// Only those that can be voted on
        #[arg(long)]
        open: bool,
    },
    /// Show a proposal, its votes and what exactly it would change
    Show {
        /// The id, or the beginning of it
        proposal: String,
    },
    /// Vote for this identity's organisation. A vote cannot be changed
    Vote(VoteArgs),
    /// Propose something, which is also a vote for it
    #[command(subcommand)]
    New(NewCommand),
}

/// Arguments of `fedledger proposal vote`.
#[derive(Debug, Args)]
pub(crate) struct VoteArgs {
    /// The id, or the beginning of it
    proposal: String,
    #[command(flatten)]
    choice: Choice,
}

/// For or against.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Choice {
    /// Vote for it
    #[arg(long)]
    approve: bool,
    /// Vote against it
    #[arg(long)]
    reject: bool,
}

/// Shows or makes proposals, or votes.
pub(crate) fn run(context: &Context, command: ProposalCommand) -> Result<(), Failure> {
    match command {
        ProposalCommand::List { open } => list(context, open),
        ProposalCommand::Show { proposal } => show(context, &proposal),
        ProposalCommand::Vote(args) => vote(context, &args),
        ProposalCommand::New(command) => new::run(context, command),
    }
}

fn list(context: &Context, open: bool) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let (state, size) = (history.state(), history.log.size());
    let records = state.proposals().iter().filter(|(_, record)| !open || record.is_open_at(size));
    let mut views: Vec<ProposalView<'_>> =
        records.map(|(id, record)| ProposalView::of(state, size, *id, record)).collect();
    views.sort_by_key(|view| view.proposed_index);
    context.output.array(&views, || {
        let short = Short::of(state);
        let mut table = Table::new(&["proposal", "status", "action", "about", "proposer", "votes", "expires"]);
        for view in &views {
            table.row(vec![
                short.proposal(&view.proposal),
                view.status.to_owned(),
                view.action.to_owned(),
                view.about.to_owned(),
                view.proposer.clone(),
                view.votes_in_short(),
                view.expires_index.to_string(),
            ]);
        }
        context.output.table(&table)
    })
}

fn show(context: &Context, text: &str) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let (state, size) = (history.state(), history.log.size());
    let id = names::proposal(state, text)?;
    let view = find(state, size, &id)?;
    context.output.object(PROPOSAL_SCHEMA, &view, || view.text())
}

fn vote(context: &Context, args: &VoteArgs) -> Result<(), Failure> {
    let writer = Writer::connect(context)?;
    let mut follower = context.block_on(Follower::current(&writer.client))?;
    let proposal = names::proposal(follower.state(), &args.proposal)?;
    if !context.output.is_json() {
        context.output.remark(&find(follower.state(), follower.size(), &proposal)?.text());
    }
    let approve = args.choice.approve;
    let command = Command::Vote(Vote { proposal, approve });
    let submitted = writer.submit(context, &command)?;
    let status = status_after(context, &mut follower, &proposal, &submitted)?;
    let about = json!({ "proposal": proposal, "approve": approve, "status": status });
    writer.show(context, &command, &submitted, about, || {
        let voted = if approve { "voted for" } else { "voted against" };
        format!("{voted} proposal {}, which is {status}", names::short_digest(&proposal))
    })
}

fn find<'a>(state: &'a Federation, size: u64, id: &Digest) -> Result<ProposalView<'a>, Failure> {
    let record = state.proposals().get(id);
    let record = record.ok_or_else(|| Failure::new(Exit::Failed, format!("there is no proposal {id}")))?;
    Ok(ProposalView::of(state, size, *id, record))
}

/// Where a proposal stands after what was submitted; while that is only promised to be on the ledger, nobody knows.
fn status_after(
    context: &Context,
    follower: &mut Follower,
    proposal: &Digest,
    submission: &Submission,
) -> Result<&'static str, Failure> {
    let Submission::Recorded(Submitted { index, .. }) = submission else { return Ok("unrecorded") };
    context.block_on(follower.until(*index))?;
    Ok(find(follower.state(), follower.size(), proposal)?.status)
}
