//! `fedledger audit`: what was contributed, and whether versions can be computed again.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use fedledger_federation::{
    Federation,
    audit::{ContributionRow, ReplayResult, ReplayRow, contributions, replay},
    history::{History, Keep},
};
use fedledger_ledger::Digest;

use crate::{
    context::Context,
    error::{Exit, Failure},
    evaluations::metrics,
    names::{self, Short, short_digest},
    output::{Table, list, number, skipped_rows},
};

/// What to audit.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Every contribution, how it compares with the others', and what became of it
    Contributions(ContributionsArgs),
    /// Compute versions again from the contributions, and compare them bit for bit
    Replay(ReplayArgs),
}

/// Arguments of `fedledger audit contributions`.
#[derive(Debug, Args)]
pub(crate) struct ContributionsArgs {
    /// Only those of this member
    #[arg(long)]
    member: Option<String>,
    /// Only those to this round
    #[arg(long)]
    round: Option<u64>,
    /// Only those to this plan
    #[arg(long)]
    plan: Option<String>,
}

/// Arguments of `fedledger audit replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Number, branch, tag, or the beginning of an id
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    version: Option<String>,
    /// All versions
    #[arg(long)]
    all: bool,
}

/// Audits.
pub(crate) fn run(context: &Context, command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Contributions(args) => show_contributions(context, args),
        AuditCommand::Replay(args) => replay_versions(context, args),
    }
}

fn show_contributions(context: &Context, args: &ContributionsArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::State)?;
    let plan = args.plan.as_ref().map(|plan| names::plan(history.state(), plan)).transpose()?;
    if let Some(member) = &args.member {
        check_member(history.state(), member)?;
    }
    if let Some(round) = args.round {
        check_round(history.state(), round, plan.as_ref())?;
    }
    let progress = context.output.progress("comparing the updates");
    let mut rows = contributions(&source, history.state())?;
    drop(progress);
    rows.retain(|row| {
        args.member.as_ref().is_none_or(|member| row.member == *member)
            && args.round.is_none_or(|round| row.round == round)
            && plan.is_none_or(|plan| row.plan == plan)
    });
    context.output.array(&rows, || context.output.table(&contributions_table(&history, &rows)))
}

/// Fails if the consortium has no such member.
fn check_member(state: &Federation, id: &str) -> Result<(), Failure> {
    // Former members have contributed, too.
    let members = state.member_records();
    if members.contains(&id.to_owned()) {
        return Ok(());
    }
    let known = list(members.iter().map(|(id, _)| id));
    Err(Failure::because(Exit::Failed, format!("there is no member {id:?}"), format!("the members are {known}"))
        .next("`fedledger member list` lists the members"))
}

/// Fails if no plan has had this round, or not the one that is asked about.
fn check_round(state: &Federation, round: u64, plan: Option<&Digest>) -> Result<(), Failure> {
    let keys = state.rounds().iter().map(|(key, _)| key);
    let rounds: BTreeSet<u64> =
        keys.filter(|key| plan.is_none_or(|plan| key.plan == *plan)).map(|key| key.round).collect();
    if rounds.contains(&round) {
        return Ok(());
    }
    let why = match (rounds.last(), plan) {
        (None, _) => "no round has been opened yet".to_owned(),
        (Some(last), Some(_)) => format!("rounds of the plan so far: {last}"),
        (Some(last), None) => format!("rounds of the longest plan so far: {last}"),
    };
    Err(Failure::because(Exit::Failed, format!("there is no round {round}"), why)
        .next("`fedledger round list` lists the rounds"))
}

fn contributions_table(history: &History, rows: &[ContributionRow]) -> Table {
    let short = Short::of(history.state());
    let mut table = Table::new(&[
        "entry", "plan", "round", "member", "base", "examples", "update", "bytes", "norm", "cosine", "verdict", "late",
        "metrics", "skipped",
    ]);
    for row in rows {
        table.row(vec![
            row.index.to_string(),
            short.plan(&row.plan),
            format!("{}.{}", row.round, row.attempt),
            row.member.clone(),
            short.number(&row.base),
            row.examples.to_string(),
            short_digest(&row.update),
            row.size.to_string(),
            number(row.norm),
            number(row.cosine),
            row.verdict.to_string(),
            row.lateness.to_string(),
            metrics(&row.metrics),
            skipped_rows(&row.skipped_rows),
        ]);
    }
    table
}

fn replay_versions(context: &Context, args: &ReplayArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::State)?;
    let version = args.version.as_ref().map(|version| names::version(history.state(), version)).transpose()?;
    let progress = context.output.progress("computing the versions again");
    let rows = replay(&source, history.state(), version.as_ref(), context.threads())?;
    drop(progress);
    context.output.array(&rows, || context.output.table(&replay_table(context, &history, &rows)))?;
    let mismatches = rows.iter().filter(|row| row.result == ReplayResult::Mismatch).count();
    let skipped = rows.iter().filter(|row| row.result == ReplayResult::Skipped).count();
    if mismatches > 0 {
        return Err(Failure::new(
            Exit::Mismatch,
            format!("{mismatches} versions are not what their contributions make"),
        )
        .next("`fedledger verify` tells which files are damaged"));
    }
    if version.is_some() && skipped > 0 {
        let reason = rows.iter().find_map(|row| row.reason.clone()).unwrap_or_default();
        return Err(Failure::because(Exit::Failed, "the version was not computed again", reason)
            .next("read a replica that has the files, or a bundle exported --with-blobs"));
    }
    Ok(())
}

fn replay_table(context: &Context, history: &History, rows: &[ReplayRow]) -> Table {
    let short = Short::of(history.state());
    let mut table = Table::new(&["version", "id", "round", "weights", "result"]);
    for row in rows {
        let result = match row.result {
            ReplayResult::Match => context.output.good("match"),
            ReplayResult::Mismatch => context.output.bad("MISMATCH"),
            ReplayResult::Skipped => "skipped".to_owned(),
        };
        let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        table.row(vec![
            short.number(&row.version),
            short.version(&row.version),
            row.round.to_string(),
            row.recorded.as_ref().map_or_else(|| "-".to_owned(), |files| short_digest(&files.weights)),
            format!("{result}{reason}"),
        ]);
    }
    table
}
