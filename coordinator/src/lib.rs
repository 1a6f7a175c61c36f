//! A replica of the ledger as a process: network, disk, API, and the one task that owns the replica's core.
//!
//! ```text
//!     HTTP (anybody)   gRPC (people, programs)      libp2p (nodes)
//!           |              |                         |
//!   duties <---> replica task (owns the core) <--- requests, Raft frames
//!                          |
//!                    disk thread (RocksDB)       blob store (files by SHA-256)
//! ```
//!
//! Whatever is decided is decided in the pure cores of `fedledger-ledger` and `fedledger-federation`; this crate carries it
//! out. The leader's replica also acts as the coordinator of the rounds, from ledger state alone.

pub mod api;
pub mod backend;
pub mod blobs;
pub mod checkpoints;
pub mod contradictions;
mod disk;
mod duties;
mod fetching;
pub mod findings;
mod gossip;
pub mod http;
pub mod intake;
mod membership;
pub mod node;
pub mod peers;
mod proofs;
mod recording;
pub mod replica;
mod requests;
mod shared;
mod sweeping;
mod tasks;

pub use node::{NodeError, ReplicaNode};
