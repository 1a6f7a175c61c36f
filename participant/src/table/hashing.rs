//! Digests of files: of what is read from beginning to end while it is understood, and of other files before and after.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
};

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Hashes whatever passes through, so that the digest covers the bytes that were understood and no others.
pub(super) struct HashingReader<R> {
    source: R,
    hasher: Sha256,
}

impl<R: Read> HashingReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, hasher: Sha256::new() }
    }

    /// SHA-256 of what was read.
    pub(super) fn digest(self) -> Digest {
        Digest::from_bytes(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// A file that is read in any order, with the digest that it had before.
pub(super) struct HashedFile {
    file: File,
    digest: Digest,
    limit: u64,
}

impl HashedFile {
    /// Hashes a whole file of at most `limit` bytes; none for a larger one.
    pub(super) fn of(mut file: File, limit: u64) -> io::Result<Option<Self>> {
        let digest = digest_of(&mut file, limit)?;
        Ok(digest.map(|digest| Self { file, digest, limit }))
    }

    /// The digest that the file had.
    pub(super) const fn digest(&self) -> Digest {
        self.digest
    }

    /// The file at its beginning, to be read before it is asked whether it is [`unchanged`](Self::unchanged).
    pub(super) fn reader(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Hashes the file again, after it was read: the digest of what was read, or none if somebody wrote to the file meanwhile.
    pub(super) fn unchanged(&mut self) -> io::Result<Option<Digest>> {
        Ok(digest_of(&mut self.file, self.limit)?.filter(|digest| *digest == self.digest))
    }
}

/// SHA-256 of a whole file of at most `limit` bytes, which stands at its beginning again afterwards; none for a larger one.
pub(super) fn digest_of(file: &mut File, limit: u64) -> io::Result<Option<Digest>> {
    digest_while(file, limit, &|| true)
}

/// The same, as long as `goes_on` says that it is still wanted; [`io::ErrorKind::Interrupted`] if it is not.
pub(super) fn digest_while(file: &mut File, limit: u64, goes_on: &dyn Fn() -> bool) -> io::Result<Option<Digest>> {
    if file.metadata()?.len() > limit {
        return Ok(None);
    }
    file.rewind()?;
    let mut reader = HashingReader::new(&mut *file);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if !goes_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let digest = reader.digest();
    file.rewind()?;
    Ok(Some(digest))
}
