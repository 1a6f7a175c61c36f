//! The blob store: files named by their SHA-256, in a local folder.
//!
//! A file appears under its name only when it is complete, verified and durable, so whatever is found under a name can be
//! used. Files that were being written when the process died are swept away at the next start.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use fedledger_ledger::Digest;
use tempfile::{NamedTempFile, TempPath};
use tokio::sync::watch;

/// Folder within the store for files that are being written.
const INCOMING: &str = "incoming";

/// A folder of files named by their SHA-256: `<first two digits>/<other digits>`.
#[derive(Debug, Clone)]
pub struct BlobStore {
    folder: Arc<PathBuf>,
    /// Counts the files that were added, so that whoever waits for one looks again.
    added: watch::Sender<u64>,
}

/// A file on its way into the store.
#[derive(Debug)]
pub struct IncomingBlob {
    path: TempPath,
}

impl BlobStore {
    /// Opens the store in `folder`, creating it where there is none.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let incoming = folder.join(INCOMING);
        if incoming.exists() {
            fs::remove_dir_all(&incoming)?;
        }
        fs::create_dir_all(&incoming)?;
        Ok(Self { folder: Arc::new(folder.to_owned()), added: watch::Sender::new(0) })
    }

    /// Where the file of this digest is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        path_in(&self.folder, digest)
    }

    /// Whether the file is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens a file; `None` where it is not there.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open_file(&self, digest: &Digest) -> io::Result<Option<fs::File>> {
        match fs::File::open(self.path(digest)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes whenever a file was added.
    pub fn added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// A file to be written and then [kept](Self::keep).
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn incoming(&self) -> io::Result<(IncomingBlob, fs::File)> {
        let file = NamedTempFile::new_in(self.folder.join(INCOMING))?;
        let (file, path) = file.into_parts();
        Ok((IncomingBlob { path }, file))
    }

    /// Makes a written file durable under the digest, which the caller has verified.
    ///
    /// # Errors
    ///
    /// What the file system says; the file is gone then.
    pub fn keep(&self, incoming: IncomingBlob, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        let parent = path.parent().unwrap_or(&self.folder);
        if !parent.exists() {
            fs::create_dir_all(parent)?;
            fs::File::open(&*self.folder)?.sync_all()?;
        }
        fs::File::open(&incoming.path)?.sync_all()?;
        incoming.path.persist(&path).map_err(|error| error.error)?;
        fs::File::open(parent)?.sync_all()?;
        self.added.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Removes a file that turned out to be damaged, so that it is fetched anew.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn discard(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.path(digest))
    }

    /// Keeps bytes that are in memory.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let (incoming, mut file) = self.incoming()?;
            io::Write::write_all(&mut file, bytes)?;
            self.keep(incoming, &digest)?;
        }
        Ok(digest)
    }
}

/// Where the file of a digest lies in a blob folder.
pub fn path_in(folder: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    let (first, rest) = name.split_at(2);
    folder.join(first).join(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path()).unwrap();
        let digest = Digest::of(b"weights");
        let (incoming, mut file) = store.incoming().unwrap();
        io::Write::write_all(&mut file, b"weights").unwrap();
        assert!(!store.has(&digest) && store.open_file(&digest).unwrap().is_none());
        store.keep(incoming, &digest).unwrap();
        assert_eq!(fs::read(store.path(&digest)).unwrap(), b"weights");
        assert_eq!(*store.added().borrow(), 1);
    }

    #[test]
    fn what_was_being_written_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path()).unwrap();
        let (incoming, _file) = store.incoming().unwrap();
        std::mem::forget(incoming);
        drop(store);
        BlobStore::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path().join(INCOMING)).unwrap().count(), 0);
    }
}
