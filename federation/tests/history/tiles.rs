//! Histories as tiles: the same from every source, and nothing that nobody signed for.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_federation::history::{NotedCheckpoint, Source, TilesError, write_tiles};
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    note::sign_note,
    storage::{Batch, Column, LogStorage as _, notes::put_note},
    tiles::{Content, Tile, check_entry_bundle, read_entry_bundle, root_from_tiles, tiles},
};

use crate::consortium::{Consortium, OFFICE, key, open_bundle, plan};

/// Resources by path.
pub type Tree = BTreeMap<String, Vec<u8>>;

pub fn made(source: &dyn Source, earlier: Option<&Checkpoint>) -> Result<(NotedCheckpoint, Tree), TilesError> {
    let mut tree = Tree::new();
    let noted = write_tiles(source, earlier, |tile, bytes| {
        assert_eq!(tree.insert(tile.to_string(), bytes.to_vec()), None, "{tile} was written twice");
        Ok::<_, TilesError>(())
    })?;
    Ok((noted, tree))
}

/// A history that takes more than one tile.
pub fn long_history() -> Consortium {
    let mut consortium = Consortium::with_history(4);
    for _ in 0..500 {
        // A rejection on record is an entry like any other.
        let envelope = consortium.envelope(OFFICE, "Greet", vec![0xa0]);
        assert!(consortium.apply(&envelope).unwrap().unwrap().is_err());
    }
    consortium.sign_checkpoints(4);
    consortium
}

#[test]
fn node_and_bundle_give_the_same_tiles_which_lead_to_the_signed_root() {
    let consortium = long_history();
    let size = consortium.log.size();
    assert!(size > 512, "a history of {size} entries");
    let (noted, tree) = made(&consortium.source(), None).unwrap();
    assert_eq!((noted.checkpoint.size(), *noted.checkpoint.root()), (size, consortium.log.root()));
    assert!(consortium.notes.iter().any(|note| note.to_string() == noted.note), "{}", noted.note);
    assert_eq!(made(&open_bundle(&consortium.bundle()), None).unwrap(), (noted, tree.clone()));

    let fetch = |tile: &Tile| tree.get(&tile.to_string()).cloned().ok_or("missing");
    assert_eq!(root_from_tiles(size, fetch), Ok(consortium.log.root()));
    assert_eq!(tiles(size).map(|tile| tile.to_string()).collect::<BTreeSet<_>>(), tree.keys().cloned().collect());
    let mut entries = Vec::new();
    for tile in Content::Entries.tiles(size) {
        let hashes = tile.hashes();
        let (bytes, hash_bytes) = (&tree[&tile.to_string()], &tree[&hashes.to_string()]);
        let checked = check_entry_bundle((&tile, bytes), (&hashes, hash_bytes)).unwrap();
        assert_eq!(read_entry_bundle(&tile, bytes).unwrap(), checked);
        entries.extend(checked.into_iter().map(<[u8]>::to_vec));
    }
    assert_eq!(entries[0], consortium.genesis);
    assert_eq!(entries[1..], consortium.leaves);
}

#[test]
fn tiles_end_with_the_largest_checkpoint_of_this_log() {
    let mut consortium = Consortium::with_history(2);
    consortium.sign_checkpoints(1);
    let covered = consortium.log.size();
    consortium.start(plan("later"));
    let storage = consortium.stored();
    let mut batch = Batch::default();
    let root = Digest::of(b"whatever");
    // Notes about less, about another log, and of something else.
    for (signer, text) in [
        ("lyon/replica", Checkpoint::new("fedledger/other", 10_000, root).unwrap().to_note_text()),
        ("porto/replica", Checkpoint::new("fedledger/hearts", 1, root).unwrap().to_note_text()),
        ("turin/replica", "no checkpoint\n".to_owned()),
    ] {
        put_note(&mut batch, signer, &sign_note(&text, signer, &key("any")).unwrap().to_string());
    }
    storage.write(&batch, true).unwrap();
    let (noted, tree) = made(&consortium.source_over(storage), None).unwrap();
    assert_eq!(noted.checkpoint.size(), covered);
    assert_eq!(tree.len(), tiles(covered).count());
}

#[test]
fn what_was_not_signed_for_is_not_written_as_if_it_were() {
    let consortium = Consortium::with_history(2);
    let size = consortium.log.size();

    let storage = consortium.stored();
    let mut batch = Batch::default();
    for name in ["note/head", "note/final", "note/unanimous"] {
        batch.delete(Column::Meta, name);
    }
    storage.write(&batch, true).unwrap();
    let none = made(&consortium.source_over(storage), None);
    assert!(matches!(none, Err(TilesError::NoCheckpoint)), "{none:?}");

    let storage = consortium.stored();
    let mut batch = Batch::default();
    batch.put(Column::Leaf, 5_u64.to_be_bytes(), b"another entry".as_slice());
    storage.write(&batch, true).unwrap();
    let forged = made(&consortium.source_over(storage), None);
    assert!(matches!(&forged, Err(TilesError::Root { size: of, .. }) if *of == size), "{forged:?}");

    let storage = consortium.stored();
    let mut batch = Batch::default();
    batch.delete(Column::Leaf, (size - 1).to_be_bytes());
    storage.write(&batch, true).unwrap();
    let short = made(&consortium.source_over(storage), None);
    assert!(matches!(&short, Err(TilesError::Missing { found, .. }) if *found == size - 1), "{short:?}");

    let mut damaged = consortium.bundle();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let damaged = made(&open_bundle(&damaged), None);
    assert!(matches!(damaged, Err(TilesError::Source(_) | TilesError::Root { .. })), "{damaged:?}");
}

#[test]
fn an_earlier_export_is_continued_only_by_the_same_log() {
    let mut consortium = Consortium::with_history(2);
    let earlier = consortium.checkpoint();
    assert_eq!(made(&consortium.source(), Some(&earlier)).unwrap().0.checkpoint, earlier);
    consortium.start(plan("later"));
    consortium.sign_checkpoints(2);
    let (noted, _) = made(&consortium.source(), Some(&earlier)).unwrap();
    assert_eq!(noted.checkpoint, consortium.checkpoint());

    let with = |origin: &str, size: u64, root| {
        let earlier = Checkpoint::new(origin, size, root).unwrap();
        made(&consortium.source(), Some(&earlier)).unwrap_err()
    };
    let forked = with(earlier.origin(), earlier.size(), Digest::of(b"another history"));
    assert!(matches!(forked, TilesError::Fork { size, .. } if size == earlier.size()), "{forked}");
    let longer = with(earlier.origin(), 10_000, *earlier.root());
    assert!(matches!(longer, TilesError::Shorter { earlier: 10_000, .. }), "{longer}");
    let other = with("fedledger/other", earlier.size(), *earlier.root());
    assert!(matches!(&other, TilesError::OtherLog { found, .. } if found == "fedledger/other"), "{other}");
}
