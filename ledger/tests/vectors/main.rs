//! The formats and signatures of the ledger against vectors that others have published.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what is unexpected in a test fails it"
)]

mod dag_cbor;
mod ed25519;
mod notes;
