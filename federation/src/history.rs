//! Histories: where the entries of a ledger come from when no replica is asked, and replaying them.
//!
//! A [`Source`] gives a history's bytes: the storage of a node ([`StorageSource`]), an exported bundle
//! ([`BundleSource`]), or static files ([`TileSource`]). Nothing that it gives is believed. [`History::read`] replays the entries and so finds out what they
//! lead to; [`verify`](crate::verify) goes on from there and checks everything else. This module reads what it is handed;
//! opening files is the caller's part.

mod bundle;
mod entry;
mod export;
mod files;
mod proofs;
mod refused;
mod replay;
mod sizes;
mod storage;
mod tile_source;
mod tiles;
mod times;

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, Write},
};

use fedledger_ledger::{
    Digest,
    bundle::{BundleError, Malformed},
    heads::{Heads, noted_size},
    log::{Log, ReplayError},
    storage::StorageError,
};

pub use self::{
    bundle::BundleSource,
    entry::{AuthorView, EntryView, SealView},
    export::{ExportError, ExportOptions, Exported, export},
    files::{NamedFile, named_files},
    proofs::{Proofs, ProveError, Wanted},
    refused::{REFUSED_PER_ROUND_MAX, RefusedContribution},
    sizes::FinalSizes,
    storage::StorageSource,
    tile_source::{CHECKPOINT_FILE, TileSource},
    tiles::{NotedCheckpoint, TilesError, write_tiles},
    times::SealTimes,
};
pub(crate) use self::{files::hash, replay::replay};
use crate::{Event, Federation, VersionId, command::RoundKey, member::Genesis, verify::Problem};

/// Where a history comes from.
pub trait Source {
    /// The genesis file.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn genesis(&self) -> Result<Vec<u8>, SourceError>;

    /// The leaves from index 1 on, in order. Nothing follows the first error.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn leaves(&self) -> Result<Leaves<'_>, SourceError>;

    /// The signed checkpoint notes.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError>;

    /// The file that is kept under a digest, if it is there. Its bytes have not been compared with the digest.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn blob(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError>;

    /// The files of a container in which nothing else may stand, with their offsets; `None` where it is no matter which
    /// files lie around.
    fn listed_blobs(&self) -> Option<BTreeMap<Digest, u64>> {
        None
    }

    /// What a container holds so that others can tell whom to trust; `None` where nothing of the kind is kept.
    fn trust_parts(&self) -> Option<TrustParts> {
        None
    }

    /// What is wrong with the container itself.
    fn defect(&self) -> Option<&Malformed> {
        None
    }

    /// What else is wrong with what holds the history, as far as it shows without the entries.
    fn problems(&self) -> &[Problem] {
        &[]
    }

    /// The file with the checkpoint notes, where the history lies in several.
    fn notes_file(&self) -> Option<&str> {
        None
    }

    /// Whether the history stays as it is while it is read. That of a running replica grows, so its last checkpoint may be
    /// about fewer entries than are read.
    fn is_at_rest(&self) -> bool {
        true
    }

    /// Compares what the source has recorded beside the leaves with the log that they lead to.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn check_records(&self, _log: &Log<Federation>) -> Result<Vec<Problem>, SourceError> {
        Ok(Vec::new())
    }

    /// An empty place to write to and read from, for what should not be held in memory where there is a disk.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn scratch(&self) -> Result<Box<dyn Scratch>, SourceError> {
        Ok(Box::new(io::Cursor::new(Vec::new())))
    }
}

/// See [`Source::scratch`].
pub trait Scratch: Read + Write + Seek + Send {}

impl<T: Read + Write + Seek + Send> Scratch for T {}

/// Leaves as they come.
pub type Leaves<'a> = Box<dyn Iterator<Item = Result<Vec<u8>, SourceError>> + 'a>;

/// A signed checkpoint note as the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedNote {
    /// Where it stands in a bundle, in bytes from the beginning.
    pub offset: Option<u64>,
    /// The note.
    pub text: String,
}

/// What a bundle holds beside the history: all of it follows from the entries and the notes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustParts {
    /// The [chain of epochs](fedledger_ledger::epoch::EpochChain).
    pub epochs: Option<EncodedPart>,
    /// The [policy](fedledger_ledger::policy::Policy) of the largest head that is final.
    pub policy: Option<EncodedPart>,
}

/// A part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPart {
    /// Where it stands, in bytes from the beginning.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a source does not give what it should have.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system could not read it.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    /// The node's database could not be read.
    #[error(transparent)]
    Storage(StorageError),
    /// The bundle is damaged.
    #[error("the bundle is damaged: {0}")]
    Malformed(Malformed),
    /// One of the files of a history is damaged or missing.
    #[error("{file}: {detail}")]
    File {
        /// Its path, from where the history lies.
        file: String,
        /// The entry that cannot be read for it, if it can be told.
        index: Option<u64>,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no ledger.
    #[error("there is no genesis file, so this is no ledger")]
    NoGenesis,
}

impl SourceError {
    /// Whether what was read is at fault, rather than the reading.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Io(_)
            | Self::Storage(StorageError::Io(_) | StorageError::InUse { .. } | StorageError::Missing { .. }) => false,
            Self::Storage(StorageError::Corrupt(_)) | Self::Malformed(_) | Self::File { .. } | Self::NoGenesis => true,
        }
    }
}

impl From<StorageError> for SourceError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<BundleError> for SourceError {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Io(error) => Self::Io(error),
            BundleError::Malformed(malformed) => Self::Malformed(malformed),
        }
    }
}

/// Why a history cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The source does not give it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The genesis file describes no consortium.
    #[error("the genesis file is not valid: {0}")]
    Genesis(String),
    /// An entry does not follow from the ones before it.
    #[error("entry {index}: {error}")]
    Replay {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        error: ReplayError,
    },
}

/// A history, replayed.
#[derive(Debug)]
pub struct History {
    /// The log at its end, with the state that the entries lead to.
    pub log: Log<Federation>,
    /// The entries from index 1 on, if they were asked for.
    pub entries: Vec<EntryView>,
    /// Index of the entry that made a version attested, for each that is.
    pub attested: BTreeMap<VersionId, u64>,
    /// Contributions that were refused, by attempt; at most [`REFUSED_PER_ROUND_MAX`] of each.
    pub refused: BTreeMap<RoundKey, Vec<RefusedContribution>>,
    /// When things happened.
    pub times: SealTimes,
    /// How many entries the source's notes show to be final.
    pub sizes: FinalSizes,
}

/// What [`History::read`] keeps beside the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Nothing: memory grows with what was accepted, not with the number of entries.
    #[default]
    State,
    /// A view of every entry.
    Entries,
}

impl History {
    /// Replays a history with at most `threads` threads of the current rayon pool.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]; [`verify`](crate::verify) tells more about a history that is not in order.
    pub fn read<S: Source + ?Sized>(source: &S, keep: Keep, threads: usize) -> Result<Self, HistoryError> {
        let (mut log, _) = Log::<Federation>::genesis(&source.genesis()?).map_err(HistoryError::Genesis)?;
        // The notes come first: the history of a running replica grows meanwhile.
        let notes = source.notes()?;
        let noted = notes.iter().filter_map(|note| noted_size(&note.text));
        let mut heads = Heads::new(origin(log.machine().consortium()), &log, noted);
        let (mut entries, mut attested) = (Vec::new(), BTreeMap::new());
        let (mut refused, mut times) = (BTreeMap::new(), SealTimes::default());
        replay(&mut log, source, threads, |log, entry| {
            heads.visit(log, &entry.leaf);
            times.visit(entry);
            refused::remember(&mut refused, refused::refused(log.machine(), entry));
            match &entry.result {
                Some(Ok(Event::VersionAttested { version, .. })) => {
                    attested.insert(*version, entry.leaf.index);
                }
                Some(Ok(Event::Executed { consequences, .. })) => {
                    attested.extend(consequences.attested.iter().map(|version| (*version, entry.leaf.index)));
                }
                _ => {}
            }
            if keep == Keep::Entries {
                entries.push(EntryView::of(log.machine(), entry));
            }
        })?;
        let sizes = FinalSizes::shown_by(&heads, &notes);
        Ok(Self { log, entries, attested, refused, times, sizes })
    }

    /// The state at the end.
    pub const fn state(&self) -> &Federation {
        self.log.machine()
    }
}

/// The origin of a consortium's checkpoints.
pub fn origin(genesis: &Genesis) -> String {
    format!("fedledger/{}", genesis.consortium)
}
