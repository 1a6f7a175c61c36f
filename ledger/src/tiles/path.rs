//! The paths of tiles.

use std::{fmt, str::FromStr};

use super::{Content, TILE_WIDTH, Tile, TileError};
use crate::digest::shortened;

/// Longer than the path of any tile, in bytes.
const PATH_LENGTH_MAX: usize = 64;

/// The path element in the place of a level that entry bundles have.
const ENTRIES: &str = "entries";

/// Digits of an index in one path element.
const GROUP_DIGITS: usize = 3;

/// The indexes that one path element can tell apart.
const GROUP_BASE: u64 = 1000;

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes { level } => write!(f, "tile/{level}/")?,
            Content::Entries => write!(f, "tile/{ENTRIES}/")?,
        }
        write_groups(f, self.index / GROUP_BASE)?;
        write!(f, "{:03}", self.index % GROUP_BASE)?;
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// All path elements of an index but the last.
fn write_groups(f: &mut fmt::Formatter<'_>, index: u64) -> fmt::Result {
    if index == 0 {
        return Ok(());
    }
    write_groups(f, index / GROUP_BASE)?;
    write!(f, "x{:03}/", index % GROUP_BASE)
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        let read = if path.len() <= PATH_LENGTH_MAX { read(path) } else { None };
        // A tile has one path: leading zeros, signs, a width of 256 and the like are not written back.
        read.filter(|tile| tile.to_string() == path).ok_or_else(|| TileError::Path(shortened(path)))
    }
}

/// The tile that a path means, if not in the right form.
fn read(path: &str) -> Option<Tile> {
    let (content, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let content = match content {
        ENTRIES => Content::Entries,
        level => Content::Hashes { level: level.parse().ok()? },
    };
    let (groups, width) = match rest.split_once(".p/") {
        Some((groups, width)) => (groups, width.parse().ok()?),
        None => (rest, TILE_WIDTH),
    };
    let mut index = 0_u64;
    for group in groups.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != GROUP_DIGITS {
            return None;
        }
        index = index.checked_mul(GROUP_BASE)?.checked_add(digits.parse().ok()?)?;
    }
    Tile::new(content, index, width).ok()
}
