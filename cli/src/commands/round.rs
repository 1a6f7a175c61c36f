//! `fedledger round`: rounds of training.

use clap::{Args, Subcommand};
use fedledger_federation::{Event, Federation, command::RoundKey, history::Keep};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Exit, Failure},
    finality::Sizes,
    follow::Follower,
    names::{self, Short},
    output::{Table, list},
    rounds::{self, RoundRow},
};

/// The form of a round as JSON.
const ROUND_SCHEMA: &str = "fedledger.round/1";

/// What to do with rounds.
#[derive(Debug, Subcommand)]
pub(crate) enum RoundCommand {
    /// List the rounds, oldest first
    List {
        /// Only rounds of this plan
        #[arg(long)]
        plan: Option<String>,
    },
    /// Show one round: who was selected, and what became of them
    Show(ShowArgs),
    /// Show rounds as they change, until interrupted
    Watch,
}

/// Arguments of `fedledger round show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Number of the round
    round: u64,
    /// Its plan; the latest with such a round by default
    #[arg(long)]
    plan: Option<String>,
    /// The attempt; the latest by default
    #[arg(long)]
    attempt: Option<u64>,
}

/// Shows rounds.
pub(crate) fn run(context: &Context, command: &RoundCommand) -> Result<(), Failure> {
    match command {
        RoundCommand::List { plan } => list_rounds(context, plan.as_deref()),
        RoundCommand::Show(args) => show(context, args),
        RoundCommand::Watch => watch(context),
    }
}

fn list_rounds(context: &Context, plan: Option<&str>) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let rows = rows_of(history.state(), plan)?;
    context.output.array(&rows, || context.output.table(&table(history.state(), &rows)))
}

fn rows_of(state: &Federation, plan: Option<&str>) -> Result<Vec<RoundRow>, Failure> {
    let mut rows = rounds::rows(state);
    if let Some(plan) = plan {
        let plan = names::plan(state, plan)?;
        rows.retain(|row| row.plan == plan);
    }
    Ok(rows)
}

fn table(state: &Federation, rows: &[RoundRow]) -> Table {
    let short = Short::of(state);
    let headings =
        ["plan", "round", "attempt", "phase", "base", "version", "contributed", "declined", "excluded", "missing"];
    let mut table = Table::new(&headings);
    for row in rows {
        table.row(vec![
            row.plan_name.clone(),
            row.round.to_string(),
            row.attempt.to_string(),
            row.phase.to_owned(),
            short.number(&row.base),
            row.version.map_or_else(|| "-".to_owned(), |version| short.number(&version)),
            list(&row.contributed),
            list(row.declined.keys()),
            list(row.excluded.iter().map(|(member, code)| format!("{member}:{code}"))),
            list(row.missing.keys()),
        ]);
    }
    table
}

/// One round.
#[derive(Debug, Serialize)]
struct View<'a> {
    #[serde(flatten)]
    row: &'a RoundRow,
    /// Whether the entry that attests its version is final.
    #[serde(rename = "final")]
    is_final: bool,
}

fn show(context: &Context, args: &ShowArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::State)?;
    let mut rows = rows_of(history.state(), args.plan.as_deref())?;
    rows.retain(|row| row.round == args.round && args.attempt.is_none_or(|attempt| row.attempt == attempt));
    let row = rows.last().ok_or_else(|| {
        Failure::new(Exit::Failed, format!("there is no such round {}", args.round))
            .next("`fedledger round list` shows the rounds that there are")
    })?;
    let attested = row.version.as_ref().and_then(|version| history.attested.get(version));
    let final_size = Sizes::of(&source, &history)?.final_size;
    let view = View { row, is_final: attested.is_some_and(|index| *index < final_size) };
    context.output.object(ROUND_SCHEMA, &view, || text(&view, &Short::of(history.state())))
}

fn text(view: &View<'_>, short: &Short) -> String {
    let View { row, is_final } = view;
    let reasons = |reasons: &mut dyn Iterator<Item = (&String, &str)>| {
        list(reasons.map(|(member, reason)| format!("{member} ({reason})")))
    };
    let mut lines = vec![
        format!("plan         {} {}", row.plan_name, short.plan(&row.plan)),
        format!("round        {}, attempt {}", row.round, row.attempt),
        format!("phase        {}{}", row.phase, if *is_final { ", final" } else { "" }),
        format!("base         {} {}", short.number(&row.base), short.version(&row.base)),
        format!("cohort       {}", list(&row.cohort)),
        format!("joined       {}", list(&row.joined)),
        format!("contributed  {}", list(&row.contributed)),
        format!("declined     {}", reasons(&mut row.declined.iter().map(|(m, r)| (m, r.as_str())))),
        format!("excluded     {}", reasons(&mut row.excluded.iter().map(|(m, r)| (m, r.as_str())))),
        format!("missing      {}", reasons(&mut row.missing.iter().map(|(m, r)| (m, *r)))),
        format!("opened       entry {}, for {} ms", row.opened_index, row.duration_ms),
    ];
    if let Some(version) = &row.version {
        lines.insert(4, format!("version      {} {}", short.number(version), short.version(version)));
    }
    if let Some(reason) = &row.reason {
        lines.push(format!("abandoned    {reason}"));
    }
    lines.join("\n")
}

/// Prints a round whenever something happens in it; as JSON, one object per line.
fn watch(context: &Context) -> Result<(), Failure> {
    let (client, _) = context.client()?;
    let mut follower = context.block_on(Follower::current(&client))?;
    let mut shown = rounds::rows(follower.state()).pop();
    loop {
        if let Some(row) = shown.take() {
            context.output.line(&row, || line(&row, &Short::of(follower.state())))?;
        }
        let entry = context.block_on(follower.next())?;
        if let Some(key) = entry.event.as_ref().and_then(|event| round_of(follower.state(), event)) {
            let record = follower.state().rounds().get(&key);
            shown = record.map(|record| RoundRow::of(follower.state(), &key, record));
        }
    }
}

/// The round in which something happened.
fn round_of(state: &Federation, event: &Event) -> Option<RoundKey> {
    match event {
        Event::RoundOpened { key, .. }
        | Event::RoundJoined { key, .. }
        | Event::RoundDeclined { key, .. }
        | Event::Contributed { key, .. }
        | Event::RoundClosed { key, .. }
        | Event::RoundAbandoned { key, .. } => Some(*key),
        Event::VersionProposed { version }
        | Event::VersionAttested { version, .. }
        | Event::VersionRejected { version } => Some(state.versions().get(version)?.key),
        _ => None,
    }
}

fn line(row: &RoundRow, short: &Short) -> String {
    let version = row.version.map_or_else(String::new, |version| format!(" -> {}", short.number(&version)));
    format!(
        "{} round {}.{} {}: {} of {} contributed ({}){version}",
        row.plan_name,
        row.round,
        row.attempt,
        row.phase,
        row.contributed.len(),
        row.cohort.len(),
        list(&row.contributed),
    )
}
