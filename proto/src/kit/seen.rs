//! The last head of the log that an identity has seen, kept in its directory.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fedledger_ledger::{
    Digest,
    note::{NOTE_SIZE_BYTES_MAX, SignedNote},
};

use super::{SEEN_HEAD_FILE, error::KitError, files};

/// What the names of files with two heads that contradict each other begin with; digits of their digest follow.
const CONFLICT_PREFIX: &str = "conflicting-heads-";

/// Hexadecimal digits of the digest in the name of such a file.
const CONFLICT_DIGITS: usize = 16;

/// Files of conflicts that are kept: each is one too many already.
const CONFLICTS_MAX: usize = 64;

/// Remembers heads in a directory.
#[derive(Debug, Clone)]
pub struct SeenHeads {
    directory: PathBuf,
}

impl SeenHeads {
    /// Those of the identity in `directory`.
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The note that was seen last, if any was.
    ///
    /// # Errors
    ///
    /// [`KitError`] for a file that cannot be read or holds no note.
    pub fn last(&self) -> Result<Option<SignedNote>, KitError> {
        let file = self.directory.join(SEEN_HEAD_FILE);
        let bytes = match files::read(&file, NOTE_SIZE_BYTES_MAX as u64) {
            Err(KitError::Missing { .. }) => return Ok(None),
            read => read?,
        };
        let note = std::str::from_utf8(&bytes).ok().and_then(|text| SignedNote::parse(text).ok());
        note.map(Some).ok_or(KitError::SeenHead { file })
    }

    /// Remembers a note in place of the one before, at once or not at all.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn remember(&self, note: &SignedNote) -> io::Result<()> {
        // Commands may run at the same time; each writes a file of its own.
        let written = self.directory.join(format!("{SEEN_HEAD_FILE}.{}.tmp", std::process::id()));
        let write = || {
            let mut file = File::create(&written)?;
            file.write_all(note.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&written, self.directory.join(SEEN_HEAD_FILE))
        };
        write().inspect_err(|_| drop(fs::remove_file(&written)))
    }

    /// Keeps two notes that contradict each other in a file, as evidence for the other members.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn keep_conflict(&self, known: &SignedNote, served: &SignedNote) -> io::Result<PathBuf> {
        let text = format!("{known}\n{served}");
        let digest = Digest::of(text.as_bytes()).to_string();
        let name = digest.get(..CONFLICT_DIGITS).unwrap_or(&digest);
        let file = self.directory.join(format!("{CONFLICT_PREFIX}{name}.txt"));
        if file.exists() {
            return Ok(file);
        }
        let is_conflict = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(CONFLICT_PREFIX);
        let kept = fs::read_dir(&self.directory)?.filter_map(Result::ok).filter(is_conflict).count();
        if kept >= CONFLICTS_MAX {
            return Err(io::Error::other(format!("there are {CONFLICTS_MAX} such files already")));
        }
        fs::write(&file, text)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::{SecretKey, note::sign_note};

    use super::*;

    fn note(text: &str) -> SignedNote {
        sign_note(text, "heart", &SecretKey::from_seed([1; 32])).unwrap()
    }

    #[test]
    fn the_last_note_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenHeads::of(folder.path());
        assert_eq!(seen.last().unwrap(), None);
        for text in ["one\n", "two\n"] {
            seen.remember(&note(text)).unwrap();
            assert_eq!(seen.last().unwrap(), Some(note(text)));
        }
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["checkpoint"], "nothing else is left behind");
        assert!(SeenHeads::of(&folder.path().join("gone")).remember(&note("one\n")).is_err());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("checkpoint"), "no note").unwrap();
        let error = SeenHeads::of(folder.path()).last().unwrap_err();
        assert!(matches!(error, KitError::SeenHead { .. }) && error.to_string().contains("checkpoint"), "{error}");
    }

    #[test]
    fn both_notes_of_a_conflict_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenHeads::of(folder.path());
        let (known, served) = (note("one\n"), note("two\n"));
        let file = seen.keep_conflict(&known, &served).unwrap();
        assert_eq!(seen.keep_conflict(&known, &served).unwrap(), file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(&known.to_string()) && text.contains(&served.to_string()));
        for number in 1..CONFLICTS_MAX {
            seen.keep_conflict(&known, &note(&format!("{number}\n"))).unwrap();
        }
        assert!(seen.keep_conflict(&served, &known).is_err(), "the disk would be filled");
    }
}
