//! The log as static resources that any cache can keep: C2SP tlog-tiles (<https://c2sp.org/tlog-tiles>).
//!
//! The Merkle tree is cut into tiles of height 8. A tile of level L holds the roots of up to 256 neighbouring subtrees of
//! height 8 L, so that a row of a tile is the root of a full tile one level below; an entry bundle holds the up to 256
//! entries behind a tile of level 0. Full tiles never change. What stands at the right edge of the tree is partial, and
//! named by its width, so that it never changes either.
//!
//! ```text
//! checkpoint                      signed head of the log
//! tile/0/000, tile/0/001, ...     leaf hashes, 256 each
//! tile/0/273.p/112                the last ones of 70,000 leaf hashes
//! tile/1/000                      roots of the first 256 full tiles of level 0
//! tile/entries/x001/x234/067      the entries of tile 1,234,067 of level 0
//! ```
//!
//! [`TileBuilder`] makes all of them from the entries; [`hash_tile`] makes one from stored nodes; [`root_from_tiles`] and
//! [`check_entry_bundle`] find out whether tiles that somebody else made fit together.

mod builder;
mod bundle;
mod check;
mod path;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use self::{
    builder::TileBuilder,
    bundle::{check_entry_bundle, push_entry, read_entry_bundle},
    check::{TreeError, root_from_tiles},
};
use crate::{Digest, limits::LEAF_SIZE_BYTES_MAX, merkle::NodeId};

/// Levels of the Merkle tree in one tile.
pub const TILE_HEIGHT: u8 = 8;

/// Rows of a full tile.
pub const TILE_WIDTH: u16 = 256;

/// Highest level that the path of a tile may name. No log is large enough for tiles above level 7.
pub const TILE_LEVEL_MAX: u8 = 63;

/// Largest index of a tile; that of every row stays below 2^64.
pub const TILE_INDEX_MAX: u64 = u64::MAX >> TILE_HEIGHT;

/// Size of a hash, in bytes.
const HASH_SIZE_BYTES: usize = 32;

/// Size of a full tile of hashes, in bytes.
pub const HASH_TILE_SIZE_BYTES_MAX: usize = TILE_WIDTH as usize * HASH_SIZE_BYTES;

/// Size of the length before an entry, in bytes.
const LENGTH_SIZE_BYTES: usize = 2;

/// Largest entry bundle, in bytes: 256 entries with their lengths.
pub const ENTRY_BUNDLE_SIZE_BYTES_MAX: usize = TILE_WIDTH as usize * (LENGTH_SIZE_BYTES + LEAF_SIZE_BYTES_MAX);

// The length before an entry can tell that of every leaf.
const _: () = assert!(LEAF_SIZE_BYTES_MAX == u16::MAX as usize);

/// What the rows of a tile are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Roots of complete subtrees of 256^`level` entries.
    Hashes {
        /// Level of the tile, at most [`TILE_LEVEL_MAX`].
        level: u8,
    },
    /// The entries themselves.
    Entries,
}

/// A tile or entry bundle, full or partial, by its place in the log.
///
/// As text it is the path of the resource, `tile/1/x001/234.p/17` say; parsing takes this one form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    content: Content,
    index: u64,
    width: u16,
}

/// Something that is no tile, or not the tile that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Text that is no path of a tile.
    #[error(
        "{0:?} is no path of a tile: expected tile/<level>/<index> or tile/entries/<index>, followed by .p/<width> for a \
         partial one"
    )]
    Path(String),
    /// Coordinates that no tile has.
    #[error(
        "there is no tile with index {index} and width {width} of {content:?}: levels go to {TILE_LEVEL_MAX}, indexes to \
         {TILE_INDEX_MAX}, widths from 1 to {TILE_WIDTH}"
    )]
    Coordinates {
        /// What the rows are.
        content: Content,
        /// Index asked for.
        index: u64,
        /// Width asked for, in rows.
        width: u16,
    },
    /// A tile of hashes that is too short or too long.
    #[error("{tile} has {found} bytes, expected {expected}")]
    Size {
        /// The tile.
        tile: Tile,
        /// Bytes that its width stands for.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// An entry bundle that ends too early.
    #[error("{tile} ends within entry {index}")]
    Truncated {
        /// The bundle.
        tile: Tile,
        /// Index of the entry in the log.
        index: u64,
    },
    /// An entry bundle that goes on behind its last entry.
    #[error("{tile} has {count} bytes behind its last entry")]
    TrailingBytes {
        /// The bundle.
        tile: Tile,
        /// Bytes too many.
        count: usize,
    },
    /// An entry whose length cannot be told.
    #[error("an entry of {size} bytes does not fit into an entry bundle, which takes {LEAF_SIZE_BYTES_MAX} at most")]
    EntryTooLarge {
        /// Its size, in bytes.
        size: usize,
    },
    /// An entry that is not the one whose hash stands in the tree.
    #[error("entry {index} in {tile} does not have the hash that the tile of level 0 has for it")]
    Entry {
        /// The bundle.
        tile: Tile,
        /// Index of the entry in the log.
        index: u64,
    },
    /// Entries held against hashes of another place or width.
    #[error("{hashes} does not hold the hashes of {bundle}")]
    OtherPlace {
        /// The entry bundle.
        bundle: Tile,
        /// The tile of hashes.
        hashes: Tile,
    },
    /// A hash that is not that of the full tile below it.
    #[error("a tile of level {level} has a wrong hash for tile {below} of the level below")]
    Hash {
        /// Level of the tile with the hash.
        level: u8,
        /// Index of the tile below, among those of its level.
        below: u64,
    },
}

impl Content {
    /// Rows that a log of `size` entries has of this content.
    pub fn rows(self, size: u64) -> u64 {
        match self {
            Self::Hashes { level } => size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0),
            Self::Entries => size,
        }
    }

    /// The tiles of this content in a log of `size` entries, from left to right. Only the last one may be partial.
    pub fn tiles(self, size: u64) -> impl Iterator<Item = Tile> {
        let count = self.rows(size).div_ceil(TILE_WIDTH.into());
        (0..count).filter_map(move |index| Tile::at(self, index, size))
    }
}

/// Every tile of a log of `size` entries: tiles of hashes by rising level, then the entry bundles.
pub fn tiles(size: u64) -> impl Iterator<Item = Tile> {
    let levels = (0..=TILE_LEVEL_MAX).map(|level| Content::Hashes { level });
    levels.chain([Content::Entries]).flat_map(move |content| content.tiles(size))
}

impl Tile {
    /// The tile with the first `width` rows at `index`.
    ///
    /// # Errors
    ///
    /// [`TileError::Coordinates`] if there can be none.
    pub fn new(content: Content, index: u64, width: u16) -> Result<Self, TileError> {
        let known = !matches!(content, Content::Hashes { level } if level > TILE_LEVEL_MAX);
        if known && index <= TILE_INDEX_MAX && (1..=TILE_WIDTH).contains(&width) {
            return Ok(Self { content, index, width });
        }
        Err(TileError::Coordinates { content, index, width })
    }

    /// The tile at `index` in a log of `size` entries, as wide as it is there; `None` behind the last one.
    pub fn at(content: Content, index: u64, size: u64) -> Option<Self> {
        let first = index.checked_mul(TILE_WIDTH.into())?;
        let rows = content.rows(size).checked_sub(first)?;
        let width = u16::try_from(rows).unwrap_or(TILE_WIDTH).min(TILE_WIDTH);
        Self::new(content, index, width).ok()
    }

    /// What its rows are.
    pub const fn content(&self) -> Content {
        self.content
    }

    /// Position among the tiles of its content, from 0.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Number of rows, from 1 to [`TILE_WIDTH`].
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Whether it has all its rows and will never have more.
    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// Its rows among all of its content. For entry bundles and tiles of level 0 these are indexes of entries.
    pub fn rows(&self) -> Range<u64> {
        // No index is above TILE_INDEX_MAX.
        let first = self.index << TILE_HEIGHT;
        first..first.saturating_add(self.width.into())
    }

    /// Whether a log of `size` entries has all its rows.
    pub fn is_within(&self, size: u64) -> bool {
        self.rows().end <= self.content.rows(size)
    }

    /// The tile of hashes that belongs to an entry bundle; itself for other tiles.
    pub const fn hashes(self) -> Self {
        match self.content {
            Content::Entries => Self { content: Content::Hashes { level: 0 }, ..self },
            Content::Hashes { .. } => self,
        }
    }

    /// The nodes of the Merkle tree in its rows; those of the entries for a bundle. There are none above the highest
    /// level that a log can have.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        let level = match self.content {
            Content::Hashes { level } => level.checked_mul(TILE_HEIGHT).filter(|level| u32::from(*level) < u64::BITS),
            Content::Entries => Some(0),
        };
        let rows = self.rows();
        level.into_iter().flat_map(move |level| rows.clone().map(move |index| NodeId { level, index }))
    }
}

/// The bytes of a tile of hashes, from the nodes that `fetch` gives.
///
/// # Errors
///
/// Those of `fetch`.
pub fn hash_tile<E>(tile: &Tile, mut fetch: impl FnMut(NodeId) -> Result<Digest, E>) -> Result<Vec<u8>, E> {
    let mut bytes = Vec::with_capacity(usize::from(tile.width) * HASH_SIZE_BYTES);
    for node in tile.nodes() {
        bytes.extend_from_slice(fetch(node)?.as_bytes());
    }
    Ok(bytes)
}

/// The hashes in the bytes of a tile.
///
/// # Errors
///
/// [`TileError::Size`] unless there are exactly as many as the tile has rows.
pub fn read_hash_tile(tile: &Tile, bytes: &[u8]) -> Result<Vec<Digest>, TileError> {
    let (expected, found) = (usize::from(tile.width) * HASH_SIZE_BYTES, bytes.len());
    if found != expected {
        return Err(TileError::Size { tile: *tile, expected, found });
    }
    let (hashes, _) = bytes.as_chunks::<HASH_SIZE_BYTES>();
    Ok(hashes.iter().copied().map(Digest::from_bytes).collect())
}
