//! What the ledger writes, read by programs in Go that were written by others: the packages of the Go module
//! checksum database.
//!
//! Every test runs one program of `programs/`, which is built with the Go that is installed. Where Go or its package
//! `golang.org/x/mod/sumdb` is missing, tests print that they were skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests, outside #[test]")]

mod formats;
mod program;
#[allow(dead_code, reason = "shared with the tests of the formats, which use all of it")]
#[path = "../formats/sample_log.rs"]
mod sample_log;
