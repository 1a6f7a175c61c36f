//! Writing a history as a bundle.

use std::io::Write;

use fedledger_ledger::{
    Digest,
    bundle::{BundleWriteError, BundleWriter},
    checkpoint::Checkpoint,
    log::Log,
    note::SignedNote,
};

use super::{HistoryError, Source, SourceError, hash, named_files};
use crate::Federation;

/// What goes into a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExportOptions {
    /// Files are included only if an entry before this index names them; all of them where it is absent. Entries are never
    /// left out: a checkpoint covers all of them or says nothing.
    pub files_until: Option<u64>,
    /// Whether the updates and files of versions are included, as far as the source has them.
    pub blobs: bool,
}

/// What went into a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// Entries, the genesis file included.
    pub entries: u64,
    /// Checkpoint notes.
    pub notes: u64,
    /// Files.
    pub blobs: u64,
    /// Files that the ledger names but the source does not have.
    pub missing: Vec<Digest>,
}

/// Why a bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The history is not in order.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Write(#[from] BundleWriteError),
}

impl From<SourceError> for ExportError {
    fn from(error: SourceError) -> Self {
        Self::History(error.into())
    }
}

/// Writes a history as a bundle. The entries are replayed on the way, so that no broken history is exported.
///
/// Entries that no checkpoint of the source covers yet are left out, if it has checkpoints at all.
///
/// # Errors
///
/// [`ExportError`]; what was written is no bundle then.
pub fn export<S: Source + ?Sized>(
    source: &S,
    output: impl Write,
    options: ExportOptions,
) -> Result<Exported, ExportError> {
    let genesis = source.genesis()?;
    // The notes come first: the history of a running replica grows meanwhile.
    let notes = source.notes()?;
    let covered = notes.iter().filter_map(|note| noted_size(&note.text)).max();
    let mut writer = BundleWriter::new(output, &genesis)?;
    let (mut log, _) = Log::<Federation>::genesis(&genesis).map_err(HistoryError::Genesis)?;
    for leaf in source.leaves()? {
        let index = log.size();
        // Nobody has signed yet for what follows.
        if covered.is_some_and(|covered| index >= covered) {
            break;
        }
        let leaf = leaf?;
        log.replay(&leaf).map_err(|error| HistoryError::Replay { index, error })?;
        writer.add_leaf(&leaf)?;
    }
    let mut exported = Exported { entries: log.size(), ..Exported::default() };
    for note in notes {
        if noted_size(&note.text).is_none_or(|size| size <= log.size()) {
            writer.add_note(&note.text)?;
            exported.notes += 1;
        }
    }
    if options.blobs {
        let limit = options.files_until.unwrap_or(u64::MAX);
        let named = named_files(log.machine()).into_iter().filter(|(_, file)| file.index < limit);
        for (digest, _) in named {
            let (Some(first), Some(second)) = (source.blob(&digest)?, source.blob(&digest)?) else {
                exported.missing.push(digest);
                continue;
            };
            // Its size on the ledger is what its contributor claimed, so the file is read twice.
            let (_, size) = hash(first).map_err(SourceError::Io)?;
            writer.add_blob(&digest, size, second)?;
            exported.blobs += 1;
        }
    }
    writer.finish()?;
    Ok(exported)
}

/// The size that a note is about; `None` where it is no checkpoint, which the reader of the bundle will be told.
fn noted_size(note: &str) -> Option<u64> {
    let note = SignedNote::parse(note).ok()?;
    Some(Checkpoint::parse(note.text()).ok()?.size())
}
