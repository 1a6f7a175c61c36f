//! Endpoints on the loopback interface, over both transports, with well-behaved and hostile peers.

mod admission;
mod blobs;
mod hostile;
mod node;
mod protocols;
mod raft;
mod raw_peer;
mod running;
