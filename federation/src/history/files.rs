//! The files that a ledger names.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

use crate::{Federation, records::Participation};

/// Bytes of a file that are hashed at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A file as the ledger names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedFile {
    /// Size in bytes.
    pub size: u64,
    /// Index of the first entry that names it.
    pub index: u64,
}

/// Every update and every file of a version, by digest.
pub fn named_files(state: &Federation) -> BTreeMap<Digest, NamedFile> {
    let mut files = BTreeMap::<Digest, NamedFile>::new();
    let mut add = |digest: Digest, size: u64, index: u64| {
        let file = files.entry(digest).or_insert(NamedFile { size, index });
        if index < file.index {
            *file = NamedFile { size, index };
        }
    };
    for (_, record) in state.versions().iter() {
        for artifact in record.manifest.artifacts.values() {
            add(*artifact.cid.digest(), artifact.size, record.created_index);
        }
    }
    for (_, participation) in state.participations.iter() {
        if let Participation::Contributed { index, contribution, .. } = participation {
            add(contribution.update, contribution.size, *index);
        }
    }
    files
}

/// SHA-256 and size of everything that can be read.
pub(crate) fn hash(mut content: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match content.read(&mut chunk) {
            Ok(0) => return Ok((Digest::from_bytes(hasher.finalize().into()), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(chunk.get(..count).unwrap_or_default());
        size += count as u64;
    }
}
