//! The ledger: order and proof, without knowing what is ordered.
//!
//! A transaction is a small signed envelope; committed transactions become leaves of an append-only Merkle log
//! (RFC 6962), replicated with Raft. This crate is pure: time comes in as ticks, randomness as arguments, network and
//! disk as inputs and outputs. The one exception is `storage::rocks`, the RocksDB side of the storage seam, which can be
//! left out with the feature `rocksdb`.

pub mod bundle;
pub mod checkpoint;
pub mod codec;
pub mod consensus;
pub mod digest;
pub mod epoch;
pub mod evidence;
pub mod finality;
pub mod heads;
pub mod intake;
pub mod keys;
pub mod leaf;
pub mod limits;
pub mod log;
pub mod machine;
pub mod map;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod receipt;
pub mod replica;
pub mod seal;
pub mod state_receipt;
pub mod storage;
pub mod tiles;
pub mod transaction;

pub use digest::Digest;
pub use keys::{PublicKey, SecretKey, Signature};
