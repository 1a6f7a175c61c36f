//! `fedledger export --tiles`: the history as a tree of static files that any web server can serve.

use std::path::Path;

use fedledger_federation::history::{NotedCheckpoint, write_tiles};
use fedledger_ledger::Digest;
use serde::Serialize;

use super::directory::TileDirectory;
use crate::{context::Context, error::Failure};

/// The form of the result as JSON.
const TILES_SCHEMA: &str = "fedledger.tiles/1";

#[derive(Debug, Serialize)]
struct View {
    directory: String,
    /// The log's identity, the first line of its checkpoint.
    origin: String,
    /// Entries that the checkpoint covers, the genesis file included.
    entries: u64,
    root: Digest,
    /// Tiles and entry bundles.
    written: u64,
    /// Those of an earlier export, found right.
    kept: u64,
}

/// Writes the tree, or extends the one that is there.
pub(super) fn run(context: &Context, directory: &Path) -> Result<(), Failure> {
    let source = context.source()?;
    let (mut tree, earlier) = TileDirectory::open(directory)?;
    let progress = context.output.progress("writing the tiles");
    let written = write_tiles(&source, earlier.as_ref(), |tile, bytes| tree.put(tile, bytes));
    let NotedCheckpoint { checkpoint, note, .. } = written?;
    let counts = tree.finish(&note)?;
    drop(progress);
    let view = View {
        directory: directory.display().to_string(),
        origin: checkpoint.origin().to_owned(),
        entries: checkpoint.size(),
        root: *checkpoint.root(),
        written: counts.written,
        kept: counts.kept,
    };
    context.output.object(TILES_SCHEMA, &view, || {
        format!(
            "{}: {} entries in {} tiles and entry bundles ({} new)\nAny web server can serve it: C2SP tlog-tiles",
            view.directory,
            view.entries,
            view.written.saturating_add(view.kept),
            view.written
        )
    })
}
