//! What travels between nodes: libp2p protocols and their messages, and the node that carries them.
//!
//! Wire types stop here: whatever arrives is checked once, at this border, before anything else sees it.

pub mod api;
pub mod blobs;
pub mod endpoint;
pub mod fault_point;
pub mod kit;
pub mod wire;
