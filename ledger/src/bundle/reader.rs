//! Reading a bundle from its beginning to its end, item by item.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::{
    BUNDLE_BLOBS_MAX, BUNDLE_MAGIC, BUNDLE_NOTES_MAX, BUNDLE_NOTES_SIZE_BYTES_MAX, BundleError, Defect, END, Kind,
    MAGIC_STEM, Malformed,
};
use crate::Digest;

/// Bytes of a skipped file that are read at a time.
const SKIP_BYTES: usize = 64 * 1024;

/// Bytes of an item that are read at a time: what an item claims to hold is allocated only as it comes.
const ITEM_STEP_BYTES: usize = 1024 * 1024;

/// Reads a bundle that may come from anybody; see the module above for its form.
///
/// The digest at the end is compared when the end is reached; until then, nothing but the form has been checked. A clone
/// goes on from the same place.
#[derive(Debug, Clone)]
pub struct BundleReader<R> {
    input: R,
    hasher: Sha256,
    /// Bytes read so far.
    offset: u64,
    /// Kind of the item before; `None` at the beginning.
    previous: Option<Kind>,
    previous_blob: Option<Digest>,
    /// Bytes of the file at hand that have not been read yet.
    blob_left: u64,
    notes: usize,
    notes_size: u64,
    blobs: usize,
    ended: bool,
}

/// One item of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The genesis file.
    Genesis(Vec<u8>),
    /// The chain of epochs, encoded.
    Epochs {
        /// Where its bytes begin, in bytes from the beginning of the bundle.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The next leaf; the first one has index 1.
    Leaf(Vec<u8>),
    /// A signed checkpoint note.
    Note {
        /// Where the note's text begins, in bytes from the beginning of the bundle.
        offset: u64,
        /// The encoded note.
        text: String,
    },
    /// The trust policy.
    Policy {
        /// Where its bytes begin, in bytes from the beginning of the bundle.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A file, whose bytes [`BundleReader::read_blob`] gives.
    Blob {
        /// Where the file's bytes begin, in bytes from the beginning of the bundle.
        offset: u64,
        /// SHA-256 that the bundle claims for it; nobody has checked it yet.
        digest: Digest,
        /// Size in bytes.
        size: u64,
    },
}

impl<R: Read> BundleReader<R> {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// [`BundleError`] where `input` does not begin as a bundle of this version does.
    pub fn new(input: R) -> Result<Self, BundleError> {
        let mut reader = Self {
            input,
            hasher: Sha256::new(),
            offset: 0,
            previous: None,
            previous_blob: None,
            blob_left: 0,
            notes: 0,
            notes_size: 0,
            blobs: 0,
            ended: false,
        };
        let mut magic = [0; BUNDLE_MAGIC.len()];
        let count = reader.fill(&mut magic)?;
        let found = magic.get(..count).unwrap_or_default();
        if found == BUNDLE_MAGIC {
            return Ok(reader);
        }
        let offset = found.iter().zip(BUNDLE_MAGIC).take_while(|(a, b)| a == b).count();
        let defect = if count < BUNDLE_MAGIC.len() && offset == count {
            Defect::Truncated
        } else if offset >= MAGIC_STEM.len() {
            Defect::UnknownVersion
        } else {
            Defect::NotABundle
        };
        Err(Malformed { offset: offset as u64, defect }.into())
    }

    /// The next item; `None` after the last one, once the digest at the end has been found right.
    ///
    /// What was not read of a file is skipped.
    ///
    /// # Errors
    ///
    /// [`BundleError`]; the reader is of no further use.
    pub fn next_item(&mut self) -> Result<Option<Item>, BundleError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_blob()?;
        let offset = self.offset;
        let malformed = |defect| BundleError::Malformed(Malformed { offset, defect });
        let [byte] = self.take()?;
        if byte == END {
            if matches!(self.previous, None | Some(Kind::Genesis)) {
                return Err(malformed(Defect::OutOfPlace));
            }
            return self.end().map(|()| None);
        }
        let kind = Kind::from_byte(byte).ok_or_else(|| malformed(Defect::UnknownKind(byte)))?;
        if !kind.may_follow(self.previous) {
            return Err(malformed(Defect::OutOfPlace));
        }
        self.previous = Some(kind);
        match kind {
            Kind::Genesis => Ok(Some(Item::Genesis(self.take_bytes(kind)?))),
            Kind::Epochs => {
                let (offset, bytes) = self.take_part(kind)?;
                Ok(Some(Item::Epochs { offset, bytes }))
            }
            Kind::Policy => {
                let (offset, bytes) = self.take_part(kind)?;
                Ok(Some(Item::Policy { offset, bytes }))
            }
            Kind::Leaf => Ok(Some(Item::Leaf(self.take_bytes(kind)?))),
            Kind::Note => self.take_note().map(Some),
            Kind::Blob => self.take_blob_header().map(Some),
        }
    }

    /// Reads the next bytes of the file at hand into `buffer`; 0 at its end, or where there is no file at hand.
    ///
    /// # Errors
    ///
    /// [`BundleError`] where reading fails or the bundle ends within the file.
    pub fn read_blob(&mut self, buffer: &mut [u8]) -> Result<usize, BundleError> {
        let wanted = buffer.len().min(usize::try_from(self.blob_left).unwrap_or(usize::MAX));
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let count = self.fill(part)?;
        if count < wanted {
            return Err(self.truncated());
        }
        self.blob_left -= count as u64;
        Ok(count)
    }

    /// Bytes read so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    fn take_note(&mut self) -> Result<Item, BundleError> {
        self.notes += 1;
        if self.notes > BUNDLE_NOTES_MAX {
            return Err(self.malformed(Defect::TooMany { limit: BUNDLE_NOTES_MAX }));
        }
        let (offset, bytes) = self.take_part(Kind::Note)?;
        self.notes_size += bytes.len() as u64;
        if self.notes_size > BUNDLE_NOTES_SIZE_BYTES_MAX {
            return Err(Malformed { offset, defect: Defect::NotesTooLarge }.into());
        }
        let text = String::from_utf8(bytes).map_err(|_| Malformed { offset, defect: Defect::NotText })?;
        Ok(Item::Note { offset, text })
    }

    fn take_blob_header(&mut self) -> Result<Item, BundleError> {
        self.blobs += 1;
        if self.blobs > BUNDLE_BLOBS_MAX {
            return Err(self.malformed(Defect::TooMany { limit: BUNDLE_BLOBS_MAX }));
        }
        let offset = self.offset;
        let digest = Digest::from_bytes(self.take()?);
        if self.previous_blob.is_some_and(|previous| previous >= digest) {
            return Err(Malformed { offset, defect: Defect::BlobOrder(digest) }.into());
        }
        self.previous_blob = Some(digest);
        let length_offset = self.offset;
        let size = u64::from_be_bytes(self.take()?);
        check_size(length_offset, size, Kind::Blob)?;
        self.blob_left = size;
        Ok(Item::Blob { offset: self.offset, digest, size })
    }

    fn skip_blob(&mut self) -> Result<(), BundleError> {
        if self.blob_left > 0 {
            let mut buffer = vec![0; SKIP_BYTES];
            while self.read_blob(&mut buffer)? > 0 {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), BundleError> {
        let found = Digest::from_bytes(self.hasher.clone().finalize().into());
        let offset = self.offset;
        let expected = Digest::from_bytes(self.take()?);
        if found != expected {
            return Err(Malformed { offset, defect: Defect::Checksum { expected, found } }.into());
        }
        if self.fill(&mut [0])? > 0 {
            return Err(Malformed { offset: self.offset - 1, defect: Defect::TrailingBytes }.into());
        }
        self.ended = true;
        Ok(())
    }

    /// Where an item's bytes begin, and the bytes.
    fn take_part(&mut self, kind: Kind) -> Result<(u64, Vec<u8>), BundleError> {
        let bytes = self.take_bytes(kind)?;
        Ok((self.offset - bytes.len() as u64, bytes))
    }

    /// Length and bytes of an item that is small enough to be held.
    fn take_bytes(&mut self, kind: Kind) -> Result<Vec<u8>, BundleError> {
        let offset = self.offset;
        let size = u32::from_be_bytes(self.take()?);
        check_size(offset, size.into(), kind)?;
        let size = size as usize;
        let mut bytes = Vec::new();
        while bytes.len() < size {
            let begin = bytes.len();
            bytes.resize(size.min(begin + ITEM_STEP_BYTES), 0);
            let part = bytes.get_mut(begin..).unwrap_or_default();
            if self.fill(part)? < part.len() {
                return Err(self.truncated());
            }
        }
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BundleError> {
        let mut bytes = [0; N];
        if self.fill(&mut bytes)? < N { Err(self.truncated()) } else { Ok(bytes) }
    }

    /// Fills `buffer` as far as the input goes, and hashes what was read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, io::Error> {
        let mut count = 0;
        while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(read) => count += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.offset += count as u64;
        Ok(count)
    }

    fn truncated(&self) -> BundleError {
        self.malformed(Defect::Truncated)
    }

    fn malformed(&self, defect: Defect) -> BundleError {
        Malformed { offset: self.offset, defect }.into()
    }
}

fn check_size(offset: u64, size: u64, kind: Kind) -> Result<(), Malformed> {
    let limit = kind.size_bytes_max();
    if size > limit { Err(Malformed { offset, defect: Defect::TooLarge { size, limit } }) } else { Ok(()) }
}
