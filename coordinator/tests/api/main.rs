//! The API over mutually authenticated TLS on the loopback interface, in front of a ledger in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod access;
mod backend;
mod blobs;
mod finality;
mod fixture;
mod heads;
mod ledger;
mod lifecycle;
