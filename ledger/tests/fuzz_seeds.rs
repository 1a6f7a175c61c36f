//! The fuzz targets of this crate in the ordinary tests: every committed seed, and many small changes of each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what is unexpected in a test fails it"
)]

#[path = "../fuzz/replay.rs"]
mod replay;
#[expect(dead_code, reason = "some of it is for the program that writes the seeds")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{fs, path::Path};

use fedledger_ledger::{
    bundle::BundleIndex,
    epoch::{Epoch, EpochChain},
    evidence::Evidence,
    leaf::Leaf,
    map::StateProof,
    note::SignedNote,
    policy::Policy,
    receipt::Receipt,
    state_receipt::StateReceipt,
    tiles::Tile,
    transaction::Envelope,
};
use targets::TARGETS;

#[test]
fn every_seed_and_what_is_near_it_passes_its_target() {
    replay::seeds(env!("CARGO_MANIFEST_DIR"), &TARGETS);
}

#[test]
fn every_target_has_an_entry_point_and_every_entry_point_a_target() {
    replay::entry_points(env!("CARGO_MANIFEST_DIR"), &TARGETS);
}

/// What the seeds of a target begin as.
type Reads = fn(&[u8]) -> bool;

/// Seeds in a format of the past would only show that nothing else is accepted. `cargo run --example seeds` in `fuzz`
/// writes them anew.
#[test]
fn seeds_are_of_the_present_formats() {
    let formats: [(&str, &str, Reads); 13] = [
        ("envelope", "Contribute", |seed| Envelope::open_unverified(seed).is_ok()),
        ("leaf", "Contribute", |seed| Leaf::from_bytes(seed).is_ok()),
        ("leaf", "sealed", |seed| Leaf::from_bytes(seed).is_ok_and(|leaf| leaf.seal.is_some())),
        ("note", "signed", |seed| SignedNote::parse(str::from_utf8(seed).unwrap()).is_ok()),
        ("bundle", "small", |seed| BundleIndex::scan(seed).unwrap().defect.is_none()),
        ("policy", "groups", |seed| Policy::parse(seed).is_ok()),
        ("receipt", "receipt", |seed| Receipt::parse(str::from_utf8(seed).unwrap()).is_ok()),
        ("epochs", "chain", |seed| EpochChain::from_bytes(seed).is_ok_and(|chain| chain.links().len() == 2)),
        ("epochs", "epoch", |seed| Epoch::from_bytes(seed).is_ok()),
        ("evidence", "two-sizes", |seed| Evidence::from_bytes(seed).is_ok()),
        ("state_proof", "present", |seed| StateProof::from_bytes(seed).is_ok()),
        ("state_receipt", "present", |seed| StateReceipt::from_bytes(seed).is_ok()),
        ("tiles", "path", |seed| str::from_utf8(seed).unwrap().parse::<Tile>().is_ok()),
    ];
    for (target, name, reads) in formats {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target).join(name);
        assert!(reads(&fs::read(&path).unwrap()), "{} is of another format", path.display());
    }
}
