//! `fedledger tag`: names of versions.

use clap::Args;
use fedledger_federation::{Command, VersionId, command::Tag, history::Keep};
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

/// Arguments of `fedledger tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The name to give (operator); lists the tags by default
    #[arg(requires = "version")]
    name: Option<String>,
    /// Number, branch, tag, or the beginning of an id
    version: Option<String>,
}

#[derive(Debug, Serialize)]
struct TagRow<'a> {
    tag: &'a str,
    version: VersionId,
    number: Option<u64>,
}

/// Shows tags, or gives one.
pub(crate) fn run(context: &Context, args: TagArgs) -> Result<(), Failure> {
    match (args.name, args.version) {
        (Some(name), Some(version)) => give(context, name, &version),
        _ => list(context),
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let state = history.state();
    let rows = state.tags().iter().map(|(tag, version)| TagRow {
        tag,
        version: *version,
        number: state.versions().get(version).and_then(|record| record.number()),
    });
    let rows: Vec<TagRow<'_>> = rows.collect();
    context.output.array(&rows, || {
        let short = Short::of(state);
        let mut table = Table::new(&["tag", "version", "id"]);
        for row in &rows {
            table.row(vec![row.tag.to_owned(), short.number(&row.version), short.version(&row.version)]);
        }
        context.output.table(&table)
    })
}

fn give(context: &Context, name: String, version: &str) -> Result<(), Failure> {
    let writer = Writer::connect(context)?;
    let follower = context.block_on(Follower::current(&writer.client))?;
    let version = names::version(follower.state(), version)?;
    let text = format!("tagged {} as {name}", Short::of(follower.state()).number(&version));
    let about = json!({ "tag": name, "version": version });
    let command = Command::Tag(Tag { name, version });
    let submitted = writer.submit(context, &command)?;
    writer.show(context, &command, &submitted, about, || text)
}
