//! Opening a history: a replica's directory, an exported bundle or tree of tiles, or a running replica.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use fedledger_federation::{
    Federation,
    history::{
        self, BundleSource, CHECKPOINT_FILE, EncodedNote, Leaves, Scratch, SourceError, StorageSource, TileSource,
        TrustParts,
    },
    verify::Problem,
};
use fedledger_ledger::{
    Digest,
    bundle::Malformed,
    epoch::EpochChain,
    log::Log,
    note::NOTE_SIZE_BYTES_MAX,
    storage::{StorageError, rocks::RocksStorage},
    tiles::{Content, ENTRY_BUNDLE_SIZE_BYTES_MAX, HASH_TILE_SIZE_BYTES_MAX, Tile},
};
use fedledger_proto::kit::IDENTITY_FILE;

use crate::remote::RemoteSource;

/// The replica's database in its directory.
const LEDGER_DIRECTORY: &str = "ledger";

/// The replica's files in its directory.
const BLOBS_DIRECTORY: &str = "blobs";

/// The tiles in a directory with static files.
const TILE_DIRECTORY: &str = "tile";

/// Hexadecimal digits of a file's digest that name the folder in which it lies.
const BLOB_FOLDER_DIGITS: usize = 2;

/// A history.
#[derive(Debug)]
pub(crate) enum Source {
    /// A replica's directory. It may be running; what is read is what it had written when it was opened.
    Node(StorageSource<RocksStorage, OpenBlob>),
    /// An exported bundle.
    Bundle(BundleSource<OpenBundle>),
    /// Static files, as `fedledger export --tiles` writes them.
    Tiles(Box<TileSource<OpenTile>>),
    /// A running replica.
    Replica(Box<RemoteSource>),
}

/// Opens a file of a replica by its digest.
type OpenBlob = Box<dyn Fn(&Digest) -> io::Result<Option<File>>>;

/// Opens the bundle once more.
type OpenBundle = Box<dyn Fn() -> io::Result<File>>;

/// Reads a tile, and at most one byte more than one can have.
type OpenTile = Box<dyn Fn(&Tile) -> io::Result<Option<Vec<u8>>>>;

/// Why there is no history to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Nothing is there.
    #[error("there is nothing at {path}: give a replica's directory, an exported bundle or a folder of tiles")]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A directory without a ledger, such as a participant's.
    #[error("{path} holds no ledger: give a replica's directory (participants keep none), a bundle or tiles")]
    NoLedger {
        /// The path.
        path: PathBuf,
    },
    /// The database cannot be opened.
    #[error("{path}: {source}")]
    Storage {
        /// The path.
        path: PathBuf,
        /// Why.
        source: StorageError,
    },
    /// The system cannot read it.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether what is there is damaged, which is for `verify` to report, rather than not readable.
    pub(crate) const fn is_damage(&self) -> bool {
        matches!(self, Self::Storage { source: StorageError::Corrupt(_), .. })
    }
}

impl Source {
    /// Opens a replica's directory, a bundle or a folder of tiles for reading.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A damaged bundle or tree is opened; reading or verifying it tells what is wrong.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let io_error = |source: io::Error| match source.kind() {
            ErrorKind::NotFound => OpenError::NotFound { path: path.to_owned() },
            _ => OpenError::Io { path: path.to_owned(), source },
        };
        if path.metadata().map_err(io_error)?.is_dir() {
            return Self::open_directory(path);
        }
        let file = path.to_owned();
        let open: OpenBundle = Box::new(move || File::open(&file));
        BundleSource::new(open).map(Self::Bundle).map_err(io_error)
    }

    fn open_directory(path: &Path) -> Result<Self, OpenError> {
        let ledger = path.join(LEDGER_DIRECTORY);
        if !ledger.is_dir() {
            // A person's directory holds a checkpoint, too: the last one that was seen.
            let is_tree = path.join(TILE_DIRECTORY).is_dir() || path.join(CHECKPOINT_FILE).is_file();
            if is_tree && !path.join(IDENTITY_FILE).exists() {
                return open_tiles(path).map_err(|source| OpenError::Io { path: path.to_owned(), source });
            }
            return Err(OpenError::NoLedger { path: path.to_owned() });
        }
        let storage = RocksStorage::open_read_only(&ledger);
        let storage = storage.map_err(|source| OpenError::Storage { path: path.to_owned(), source })?;
        let blobs = path.join(BLOBS_DIRECTORY);
        let open: OpenBlob = Box::new(move |digest| open_blob(&blobs, digest));
        Ok(Self::Node(StorageSource::new(storage, open)))
    }

    /// The same history with what a chain of epochs from elsewhere shows of it: tiles come with their last checkpoint only,
    /// which does not show how later epochs follow from the first.
    pub(crate) fn with_chain(self, chain: &EpochChain) -> Self {
        match self {
            Self::Tiles(source) => {
                let notes = chain.links().iter().map(|link| link.receipt.checkpoint().to_string());
                Self::Tiles(Box::new(source.with_earlier_notes(notes)))
            }
            source => source,
        }
    }

    fn get(&self) -> &dyn history::Source {
        match self {
            Self::Node(source) => source,
            Self::Bundle(source) => source,
            Self::Tiles(source) => &**source,
            Self::Replica(source) => &**source,
        }
    }
}

/// A checkpoint and tiles below `root`.
fn open_tiles(root: &Path) -> io::Result<Source> {
    let checkpoint = read_bounded(&root.join(CHECKPOINT_FILE), NOTE_SIZE_BYTES_MAX)?;
    // What is no text is no checkpoint.
    let checkpoint = checkpoint.map(|bytes| String::from_utf8(bytes).unwrap_or_default());
    let root = root.to_owned();
    let fetch: OpenTile = Box::new(move |tile| {
        let limit = match tile.content() {
            Content::Hashes { .. } => HASH_TILE_SIZE_BYTES_MAX,
            Content::Entries => ENTRY_BUNDLE_SIZE_BYTES_MAX,
        };
        read_bounded(&root.join(tile.to_string()), limit)
    });
    Ok(Source::Tiles(Box::new(TileSource::new(checkpoint.as_deref(), fetch)?)))
}

/// The bytes of a file, and no more than one above `limit`; `None` if there is no file.
fn read_bounded(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(bytes))
}

/// The file of a digest below `blobs`, if it is there.
fn open_blob(blobs: &Path, digest: &Digest) -> io::Result<Option<File>> {
    let name = digest.to_string();
    let (folder, rest) = name.split_at(BLOB_FOLDER_DIGITS);
    match File::open(blobs.join(folder).join(rest)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl history::Source for Source {
    fn genesis(&self) -> Result<Vec<u8>, SourceError> {
        self.get().genesis()
    }

    fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
        self.get().leaves()
    }

    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
        self.get().notes()
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        self.get().blob(digest)
    }

    fn listed_blobs(&self) -> Option<BTreeMap<Digest, u64>> {
        self.get().listed_blobs()
    }

    fn trust_parts(&self) -> Option<TrustParts> {
        self.get().trust_parts()
    }

    fn defect(&self) -> Option<&Malformed> {
        self.get().defect()
    }

    fn notes_file(&self) -> Option<&str> {
        self.get().notes_file()
    }

    fn problems(&self) -> &[Problem] {
        self.get().problems()
    }

    fn is_at_rest(&self) -> bool {
        self.get().is_at_rest()
    }

    fn check_records(&self, log: &Log<Federation>) -> Result<Vec<Problem>, SourceError> {
        self.get().check_records(log)
    }

    /// A file without a name in the folder for temporary files.
    fn scratch(&self) -> Result<Box<dyn Scratch>, SourceError> {
        Ok(Box::new(tempfile::tempfile()?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fedledger_federation::history::Source as _;
    use fedledger_ledger::storage::{Batch, Column, LogStorage as _};

    use super::*;

    #[test]
    fn a_replica_is_read_from_its_database_and_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let storage = RocksStorage::open(&directory.path().join(LEDGER_DIRECTORY)).unwrap();
        let mut batch = Batch::default();
        batch.put(Column::Leaf, 0_u64.to_be_bytes(), b"genesis".as_slice());
        batch.put(Column::Leaf, 1_u64.to_be_bytes(), b"first".as_slice());
        storage.write(&batch, true).unwrap();
        drop(storage);
        let digest = Digest::of(b"weights");
        let name = digest.to_string();
        let folder = directory.path().join(BLOBS_DIRECTORY).join(&name[..2]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(&name[2..]), b"weights").unwrap();

        let source = Source::open(directory.path()).unwrap();
        assert_eq!(source.genesis().unwrap(), b"genesis");
        assert_eq!(source.leaves().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), [b"first".to_vec()]);
        let mut content = Vec::new();
        source.blob(&digest).unwrap().unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, b"weights");
        assert!(source.blob(&Digest::of(b"other")).unwrap().is_none());
    }

    #[test]
    fn what_is_no_history_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let error = Source::open(&directory.path().join("nothing")).unwrap_err();
        assert!(matches!(error, OpenError::NotFound { .. }), "{error}");
        let error = Source::open(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::NoLedger { .. }), "{error}");
        let file = directory.path().join("notes.txt");
        fs::write(&file, "no bundle").unwrap();
        let source = Source::open(&file).unwrap();
        assert_eq!(source.defect().map(|at| at.offset), Some(0), "a file that is no bundle passed for one");
    }
}
