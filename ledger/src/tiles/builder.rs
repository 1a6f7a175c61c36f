//! All tiles of a log, from its entries.

use std::collections::BTreeMap;

use super::{Content, HASH_TILE_SIZE_BYTES_MAX, TILE_HEIGHT, TILE_WIDTH, Tile, TileError, bundle::push_entry};
use crate::{
    Digest,
    merkle::{Frontier, leaf_hash},
};

/// Makes every tile of a log while its entries pass by.
///
/// It holds the right edge of the tree, a tile of each level and one entry bundle: some 17 MB at most, whatever the size
/// of the log.
#[derive(Debug, Clone, Default)]
pub struct TileBuilder {
    frontier: Frontier,
    /// Hashes of the tile in progress, for each level that has begun.
    levels: BTreeMap<u8, Vec<u8>>,
    /// The entry bundle in progress.
    entries: Vec<u8>,
}

/// A tile and its bytes.
type Made = (Tile, Vec<u8>);

impl TileBuilder {
    /// A builder for an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next entry, which is the genesis file first. Returns the tiles that are full now.
    ///
    /// # Errors
    ///
    /// [`TileError::EntryTooLarge`]; nothing has been taken.
    pub fn append(&mut self, entry: &[u8]) -> Result<Vec<Made>, TileError> {
        push_entry(&mut self.entries, entry)?;
        let completed = self.frontier.append(leaf_hash(entry));
        let mut full = Vec::new();
        for (node, hash) in completed {
            if !node.level.is_multiple_of(TILE_HEIGHT) {
                continue;
            }
            let level = node.level / TILE_HEIGHT;
            let rows = self.levels.entry(level).or_default();
            rows.extend_from_slice(hash.as_bytes());
            if rows.len() == HASH_TILE_SIZE_BYTES_MAX {
                let bytes = std::mem::take(rows);
                let tile = Tile::new(Content::Hashes { level }, node.index >> TILE_HEIGHT, TILE_WIDTH)?;
                full.push((tile, bytes));
            }
        }
        if self.size().is_multiple_of(TILE_WIDTH.into()) {
            let last = self.size().saturating_sub(1);
            let tile = Tile::new(Content::Entries, last >> TILE_HEIGHT, TILE_WIDTH)?;
            full.push((tile, std::mem::take(&mut self.entries)));
        }
        Ok(full)
    }

    /// The partial tiles of the log as it is now, without ending it.
    pub fn partial(&self) -> Vec<Made> {
        let levels = self.levels.iter().map(|(level, rows)| (Content::Hashes { level: *level }, rows));
        let all = levels.chain([(Content::Entries, &self.entries)]);
        let made = all.filter_map(|(content, bytes)| {
            let last = content.rows(self.size()) >> TILE_HEIGHT;
            let tile = Tile::at(content, last, self.size())?;
            Some((tile, bytes.clone()))
        });
        made.collect()
    }

    /// Entries so far.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root of the Merkle tree over the entries so far.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }
}
