//! The log over HTTP on the loopback interface, from a ledger in memory.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

mod client;
mod fixture;
mod hostile;
mod lifecycle;
mod tiles;
