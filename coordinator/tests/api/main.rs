//! The API over mutually authenticated TLS on the loopback interface, in front of a ledger in memory.

mod access;
mod backend;
mod blobs;
mod fixture;
mod ledger;
mod lifecycle;
