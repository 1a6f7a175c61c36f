//! A directory with tiles. New files take their places only when all of them are written, the checkpoint last, so that
//! whoever serves the directory meanwhile serves a complete log at any time.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
};

use fedledger_federation::history::{CHECKPOINT_FILE, NotedCheckpoint};
use fedledger_ledger::{checkpoint::Checkpoint, note::NOTE_SIZE_BYTES_MAX, tiles::Tile};
use tempfile::TempDir;

use crate::{
    error::{Exit, Failure},
    output::written,
};

/// What the names of folders begin with in which new files wait. One is left behind only by a process that was killed.
const WAITING_PREFIX: &str = ".fedledger-export-";

/// A directory into which tiles are written.
#[derive(Debug)]
pub(super) struct TileDirectory {
    root: PathBuf,
    /// Where new files wait, named by their places in `new`.
    waiting: TempDir,
    new: Vec<Tile>,
    kept: u64,
}

/// What became of the tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// New ones.
    pub written: u64,
    /// Those that were there, with the same bytes.
    pub kept: u64,
}

impl TileDirectory {
    /// Opens a directory that is new, empty, or holds an earlier export, whose checkpoint is returned.
    pub fn open(root: &Path) -> Result<(Self, Option<Checkpoint>), Failure> {
        written(root, fs::create_dir_all(root))?;
        let earlier = earlier(root)?;
        let waiting = tempfile::Builder::new().prefix(WAITING_PREFIX).tempdir_in(root);
        let waiting = written(root, waiting)?;
        Ok((Self { root: root.to_owned(), waiting, new: Vec::new(), kept: 0 }, earlier))
    }

    /// Takes a tile. One that is there already must have the same bytes, and is left alone.
    pub fn put(&mut self, tile: &Tile, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.place(tile);
        match has_bytes(&path, bytes) {
            Ok(Some(true)) => {
                self.kept = self.kept.saturating_add(1);
                Ok(())
            }
            Ok(Some(false)) => {
                let what = format!("{} is not the tile of this ledger", path.display());
                Err(Failure::new(Exit::Mismatch, what)
                    .next("it was damaged or is of another history; keep it as evidence, and name another directory"))
            }
            Ok(None) => {
                written(&path, self.wait(&self.new.len().to_string(), bytes))?;
                self.new.push(*tile);
                Ok(())
            }
            Err(error) => Err(Failure::io("read", &path, &error)),
        }
    }

    /// Moves everything to its place, and the checkpoint last.
    pub fn finish(self, note: &str) -> Result<Counts, Failure> {
        written(&self.root, self.wait(CHECKPOINT_FILE, note.as_bytes()))?;
        for (number, tile) in self.new.iter().enumerate() {
            let path = self.place(tile);
            let folder = path.parent().unwrap_or(&self.root);
            written(folder, fs::create_dir_all(folder))?;
            written(&path, fs::rename(self.waiting.path().join(number.to_string()), &path))?;
        }
        let checkpoint = self.root.join(CHECKPOINT_FILE);
        written(&checkpoint, fs::rename(self.waiting.path().join(CHECKPOINT_FILE), &checkpoint))?;
        Ok(Counts { written: self.new.len() as u64, kept: self.kept })
    }

    fn place(&self, tile: &Tile) -> PathBuf {
        self.root.join(tile.to_string())
    }

    /// Writes a file that waits, with the rights that files of the user have.
    fn wait(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(self.waiting.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

/// The checkpoint of an earlier export; `None` for an empty directory.
fn earlier(root: &Path) -> Result<Option<Checkpoint>, Failure> {
    let names: io::Result<Vec<_>> =
        fs::read_dir(root).and_then(|entries| entries.map(|e| Ok(e?.file_name())).collect());
    let names = names.map_err(|error| Failure::io("read", root, &error))?;
    if names.iter().all(|name| name.to_string_lossy().starts_with(WAITING_PREFIX)) {
        return Ok(None);
    }
    let path = root.join(CHECKPOINT_FILE);
    let mut text = String::new();
    let limit = NOTE_SIZE_BYTES_MAX as u64;
    let read = File::open(&path).and_then(|file| file.take(limit.saturating_add(1)).read_to_string(&mut text));
    let noted = match read {
        Ok(_) => NotedCheckpoint::read(&text),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => None,
        Err(error) => return Err(Failure::io("read", &path, &error)),
    };
    let noted = noted.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("{} is not empty, and holds no earlier export of tiles", root.display()))
            .next("name another directory, or remove what an interrupted export has left in it")
    })?;
    Ok(Some(noted.checkpoint))
}

/// Whether a file has these bytes; `None` if there is none.
fn has_bytes(path: &Path, expected: &[u8]) -> io::Result<Option<bool>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // One byte more, so that a longer file is noticed.
    let mut found = Vec::with_capacity(expected.len().saturating_add(1));
    file.take((expected.len() as u64).saturating_add(1)).read_to_end(&mut found)?;
    Ok(Some(found == expected))
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::tiles::TileBuilder;

    use super::*;

    fn tiles(entries: u64) -> Vec<(Tile, Vec<u8>)> {
        let mut builder = TileBuilder::new();
        let mut made = Vec::new();
        for index in 0..entries {
            made.extend(builder.append(&index.to_be_bytes()).unwrap());
        }
        made.extend(builder.partial());
        made
    }

    #[test]
    fn nothing_is_in_its_place_before_everything_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        let (mut directory, earlier) = TileDirectory::open(&root).unwrap();
        assert!(earlier.is_none());
        for (tile, bytes) in tiles(257) {
            directory.put(&tile, &bytes).unwrap();
        }
        assert!(!root.join("tile").exists() && !root.join("checkpoint").exists());
        drop(directory);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "an export that failed left something behind");

        let (mut directory, _) = TileDirectory::open(&root).unwrap();
        let made = tiles(257);
        for (tile, bytes) in &made {
            directory.put(tile, bytes).unwrap();
        }
        let counts = directory.finish("the note").unwrap();
        assert_eq!(counts, Counts { written: made.len() as u64, kept: 0 });
        for (tile, bytes) in &made {
            assert_eq!(&fs::read(root.join(tile.to_string())).unwrap(), bytes);
        }
        assert_eq!(fs::read_to_string(root.join("checkpoint")).unwrap(), "the note");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 2, "more than checkpoint and tiles");
    }

    #[test]
    fn a_tile_that_is_there_must_be_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (mut directory, _) = TileDirectory::open(folder.path()).unwrap();
        let (tile, bytes) = tiles(3).swap_remove(0);
        let path = folder.path().join(tile.to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        directory.put(&tile, &bytes).unwrap();
        assert_eq!((directory.kept, directory.new.len()), (1, 0));
        for other in [[bytes.as_slice(), &[0]].concat(), bytes[1..].to_vec(), Vec::new()] {
            fs::write(&path, other).unwrap();
            assert!(directory.put(&tile, &bytes).is_err());
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(directory.put(&tile, &bytes).is_err(), "a folder passed for a tile");
    }
}
