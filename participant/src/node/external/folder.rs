//! The folder that a trainer works in.
//!
//! The program may leave anything there: links to other places, pipes that nobody writes to, folders in the place of files.
//! Nothing of it is followed, opened for writing or waited for.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use fedledger_federation::{
    command::FileRef,
    tensors::{FileError, HashingWriter},
};
use fedledger_ledger::Digest;

use super::task::{BASE_FILE, CONFIGURATION_FILE, RESULTS_FILE, ROWS_FILE, STATE_FOLDER, TRAINED_FILE};
use crate::table::RecordNumbers;

/// Longest record of which run a folder belongs to, in bytes.
const IDENTITY_LENGTH_MAX: u64 = 64;

/// Where a run works, and where the node remembers which run that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The program's folder.
    pub folder: PathBuf,
    /// The record of the run, out of the program's way.
    pub identity: PathBuf,
    /// What the program prints.
    pub log: PathBuf,
}

/// Why a folder cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The weights cannot be read.
    #[error("the base weights cannot be read: {0}")]
    Base(#[from] FileError),
    /// What the system says.
    #[error("the trainer's folder cannot be made ready: {0}")]
    Io(#[from] io::Error),
}

impl Places {
    /// The places in a folder of the node.
    pub fn within(folder: &Path) -> Self {
        Self { folder: folder.join("trainer"), identity: folder.join("trainer.run"), log: folder.join("trainer.log") }
    }

    /// Makes the folder ready for a run, but for the files that it is given: true if it goes on from an interrupted run of
    /// the same inputs. What that has left as its results is removed, so that old results are never taken for new ones.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn prepare(&self, run: &Digest) -> io::Result<bool> {
        let resumes = is_folder(&self.folder) && self.belongs_to(run);
        if resumes {
            for name in [BASE_FILE, CONFIGURATION_FILE, ROWS_FILE, TRAINED_FILE, RESULTS_FILE] {
                remove(&self.folder.join(name))?;
            }
            if !is_folder(&self.folder.join(STATE_FOLDER)) {
                remove(&self.folder.join(STATE_FOLDER))?;
                fs::create_dir(self.folder.join(STATE_FOLDER))?;
            }
        } else {
            self.discard()?;
            fs::create_dir_all(self.folder.join(STATE_FOLDER))?;
            fs::write(&self.identity, run.to_string())?;
        }
        Ok(resumes)
    }

    /// Removes the folder. The log stays: somebody may want to know what went wrong.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn discard(&self) -> io::Result<()> {
        remove(&self.identity)?;
        remove(&self.folder)
    }

    /// Gives the program the base weights: a copy, which is its own to spoil.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Base`] if they are damaged or gone.
    pub fn give_base(&self, path: &Path, base: FileRef) -> Result<(), PrepareError> {
        let file = base.digest;
        let mut source =
            File::open(path).map_err(|source| FileError::Io { file, source })?.take(base.size.saturating_add(1));
        let mut copy = HashingWriter::new(File::create_new(self.folder.join(BASE_FILE))?);
        io::copy(&mut source, &mut copy)?;
        let found = copy.finish()?;
        if found == base { Ok(()) } else { Err(FileError::Damaged { file, found: found.digest }.into()) }
    }

    /// Tells the program what to do.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn give_configuration(&self, text: &str) -> io::Result<()> {
        io::Write::write_all(&mut File::create_new(self.folder.join(CONFIGURATION_FILE))?, text.as_bytes())
    }

    /// Tells the program which records it trains on, and which it keeps for testing.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn give_rows(&self, records: &RecordNumbers) -> io::Result<()> {
        let mut file = BufWriter::new(File::create_new(self.folder.join(ROWS_FILE))?);
        serde_json::to_writer(&mut file, records)?;
        file.flush()
    }

    /// A file that the program has left, which must be a file and lie here.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::InvalidInput`] of what is no file.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let file = open_unfollowed(&self.folder.join(name))?;
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
        }
    }

    /// The bytes of a file that the program has left, at most `size_max` and one.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn read(&self, name: &str, size_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(name)?.take(size_max.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn belongs_to(&self, run: &Digest) -> bool {
        let mut text = String::new();
        let read = File::open(&self.identity).and_then(|file| file.take(IDENTITY_LENGTH_MAX).read_to_string(&mut text));
        read.is_ok() && text == run.to_string()
    }
}

/// Opens for reading what is no link, and does not wait for somebody to write into a pipe.
#[cfg(unix)]
fn open_unfollowed(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;

    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(not(unix))]
fn open_unfollowed(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path)?.is_file() { File::open(path) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Whether there is a folder, and no link to one.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Removes whatever is there, but nothing that a link leads to.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if is_folder(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
