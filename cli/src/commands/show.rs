//! `fedledger show`: one version.

use std::collections::BTreeMap;

use clap::Args;
use fedledger_federation::{
    audit::{Finality, VersionRow, version_rows},
    command::OutputFiles,
    history::Keep,
    manifest::Manifest,
};
use serde::Serialize;

use crate::{
    context::Context,
    error::{Exit, Failure},
    evaluations::{self, Evaluations},
    finality::Sizes,
    names::{self, Short},
    output::list,
};

/// The form of a version as JSON.
const VERSION_SCHEMA: &str = "fedledger.version/1";

/// Arguments of `fedledger show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Number, branch, tag, or the beginning of an id
    version: String,
}

#[derive(Debug, Serialize)]
struct View<'a> {
    #[serde(flatten)]
    row: &'a VersionRow,
    manifest: &'a Manifest,
    /// Files that each replica computed, by node.
    attestations: &'a BTreeMap<String, OutputFiles>,
    evaluations: Evaluations<'a>,
}

/// Shows a version.
pub(crate) fn run(context: &Context, args: &ShowArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::State)?;
    let state = history.state();
    let id = names::version(state, &args.version)?;
    let finality = Finality { attested: &history.attested, final_entries: Sizes::of(&source, &history)?.final_size };
    let rows = version_rows(state, finality);
    let (Some(row), Some(record)) = (rows.iter().find(|row| row.version == id), state.versions().get(&id)) else {
        return Err(Failure::new(Exit::Failed, format!("there is no version {id}")));
    };
    let view = View {
        row,
        manifest: &record.manifest,
        attestations: &record.attestations,
        evaluations: state.evaluations(&id).collect(),
    };
    context.output.object(VERSION_SCHEMA, &view, || text(context, &view, &Short::of(state)))
}

fn text(context: &Context, view: &View<'_>, short: &Short) -> String {
    let View { row, manifest, attestations, evaluations } = view;
    let mut lines = vec![
        format!("version      {} {}", short.number(&row.version), row.version),
        format!("parents      {}", list(row.parents.iter().map(|parent| short.number(parent)))),
        format!("plan         {}, round {}", short.plan(&row.plan), row.round),
        format!("rule         {}", row.rule.unwrap_or("initial")),
        format!("branches     {}", list(&row.branch_heads)),
        format!("tags         {}", list(&row.tags)),
        format!("final        {}", row.is_final),
        format!("revoked      {}", row.revocation.as_deref().unwrap_or("no")),
        format!("pinned       {}", row.pin_reason.as_deref().unwrap_or("no")),
        format!("proposed     entry {}", row.created_index),
        format!("attested by  {}", list(attestations.keys())),
    ];
    lines.extend(row.pruned.files.map(|index| format!("pruned       its files, by entry {index}")));
    lines.extend(row.pruned.updates.map(|index| format!("pruned       its updates, by entry {index}")));
    for (role, artifact) in &manifest.artifacts {
        lines.push(format!("file         {role}: {} bytes, SHA-256 {}", artifact.size, artifact.cid.digest()));
    }
    for update in &manifest.contributions {
        let digest = names::short_digest(update.update.digest());
        lines.push(format!("contributed  {}: {} examples, update {digest}", update.member, update.examples));
    }
    for (member, code) in &manifest.excluded {
        lines.push(format!("excluded     {member}: {code}"));
    }
    lines.extend(evaluations::lines(evaluations));
    if let Some(groups) = evaluations::groups(evaluations) {
        lines.extend([String::new(), context.output.table(&groups).trim_end().to_owned()]);
    }
    lines.join("\n")
}
