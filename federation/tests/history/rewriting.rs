//! Bundles taken apart and put together again, as a forger would.

use std::collections::BTreeMap;

use fedledger_ledger::{
    Digest,
    bundle::{BundleReader, BundleWriter, Item},
};

/// Everything that a bundle holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    pub genesis: Vec<u8>,
    pub epochs: Vec<u8>,
    pub notes: Vec<String>,
    pub leaves: Vec<Vec<u8>>,
    pub policy: Option<Vec<u8>>,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Parts {
    pub fn of(bundle: &[u8]) -> Self {
        let mut parts = Self::default();
        let mut reader = BundleReader::new(bundle).unwrap();
        while let Some(item) = reader.next_item().unwrap() {
            match item {
                Item::Genesis(bytes) => parts.genesis = bytes,
                Item::Epochs { bytes, .. } => parts.epochs = bytes,
                Item::Note { text, .. } => parts.notes.push(text),
                Item::Leaf(bytes) => parts.leaves.push(bytes),
                Item::Policy { bytes, .. } => parts.policy = Some(bytes),
                Item::Blob { digest, offset, size } => {
                    let (begin, size) = (usize::try_from(offset).unwrap(), usize::try_from(size).unwrap());
                    parts.blobs.insert(digest, bundle[begin..begin + size].to_vec());
                }
            }
        }
        parts
    }

    pub fn to_bundle(&self) -> Vec<u8> {
        let mut writer = BundleWriter::new(Vec::new(), &self.genesis, &self.epochs).unwrap();
        self.notes.iter().for_each(|note| writer.add_note(note).unwrap());
        self.leaves.iter().for_each(|leaf| writer.add_leaf(leaf).unwrap());
        if let Some(policy) = &self.policy {
            writer.add_policy(policy).unwrap();
        }
        for (digest, blob) in &self.blobs {
            writer.add_blob(digest, blob.len() as u64, blob.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    }
}

/// A bundle of which something was changed.
pub fn rewritten(bundle: &[u8], change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::of(bundle);
    change(&mut parts);
    parts.to_bundle()
}
