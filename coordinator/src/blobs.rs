//! The blob store: files named by their SHA-256, in a local folder. The same as a participant's.

pub use fedledger_proto::blobs::{BlobStore, IncomingBlob, path_in};
