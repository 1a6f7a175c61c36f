//! Endpoints on the loopback interface, over both transports, with well-behaved and hostile peers.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod admission;
mod blobs;
mod hostile;
mod nat;
mod networks;
mod node;
mod protocols;
mod raft;
mod raw_peer;
mod resuming;
mod running;
mod turns;
