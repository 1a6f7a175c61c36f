//! Finding files that are of no use any more, and removing them one by one.

use std::{collections::BTreeSet, fs, io, sync::PoisonError};

use fedledger_ledger::Digest;

use super::{BlobStore, INCOMING_FOLDER};

impl BlobStore {
    /// The whole files that are here, with their sizes in bytes. Blocks.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn files(&self) -> io::Result<Vec<(Digest, u64)>> {
        let mut files = Vec::new();
        for folder in fs::read_dir(&*self.folder)?.filter_map(Result::ok) {
            if folder.file_name() == INCOMING_FOLDER || !folder.file_type()?.is_dir() {
                continue;
            }
            let first = folder.file_name().to_string_lossy().into_owned();
            for file in fs::read_dir(folder.path())?.filter_map(Result::ok) {
                // The marks of a file are no digest.
                let digest = format!("{first}{}", file.file_name().to_string_lossy()).parse::<Digest>();
                if let (Ok(digest), Ok(metadata)) = (digest, file.metadata()) {
                    files.push((digest, metadata.len()));
                }
            }
        }
        Ok(files)
    }

    /// The files of which a beginning is here that no transfer writes. Blocks.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn beginnings(&self) -> io::Result<BTreeSet<Digest>> {
        self.partials.left()
    }

    /// Removes a file unless it is needed, and says whether it was removed. Whoever says that he needs a file before it gets
    /// its name keeps it: nothing gets a name between the question and the removal. Blocks.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn discard_unless(&self, digest: &Digest, is_needed: impl FnOnce() -> bool) -> io::Result<bool> {
        let _alone = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if is_needed() || !self.has(digest) {
            return Ok(false);
        }
        self.discard(digest).map(|()| true)
    }

    /// Removes the beginnings of files that are not to be kept, transfers under way aside. Blocks.
    ///
    /// # Errors
    ///
    /// The first failure; the rest is removed next time.
    pub fn keep_beginnings(&self, kept: impl Fn(&Digest) -> bool) -> io::Result<()> {
        self.partials.keep_only(kept)
    }
}
