//! `fedledger export`: the history as one file, or as a tree of static files, and what others need in order to judge it.

mod directory;
mod tiles;
mod trust;

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
    #[arg(long, value_name = "FILE", required_unless_present_any = ["tiles", "policy", "epochs"])]
    out: Option<PathBuf>,
    /// The directory in which to write the log as static files (C2SP tlog-tiles) instead, or to extend them
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    tiles: Option<PathBuf>,
    /// Write the policy of the last final head (C2SP tlog-policy), by which others can judge receipts
    #[arg(long, value_name = "FILE", conflicts_with = "tiles")]
    policy: Option<PathBuf>,
    /// Write the chain of epochs, by which whoever has the genesis file can judge receipts of any time
    #[arg(long, value_name = "FILE", conflicts_with = "tiles")]
    epochs: Option<PathBuf>,
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
    /// SHA-256 of files that are to be kept but the source lacks.
    missing: Vec<fedledger_ledger::Digest>,
    /// Files that were pruned and are not here, as it should be.
    pruned: u64,
    size: u64,
}

/// Exports.
pub(crate) fn run(context: &Context, args: &ExportArgs) -> Result<(), Failure> {
    match (&args.tiles, &args.out) {
        (Some(directory), _) => tiles::run(context, directory),
        (None, out) => {
            for file in [out, &args.policy, &args.epochs].into_iter().flatten() {
                refuse_existing(file, args.force)?;
            }
            trust::run(context, args.policy.as_deref(), args.epochs.as_deref(), out.is_none())?;
            out.as_ref().map_or(Ok(()), |out| bundle(context, args, out))
        }
    }
}

fn refuse_existing(file: &Path, force: bool) -> Result<(), Failure> {
    if force || !file.exists() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{} exists already", file.display()))
        .next("give another name, or --force to write over it"))
}

/// Writes a bundle.
fn bundle(context: &Context, args: &ExportArgs, out: &Path) -> Result<(), Failure> {
    let source = context.source()?;
    let entries_to = |version| {
        let history = History::read(&source, Keep::State, context.threads())?;
        entries_to(&history, version)
    };
    let files_until = args.to.as_ref().map(|version| entries_to(version)).transpose()?;
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
        context.output.remark(&format!("{} files that are to be kept are not here", exported.missing.len()));
    }
    let view = View {
        file: out.display().to_string(),
        entries: exported.entries,
        checkpoints: exported.notes,
        blobs: exported.blobs,
        missing: exported.missing,
        pruned: exported.pruned,
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
