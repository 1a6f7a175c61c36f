//! `fedledger log`: versions, newest first.

use clap::Args;
use fedledger_federation::{
    Command, Event, Federation,
    audit::{Finality, VersionRow, branch_log, version_rows},
    history::{History, Keep},
};

use crate::{
    context::Context,
    error::{Exit, Failure},
    evaluations::metrics,
    finality::Sizes,
    graph::Graph,
    names::Short,
    output::list,
};

/// Arguments of `fedledger log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Only the versions that this branch leads to; all versions by default
    branch: Option<String>,
    /// Draw the graph of parents
    #[arg(long)]
    graph: bool,
    /// Show at most so many versions
    #[arg(short = 'n', long = "max-count", value_name = "N")]
    max_count: Option<usize>,
}

/// Shows versions.
pub(crate) fn run(context: &Context, args: &LogArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::Entries)?;
    let finality = Finality { attested: &history.attested, final_entries: Sizes::of(&source, &history)?.final_size };
    let mut rows = match &args.branch {
        Some(branch) => branch_log(history.state(), branch, finality).map_err(|error| {
            let branches = list(history.state().branches().iter().map(|(name, _)| name));
            Failure::because(Exit::Failed, error.to_string(), format!("the branches are {branches}"))
        })?,
        None => version_rows(history.state(), finality),
    };
    rows.truncate(args.max_count.unwrap_or(usize::MAX));
    context.output.array(&rows, || text(context, args, &rows, &history))
}

fn text(context: &Context, args: &LogArgs, rows: &[VersionRow], history: &History) -> String {
    let short = Short::of(history.state());
    let mut graph = Graph::default();
    let mut moves = moves(history, &short).into_iter().rev().peekable();
    let mut lines = Vec::new();
    for row in rows {
        while let Some((_, line)) = moves.next_if(|(index, _)| *index > row.created_index) {
            lines.push(line);
        }
        let lane = if args.graph { graph.line(&row.version, &row.parents) + " " } else { String::new() };
        lines.push(format!("{lane}{}", line(context, row, history.state(), &short)));
    }
    if lines.is_empty() {
        return "no version has been made yet".to_owned();
    }
    lines.join("\n")
}

fn line(context: &Context, row: &VersionRow, state: &Federation, short: &Short) -> String {
    let state_word = serde_json::to_value(row.state).ok();
    let state_word = state_word.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let state_word = if row.revoked { context.output.bad(&state_word) } else { state_word };
    let is_final = if row.is_final { ", final" } else { "" };
    let mut names = row.branch_heads.clone();
    names.extend(row.tags.iter().map(|tag| format!("tag:{tag}")));
    names.extend(row.pinned.then(|| "pinned".to_owned()));
    let names = if names.is_empty() { String::new() } else { context.output.good(&format!(" ({})", names.join(", "))) };
    let plan = state.plans().get(&row.plan).map_or("-", |record| record.plan.name.as_str());
    format!(
        "{}{names} {}  {plan} round {}  {}  {state_word}{is_final}  by {}  {}",
        context.output.heading(&short.number(&row.version)),
        short.version(&row.version),
        row.round,
        row.rule.unwrap_or("initial"),
        list(&row.contributors),
        metrics(&row.metrics),
    )
}

/// The moves of branches by people, with their reasons, oldest first: they make no version.
fn moves(history: &History, short: &Short) -> Vec<(u64, String)> {
    let moves = history.entries.iter().filter_map(|entry| {
        let Some(Event::BranchMoved { branch, from, to, revoked }) = &entry.event else { return None };
        let reason = match &entry.payload {
            Some(Command::MoveBranch(command)) => command.reason.as_str(),
            _ => "",
        };
        let from = from.map_or_else(|| "nothing".to_owned(), |from| short.number(&from));
        let revoked = match revoked.len() {
            0 => String::new(),
            count => format!(", {count} revoked"),
        };
        let author = entry.author.member.as_deref().unwrap_or("?");
        let to = short.number(to);
        let index = entry.index;
        Some((index, format!("  -- {branch} moved from {from} to {to} by {author} (entry {index}{revoked}): {reason}")))
    });
    moves.collect()
}
