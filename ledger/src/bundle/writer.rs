//! Writing a bundle, item by item.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::{BUNDLE_BLOBS_MAX, BUNDLE_MAGIC, BUNDLE_NOTES_MAX, BUNDLE_NOTES_SIZE_BYTES_MAX, END, Kind};
use crate::Digest;

/// Bytes of a file that are copied at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Writes a bundle; see the module above for its form.
///
/// What has been written so far is no bundle before [`BundleWriter::finish`].
#[derive(Debug)]
pub struct BundleWriter<W> {
    output: W,
    hasher: Sha256,
    previous: Kind,
    previous_blob: Option<Digest>,
    notes: usize,
    notes_size: u64,
    blobs: usize,
}

/// Why a bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleWriteError {
    /// The system could not write it, or read a file for it.
    #[error("the bundle could not be written: {0}")]
    Io(#[from] io::Error),
    /// The caller gives items in another order than they stand in a bundle.
    #[error("an item is out of place: notes, leaves, one policy and files by rising digest stand in this order")]
    OutOfPlace,
    /// An item above its bound.
    #[error("an item has {size} bytes, at most {limit} are allowed in a bundle")]
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// Largest size allowed, in bytes.
        limit: u64,
    },
    /// More items of one kind than allowed.
    #[error("a bundle holds at most {limit} items of this kind")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// A file is not what its name and size say.
    #[error("file {expected} of {size} bytes has the SHA-256 {found} and {found_size} bytes: it is damaged")]
    Blob {
        /// SHA-256 asked for.
        expected: Digest,
        /// Size asked for, in bytes.
        size: u64,
        /// SHA-256 of what was read.
        found: Digest,
        /// Size of what was read, in bytes; reading stops behind the size asked for.
        found_size: u64,
    },
}

impl<W: Write> BundleWriter<W> {
    /// Begins a bundle with its genesis file and the [chain of epochs](crate::epoch::EpochChain), encoded.
    ///
    /// # Errors
    ///
    /// [`BundleWriteError`].
    pub fn new(output: W, genesis: &[u8], epochs: &[u8]) -> Result<Self, BundleWriteError> {
        let mut writer = Self {
            output,
            hasher: Sha256::new(),
            previous: Kind::Epochs,
            previous_blob: None,
            notes: 0,
            notes_size: 0,
            blobs: 0,
        };
        writer.put(BUNDLE_MAGIC)?;
        writer.put_item(Kind::Genesis, genesis)?;
        writer.put_item(Kind::Epochs, epochs)?;
        Ok(writer)
    }

    /// Adds the next leaf; the first one has index 1.
    ///
    /// # Errors
    ///
    /// [`BundleWriteError`].
    pub fn add_leaf(&mut self, leaf: &[u8]) -> Result<(), BundleWriteError> {
        self.advance(Kind::Leaf)?;
        self.put_item(Kind::Leaf, leaf)
    }

    /// Adds a signed checkpoint note.
    ///
    /// # Errors
    ///
    /// [`BundleWriteError`].
    pub fn add_note(&mut self, note: &str) -> Result<(), BundleWriteError> {
        self.advance(Kind::Note)?;
        self.notes += 1;
        if self.notes > BUNDLE_NOTES_MAX {
            return Err(BundleWriteError::TooMany { limit: BUNDLE_NOTES_MAX });
        }
        self.notes_size += note.len() as u64;
        if self.notes_size > BUNDLE_NOTES_SIZE_BYTES_MAX {
            let (size, limit) = (self.notes_size, BUNDLE_NOTES_SIZE_BYTES_MAX);
            return Err(BundleWriteError::TooLarge { size, limit });
        }
        self.put_item(Kind::Note, note.as_bytes())
    }

    /// Adds the trust policy, encoded.
    ///
    /// # Errors
    ///
    /// [`BundleWriteError`].
    pub fn add_policy(&mut self, policy: &[u8]) -> Result<(), BundleWriteError> {
        self.advance(Kind::Policy)?;
        self.put_item(Kind::Policy, policy)
    }

    /// Adds a file of `size` bytes. Files are given in the order of their digests, each once.
    ///
    /// # Errors
    ///
    /// [`BundleWriteError::Blob`] if `content` is not this file, otherwise as the variants say.
    pub fn add_blob(&mut self, digest: &Digest, size: u64, content: impl Read) -> Result<(), BundleWriteError> {
        self.advance(Kind::Blob)?;
        if self.previous_blob.is_some_and(|previous| previous >= *digest) {
            return Err(BundleWriteError::OutOfPlace);
        }
        self.previous_blob = Some(*digest);
        self.blobs += 1;
        if self.blobs > BUNDLE_BLOBS_MAX {
            return Err(BundleWriteError::TooMany { limit: BUNDLE_BLOBS_MAX });
        }
        let limit = Kind::Blob.size_bytes_max();
        if size > limit {
            return Err(BundleWriteError::TooLarge { size, limit });
        }
        self.put(&[Kind::Blob.to_byte()])?;
        self.put(digest.as_bytes())?;
        self.put(&size.to_be_bytes())?;
        self.copy_blob(digest, size, content)
    }

    /// Writes the end and gives the output back.
    ///
    /// # Errors
    ///
    /// [`BundleWriteError::Io`].
    pub fn finish(mut self) -> Result<W, BundleWriteError> {
        self.put(&[END])?;
        let digest: [u8; 32] = self.hasher.finalize().into();
        self.output.write_all(&digest)?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn copy_blob(&mut self, digest: &Digest, size: u64, content: impl Read) -> Result<(), BundleWriteError> {
        // One byte more, so that a longer file is noticed.
        let mut content = content.take(size + 1);
        let mut hasher = Sha256::new();
        let mut found_size = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = match content.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = chunk.get(..count).unwrap_or_default();
            hasher.update(bytes);
            found_size += count as u64;
            self.put(bytes)?;
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found == *digest && found_size == size {
            return Ok(());
        }
        Err(BundleWriteError::Blob { expected: *digest, size, found, found_size })
    }

    /// Goes to the section of `kind`.
    fn advance(&mut self, kind: Kind) -> Result<(), BundleWriteError> {
        if !kind.may_follow(Some(self.previous)) {
            return Err(BundleWriteError::OutOfPlace);
        }
        self.previous = kind;
        Ok(())
    }

    fn put_item(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), BundleWriteError> {
        let (size, limit) = (bytes.len() as u64, kind.size_bytes_max());
        let length = u32::try_from(size).ok().filter(|_| size <= limit);
        let length = length.ok_or(BundleWriteError::TooLarge { size, limit })?;
        self.put(&[kind.to_byte()])?;
        self.put(&length.to_be_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BundleWriteError> {
        self.hasher.update(bytes);
        Ok(self.output.write_all(bytes)?)
    }
}
