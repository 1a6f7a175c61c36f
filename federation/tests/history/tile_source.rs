//! Verifying a history from its tiles: the same as from a bundle, and every change of a file is noticed and named.

use std::collections::BTreeMap;

use fedledger_federation::{
    history::{CHECKPOINT_FILE, History, HistoryError, Keep, Source, TileSource},
    verify::{Options, Problem, ProblemKind, Report, verify},
};
use fedledger_ledger::{bundle::BundleIndex, epoch::EpochChain, tiles::Tile};
use rayon::prelude::*;

use crate::{
    consortium::{Consortium, open_bundle},
    epochs::{exclude, seal_and_keep},
    tiles::{Tree, long_history, made},
};

/// A tree of files.
fn tree(source: &dyn Source) -> Tree {
    let (noted, mut tree) = made(source, None).unwrap();
    tree.insert(CHECKPOINT_FILE.to_owned(), noted.note.into_bytes());
    tree
}

fn open(tree: &Tree) -> TileSource<impl Fn(&Tile) -> std::io::Result<Option<Vec<u8>>>> {
    let checkpoint = tree.get(CHECKPOINT_FILE).map(|bytes| String::from_utf8(bytes.clone()).unwrap_or_default());
    TileSource::new(checkpoint.as_deref(), |tile| Ok(tree.get(&tile.to_string()).cloned())).unwrap()
}

fn check(tree: &Tree) -> Report {
    verify(&open(tree), &Options::default()).unwrap()
}

/// The first problem, if every problem has a place.
fn first_problem(report: &Report) -> Option<&Problem> {
    let place = |problem: &Problem| problem.index.is_some() || problem.file.is_some();
    report.problems.first().filter(|_| !report.ok && report.problems.iter().all(place))
}

/// Checks trees with one file changed: each is noticed, and the first problem names the file.
fn try_changes(tree: &Tree, changes: Vec<(&str, Option<Vec<u8>>)>) {
    changes.into_par_iter().for_each(|(name, bytes)| {
        let mut tree = tree.clone();
        match &bytes {
            Some(bytes) => tree.insert(name.to_owned(), bytes.clone()),
            None => tree.remove(name),
        };
        let report = check(&tree);
        let length = bytes.map(|bytes| bytes.len());
        let problem = first_problem(&report);
        let problem = problem.unwrap_or_else(|| panic!("{name}, now of {length:?} bytes: {:?}", report.problems));
        // A checkpoint may have become one about a tree of which other files are missing.
        let named = problem.file.as_deref() == Some(name) || name == CHECKPOINT_FILE;
        assert!(named, "{name}, now of {length:?} bytes: {problem:?}");
    });
}

fn flipped(bytes: &[u8], bit: usize) -> Option<Vec<u8>> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    Some(flipped)
}

#[test]
fn tiles_show_what_a_bundle_without_files_shows() {
    let consortium = long_history();
    let from_tiles = check(&tree(&consortium.source()));
    let from_bundle = verify(&open_bundle(&consortium.bundle()), &Options::default()).unwrap();
    assert_eq!((from_tiles.problems.as_slice(), from_tiles.ok), (&[][..], true));
    let facts = |report: &Report| {
        let Report { entries, root, signatures, final_entries, unanimous_entries, seals, .. } = *report;
        (entries, root, signatures, final_entries, unanimous_entries, seals)
    };
    assert_eq!(facts(&from_tiles), facts(&from_bundle));
    assert_eq!(from_tiles.blobs, 0);
    // What takes no files is computed again; of the rest it is said that it was not.
    let skipped = from_tiles.versions_skipped.len() as u64;
    assert!(skipped > 0 && from_tiles.versions_recomputed + skipped == from_bundle.versions_recomputed);
    assert!(from_tiles.versions_skipped.iter().all(|skipped| skipped.reason.contains("is not there")));
}

#[test]
fn a_chain_of_epochs_shows_what_the_last_checkpoint_alone_does_not() {
    let mut consortium = Consortium::with_history(2);
    exclude(&mut consortium, "turin");
    seal_and_keep(&mut consortium, "epoch/1", &["basel", "lyon", "porto"]);
    consortium.sign_checkpoints(3);
    let bundle = consortium.bundle();
    let chain = EpochChain::from_bytes(&BundleIndex::scan(bundle.as_slice()).unwrap().epochs.unwrap().bytes).unwrap();
    assert_eq!(chain.links().len(), 1);
    let tree = tree(&open_bundle(&bundle));
    let notes = || chain.links().iter().map(|link| link.receipt.checkpoint().to_string());
    let options = Options { epochs: Some(chain.clone()), ..Options::default() };
    let report = verify(&open(&tree).with_earlier_notes(notes()), &options).unwrap();
    assert_eq!((report.problems, report.final_entries), (vec![], report.entries));
    // A history of before the exclusion is refused by who knows of it.
    let cut = Consortium::with_history(2);
    let cut = {
        let mut cut = cut;
        cut.sign_checkpoints(3);
        self::tree(&cut.source())
    };
    let report = verify(&open(&cut).with_earlier_notes(notes()), &options).unwrap();
    assert!(report.problems.iter().any(|problem| problem.kind == ProblemKind::Epochs), "{:?}", report.problems);
}

#[test]
fn every_kind_of_damage_is_noticed_and_the_file_is_named() {
    let tree = tree(&long_history().source());
    assert!(tree.keys().any(|name| name.starts_with("tile/1/")) && tree.contains_key("tile/entries/001"));
    let mut changes = Vec::new();
    for (name, bytes) in &tree {
        changes.push((name.as_str(), None));
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            changes.push((name, Some(bytes[..length].to_vec())));
        }
        changes.push((name, Some([bytes.as_slice(), b"\0"].concat())));
        // Bits of the beginning, the middle and the end.
        let bits = [0, 13, bytes.len() * 4, bytes.len() * 6 + 3, bytes.len() * 8 - 1];
        changes.extend(bits.map(|bit| (name.as_str(), flipped(bytes, bit))));
    }
    try_changes(&tree, changes);
}

#[test]
fn flipped_bits_of_every_file_are_noticed_and_the_file_is_named() {
    let mut consortium = Consortium::with_history(2);
    consortium.sign_checkpoints(3);
    let tree = tree(&consortium.source());
    let step = |name: &str| match name {
        // Steps that are prime to eight, so that every bit of a byte comes up.
        CHECKPOINT_FILE => 3,
        name if name.starts_with("tile/entries/") => 1021,
        _ => 17,
    };
    let changes = tree.iter().flat_map(|(name, bytes)| {
        (0..bytes.len() * 8).step_by(step(name)).map(move |bit| (name.as_str(), flipped(bytes, bit)))
    });
    try_changes(&tree, changes.collect());
}

#[test]
fn a_changed_entry_is_named_and_other_readers_stop_at_it() {
    let mut tree = tree(&long_history().source());
    let name = "tile/entries/001";
    let bytes = tree.get_mut(name).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let report = check(&tree);
    let problem = first_problem(&report).unwrap();
    assert_eq!((problem.index, problem.file.as_deref()), (Some(511), Some(name)));
    assert_eq!(report.entries, 511, "what stands before it is in order");
    let error = History::read(&open(&tree), Keep::State, 1).unwrap_err();
    assert!(matches!(&error, HistoryError::Source(_)) && error.to_string().contains(name), "{error}");
}

#[test]
fn without_a_checkpoint_there_is_no_history() {
    let empty = BTreeMap::new();
    let report = check(&empty);
    let problem = first_problem(&report).unwrap();
    assert_eq!((problem.kind, problem.file.as_deref()), (ProblemKind::Missing, Some(CHECKPOINT_FILE)));
    assert_eq!(report.entries, 0);
}
