//! One file that is on its way in.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use fedledger_ledger::Digest;
use tokio_util::sync::CancellationToken;

use super::{
    BlobSink, Marks, Progress,
    partials::Claim,
    store::{read_chunk, unless_absent},
};
use crate::wire::CHUNK_BYTES;

/// The beginning of a file, while one transfer adds to it. What was verified stays when it is dropped.
#[derive(Debug)]
pub struct Partial {
    claim: Claim,
    /// Opened with the first chunk, so that asking peers who do not have the file costs nothing.
    file: Option<File>,
    progress: Progress,
}

impl Partial {
    pub(super) fn open(mut claim: Claim, size: u64) -> io::Result<Self> {
        // At least the last chunk is always received, so that every transfer ends in the same way.
        let useful = size.saturating_sub(1) / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
        let left = claim.left.take();
        let Some(mut file) = unless_absent(File::options().read(true).write(true).open(claim.path()))? else {
            return Ok(Self { claim, file: None, progress: Progress::default() });
        };
        let length = file.metadata()?.len();
        let progress = match left {
            Some(progress) if progress.bytes() <= useful.min(length) => progress,
            _ => verified_part(&mut file, useful)?,
        };
        file.set_len(progress.bytes())?;
        file.seek(SeekFrom::Start(progress.bytes()))?;
        Ok(Self { claim, file: Some(file), progress })
    }

    /// The digest of the whole file.
    pub const fn digest(&self) -> &Digest {
        self.claim.digest()
    }

    /// How many bytes of it are here.
    pub const fn bytes(&self) -> u64 {
        self.progress.bytes()
    }

    /// Cancelled when another transfer of the file takes over; this one is to be dropped then.
    pub fn interrupted(&self) -> CancellationToken {
        self.claim.stop().clone()
    }

    /// Puts what is here of the file aside, and takes up what was put aside before, if anything was: a peer says that its
    /// file begins otherwise. One of the two beginnings is right, and who has the file will complete it; what a liar says
    /// costs nothing that another exchange does not bring back.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn exchange(mut self) -> io::Result<()> {
        self.file = None;
        self.progress = Progress::default();
        let (path, aside) = (self.claim.path(), self.claim.path_aside());
        let between = path.with_extension("exchanged");
        for (from, to) in [(&path, &between), (&aside, &path), (&between, &aside)] {
            unless_absent(fs::rename(from, to))?;
        }
        Ok(())
    }

    /// Makes the complete file durable and lets `place` move it. An empty file has nothing to be moved.
    pub(super) fn complete(
        mut self,
        place: impl FnOnce(&Digest, Option<&Path>) -> io::Result<()>,
    ) -> io::Result<(Digest, Marks)> {
        let digest = *self.claim.digest();
        if self.progress.digest() != digest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is not complete"));
        }
        match &self.file {
            Some(file) => {
                file.sync_all()?;
                place(&digest, Some(&self.claim.path()))?;
            }
            None => place(&digest, None)?,
        }
        self.file = None;
        // A failure leaves it to the next start.
        fs::remove_file(self.claim.path_aside()).ok();
        Ok((digest, std::mem::take(&mut self.progress).into_marks()))
    }

    fn opened(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                self.claim.make_room()?;
                Ok(none.insert(File::options().write(true).create(true).truncate(true).open(self.claim.path())?))
            }
        }
    }
}

impl BlobSink for Partial {
    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.opened()?.write_all(chunk)
    }

    fn clear(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0)).map(drop)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.progress.bytes() > 0 {
            self.claim.left = Some(std::mem::take(&mut self.progress));
        } else if self.file.is_some() {
            // An empty beginning is of no use; a failure leaves it to the next start.
            fs::remove_file(self.claim.path()).ok();
        }
    }
}

/// The progress that lies in the whole chunks of a file, up to `useful` bytes.
fn verified_part(file: &mut File, useful: u64) -> io::Result<Progress> {
    let mut progress = Progress::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    while progress.bytes() < useful && read_chunk(file, &mut chunk)? == CHUNK_BYTES {
        progress.take(progress.step(&chunk));
    }
    Ok(progress)
}
