//! Writing a history as a bundle.

use std::io::{Read, Write};

use fedledger_ledger::{
    Digest,
    bundle::{BundleWriteError, BundleWriter},
    heads::noted_size,
    merkle::leaf_hash,
};

use super::{EncodedNote, HistoryError, Leaves, Proofs, ProveError, Source, SourceError, Wanted, hash, named_files};

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
    /// Files that the ledger names but the source does not have, though they are to be kept.
    pub missing: Vec<Digest>,
    /// Files that nothing keeps and that are not there, as it should be: they were pruned, or their version was rejected.
    pub pruned: u64,
}

/// Why a bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The history is not in order.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A checkpoint contradicts the history, or what goes with it cannot be put together.
    #[error(transparent)]
    Prove(ProveError),
    /// The source gives other entries the second time.
    #[error("entry {index} was another one when it was read before: export again")]
    Changed {
        /// Its index.
        index: u64,
    },
    /// The bundle cannot be written.
    #[error(transparent)]
    Write(#[from] BundleWriteError),
}

impl From<SourceError> for ExportError {
    fn from(error: SourceError) -> Self {
        Self::History(error.into())
    }
}

impl From<ProveError> for ExportError {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::History(error) => Self::History(error),
            error => Self::Prove(error),
        }
    }
}

/// Writes a history as a bundle. The entries are replayed first, so that no broken history is exported, and then read again
/// to be written: at no time is more than one of them held.
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
    let covered = Covered::of(source)?;
    let proofs = Proofs::read(&covered, Wanted::default(), rayon::current_num_threads())?;
    let mut writer = BundleWriter::new(output, &genesis, &proofs.chain()?.to_bytes())?;
    let mut exported = Exported { entries: proofs.log().size(), ..Exported::default() };
    // A note about more entries than there are says nothing about these; all others are for the reader to judge.
    let size = exported.entries;
    for note in covered.notes.iter().filter(|note| noted_size(&note.text).is_none_or(|noted| noted <= size)) {
        writer.add_note(&note.text)?;
        exported.notes += 1;
    }
    for (leaf, index) in covered.leaves()?.zip(1..) {
        let leaf = leaf?;
        if proofs.leaf_hash(index) != Some(leaf_hash(&leaf)) {
            return Err(ExportError::Changed { index });
        }
        writer.add_leaf(&leaf)?;
    }
    // A consortium may be too large to be expressed as a policy.
    if let Ok(policy) = proofs.policy() {
        writer.add_policy(&policy.to_bytes())?;
    }
    if options.blobs {
        write_blobs(&mut writer, source, &proofs, options, &mut exported)?;
    }
    writer.finish()?;
    Ok(exported)
}

fn write_blobs<S: Source + ?Sized, W: Write>(
    writer: &mut BundleWriter<W>,
    source: &S,
    proofs: &Proofs,
    options: ExportOptions,
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let limit = options.files_until.unwrap_or(u64::MAX);
    let named = named_files(proofs.log().machine()).into_iter().filter(|(_, file)| file.index < limit);
    for (digest, _) in named {
        let (Some(first), Some(second)) = (source.blob(&digest)?, source.blob(&digest)?) else {
            if proofs.log().machine().retains(&digest) {
                exported.missing.push(digest);
            } else {
                exported.pruned += 1;
            }
            continue;
        };
        // Its size on the ledger is what its contributor claimed, so the file is read twice.
        let (_, size) = hash(first).map_err(SourceError::Io)?;
        writer.add_blob(&digest, size, second)?;
        exported.blobs += 1;
    }
    Ok(())
}

/// The part of a history for which somebody has signed.
struct Covered<'a, S: ?Sized> {
    source: &'a S,
    /// In the order of sizes, each once.
    notes: Vec<EncodedNote>,
    /// Leaves that are covered.
    leaves: u64,
}

impl<'a, S: Source + ?Sized> Covered<'a, S> {
    fn of(source: &'a S) -> Result<Self, SourceError> {
        // The notes come first: the history of a running replica grows meanwhile.
        let mut notes = source.notes()?;
        let size = |note: &EncodedNote| noted_size(&note.text);
        notes.sort_by(|a, b| (size(a), &a.text).cmp(&(size(b), &b.text)));
        notes.dedup_by(|a, b| a.text == b.text);
        let covered = notes.last().and_then(size);
        Ok(Self { source, notes, leaves: covered.map_or(u64::MAX, |covered| covered.saturating_sub(1)) })
    }
}

impl<S: Source + ?Sized> Source for Covered<'_, S> {
    fn genesis(&self) -> Result<Vec<u8>, SourceError> {
        self.source.genesis()
    }

    fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
        Ok(Box::new(self.source.leaves()?.take(usize::try_from(self.leaves).unwrap_or(usize::MAX))))
    }

    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
        Ok(self.notes.clone())
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        self.source.blob(digest)
    }
}
