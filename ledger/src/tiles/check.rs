//! Whether tiles that somebody else made are those of one log.

use std::collections::BTreeMap;

use super::{Content, TILE_HEIGHT, TILE_WIDTH, Tile, TileError, read_hash_tile};
use crate::{
    Digest,
    merkle::{Frontier, NodeId},
};

/// Tiles that are not those of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError<E> {
    /// A tile could not be read.
    #[error("cannot read {tile}: {error}")]
    Fetch {
        /// The tile.
        tile: Tile,
        /// Why.
        error: E,
    },
    /// A tile is not what it should be.
    #[error(transparent)]
    Tile(#[from] TileError),
}

/// The root of a log of `size` entries from its tiles of hashes, whose bytes `fetch` gives.
///
/// Every tile is read once, and every hash above level 0 is compared with the tile below. So if the root is the one in a
/// signed checkpoint, each tile is the right one, and [`check_entry_bundle`](super::check_entry_bundle) tells the same of
/// the entries. One tile of each level is held at a time.
///
/// # Errors
///
/// [`TreeError`], which names the tile.
pub fn root_from_tiles<E>(
    size: u64,
    mut fetch: impl FnMut(&Tile) -> Result<Vec<u8>, E>,
) -> Result<Digest, TreeError<E>> {
    let mut read = |tile: &Tile| {
        let bytes = fetch(tile).map_err(|error| TreeError::Fetch { tile: *tile, error })?;
        Ok::<_, TreeError<E>>(read_hash_tile(tile, &bytes)?)
    };
    let mut frontier = Frontier::new();
    let mut above = Above::default();
    for tile in (Content::Hashes { level: 0 }).tiles(size) {
        for hash in read(&tile)? {
            for (node, computed) in frontier.append(hash) {
                if node.level > 0 && node.level.is_multiple_of(TILE_HEIGHT) {
                    above.compare(node, computed, size, &mut read)?;
                }
            }
        }
    }
    Ok(frontier.root())
}

/// The tiles above level 0 that are being compared, one of each level.
#[derive(Default)]
struct Above(BTreeMap<u8, Vec<Digest>>);

impl Above {
    /// Compares the root of a full tile with the row for it one level above.
    fn compare<E>(
        &mut self,
        node: NodeId,
        computed: Digest,
        size: u64,
        read: &mut impl FnMut(&Tile) -> Result<Vec<Digest>, TreeError<E>>,
    ) -> Result<(), TreeError<E>> {
        let level = node.level / TILE_HEIGHT;
        let row = node.index % u64::from(TILE_WIDTH);
        if row == 0 {
            let tile = Tile::at(Content::Hashes { level }, node.index >> TILE_HEIGHT, size);
            self.0.insert(level, tile.as_ref().map(read).transpose()?.unwrap_or_default());
        }
        let hashes = self.0.get(&level);
        let expected = hashes.and_then(|hashes| hashes.get(usize::try_from(row).ok()?));
        if expected == Some(&computed) { Ok(()) } else { Err(TileError::Hash { level, below: node.index }.into()) }
    }
}
