//! The folder with what was found: one file per finding, whole or not there, and never more than there is room for.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use fedledger_ledger::{
    Digest, PublicKey,
    evidence::{EVIDENCE_SIZE_BYTES_MAX, Evidence},
    note::{NOTE_SIZE_BYTES_MAX, SignedNote},
};

/// Evidence that is kept against one key, and contradicting heads signed with it: whoever signs two histories can sign many,
/// and is convicted by one.
pub const EVIDENCE_PER_KEY_MAX: usize = 4;

/// Files that are kept in all.
const FILES_MAX: usize = 1024;

/// Bytes of a key that stand in the names of files: nobody finds another key that begins with them.
const KEY_BYTES_IN_NAMES: usize = 8;

const EVIDENCE_PREFIX: &str = "equivocation-";
const EVIDENCE_SUFFIX: &str = ".evidence";
const CONTRADICTION_PREFIX: &str = "contradiction-";
const CONTRADICTION_SUFFIX: &str = ".note";
const UNFINISHED_SUFFIX: &str = ".unfinished";

/// Evidence on the disk.
#[derive(Debug, Clone)]
pub struct StoredEvidence {
    /// Name of the file.
    pub name: String,
    /// What it holds.
    pub evidence: Evidence,
}

/// A head on the disk that contradicts the log.
#[derive(Debug, Clone)]
pub struct StoredNote {
    /// Name of the file.
    pub name: String,
    /// What it holds.
    pub note: SignedNote,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Keeps evidence against a key: where, or nothing if it is there already.
    pub fn keep_evidence(&self, bytes: &[u8], key: &PublicKey) -> io::Result<Option<PathBuf>> {
        let prefix = prefix(EVIDENCE_PREFIX, key);
        self.keep_one_of(&prefix, &format!("{prefix}{}{EVIDENCE_SUFFIX}", Digest::of(bytes)), bytes)
    }

    /// Keeps a contradicting head signed with a key: where, or nothing if it is there already.
    pub fn keep_contradiction(&self, note: &str, key: &PublicKey) -> io::Result<Option<PathBuf>> {
        self.keep_one_of(&prefix(CONTRADICTION_PREFIX, key), &contradiction_name(note, key), note.as_bytes())
    }

    /// Keeps a file: where, or nothing if it is there already.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<Option<PathBuf>> {
        self.keep_one_of(name, name, bytes)
    }

    /// Keeps a file unless there are [`EVIDENCE_PER_KEY_MAX`] whose names begin with `prefix`.
    fn keep_one_of(&self, prefix: &str, name: &str, bytes: &[u8]) -> io::Result<Option<PathBuf>> {
        let path = self.0.join(name);
        if path.exists() {
            return Ok(None);
        }
        fs::create_dir_all(&self.0)?;
        let names = self.names()?;
        if names.iter().filter(|name| name.starts_with(prefix)).count() >= EVIDENCE_PER_KEY_MAX {
            return Err(full(&format!("there are {EVIDENCE_PER_KEY_MAX} files {prefix}* already")));
        }
        if names.len() >= FILES_MAX {
            return Err(full(&format!("the folder holds {FILES_MAX} files already")));
        }
        // Whole or not at all: half a file would be taken for one that is kept already.
        let unfinished = self.0.join(format!("{name}{UNFINISHED_SUFFIX}"));
        let mut written = File::create(&unfinished)?;
        written.write_all(bytes)?;
        written.sync_all()?;
        fs::rename(unfinished, &path)?;
        self.sync_names()?;
        Ok(Some(path))
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.0.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, name, "a file that is no longer needed cannot be removed");
        }
    }

    /// The evidence in the folder; what is none is left out.
    pub fn evidence(&self) -> Vec<StoredEvidence> {
        let read = |name: String| {
            let bytes = read_bounded(&self.0.join(&name), EVIDENCE_SIZE_BYTES_MAX)?;
            let evidence = Evidence::from_bytes(&bytes).map_err(io::Error::other)?;
            Ok(StoredEvidence { name, evidence })
        };
        self.read_all(EVIDENCE_PREFIX, EVIDENCE_SUFFIX, read)
    }

    /// The contradicting heads in the folder; what is none is left out.
    pub fn contradictions(&self) -> Vec<StoredNote> {
        let read = |name: String| {
            let bytes = read_bounded(&self.0.join(&name), NOTE_SIZE_BYTES_MAX)?;
            let text = String::from_utf8(bytes).map_err(io::Error::other)?;
            let note = SignedNote::parse(&text).map_err(io::Error::other)?;
            Ok(StoredNote { name, note })
        };
        self.read_all(CONTRADICTION_PREFIX, CONTRADICTION_SUFFIX, read)
    }

    fn read_all<T>(&self, prefix: &str, suffix: &str, read: impl Fn(String) -> io::Result<T>) -> Vec<T> {
        let names = self.names().unwrap_or_else(|error| {
            tracing::error!(%error, folder = %self.0.display(), "the kept findings cannot be listed");
            Vec::new()
        });
        let wanted = names.into_iter().filter(|name| name.starts_with(prefix) && name.ends_with(suffix));
        let tried = wanted.take(FILES_MAX).filter_map(|name| {
            let found = read(name.clone());
            if let Err(error) = &found {
                tracing::error!(%error, name, "a file among the kept findings is damaged");
            }
            found.ok()
        });
        tried.collect()
    }

    /// Names of the files in order; none without a folder.
    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(UNFINISHED_SUFFIX) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the names in the folder durable, and that of the folder.
    fn sync_names(&self) -> io::Result<()> {
        if cfg!(unix) {
            File::open(&self.0)?.sync_all()?;
            if let Some(parent) = self.0.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(())
    }
}

/// The name of the file of a contradicting head signed with a key.
pub(super) fn contradiction_name(note: &str, key: &PublicKey) -> String {
    format!("{}{}{CONTRADICTION_SUFFIX}", prefix(CONTRADICTION_PREFIX, key), Digest::of(note.as_bytes()))
}

/// What the names of the files against a key begin with.
fn prefix(what: &str, key: &PublicKey) -> String {
    let digits: String = key.to_string().chars().take(2 * KEY_BYTES_IN_NAMES).collect();
    format!("{what}{digits}-")
}

fn full(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, why)
}

fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if read > bytes_max { Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large")) } else { Ok(bytes) }
}
