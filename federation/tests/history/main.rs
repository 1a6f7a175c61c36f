//! Whole histories: what the state machine does, how histories are exported and verified, and what auditors see of them.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod apply;
mod audit;
mod bundle;
mod certificate;
mod collection;
mod conductor;
mod consortium;
mod crowd;
mod data_description;
mod early_stopping;
mod element_types;
mod epochs;
mod faults;
mod flow;
mod governance;
mod metrics;
mod progress;
mod proofs;
mod properties;
mod quorum;
mod refusals;
mod rejections;
mod retention;
mod rewriting;
mod sizes;
mod tampering;
mod thousand;
mod tile_source;
mod tiles;
mod trainers;
mod verify;
mod wake_ups;
mod withdrawal;
mod world;
