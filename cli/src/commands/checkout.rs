//! `fedledger checkout`: the files of a version, each verified.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use fedledger_federation::{
    VersionId,
    history::{Keep, Source as _},
    manifest::{Artifact, Manifest, SAFETENSORS},
    records::VersionRecord,
};
use fedledger_ledger::{Digest, codec};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{
    context::Context,
    error::{Exit, Failure},
    names,
    output::written,
    source::Source,
};

/// The form of the result as JSON.
const CHECKOUT_SCHEMA: &str = "fedledger.checkout/1";

/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Arguments of `fedledger checkout`.
#[derive(Debug, Args)]
pub(crate) struct CheckoutArgs {
    /// Number, branch, tag, or the beginning of an id
    version: String,
    /// Directory to write the files to; new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write into a directory that is not empty, over files of the same names
    #[arg(long)]
    force: bool,
    /// Write the files of a revoked version, too
    #[arg(long)]
    allow_revoked: bool,
}

#[derive(Debug, Serialize)]
struct View {
    version: VersionId,
    number: Option<u64>,
    directory: String,
    /// SHA-256 by name of the file.
    files: BTreeMap<String, Digest>,
}

/// Writes the files of a version.
pub(crate) fn run(context: &Context, args: &CheckoutArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::State)?;
    let id = names::version(history.state(), &args.version)?;
    let record = history.state().versions().get(&id);
    let record = record.ok_or_else(|| Failure::new(Exit::Failed, format!("there is no version {id}")))?;
    check_revoked(record, args)?;
    check_pruned(&source, record, args)?;
    make_directory(&args.out, args.force)?;
    let mut files = BTreeMap::new();
    for (role, artifact) in &record.manifest.artifacts {
        let name = file_name(role, artifact);
        copy_verified(&source, artifact, &args.out, &name)?;
        files.insert(name, *artifact.cid.digest());
    }
    for (name, bytes) in manifest_files(&record.manifest)? {
        let path = args.out.join(name);
        written(&path, fs::write(&path, &bytes))?;
        files.insert(name.to_owned(), Digest::of(&bytes));
    }
    let directory = args.out.display().to_string();
    let view = View { version: id, number: record.number(), directory, files };
    context.output.object(CHECKOUT_SCHEMA, &view, || {
        let lines = view.files.iter().map(|(name, digest)| format!("{digest}  {name}"));
        let lines: Vec<String> = std::iter::once(format!("version {id} in {}", view.directory)).chain(lines).collect();
        lines.join("\n")
    })
}

fn check_revoked(record: &VersionRecord, args: &CheckoutArgs) -> Result<(), Failure> {
    match &record.revoked {
        Some(reason) if !args.allow_revoked => {
            Err(Failure::because(Exit::Refused, format!("version {} is revoked", args.version), reason)
                .next("use another version, or say --allow-revoked to look into this one"))
        }
        _ => Ok(()),
    }
}

/// Tells files that the members let go from files that are missing. A bundle from before may still have them.
fn check_pruned(source: &Source, record: &VersionRecord, args: &CheckoutArgs) -> Result<(), Failure> {
    let Some(index) = record.pruned.files else { return Ok(()) };
    for artifact in record.manifest.artifacts.values() {
        if source.blob(artifact.cid.digest())?.is_none() {
            let what = format!("the files of version {} are not kept any more", args.version);
            return Err(Failure::because(Exit::Failed, what, format!("they were pruned at entry {index}"))
                .next("use a newer version, or a bundle that was exported --with-blobs before"));
        }
    }
    Ok(())
}

fn make_directory(directory: &Path, force: bool) -> Result<(), Failure> {
    written(directory, fs::create_dir_all(directory))?;
    let mut entries = fs::read_dir(directory).map_err(|error| Failure::io("read", directory, &error))?;
    if entries.next().is_some() && !force {
        return Err(Failure::new(Exit::Failed, format!("{} is not empty", directory.display()))
            .next("give a new directory, or --force to write over files of the same names"));
    }
    Ok(())
}

/// Roles are names on the ledger, so they are safe as names of files.
fn file_name(role: &str, artifact: &Artifact) -> String {
    let safe: String =
        role.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect();
    let extension = if artifact.media_type == SAFETENSORS { "safetensors" } else { "bin" };
    format!("{safe}.{extension}")
}

/// Under its name a file appears only when it is complete and right.
fn copy_verified(source: &Source, artifact: &Artifact, directory: &Path, name: &str) -> Result<(), Failure> {
    let path = directory.join(name);
    let digest = artifact.cid.digest();
    let content = source.blob(digest)?.ok_or_else(|| {
        Failure::because(Exit::Failed, format!("{name} cannot be written"), format!("the ledger's files lack {digest}"))
            .next("read another replica, or a bundle exported --with-blobs")
    })?;
    let mut file = written(&path, NamedTempFile::new_in(directory))?;
    let (found, size) = written(&path, copy(content.take(artifact.size.saturating_add(1)), &mut file))?;
    if size != artifact.size || found != *digest {
        let why = format!("its SHA-256 is {found}, the ledger says {digest}");
        return Err(Failure::because(Exit::Mismatch, format!("{name} is damaged"), why).next("read another replica"));
    }
    written(&path, file.as_file().sync_all())?;
    written(&path, file.persist(&path).map_err(|error| error.error))?;
    Ok(())
}

/// Copies everything; SHA-256 and size of it.
fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk)?;
        let read = chunk.get(..count).unwrap_or_default();
        if read.is_empty() {
            to.flush()?;
            return Ok((Digest::from_bytes(hasher.finalize().into()), size));
        }
        hasher.update(read);
        to.write_all(read)?;
        size += read.len() as u64;
    }
}

/// The manifest for people, and the bytes whose SHA-256 is in the version's id.
fn manifest_files(manifest: &Manifest) -> Result<[(&'static str, Vec<u8>); 2], Failure> {
    let json = serde_json::to_vec_pretty(manifest).map_err(|error| Failure::output(&error.into()))?;
    Ok([("manifest.json", json), ("manifest.cbor", codec::encode(manifest))])
}
