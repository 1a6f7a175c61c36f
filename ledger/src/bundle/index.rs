//! Where everything stands in a bundle.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use super::{BundleError, BundleReader, Defect, Item, Malformed};
use crate::Digest;

/// The contents of a bundle without its leaves and files, and where these stand.
///
/// It is made in one pass that checks the form and the digest at the end. A damaged bundle has an index, too: of what
/// stands before the damage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleIndex {
    /// The genesis file; `None` in a bundle that is damaged before its end.
    pub genesis: Option<Vec<u8>>,
    /// The chain of epochs, encoded; `None` in a bundle that is damaged before its end.
    pub epochs: Option<BundledPart>,
    /// The trust policy, encoded, if there is one.
    pub policy: Option<BundledPart>,
    /// Number of leaves; their indexes begin with 1.
    pub leaf_count: u64,
    /// The checkpoint notes.
    pub notes: Vec<BundledNote>,
    /// The files by digest.
    pub blobs: BTreeMap<Digest, BlobExtent>,
    /// What is wrong with the bundle's form, and where. Everything behind that place is missing from the index.
    pub defect: Option<Malformed>,
}

/// A part of a bundle and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundledPart {
    /// Where it begins, in bytes from the beginning of the bundle.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A checkpoint note and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundledNote {
    /// Where it begins, in bytes from the beginning of the bundle.
    pub offset: u64,
    /// The encoded note.
    pub text: String,
}

/// The place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobExtent {
    /// Where it begins, in bytes from the beginning of the bundle.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

impl BundleIndex {
    /// Reads a bundle from beginning to end.
    ///
    /// # Errors
    ///
    /// Only what the system says; damage stands in [`BundleIndex::defect`].
    pub fn scan(input: impl Read) -> io::Result<Self> {
        let mut index = Self::default();
        match index.fill(input) {
            Ok(()) => Ok(index),
            Err(BundleError::Malformed(defect)) => Ok(Self { defect: Some(defect), ..index }),
            Err(BundleError::Io(error)) => Err(error),
        }
    }

    /// The leaves, read anew from the bundle of which this is the index.
    ///
    /// # Errors
    ///
    /// [`BundleError`] where `input` is another file.
    pub fn leaves<R: Read>(&self, input: R) -> Result<BundledLeaves<R>, BundleError> {
        Ok(BundledLeaves { reader: BundleReader::new(input)?, left: self.leaf_count })
    }

    fn fill(&mut self, input: impl Read) -> Result<(), BundleError> {
        let mut reader = BundleReader::new(input)?;
        // A file is listed once the next item has been reached, which it is not where the bundle ends within the file.
        let mut pending = None;
        loop {
            let item = reader.next_item();
            if let Some((digest, extent)) = pending.take()
                && reader.offset() >= offset_behind(&extent)
            {
                self.blobs.insert(digest, extent);
            }
            match item? {
                Some(Item::Genesis(bytes)) => self.genesis = Some(bytes),
                Some(Item::Epochs { offset, bytes }) => self.epochs = Some(BundledPart { offset, bytes }),
                Some(Item::Policy { offset, bytes }) => self.policy = Some(BundledPart { offset, bytes }),
                Some(Item::Leaf(_)) => self.leaf_count += 1,
                Some(Item::Note { offset, text }) => self.notes.push(BundledNote { offset, text }),
                Some(Item::Blob { offset, digest, size }) => pending = Some((digest, BlobExtent { offset, size })),
                None => return Ok(()),
            }
        }
    }
}

/// Where the next item begins, behind a file.
const fn offset_behind(extent: &BlobExtent) -> u64 {
    extent.offset.saturating_add(extent.size)
}

/// The leaves of a bundle in order; nothing follows the first error.
#[derive(Debug)]
pub struct BundledLeaves<R> {
    reader: BundleReader<R>,
    left: u64,
}

impl<R: Read> Iterator for BundledLeaves<R> {
    type Item = Result<Vec<u8>, BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        loop {
            match self.reader.next_item() {
                Ok(Some(Item::Genesis(_) | Item::Epochs { .. } | Item::Note { .. })) => {}
                Ok(Some(Item::Leaf(bytes))) => return Some(Ok(bytes)),
                // The file has become another one since the index was made.
                Ok(Some(Item::Policy { .. } | Item::Blob { .. }) | None) => {
                    self.left = 0;
                    let offset = self.reader.offset();
                    return Some(Err(Malformed { offset, defect: Defect::Truncated }.into()));
                }
                Err(error) => {
                    self.left = 0;
                    return Some(Err(error));
                }
            }
        }
    }
}
