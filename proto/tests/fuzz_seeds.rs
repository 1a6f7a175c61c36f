//! The fuzz targets of this crate in the ordinary tests: every committed seed, and many small changes of each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what is unexpected in a test fails it"
)]

#[path = "../../ledger/fuzz/replay.rs"]
mod replay;
#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::TARGETS;

#[test]
fn every_seed_and_what_is_near_it_passes_its_target() {
    replay::seeds(env!("CARGO_MANIFEST_DIR"), &TARGETS);
}

#[test]
fn every_target_has_an_entry_point_and_every_entry_point_a_target() {
    replay::entry_points(env!("CARGO_MANIFEST_DIR"), &TARGETS);
}
