//! A history in the storage of a replica.

use std::{
    fmt,
    io::{self, Read},
};

use fedledger_ledger::{
    Digest,
    log::{Log, read_node},
    merkle::{NodeId, leaf_hash, node_hash},
    storage::{Column, LogStorage, StorageError, notes::read_notes, scan_all},
};

use super::{EncodedNote, Leaves, Source, SourceError};
use crate::{
    Federation,
    verify::{Problem, ProblemKind},
};

/// A replica's storage and its files as a [`Source`].
pub struct StorageSource<S, B> {
    storage: S,
    open_blob: B,
}

impl<S: fmt::Debug, B> fmt::Debug for StorageSource<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageSource({:?})", self.storage)
    }
}

impl<S, B, R> StorageSource<S, B>
where
    S: LogStorage,
    B: Fn(&Digest) -> io::Result<Option<R>>,
    R: Read + Send + 'static,
{
    /// A source over `storage`, whose files `open_blob` opens by digest.
    pub const fn new(storage: S, open_blob: B) -> Self {
        Self { storage, open_blob }
    }

    /// Compares the stored state and position with those of the log.
    fn check_state(&self, log: &Log<Federation>) -> Result<Option<Problem>, StorageError> {
        let Some(stored) = Log::<Federation>::load(&self.storage)? else {
            return Err(StorageError::Corrupt("the log position is missing".to_owned()));
        };
        let problem = |detail: String| Some(Problem::new(ProblemKind::State, detail).at(log.size()));
        if (stored.size(), stored.root()) != (log.size(), log.root()) {
            let (size, root) = (stored.size(), stored.root());
            return Ok(problem(format!(
                "the recorded position is {size} entries with the root {root}, the leaves lead to {} with {}",
                log.size(),
                log.root()
            )));
        }
        let (found, expected) = (stored.machine().digest(), log.machine().digest());
        if found == expected {
            return Ok(None);
        }
        Ok(problem(format!("the recorded state has the digest {found}, the entries lead to {expected}")))
    }

    /// Compares every stored tree node with its children.
    fn check_nodes(&self, log: &Log<Federation>) -> Result<Option<Problem>, StorageError> {
        let mut leaves = scan_all(&self.storage, Column::Leaf, Vec::new());
        let mut count = 0;
        for record in scan_all(&self.storage, Column::Node, Vec::new()) {
            let (key, value) = record?;
            let Some(node) = parse_node_key(&key) else {
                let detail = format!("a tree node has the key {}", hex::encode(key));
                return Ok(Some(Problem::new(ProblemKind::State, detail)));
            };
            let expected = match node.level.checked_sub(1) {
                None => match leaves.next().transpose()? {
                    Some((_, leaf)) => leaf_hash(&leaf),
                    None => Digest::default(),
                },
                Some(level) => {
                    let child = |side| read_node(&self.storage, NodeId { level, index: node.index * 2 + side });
                    node_hash(&child(0)?, &child(1)?)
                }
            };
            if value != expected.as_bytes() {
                let detail = format!("tree node {} of level {} is wrong", node.index, node.level);
                return Ok(Some(Problem::new(ProblemKind::State, detail).at(node.index << node.level)));
            }
            count += 1;
        }
        // A log has 2n - 1 subtrees when its size is a power of two, and one less for each further bit.
        let expected = 2 * log.size() - u64::from(log.size().count_ones());
        if count == expected {
            return Ok(None);
        }
        let detail = format!("{count} tree nodes are stored, a log of {} entries has {expected}", log.size());
        Ok(Some(Problem::new(ProblemKind::State, detail)))
    }

    /// Reads what nothing else reads, so that damaged blocks show.
    fn check_readable(&self) -> Result<(), StorageError> {
        for column in [Column::Meta, Column::Raft] {
            for record in scan_all(&self.storage, column, Vec::new()) {
                record?;
            }
        }
        Ok(())
    }
}

/// The node of a storage key, within the bounds of a log.
fn parse_node_key(key: &[u8]) -> Option<NodeId> {
    let (&level, index) = key.split_first()?;
    let index = u64::from_be_bytes(index.try_into().ok()?);
    (level < 64 && index <= u64::MAX >> (level + 1)).then_some(NodeId { level, index })
}

impl<S, B, R> Source for StorageSource<S, B>
where
    S: LogStorage,
    B: Fn(&Digest) -> io::Result<Option<R>>,
    R: Read + Send + 'static,
{
    fn genesis(&self) -> Result<Vec<u8>, SourceError> {
        self.storage.get(Column::Leaf, &0_u64.to_be_bytes())?.ok_or(SourceError::NoGenesis)
    }

    fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
        let records = scan_all(&self.storage, Column::Leaf, 1_u64.to_be_bytes().to_vec());
        Ok(Box::new(records.map(|record| Ok(record?.1))))
    }

    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
        let notes = read_notes(&self.storage)?;
        Ok(notes.into_iter().map(|text| EncodedNote { offset: None, text }).collect())
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        Ok((self.open_blob)(digest)?.map(|file| -> Box<dyn Read + Send> { Box::new(file) }))
    }

    fn check_records(&self, log: &Log<Federation>) -> Result<Vec<Problem>, SourceError> {
        self.check_readable()?;
        let problems = [self.check_state(log)?, self.check_nodes(log)?];
        Ok(problems.into_iter().flatten().collect())
    }
}
