//! The gRPC API of a replica: what it says on the wire, what that means, and a client.
//!
//! `proto/fedledger/v1/api.proto` defines the services. Programs in Rust use [`ApiClient`] and the types here; the
//! generated code in [`v1`] is for the server and stops at this crate's conversions.

mod client;
mod code;
mod convert;
mod download;
mod entries;
mod error;
mod heads;
pub mod limits;
mod metadata;
mod progress;
mod submit;
mod types;

#[cfg(test)]
mod tests;

pub use client::{ApiClient, ProvenRecord};
pub use code::{ApiCode, Refused};
pub use convert::{InvalidField, level};
pub use entries::{EntriesStream, LogEntry};
pub use error::ApiError;
pub use heads::{Conflict, SeenHead, Vouched};
pub use metadata::{HeadAnswer, HeadId, NewerHead, known_head};
pub use submit::{Submission, Submitted};
pub use types::{Level, NodeStatus, PeerStatus, RaftRole, SealStatus};

/// The code generated from `api.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("fedledger.v1");

    /// The descriptors of the services, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("fedledger.v1");
}
