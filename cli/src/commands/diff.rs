//! `fedledger diff`: how two versions differ.

use std::collections::BTreeMap;

use clap::Args;
use fedledger_federation::{
    audit::{MetricChange, VersionDiff, diff},
    history::Keep,
    metrics::is_interval_end,
};

use crate::{
    context::Context,
    error::Failure,
    evaluations::metric,
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

/// For each metric its name, its value in both versions, and the change.
fn changes(metrics: &BTreeMap<String, MetricChange>) -> impl Iterator<Item = [String; 4]> + '_ {
    let shown = metrics.iter().filter(|(name, _)| !is_interval_end(name));
    shown.map(|(name, change)| {
        let in_version = |value: fn(&MetricChange) -> Option<f64>| metric(name, |name| value(metrics.get(name)?));
        [name.clone(), in_version(|change| change.from), in_version(|change| change.to), number(change.change)]
    })
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
    changes(&difference.metrics).for_each(|row| metrics.row(row.into()));
    let mut groups = Table::new(&["group", "metric", "from", "to", "change"]);
    for (name, group) in &difference.groups {
        changes(group).for_each(|row| groups.row([name.clone()].into_iter().chain(row).collect()));
    }
    let groups = if difference.groups.is_empty() { String::new() } else { context.output.table(&groups) + "\n" };
    let contributors = &difference.contributors;
    format!(
        "{} -> {}\n\n{}\n{}\n{groups}contributors of both {}, added {}, removed {}",
        short.number(&difference.from),
        short.number(&difference.to),
        context.output.table(&tensors),
        context.output.table(&metrics),
        list(&contributors.both),
        list(&contributors.added),
        list(&contributors.removed),
    )
}
