//! A history as static resources: C2SP tlog-tiles (<https://c2sp.org/tlog-tiles>).

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    note::SignedNote,
    tiles::{Tile, TileBuilder, TileError},
};

use super::{Source, SourceError, origin};
use crate::member::{Genesis, GenesisError};

/// A checkpoint with the note in which it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedCheckpoint {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// The encoded note.
    pub note: String,
    /// Signatures on the note; nobody has checked them here.
    signatures: usize,
}

/// Why a history cannot be written as tiles.
#[derive(Debug, thiserror::Error)]
pub enum TilesError {
    /// The source does not give the history.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The genesis file describes no consortium.
    #[error("the genesis file is not valid: {0}")]
    Genesis(#[from] GenesisError),
    /// Nobody has signed for the history.
    #[error("no replica has signed a checkpoint of this ledger: wait for its first entries, or read another replica's")]
    NoCheckpoint,
    /// Entries that the checkpoint covers are missing.
    #[error("the checkpoint is about {size} entries, there are {found}")]
    Missing {
        /// Entries that the checkpoint covers.
        size: u64,
        /// Entries found.
        found: u64,
    },
    /// The entries are not those that were signed for.
    #[error("the checkpoint signs the root {expected} of {size} entries, which is {found}")]
    Root {
        /// Entries that the checkpoint covers.
        size: u64,
        /// Root in the checkpoint.
        expected: Digest,
        /// Root of the entries.
        found: Digest,
    },
    /// The earlier checkpoint is that of another log.
    #[error("the earlier export is of the log {found:?}, this one is {expected:?}")]
    OtherLog {
        /// Origin of this log.
        expected: String,
        /// Origin in the earlier checkpoint.
        found: String,
    },
    /// The earlier checkpoint covers more than there is now.
    #[error("the earlier export has {earlier} entries, the ledger has a checkpoint of {size} only")]
    Shorter {
        /// Entries that the earlier checkpoint covers.
        earlier: u64,
        /// Entries that the checkpoint covers.
        size: u64,
    },
    /// The earlier checkpoint is about another history of the same name.
    #[error(
        "the earlier export has the root {earlier} of {size} entries, this ledger has {found}: one of them is forged"
    )]
    Fork {
        /// Entries that the earlier checkpoint covers.
        size: u64,
        /// Root in the earlier checkpoint.
        earlier: Digest,
        /// Root of this history's entries.
        found: Digest,
    },
    /// An entry that no tile can hold.
    #[error(transparent)]
    Tile(#[from] TileError),
}

impl NotedCheckpoint {
    /// Reads a note about a checkpoint; `None` if it is none.
    pub fn read(note: &str) -> Option<Self> {
        let signed = SignedNote::parse(note).ok()?;
        let checkpoint = Checkpoint::parse(signed.text()).ok()?;
        Some(Self { checkpoint, signatures: signed.signatures().len(), note: note.to_owned() })
    }
}

/// The note that stands for the whole history: the one about most entries, and of these the one with most signatures.
fn best<S: Source + ?Sized>(source: &S, origin: &str) -> Result<Option<NotedCheckpoint>, SourceError> {
    let notes = source.notes()?.into_iter().filter_map(|note| NotedCheckpoint::read(&note.text));
    let of_this_log = notes.filter(|noted| noted.checkpoint.origin() == origin);
    Ok(of_this_log.max_by_key(|noted| (noted.checkpoint.size(), noted.signatures)))
}

/// Makes the tiles of a history up to its last checkpoint, full and partial ones, and hands them to `write`. Returns that
/// checkpoint, which makes the tree of resources complete.
///
/// The hashes are computed from the entries, in bounded memory, and their root is compared with the checkpoint's; so
/// nothing but the entries and the notes is read from the source. `earlier` is the checkpoint of an export that this one
/// continues: the history must have passed through it. No signature is checked, which is for those who read the tiles.
///
/// # Errors
///
/// [`TilesError`], or those of `write`; what has been written until then must not be used.
pub fn write_tiles<S: Source + ?Sized, E: From<TilesError>>(
    source: &S,
    earlier: Option<&Checkpoint>,
    mut write: impl FnMut(&Tile, &[u8]) -> Result<(), E>,
) -> Result<NotedCheckpoint, E> {
    let (genesis, noted) = begin(source)?;
    let size = noted.checkpoint.size();
    if let Some(earlier) = earlier {
        check_earlier(earlier, &noted.checkpoint)?;
    }
    let mut builder = TileBuilder::new();
    let leaves = source.leaves().map_err(TilesError::from)?;
    for entry in std::iter::once(Ok(genesis)).chain(leaves) {
        if builder.size() >= size {
            break;
        }
        let entry = entry.map_err(TilesError::from)?;
        for (tile, bytes) in builder.append(&entry).map_err(TilesError::from)? {
            write(&tile, &bytes)?;
        }
        if let Some(earlier) = earlier.filter(|earlier| earlier.size() == builder.size()) {
            check_continues(earlier, builder.root())?;
        }
    }
    check_root(&noted.checkpoint, &builder)?;
    for (tile, bytes) in builder.partial() {
        write(&tile, &bytes)?;
    }
    Ok(noted)
}

/// The genesis file and the checkpoint that the history has.
fn begin<S: Source + ?Sized>(source: &S) -> Result<(Vec<u8>, NotedCheckpoint), TilesError> {
    if let Some(defect) = source.defect() {
        return Err(SourceError::Malformed(defect.clone()).into());
    }
    let genesis = source.genesis()?;
    let origin = origin(&Genesis::parse(&genesis)?);
    // The notes come before the leaves: the history of a running replica grows meanwhile.
    let noted = best(source, &origin)?.ok_or(TilesError::NoCheckpoint)?;
    Ok((genesis, noted))
}

fn check_earlier(earlier: &Checkpoint, now: &Checkpoint) -> Result<(), TilesError> {
    if earlier.origin() != now.origin() {
        let (expected, found) = (now.origin().to_owned(), earlier.origin().to_owned());
        return Err(TilesError::OtherLog { expected, found });
    }
    if earlier.size() > now.size() {
        return Err(TilesError::Shorter { earlier: earlier.size(), size: now.size() });
    }
    Ok(())
}

fn check_continues(earlier: &Checkpoint, found: Digest) -> Result<(), TilesError> {
    if *earlier.root() == found {
        return Ok(());
    }
    Err(TilesError::Fork { size: earlier.size(), earlier: *earlier.root(), found })
}

fn check_root(checkpoint: &Checkpoint, builder: &TileBuilder) -> Result<(), TilesError> {
    let (size, found) = (checkpoint.size(), builder.size());
    if found < size {
        return Err(TilesError::Missing { size, found });
    }
    let (expected, found) = (*checkpoint.root(), builder.root());
    if expected == found { Ok(()) } else { Err(TilesError::Root { size, expected, found }) }
}
