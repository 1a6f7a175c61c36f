//! Entry bundles: entries one after the other, each behind its length.

use super::{Content, Tile, TileError, read_hash_tile};
use crate::merkle::leaf_hash;

/// Appends an entry to the bytes of a bundle.
///
/// # Errors
///
/// [`TileError::EntryTooLarge`] if its length does not fit into 16 bits.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let length = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLarge { size: entry.len() })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries in the bytes of a bundle. They have not been compared with anything.
///
/// # Errors
///
/// [`TileError::Truncated`] or [`TileError::TrailingBytes`] unless there are exactly as many as the bundle has rows.
pub fn read_entry_bundle<'a>(tile: &Tile, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, TileError> {
    let mut entries = Vec::with_capacity(tile.width().into());
    let mut rest = bytes;
    for index in tile.rows() {
        let (entry, behind) = split_entry(rest).ok_or(TileError::Truncated { tile: *tile, index })?;
        entries.push(entry);
        rest = behind;
    }
    if rest.is_empty() { Ok(entries) } else { Err(TileError::TrailingBytes { tile: *tile, count: rest.len() }) }
}

/// The first entry and what stands behind it.
fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// The entries in the bytes of a bundle, each of which has the hash that the bytes of the tile `hashes`, of the same place
/// and width on level 0, have for it.
///
/// # Errors
///
/// [`TileError`], which names the first entry that is not the right one.
pub fn check_entry_bundle<'a>(
    (tile, bytes): (&Tile, &'a [u8]),
    (hashes, hash_bytes): (&Tile, &[u8]),
) -> Result<Vec<&'a [u8]>, TileError> {
    if tile.content() != Content::Entries || tile.hashes() != *hashes {
        return Err(TileError::OtherPlace { bundle: *tile, hashes: *hashes });
    }
    let entries = read_entry_bundle(tile, bytes)?;
    let expected = read_hash_tile(hashes, hash_bytes)?;
    for ((entry, hash), index) in entries.iter().zip(&expected).zip(tile.rows()) {
        if leaf_hash(entry) != *hash {
            return Err(TileError::Entry { tile: *tile, index });
        }
    }
    Ok(entries)
}
