//! What the fuzz targets of wire formats and kits check: what arrives from a peer, a client or a replica, and files.
//!
//! A target is a function from bytes that must not panic, whatever they are. `fuzz_targets` lets libFuzzer call it,
//! `tests/fuzz_seeds.rs` calls it with every seed in each run of the tests. CONTRIBUTING.md says how to add one.

pub mod api;
pub mod frame;
pub mod key_file;
pub mod kit_file;
pub mod message;

/// A target's name, which is also that of its file, its entry point and its seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("api", api::run),
    ("frame", frame::run),
    ("key_file", key_file::run),
    ("kit_file", kit_file::run),
    ("message", message::run),
];
