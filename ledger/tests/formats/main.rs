//! What leaves the ledger as files and convinces people elsewhere: receipts of entries, and evidence of two histories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests, outside #[test]")]

mod evidence;
mod receipt;
mod sample_log;
mod vectors;
