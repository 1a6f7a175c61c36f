//! A history in the static resources of C2SP tlog-tiles (<https://c2sp.org/tlog-tiles>): a checkpoint, tiles and entry
//! bundles.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Read},
};

use fedledger_ledger::{
    Digest,
    merkle::leaf_hash,
    tiles::{Content, Tile, TileBuilder, TileError, TreeError, read_entry_bundle, read_hash_tile, root_from_tiles},
};

use super::{EncodedNote, Leaves, NotedCheckpoint, Source, SourceError};
use crate::verify::{Problem, ProblemKind};

/// The name of the file with the checkpoint.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// Tiles and a checkpoint as a [`Source`]. Tiles are read when they are asked for, one of each level at a time.
///
/// The hashes are compared with the root of the checkpoint when the source is made, and each entry with its hash when it is
/// read. Partial tiles of earlier checkpoints are none of this history, and are not read.
pub struct TileSource<F> {
    fetch: F,
    /// The checkpoint, if it is one.
    noted: Option<NotedCheckpoint>,
    /// Notes about earlier heads, from elsewhere.
    earlier: Vec<String>,
    problems: Vec<Problem>,
    /// Whether every tile of hashes is the right one if the checkpoint is.
    hashes_hold: bool,
}

/// Why a tile cannot be used.
enum FetchError {
    /// Reading it failed.
    Io(io::Error),
    /// There is none.
    Missing,
}

/// Entries of one bundle, and what is wrong with the one behind them.
#[derive(Default)]
struct Entries {
    entries: VecDeque<Vec<u8>>,
    failure: Option<SourceError>,
}

impl<F> fmt::Debug for TileSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TileSource({} entries, {} problems)", self.size(), self.problems.len())
    }
}

impl<F> TileSource<F> {
    /// Entries that the checkpoint covers.
    fn size(&self) -> u64 {
        self.noted.as_ref().map_or(0, |noted| noted.checkpoint.size())
    }
}

impl<F: Fn(&Tile) -> io::Result<Option<Vec<u8>>>> TileSource<F> {
    /// The history under a checkpoint, `None` if there is none, and the tiles that `fetch` gives. `fetch` must not give more
    /// bytes than one more than a tile or entry bundle can have.
    ///
    /// # Errors
    ///
    /// Only those of `fetch`: damaged and missing tiles are a source, too, whose [problems](Source::problems) name them.
    pub fn new(checkpoint: Option<&str>, fetch: F) -> io::Result<Self> {
        let noted = checkpoint.and_then(NotedCheckpoint::read);
        let mut source = Self { fetch, noted, earlier: Vec::new(), problems: Vec::new(), hashes_hold: false };
        match (checkpoint, &source.noted) {
            (None, _) => source.add(ProblemKind::Missing, "there is no checkpoint".to_owned(), CHECKPOINT_FILE),
            (Some(_), None) => {
                source.add(ProblemKind::Malformed, "this is no signed checkpoint".to_owned(), CHECKPOINT_FILE);
            }
            (Some(_), Some(_)) => source.check_hashes()?,
        }
        Ok(source)
    }

    /// The same history, with notes about earlier heads: those by which a chain of epochs vouches for its links, say. They
    /// are judged with the checkpoint.
    #[must_use]
    pub fn with_earlier_notes(self, notes: impl IntoIterator<Item = String>) -> Self {
        Self { earlier: notes.into_iter().collect(), ..self }
    }

    fn add(&mut self, kind: ProblemKind, detail: String, file: &str) {
        self.problems.push(Problem::new(kind, detail).in_file(file));
    }

    fn read(&self, tile: &Tile) -> Result<Vec<u8>, FetchError> {
        (self.fetch)(tile).map_err(FetchError::Io)?.ok_or(FetchError::Missing)
    }

    /// Compares every tile of hashes with the root of the checkpoint.
    fn check_hashes(&mut self) -> io::Result<()> {
        let Some(noted) = &self.noted else { return Ok(()) };
        let (size, expected) = (noted.checkpoint.size(), *noted.checkpoint.root());
        let problem = match root_from_tiles(size, |tile| self.read(tile)) {
            Ok(root) if root == expected => {
                self.hashes_hold = true;
                return Ok(());
            }
            Ok(found) => {
                let detail =
                    format!("it signs the root {expected} of {size} entries, the tiles of hashes lead to {found}");
                Problem::new(ProblemKind::Root, detail).in_file(CHECKPOINT_FILE)
            }
            Err(TreeError::Fetch { error: FetchError::Io(error), .. }) => return Err(error),
            Err(TreeError::Fetch { tile, error: FetchError::Missing }) => missing(&tile),
            Err(TreeError::Tile(error)) => {
                let file = file_of(&error).unwrap_or_else(|| "tile".to_owned());
                Problem::new(ProblemKind::Malformed, error.to_string()).in_file(&file)
            }
        };
        // The entries may tell better which tile is the wrong one.
        let named = self.compare_with_entries(size, &expected)?;
        self.problems.extend(named.unwrap_or_else(|| vec![problem]));
        Ok(())
    }

    /// The tiles of hashes that are not those of the entries, if the entries are those of the checkpoint.
    fn compare_with_entries(&self, size: u64, expected: &Digest) -> io::Result<Option<Vec<Problem>>> {
        let (mut builder, mut problems) = (TileBuilder::new(), Vec::new());
        for tile in Content::Entries.tiles(size) {
            let bytes = match self.read(&tile) {
                Ok(bytes) => bytes,
                Err(FetchError::Missing) => return Ok(None),
                Err(FetchError::Io(error)) => return Err(error),
            };
            let Ok(entries) = read_entry_bundle(&tile, &bytes) else { return Ok(None) };
            for entry in entries {
                let Ok(made) = builder.append(entry) else { return Ok(None) };
                self.compare(made, &mut problems)?;
            }
        }
        self.compare(builder.partial(), &mut problems)?;
        Ok((builder.root() == *expected && !problems.is_empty()).then_some(problems))
    }

    /// Compares tiles that were made from the entries with those that are there.
    fn compare(&self, made: Vec<(Tile, Vec<u8>)>, problems: &mut Vec<Problem>) -> io::Result<()> {
        for (tile, expected) in made.into_iter().filter(|(tile, _)| tile.content() != Content::Entries) {
            if problems.len() >= crate::verify::PROBLEMS_MAX {
                return Ok(());
            }
            match self.read(&tile) {
                Ok(found) if found == expected => {}
                Ok(found) => {
                    let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
                    let detail = "it is not the tile that the entries under the checkpoint have".to_owned();
                    let problem = Problem::new(ProblemKind::Root, detail).at_byte(Some(same as u64));
                    problems.push(problem.in_file(&tile.to_string()));
                }
                Err(FetchError::Missing) => problems.push(missing(&tile)),
                Err(FetchError::Io(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// The entries of a bundle up to the first that does not have its hash, if the hashes hold.
    fn entries(&self, tile: &Tile) -> Result<Entries, SourceError> {
        let bytes = self.read_covered(tile)?;
        let entries = read_entry_bundle(tile, &bytes).map_err(|error| damaged(tile, &error))?;
        let owned = |entries: &[&[u8]]| entries.iter().map(|entry| entry.to_vec()).collect();
        if !self.hashes_hold {
            return Ok(Entries { entries: owned(&entries), failure: None });
        }
        let hashes = read_hash_tile(&tile.hashes(), &self.read_covered(&tile.hashes())?);
        let hashes = hashes.map_err(|error| damaged(tile, &error))?;
        let right = entries.iter().zip(&hashes).take_while(|(entry, hash)| leaf_hash(entry) == **hash).count();
        let failure = (right < entries.len()).then(|| {
            let index = tile.rows().start.saturating_add(right as u64);
            damaged(tile, &TileError::Entry { tile: *tile, index })
        });
        Ok(Entries { entries: owned(entries.get(..right).unwrap_or_default()), failure })
    }

    /// A tile that the checkpoint covers.
    fn read_covered(&self, tile: &Tile) -> Result<Vec<u8>, SourceError> {
        self.read(tile).map_err(|error| match error {
            FetchError::Io(error) => SourceError::Io(error),
            FetchError::Missing => {
                let (file, index) = (tile.to_string(), Some(tile.rows().start));
                SourceError::File { file, index, detail: MISSING.to_owned() }
            }
        })
    }
}

/// The error about a tile with which something is wrong.
fn damaged(tile: &Tile, error: &TileError) -> SourceError {
    let file = file_of(error).unwrap_or_else(|| tile.to_string());
    SourceError::File { file, index: index_of(error), detail: error.to_string() }
}

/// What is said of a tile that is not there.
const MISSING: &str = "the checkpoint covers it, but it is missing";

fn missing(tile: &Tile) -> Problem {
    Problem::new(ProblemKind::Missing, MISSING.to_owned()).in_file(&tile.to_string())
}

/// The file that an error is about, if it is about one.
fn file_of(error: &TileError) -> Option<String> {
    match error {
        TileError::Size { tile, .. }
        | TileError::Truncated { tile, .. }
        | TileError::TrailingBytes { tile, .. }
        | TileError::Entry { tile, .. } => Some(tile.to_string()),
        TileError::Hash { level, below } => {
            let content = Content::Hashes { level: level.saturating_sub(1) };
            Tile::at(content, *below, u64::MAX).map(|tile| tile.to_string())
        }
        TileError::Path(_)
        | TileError::Coordinates { .. }
        | TileError::EntryTooLarge { .. }
        | TileError::OtherPlace { .. } => None,
    }
}

/// The entry that an error is about, if it is about one.
const fn index_of(error: &TileError) -> Option<u64> {
    match error {
        TileError::Truncated { index, .. } | TileError::Entry { index, .. } => Some(*index),
        _ => None,
    }
}

/// The entries from the genesis file on; nothing follows the first error.
struct Walk<'a, F> {
    source: &'a TileSource<F>,
    tiles: Box<dyn Iterator<Item = Tile>>,
    current: Entries,
}

impl<F: Fn(&Tile) -> io::Result<Option<Vec<u8>>>> Iterator for Walk<'_, F> {
    type Item = Result<Vec<u8>, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.current.entries.pop_front() {
                return Some(Ok(entry));
            }
            if let Some(failure) = self.current.failure.take() {
                self.tiles = Box::new(std::iter::empty());
                return Some(Err(failure));
            }
            self.current = match self.source.entries(&self.tiles.next()?) {
                Ok(entries) => entries,
                Err(failure) => Entries { entries: VecDeque::new(), failure: Some(failure) },
            };
        }
    }
}

impl<F: Fn(&Tile) -> io::Result<Option<Vec<u8>>>> Source for TileSource<F> {
    fn genesis(&self) -> Result<Vec<u8>, SourceError> {
        let first = Content::Entries.tiles(self.size()).next().ok_or(SourceError::NoGenesis)?;
        let Entries { mut entries, failure } = self.entries(&first)?;
        entries.pop_front().ok_or_else(|| failure.unwrap_or(SourceError::NoGenesis))
    }

    fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
        let tiles = Box::new(Content::Entries.tiles(self.size()));
        Ok(Box::new(Walk { source: self, tiles, current: Entries::default() }.skip(1)))
    }

    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
        let newest = self.noted.iter().map(|noted| &noted.note);
        let notes =
            self.earlier.iter().filter(|note| !newest.clone().any(|newest| newest == *note)).chain(newest.clone());
        Ok(notes.map(|note| EncodedNote { offset: None, text: note.clone() }).collect())
    }

    fn blob(&self, _digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        Ok(None)
    }

    fn notes_file(&self) -> Option<&str> {
        Some(CHECKPOINT_FILE)
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }
}
