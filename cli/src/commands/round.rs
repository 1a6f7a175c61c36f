//! `fedledger round`: rounds of training.

mod show;
mod watch;

use clap::Subcommand;
use fedledger_federation::{Federation, history::Keep};

use crate::{
    context::Context,
    error::Failure,
    names::{self, Short},
    output::{Table, list},
    rounds::{self, RoundRow},
};

/// What to do with rounds.
#[derive(Debug, Subcommand)]
pub(crate) enum RoundCommand {
    /// List the rounds, oldest first
    List {
        /// Only rounds of this plan
        #[arg(long)]
        plan: Option<String>,
    },
    /// Show one round: who was selected, what became of them and when; exit code 5 if it found no quorum
    Show(show::ShowArgs),
    /// Show rounds as they change, until interrupted or until a round has come to its end
    Watch(watch::WatchArgs),
}

/// Shows rounds.
pub(crate) fn run(context: &Context, command: &RoundCommand) -> Result<(), Failure> {
    match command {
        RoundCommand::List { plan } => list_rounds(context, plan.as_deref()),
        RoundCommand::Show(args) => show::run(context, args),
        RoundCommand::Watch(args) => watch::run(context, args),
    }
}

fn list_rounds(context: &Context, plan: Option<&str>) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let rows = of_plan(history.state(), rounds::timed_rows(&history), plan)?;
    context.output.array(&rows, || context.output.table(&table(history.state(), &rows)))
}

/// The rows of one plan, if one is named.
fn of_plan(state: &Federation, mut rows: Vec<RoundRow>, plan: Option<&str>) -> Result<Vec<RoundRow>, Failure> {
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
        let phase = row.reason.as_ref().map_or(row.phase.to_owned(), |reason| format!("{}:{reason}", row.phase));
        let certificate = &row.certificate;
        table.row(vec![
            row.plan_name.clone(),
            row.round.to_string(),
            row.attempt.to_string(),
            phase,
            short.number(&row.base),
            row.version.map_or_else(|| "-".to_owned(), |version| short.number(&version)),
            list(&certificate.contributed),
            list(certificate.declined.keys()),
            list(certificate.excluded.iter().map(|(member, code)| format!("{member}:{code}"))),
            list(certificate.missing.keys()),
        ]);
    }
    table
}
