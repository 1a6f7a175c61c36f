//! What others need in order to judge receipts: the policy, or the chain of epochs.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use fedledger_federation::history::{Proofs, Wanted};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::{
    context::Context,
    error::{Exit, Failure},
    output::written,
};

/// The form of the result as JSON.
const TRUST_SCHEMA: &str = "fedledger.export-trust/1";

#[derive(Debug, Serialize)]
struct View {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<PathBuf>,
    /// Epochs that are vouched for, the first one included.
    epoch_count: usize,
    /// Entries under the head that the policy is about; 0 as long as nothing is final.
    final_entries: u64,
}

/// Writes the policy and the chain, as far as they are wanted; says so if nothing else is written.
pub(super) fn run(context: &Context, policy: Option<&Path>, epochs: Option<&Path>, say: bool) -> Result<(), Failure> {
    if policy.is_none() && epochs.is_none() {
        return Ok(());
    }
    let source = context.source()?;
    let progress = context.output.progress("reading the ledger");
    let what = "what others need to judge receipts cannot be written";
    let failure = |error| Failure::because(Exit::Failed, what, error);
    let proofs = Proofs::read(&source, Wanted::default(), context.threads()).map_err(failure)?;
    drop(progress);
    let chain = proofs.chain().map_err(failure)?;
    if let Some(path) = policy {
        write(path, &proofs.policy().map_err(failure)?.to_bytes())?;
    }
    if let Some(path) = epochs {
        write(path, &chain.to_bytes())?;
    }
    if !say {
        return Ok(());
    }
    let view = View {
        policy: policy.map(Path::to_owned),
        epochs: epochs.map(Path::to_owned),
        epoch_count: chain.links().len().saturating_add(1),
        final_entries: proofs.final_entries(),
    };
    context.output.object(TRUST_SCHEMA, &view, || {
        let files: Vec<String> =
            [policy, epochs].into_iter().flatten().map(|path| path.display().to_string()).collect();
        format!("{}: {} epochs, {} final entries", files.join(", "), view.epoch_count, view.final_entries)
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = written(path, NamedTempFile::new_in(folder))?;
    written(path, file.write_all(bytes))?;
    written(path, file.as_file().sync_all())?;
    written(path, file.persist(path).map_err(|error| error.error))?;
    Ok(())
}
