//! What the fuzz targets of the ledger check: everything that is read from a peer, a file or a user.
//!
//! A target is a function from bytes that must not panic, whatever they are. `fuzz_targets` lets libFuzzer call it,
//! `tests/fuzz_seeds.rs` calls it with every seed in each run of the tests. CONTRIBUTING.md says how to add one.

pub mod bundle;
pub mod choices;
pub mod codec;
pub mod envelope;
pub mod epochs;
pub mod evidence;
pub mod history;
pub mod leaf;
pub mod note;
pub mod policy;
pub mod proof;
pub mod raft_message;
pub mod receipt;
pub mod sealed;
pub mod state_proof;
pub mod state_receipt;
pub mod tiles;

/// A target's name, which is also that of its file, its entry point and its seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 14] = [
    ("bundle", bundle::run),
    ("codec", codec::run),
    ("envelope", envelope::run),
    ("epochs", epochs::run),
    ("evidence", evidence::run),
    ("leaf", leaf::run),
    ("note", note::run),
    ("policy", policy::run),
    ("proof", proof::run),
    ("raft_message", raft_message::run),
    ("receipt", receipt::run),
    ("state_proof", state_proof::run),
    ("state_receipt", state_receipt::run),
    ("tiles", tiles::run),
];
