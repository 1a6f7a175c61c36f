//! The last head of the log that an identity has seen, kept in its directory.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    epoch::{EPOCH_CHAIN_SIZE_BYTES_MAX, EpochChain},
    evidence::Evidence,
    note::{NOTE_SIZE_BYTES_MAX, SignedNote},
};

use super::{SEEN_EPOCHS_FILE, SEEN_HEAD_FILE, error::KitError, files};

/// What the names of files with two heads that contradict each other begin with; digits of their digest follow.
const CONFLICT_PREFIX: &str = "conflicting-heads-";

/// Hexadecimal digits of the digest in the name of such a file.
const CONFLICT_DIGITS: usize = 16;

/// Files of conflicts that are kept: each is one too many already.
const CONFLICT_FILES_MAX: usize = 192;

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
        note.map(Some).ok_or_else(|| self.no_head())
    }

    /// The error of a last head that is none of this log.
    pub(crate) fn no_head(&self) -> KitError {
        KitError::SeenHead { file: self.directory.join(SEEN_HEAD_FILE) }
    }

    /// Where everything is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Remembers a note in place of the one before, at once or not at all. One about fewer entries than that is passed over:
    /// another command may have seen more meanwhile.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn remember(&self, note: &SignedNote) -> io::Result<()> {
        let size = |note: &SignedNote| Checkpoint::parse(note.text()).map_or(0, |head| head.size());
        if self.last().ok().flatten().is_some_and(|last| size(&last) > size(note)) {
            return Ok(());
        }
        self.replace(SEEN_HEAD_FILE, note.to_string().as_bytes())
    }

    /// The chain of epochs that was seen last; none if there is none or the file is damaged. Whoever reads it verifies it.
    pub fn epochs(&self) -> Option<EpochChain> {
        let bytes = files::read(&self.directory.join(SEEN_EPOCHS_FILE), EPOCH_CHAIN_SIZE_BYTES_MAX as u64).ok()?;
        EpochChain::from_bytes(&bytes).ok()
    }

    /// Remembers a chain of epochs in place of the one before, at once or not at all.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn remember_epochs(&self, chain: &EpochChain) -> io::Result<()> {
        self.replace(SEEN_EPOCHS_FILE, &chain.to_bytes())
    }

    /// Keeps two notes that contradict each other as files, and the evidence against whoever has signed both; the files.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn keep_conflict(
        &self,
        known: &SignedNote,
        served: &SignedNote,
        evidence: Option<&Evidence>,
    ) -> io::Result<Vec<PathBuf>> {
        let (known, served) = (known.to_string(), served.to_string());
        let digest = Digest::of_parts(&[known.as_bytes(), served.as_bytes()]).to_string();
        let digest = digest.get(..CONFLICT_DIGITS).unwrap_or(&digest).to_owned();
        let named = |end: &str| self.directory.join(format!("{CONFLICT_PREFIX}{digest}{end}"));
        let mut contents =
            vec![(named("-known.note"), known.into_bytes()), (named("-served.note"), served.into_bytes())];
        contents.extend(evidence.map(|evidence| (named(".evidence"), evidence.to_bytes())));
        let is_conflict = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(CONFLICT_PREFIX);
        let kept = fs::read_dir(&self.directory)?.filter_map(Result::ok).filter(is_conflict).count();
        let new = contents.iter().filter(|(file, _)| !file.exists()).count();
        if kept.saturating_add(new) > CONFLICT_FILES_MAX {
            return Err(io::Error::other(format!("there are {kept} such files already")));
        }
        for (file, content) in contents.iter().filter(|(file, _)| !file.exists()) {
            fs::write(file, content)?;
        }
        Ok(contents.into_iter().map(|(file, _)| file).collect())
    }

    /// Writes a file in place of the one before, at once or not at all.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        // Commands and clients may run at the same time; each writes a file of its own.
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let written = self.directory.join(format!("{name}.{}-{number}.tmp", std::process::id()));
        let write = || {
            let mut file = File::create(&written)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&written, self.directory.join(name))
        };
        write().inspect_err(|_| drop(fs::remove_file(&written)))
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
    fn an_older_head_does_not_take_the_place_of_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenHeads::of(folder.path());
        let head = |size| note(&Checkpoint::new("heart", size, Digest::of(b"root")).unwrap().to_note_text());
        for (size, kept) in [(7, 7), (5, 7), (9, 9)] {
            seen.remember(&head(size)).unwrap();
            assert_eq!(seen.last().unwrap(), Some(head(kept)));
        }
    }

    #[test]
    fn a_chain_of_epochs_is_remembered_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenHeads::of(folder.path());
        assert_eq!(seen.epochs(), None);
        seen.remember_epochs(&EpochChain::default()).unwrap();
        assert_eq!(seen.epochs(), Some(EpochChain::default()));
        fs::write(folder.path().join(SEEN_EPOCHS_FILE), "no chain").unwrap();
        assert_eq!(seen.epochs(), None);
    }

    #[test]
    fn both_notes_of_a_conflict_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenHeads::of(folder.path());
        let (known, served) = (note("one\n"), note("two\n"));
        let files = seen.keep_conflict(&known, &served, None).unwrap();
        assert_eq!(seen.keep_conflict(&known, &served, None).unwrap(), files);
        let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(texts, [known.to_string(), served.to_string()]);
        for number in 1..CONFLICT_FILES_MAX / 2 {
            seen.keep_conflict(&known, &note(&format!("{number}\n")), None).unwrap();
        }
        assert!(seen.keep_conflict(&served, &known, None).is_err(), "the disk would be filled");
    }
}
