//! A history in a bundle.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Seek, SeekFrom},
};

use fedledger_ledger::{
    Digest,
    bundle::{BundleIndex, BundledPart, Malformed},
};

use super::{EncodedNote, EncodedPart, Leaves, Source, SourceError, TrustParts};

/// A bundle as a [`Source`]. It is indexed once; leaves and files are read when they are asked for.
pub struct BundleSource<F> {
    open: F,
    index: BundleIndex,
}

impl<F> fmt::Debug for BundleSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleSource({} leaves, {} files)", self.index.leaf_count, self.index.blobs.len())
    }
}

impl<F, R> BundleSource<F>
where
    F: Fn() -> io::Result<R>,
    R: Read + Seek + Send + 'static,
{
    /// Indexes the bundle of which `open` gives a reader at its beginning, as often as it is called.
    ///
    /// # Errors
    ///
    /// Only what the system says: a damaged bundle is a source, too, of what stands before the damage.
    pub fn new(open: F) -> io::Result<Self> {
        let index = BundleIndex::scan(open()?)?;
        Ok(Self { open, index })
    }
}

impl<F, R> Source for BundleSource<F>
where
    F: Fn() -> io::Result<R>,
    R: Read + Seek + Send + 'static,
{
    fn genesis(&self) -> Result<Vec<u8>, SourceError> {
        self.index.genesis.clone().ok_or(SourceError::NoGenesis)
    }

    fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
        let leaves = self.index.leaves((self.open)()?)?;
        Ok(Box::new(leaves.map(|leaf| leaf.map_err(SourceError::from))))
    }

    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
        let notes = self.index.notes.iter();
        Ok(notes.map(|note| EncodedNote { offset: Some(note.offset), text: note.text.clone() }).collect())
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        let Some(extent) = self.index.blobs.get(digest) else { return Ok(None) };
        let mut file = (self.open)()?;
        file.seek(SeekFrom::Start(extent.offset))?;
        Ok(Some(Box::new(file.take(extent.size))))
    }

    fn listed_blobs(&self) -> Option<BTreeMap<Digest, u64>> {
        Some(self.index.blobs.iter().map(|(digest, extent)| (*digest, extent.offset)).collect())
    }

    fn trust_parts(&self) -> Option<TrustParts> {
        let part = |part: &BundledPart| EncodedPart { offset: part.offset, bytes: part.bytes.clone() };
        Some(TrustParts { epochs: self.index.epochs.as_ref().map(part), policy: self.index.policy.as_ref().map(part) })
    }

    fn defect(&self) -> Option<&Malformed> {
        self.index.defect.as_ref()
    }
}
