//! Tiles against the specification's words and examples, against the tree that is stored, and every small change.

use std::{cell::RefCell, collections::BTreeMap, convert::Infallible};

use proptest::prelude::*;

use super::*;
use crate::merkle::{Frontier, leaf_hash, root_at};

/// Sizes around the edges of tiles of every level that a test can fill.
const EDGES: [u64; 12] = [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000];

/// Resources of a log by path.
type Tree = BTreeMap<String, Vec<u8>>;

/// Entries of different lengths, the empty one among them.
fn entry(index: u64) -> Vec<u8> {
    index.to_be_bytes()[..usize::try_from(index % 9).unwrap()].to_vec()
}

/// All resources of the log of `size` entries, and its root.
fn built(size: u64) -> (Tree, Digest) {
    let mut builder = TileBuilder::new();
    let mut tree = Tree::new();
    let mut put = |(tile, bytes): (Tile, Vec<u8>)| {
        assert_eq!(tree.insert(tile.to_string(), bytes), None, "{tile} was made twice");
    };
    for index in 0..size {
        builder.append(&entry(index)).unwrap().into_iter().for_each(&mut put);
    }
    builder.partial().into_iter().for_each(&mut put);
    assert_eq!(builder.size(), size);
    (tree, builder.root())
}

fn stored(size: u64) -> (BTreeMap<NodeId, Digest>, Digest) {
    let mut frontier = Frontier::new();
    let nodes = (0..size).flat_map(|index| frontier.append(leaf_hash(&entry(index)))).collect();
    (nodes, frontier.root())
}

fn path(text: &str) -> Tile {
    text.parse().unwrap()
}

fn root(tree: &Tree, size: u64) -> Result<Digest, TreeError<String>> {
    root_from_tiles(size, |tile| tree.get(&tile.to_string()).cloned().ok_or_else(|| "not there".to_owned()))
}

#[test]
fn the_root_of_the_tiles_is_that_of_the_tree_at_every_edge() {
    for size in EDGES {
        let (tree, built_root) = built(size);
        let (nodes, stored_root) = stored(size);
        assert_eq!(root(&tree, size), Ok(stored_root), "size {size}");
        assert_eq!(built_root, stored_root);
        assert_eq!(root_at(size, |node| Ok::<_, Infallible>(nodes[&node])), Ok(stored_root));
        // The resources are exactly those that a log of this size has, and both ways to make a tile agree.
        assert_eq!(tiles(size).count(), tree.len(), "size {size}");
        for tile in tiles(size) {
            let bytes = &tree[&tile.to_string()];
            assert!(tile.is_within(size) && !(tile.is_full() && size > 0 && tile.is_within(tile.rows().end - 1)));
            if tile.content() == Content::Entries {
                let hashes = tile.hashes();
                let entries = check_entry_bundle((&tile, bytes), (&hashes, &tree[&hashes.to_string()])).unwrap();
                assert!(entries.iter().zip(tile.rows()).all(|(found, index)| *found == entry(index)));
            } else {
                let made = hash_tile(&tile, |node| Ok::<_, Infallible>(nodes[&node]));
                assert_eq!(made.as_ref(), Ok(bytes), "{tile}");
            }
        }
    }
}

#[test]
fn a_log_of_70000_entries_has_the_tiles_that_the_specification_counts() {
    let count = |content: Content| {
        let all: Vec<Tile> = content.tiles(70_000).collect();
        let partial: Vec<String> = all.iter().filter(|tile| !tile.is_full()).map(Tile::to_string).collect();
        (all.len() - partial.len(), partial)
    };
    let level = |level| count(Content::Hashes { level });
    assert_eq!(level(0), (273, vec!["tile/0/273.p/112".to_owned()]));
    assert_eq!(level(1), (1, vec!["tile/1/001.p/17".to_owned()]));
    assert_eq!(level(2), (0, vec!["tile/2/000.p/1".to_owned()]));
    assert_eq!(level(3), (0, vec![]));
    assert_eq!(count(Content::Entries), (273, vec!["tile/entries/273.p/112".to_owned()]));
    let of_256: Vec<String> = tiles(256).map(|tile| tile.to_string()).collect();
    assert_eq!(of_256, ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
    assert_eq!(tiles(0).count(), 0);
}

#[test]
fn a_tile_holds_the_hashes_of_the_entries_that_the_specification_says() {
    let (nodes, _) = stored(66_000);
    // MTH(D[(n * 256 + i) * 256**l : (n * 256 + i + 1) * 256**l]) for n = 0, i = 1, l = 1.
    let tile = Tile::at(Content::Hashes { level: 1 }, 0, 66_000).unwrap();
    let bytes = hash_tile(&tile, |node| Ok::<_, Infallible>(nodes[&node])).unwrap();
    let mut subtree = Frontier::new();
    for index in 256..512 {
        subtree.append(leaf_hash(&entry(index)));
    }
    assert_eq!(read_hash_tile(&tile, &bytes).unwrap()[1], subtree.root());
}

#[test]
fn paths_are_those_of_the_specification() {
    let tile = Tile::new(Content::Hashes { level: 4 }, 1_234_067, 8).unwrap();
    assert_eq!(tile.to_string(), "tile/4/x001/x234/067.p/8");
    for text in [
        "tile/0/000",
        "tile/63/999.p/1",
        "tile/entries/x001/000.p/255",
        "tile/entries/x001/x234/067",
        "tile/7/x072/x057/x594/x037/x927/935",
    ] {
        assert_eq!(path(text).to_string(), text);
    }
    assert_eq!(path("tile/0/x072/x057/x594/x037/x927/935").index(), TILE_INDEX_MAX);
}

#[test]
fn every_other_text_is_no_path() {
    for text in [
        "",
        "/",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile//000",
        "tile/0//000",
        "tile/64/000",
        "tile/00/000",
        "tile/+1/000",
        "tile/-1/000",
        "tile/256/000",
        "tile/data/000",
        "tile/8/0/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/+01",
        "tile/0/00a",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/+1",
        "tile/0/000.p/1/2",
        "tile/0/000.p/1.p/1",
        "tile/0/x001.p/000",
        "tile/0/../000",
        "tile/0/..",
        "tile/0/%30%30%30",
        "tile/0/000\0",
        "tile/0/000 ",
        "tile/0/\u{661}\u{661}\u{661}",
        "tile/0/x072/x057/x594/x037/x927/936",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/entries",
        "tile/Entries/000",
    ] {
        assert_eq!(text.parse::<Tile>(), Err(TileError::Path(text.to_owned())), "{text:?}");
    }
    let long = format!("tile/0/{}000", "x001/".repeat(1000));
    assert!(matches!(long.parse::<Tile>(), Err(TileError::Path(shown)) if shown.len() == 80));
}

#[test]
fn coordinates_and_sizes_at_their_limits_do_no_harm() {
    let hashes = |level| Content::Hashes { level };
    for (content, index, width) in
        [(hashes(64), 0, 1), (hashes(0), 0, 0), (hashes(0), 0, 257), (Content::Entries, TILE_INDEX_MAX + 1, 1)]
    {
        assert_eq!(Tile::new(content, index, width), Err(TileError::Coordinates { content, index, width }));
    }
    let last = Tile::new(hashes(63), TILE_INDEX_MAX, 256).unwrap();
    assert!(!last.is_within(u64::MAX));
    assert_eq!(last.nodes().count(), 0);
    assert_eq!(Tile::at(hashes(0), u64::MAX, u64::MAX), None);
    assert_eq!(Tile::at(hashes(7), 0, u64::MAX).map(|tile| tile.width()), Some(255));
    assert_eq!(Tile::at(hashes(8), 0, u64::MAX), None);
    assert_eq!(path("tile/7/000").nodes().next(), Some(NodeId { level: 56, index: 0 }));
    // A size that somebody made up costs one look.
    let looks = RefCell::new(0);
    let refused = root_from_tiles(u64::MAX, |_| {
        *looks.borrow_mut() += 1;
        Err::<Vec<u8>, _>("not there")
    });
    assert_eq!(refused, Err(TreeError::Fetch { tile: path("tile/0/000"), error: "not there" }));
    assert_eq!(looks.into_inner(), 1);
}

#[test]
fn a_changed_bit_in_any_tile_is_noticed() {
    const SIZE: u64 = 66_000;
    let (tree, good) = built(SIZE);
    for name in ["tile/0/000", "tile/0/257.p/208", "tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1"] {
        for position in [0, tree[name].len() - 1] {
            let mut changed = tree.clone();
            changed.get_mut(name).unwrap()[position] ^= 1;
            // Those of the edge are noticed by the root, all others by the tile above.
            assert_ne!(root(&changed, SIZE), Ok(good), "{name}, byte {position}");
        }
        let mut missing = tree.clone();
        missing.remove(name);
        let error = TreeError::Fetch { tile: path(name), error: "not there".to_owned() };
        assert_eq!(root(&missing, SIZE), Err(error));
    }
    let mut changed = tree.clone();
    changed.get_mut("tile/1/000").unwrap()[33] ^= 1;
    assert_eq!(root(&changed, SIZE), Err(TileError::Hash { level: 1, below: 1 }.into()));
    let mut longer = tree;
    longer.get_mut("tile/0/001").unwrap().push(0);
    let error = TileError::Size { tile: path("tile/0/001"), expected: 8192, found: 8193 };
    assert_eq!(root(&longer, SIZE), Err(error.into()));
}

#[test]
fn a_bundle_that_is_not_exact_is_refused() {
    let tile = path("tile/entries/002.p/2");
    let bytes = [0, 3, b'o', b'n', b'e', 0, 0];
    assert_eq!(read_entry_bundle(&tile, &bytes), Ok(vec![b"one".as_slice(), b"".as_slice()]));
    for (bytes, error) in [
        (&[][..], TileError::Truncated { tile, index: 512 }),
        (&[0], TileError::Truncated { tile, index: 512 }),
        (&[0, 4, b'o', b'n', b'e'], TileError::Truncated { tile, index: 512 }),
        (&[0xff, 0xff, b'o'], TileError::Truncated { tile, index: 512 }),
        (&bytes[..5], TileError::Truncated { tile, index: 513 }),
        (&bytes[..6], TileError::Truncated { tile, index: 513 }),
        (&[0, 0, 0, 0, 0], TileError::TrailingBytes { tile, count: 1 }),
    ] {
        assert_eq!(read_entry_bundle(&tile, bytes), Err(error), "{bytes:?}");
    }
    let hash_bytes = [leaf_hash(b"one"), leaf_hash(b"")].map(|hash| *hash.as_bytes()).concat();
    let hashes = path("tile/0/002.p/2");
    assert!(check_entry_bundle((&tile, &bytes), (&hashes, &hash_bytes)).is_ok());
    let other = [0, 3, b'o', b'n', b'e', 0, 1, 0];
    let error = TileError::Entry { tile, index: 513 };
    assert_eq!(check_entry_bundle((&tile, &other), (&hashes, &hash_bytes)), Err(error));
    for elsewhere in ["tile/0/002.p/3", "tile/0/003.p/2", "tile/1/002.p/2", "tile/entries/002.p/2"] {
        let elsewhere = path(elsewhere);
        let error = TileError::OtherPlace { bundle: tile, hashes: elsewhere };
        assert_eq!(check_entry_bundle((&tile, &bytes), (&elsewhere, &hash_bytes)), Err(error));
    }
}

#[test]
fn an_entry_is_taken_up_to_its_largest_size() {
    let mut builder = TileBuilder::new();
    builder.append(&vec![7; LEAF_SIZE_BYTES_MAX]).unwrap();
    let too_large = builder.append(&vec![7; LEAF_SIZE_BYTES_MAX + 1]);
    assert_eq!(too_large, Err(TileError::EntryTooLarge { size: LEAF_SIZE_BYTES_MAX + 1 }));
    assert_eq!(builder.size(), 1, "an entry that was refused counts");
    let (tile, bytes) = builder.partial().pop().unwrap();
    assert_eq!((tile.to_string().as_str(), bytes.len()), ("tile/entries/000.p/1", 2 + LEAF_SIZE_BYTES_MAX));
    assert_eq!(read_entry_bundle(&tile, &bytes).unwrap(), [vec![7; LEAF_SIZE_BYTES_MAX]]);
}

#[test]
fn full_tiles_never_change_as_the_log_grows() {
    let (small, large) = (built(700).0, built(1100).0);
    for (name, bytes) in small.iter().filter(|(name, _)| !name.contains(".p/")) {
        assert_eq!(large.get(name), Some(bytes), "{name}");
    }
    let partial = &small["tile/0/002.p/188"];
    assert!(large["tile/0/002"].starts_with(partial), "a partial tile is no beginning of the full one");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_root_of_the_tiles_is_that_of_the_tree(size in prop_oneof![0_u64..1500, 65_000_u64..66_500]) {
        let (tree, _) = built(size);
        prop_assert_eq!(root(&tree, size), Ok(stored(size).1));
    }
}

proptest! {
    #[test]
    fn every_tile_has_one_path(
        level in prop::option::of(0..=TILE_LEVEL_MAX), index in 0..=TILE_INDEX_MAX, shift in 0..56, width in 1..=TILE_WIDTH
    ) {
        let content = level.map_or(Content::Entries, |level| Content::Hashes { level });
        let tile = Tile::new(content, index >> shift, width).unwrap();
        prop_assert_eq!(tile.to_string().parse(), Ok(tile));
    }

    #[test]
    fn whatever_is_read_as_a_path_is_written_back_the_same(
        text in "tile/([0-9]{1,3}|entries)/(x?[0-9]{1,3}/){0,2}[0-9]{2,4}(\\.p/[0-9]{1,3})?"
    ) {
        if let Ok(tile) = text.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), text);
        }
    }

    #[test]
    fn whatever_is_read_as_a_bundle_is_written_back_the_same(
        bytes in prop::collection::vec(0..4_u8, 0..40), width in 1..8_u16
    ) {
        let tile = Tile::new(Content::Entries, 0, width).unwrap();
        if let Ok(entries) = read_entry_bundle(&tile, &bytes) {
            let mut written = Vec::new();
            for entry in entries {
                push_entry(&mut written, entry).unwrap();
            }
            prop_assert_eq!(written, bytes);
        }
    }
}
