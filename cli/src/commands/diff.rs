//! `fedledger diff`: how two versions differ.

use clap::Args;
use fedledger_federation::{
    audit::{VersionDiff, diff},
    history::Keep,
};

use crate::{
    context::Context,
    error::Failure,
    names::{self, Short},
    output::{Table, list, number},
};

/// The form of a difference as JSON.
const DIFF_SCHEMA: &str = "fedledger.diff/1";

/// Arguments of `fedledger diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The version that is changed
    from: String,
    /// What it becomes
    to: String,
}

/// Compares two versions.
pub(crate) fn run(context: &Context, args: &DiffArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::State)?;
    let state = history.state();
    let (from, to) = (names::version(state, &args.from)?, names::version(state, &args.to)?);
    let difference = diff(&source, state, &from, &to)?;
    context.output.object(DIFF_SCHEMA, &difference, || text(context, &difference, &Short::of(state)))
}

fn text(context: &Context, difference: &VersionDiff, short: &Short) -> String {
    let mut tensors = Table::new(&["tensor", "shape", "norm", "max", "relative"]);
    for change in &difference.tensors {
        let shape: Vec<String> = change.shape.iter().map(u64::to_string).collect();
        tensors.row(vec![
            change.tensor.clone(),
            shape.join("x"),
            number(change.norm),
            number(change.max_abs),
            number(change.relative),
        ]);
    }
    let mut metrics = Table::new(&["metric", "from", "to", "change"]);
    for (name, change) in &difference.metrics {
        metrics.row(vec![name.clone(), number(change.from), number(change.to), number(change.change)]);
    }
    let contributors = &difference.contributors;
    format!(
        "{} -> {}\n\n{}\n{}\ncontributors of both {}, added {}, removed {}",
        short.number(&difference.from),
        short.number(&difference.to),
        context.output.table(&tensors),
        context.output.table(&metrics),
        list(&contributors.both),
        list(&contributors.added),
        list(&contributors.removed),
    )
}
