//! Finding what a disk has done to files that were whole when they were taken in.
//!
//! Files are sent as they lie on the disk, without being hashed once more: the receiver verifies each chunk anyway. So it is
//! receivers who notice damage, and a file that one of them complains of is read again here.

use std::{collections::BTreeMap, fs, io, time::Duration};

use fedledger_ledger::Digest;
use tokio::time::Instant;

use super::{BlobStore, Marks, store::blocking};

/// How long a file that was found whole is taken to be so, whoever doubts it: a peer that lies costs one reading in this
/// time.
const VERIFIED_FOR: Duration = Duration::from_secs(60);

/// Files that were found whole, and when.
#[derive(Debug, Default)]
pub(super) struct Verified(BTreeMap<Digest, Instant>);

impl Verified {
    fn is_recent(&mut self, digest: &Digest) -> bool {
        self.0.retain(|_, at| at.elapsed() < VERIFIED_FOR);
        self.0.contains_key(digest)
    }
}

impl BlobStore {
    /// Whether a file is there and whole, now that a peer, or a failure to read it, speaks against it. Marks that are not
    /// the file's are made again, and a file that is damaged is removed, so that it is obtained anew. What was found whole
    /// a moment ago is not read again.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub async fn verify(&self, digest: &Digest) -> io::Result<bool> {
        let mut verified = self.verified.lock().await;
        if verified.is_recent(digest) {
            return Ok(self.has(digest));
        }
        let (store, name) = (self.clone(), *digest);
        let is_whole = blocking(move || store.verify_blocking(&name)).await?;
        if is_whole {
            verified.0.insert(*digest, Instant::now());
        }
        Ok(is_whole)
    }

    fn verify_blocking(&self, digest: &Digest) -> io::Result<bool> {
        let Some(file) = self.open_file(digest)? else { return Ok(false) };
        let size = file.metadata()?.len();
        let Some(marks) = self.marks_if_whole(digest, file)? else { return Ok(false) };
        if marks.len() > 1 && self.read_marks(digest, size).as_ref() != Some(&marks) {
            tracing::warn!(%digest, "the marks of a file were damaged on this disk, or missing: they were made again");
            self.write_marks(digest, &marks);
        }
        Ok(true)
    }

    /// The marks of a file as it is; `None` if it is not what its name says, after which it is removed.
    pub(super) fn marks_if_whole(&self, digest: &Digest, file: fs::File) -> io::Result<Option<Marks>> {
        let (marks, found, _) = Marks::of(file)?;
        if found != *digest {
            tracing::error!(%digest, "a file was damaged on this disk: it is removed");
            self.discard(digest)?;
            return Ok(None);
        }
        Ok(Some(marks))
    }
}
