//! Tiles and entry bundles: paths, bytes, and a log's own with something changed.

use std::{collections::BTreeMap, sync::OnceLock};

use fedledger_ledger::{
    Digest,
    tiles::{
        Content, TILE_WIDTH, Tile, TileBuilder, check_entry_bundle, push_entry, read_entry_bundle, read_hash_tile,
        root_from_tiles,
    },
};

use super::choices::Choices;

/// Entries of the log whose tiles are changed: a full tile, a partial one, and one above them.
const SIZE: u64 = 300;

/// Most changes of one tile.
const CHANGES_MAX: usize = 4;

struct Tiles {
    root: Digest,
    tiles: BTreeMap<Tile, Vec<u8>>,
}

fn tiles() -> &'static Tiles {
    static TILES: OnceLock<Tiles> = OnceLock::new();
    TILES.get_or_init(|| {
        let mut builder = TileBuilder::new();
        let mut tiles = BTreeMap::new();
        for index in 0..SIZE {
            // Entries of different lengths, none of them among them.
            let entry = index.to_be_bytes().repeat((index % 3) as usize);
            tiles.extend(builder.append(&entry).expect("entries are small"));
        }
        tiles.extend(builder.partial());
        Tiles { root: builder.root(), tiles }
    })
}

/// Reads the bytes as a path and as an entry bundle, and changes a tile of a log.
pub fn run(data: &[u8]) {
    if let Some(tile) = str::from_utf8(data).ok().and_then(|path| path.parse::<Tile>().ok()) {
        assert_eq!(tile.to_string().as_bytes(), data, "a tile has one path");
        assert_eq!(Tile::new(tile.content(), tile.index(), tile.width()), Ok(tile));
        assert_eq!(tile.rows().end - tile.rows().start, tile.width().into());
        assert!(tile.nodes().count() <= tile.width().into());
        assert_eq!(tile.is_within(u64::MAX), tile.rows().end <= tile.content().rows(u64::MAX));
    }
    let mut choices = Choices::new(data);
    arbitrary_bytes(&mut choices);
    changed_tile(&mut Choices::new(data));
}

fn arbitrary_bytes(choices: &mut Choices<'_>) {
    let width = 1 + u16::from(choices.byte()) % TILE_WIDTH;
    let (index, level) = (choices.number(), choices.byte());
    let bytes = choices.bytes(usize::MAX);
    if let Ok(tile) = Tile::new(Content::Entries, index, width)
        && let Ok(entries) = read_entry_bundle(&tile, bytes)
    {
        let mut again = Vec::new();
        entries.iter().for_each(|entry| push_entry(&mut again, entry).expect("the entry was read"));
        assert_eq!((entries.len(), again.as_slice()), (width.into(), bytes), "entries have one bundle");
    }
    if let Ok(tile) = Tile::new(Content::Hashes { level }, index, width)
        && let Ok(hashes) = read_hash_tile(&tile, bytes)
    {
        let again: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        assert_eq!(again, bytes, "hashes have one tile");
    }
    // A log of any size whose tiles cannot be had.
    assert!(root_from_tiles(index.max(1), |tile| Err::<Vec<u8>, _>(*tile)).is_err());
}

fn changed_tile(choices: &mut Choices<'_>) {
    let log = tiles();
    let place = choices.below(log.tiles.len());
    let Some((tile, true_bytes)) = log.tiles.iter().nth(place) else { return };
    let mut bytes = true_bytes.clone();
    for _ in 0..1 + choices.below(CHANGES_MAX) {
        let place = (usize::from(choices.byte()) << 8 | usize::from(choices.byte())) % (bytes.len() + 1);
        match choices.below(4) {
            0 => bytes.insert(place, choices.byte()),
            1 => bytes.truncate(place),
            2 if place < bytes.len() => _ = bytes.remove(place),
            _ if place < bytes.len() => bytes[place] = choices.byte(),
            _ => {}
        }
    }
    let is_true = bytes == *true_bytes;
    if tile.content() == Content::Entries {
        let hashes = tile.hashes();
        let checked = check_entry_bundle((tile, &bytes), (&hashes, &log.tiles[&hashes]));
        assert_eq!(checked.is_ok(), is_true, "wrong entries were accepted, or right ones refused");
    } else {
        let fetch = |wanted: &Tile| {
            let given = if wanted == tile { Some(&bytes) } else { log.tiles.get(wanted) };
            given.cloned().ok_or(*wanted)
        };
        let accepted = root_from_tiles(SIZE, fetch).is_ok_and(|root| root == log.root);
        assert_eq!(accepted, is_true, "a wrong tile was accepted, or a right one refused");
    }
}
