//! What the fuzz targets of the wire formats check: everything that arrives over a stream of a peer.
//!
//! A target is a function from bytes that must not panic, whatever they are. `fuzz_targets` lets libFuzzer call it,
//! `tests/fuzz_seeds.rs` calls it with every seed in each run of the tests. CONTRIBUTING.md says how to add one.

pub mod frame;
pub mod message;

/// A target's name, which is also that of its file, its entry point and its seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 2] = [("frame", frame::run), ("message", message::run)];
