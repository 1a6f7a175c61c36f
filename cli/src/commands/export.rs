//! `fedledger export`: the history as one file, or as a tree of static files.

mod directory;
mod tiles;

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
};

use clap::Args;
use fedledger_federation::history::{ExportOptions, History, Keep, export};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::{
    context::Context,
    error::{Exit, Failure},
    names,
    output::written,
};

/// The form of the result as JSON.
const EXPORT_SCHEMA: &str = "fedledger.export/1";

/// Arguments of `fedledger export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The bundle to write
    #[arg(long, value_name = "FILE", required_unless_present = "tiles")]
    out: Option<PathBuf>,
    /// The directory in which to write the log as static files (C2SP tlog-tiles) instead, or to extend them
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    tiles: Option<PathBuf>,
    /// Stop behind the entry that made this version a version
    #[arg(long, value_name = "VERSION", conflicts_with = "tiles")]
    to: Option<String>,
    /// Include the updates and the files of versions
    #[arg(long, conflicts_with = "tiles")]
    with_blobs: bool,
    /// Write over an existing file
    #[arg(long, conflicts_with = "tiles")]
    force: bool,
}

#[derive(Debug, Serialize)]
struct View {
    file: String,
    entries: u64,
    checkpoints: u64,
    blobs: u64,
    /// SHA-256 of files that the ledger names but the source lacks.
    missing: Vec<fedledger_ledger::Digest>,
    size: u64,
}

/// Exports.
pub(crate) fn run(context: &Context, args: &ExportArgs) -> Result<(), Failure> {
    match (&args.tiles, &args.out) {
        (Some(directory), _) => tiles::run(context, directory),
        (None, Some(out)) => bundle(context, args, out),
        (None, None) => Err(Failure::new(Exit::Usage, "nothing is given to write: name --out FILE or --tiles DIR")),
    }
}

/// Writes a bundle.
fn bundle(context: &Context, args: &ExportArgs, out: &Path) -> Result<(), Failure> {
    if !args.force && out.exists() {
        return Err(Failure::new(Exit::Failed, format!("{} exists already", out.display()))
            .next("give another name, or --force to write over it"));
    }
    let (source, history) = context.history(Keep::State)?;
    let files_until = args.to.as_ref().map(|version| entries_to(&history, version)).transpose()?;
    let progress = context.output.progress("writing the bundle");
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = written(out, NamedTempFile::new_in(folder))?;
    let options = ExportOptions { files_until, blobs: args.with_blobs };
    let exported = export(&source, BufWriter::new(&mut file), options)?;
    written(out, file.as_file().sync_all())?;
    let size = written(out, file.as_file().metadata())?.len();
    written(out, file.persist(out).map_err(|error| error.error))?;
    drop(progress);
    if !exported.missing.is_empty() {
        context.output.remark(&format!("{} files that the ledger names are not here", exported.missing.len()));
    }
    let view = View {
        file: out.display().to_string(),
        entries: exported.entries,
        checkpoints: exported.notes,
        blobs: exported.blobs,
        missing: exported.missing,
        size,
    };
    context.output.object(EXPORT_SCHEMA, &view, || {
        format!(
            "{}: {} entries, {} checkpoints, {} files, {size} bytes\nAnybody can check it: fedledger verify {0}",
            view.file, view.entries, view.checkpoints, view.blobs
        )
    })
}

/// Entries up to the one that attested a version, or proposed it if it never was attested.
fn entries_to(history: &History, version: &str) -> Result<u64, Failure> {
    let id = names::version(history.state(), version)?;
    let created = history.state().versions().get(&id).map(|record| record.created_index);
    let last = history.attested.get(&id).copied().or(created).unwrap_or_default();
    Ok(last.saturating_add(1))
}
