//! Epochs: who vouches for the log, from one change of members or keys to the next.
//!
//! The first epoch follows from the genesis file. Every later one is made by an entry of the log and comes into force with
//! the first [seal](crate::seal) after it: that seal still belongs to the epoch before, whose replicas so vouch for their
//! successors. Whoever holds the genesis file can therefore check every later epoch, and every receipt, for ever.

mod chain;
mod policy;
#[cfg(test)]
mod tests;
mod vouchers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    chain::{
        EPOCH_CHAIN_SIZE_BYTES_MAX, EPOCH_LINKS_MAX, EpochChain, EpochChainError, EpochLink, EpochLinkError, Epochs,
        EpochsError,
    },
    vouchers::{VouchError, Vouchers},
};
use crate::{
    codec::{self, CodecError},
    digest::Digest,
    keys::PublicKey,
};

/// Largest encoding of an epoch, in bytes: some 30,000 nodes.
pub const EPOCH_SIZE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The replicas that make heads of the log final, and the witnesses beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Epochs are counted from 0, that of the genesis file.
    pub number: u64,
    /// Index of the entry that made it.
    pub index: u64,
    /// Replicas that must have co-signed a head for it to be final.
    pub threshold: u64,
    /// The replicas by node name.
    pub replicas: BTreeMap<String, ReplicaKeys>,
    /// Keys of the witnesses by node name. They never count towards the threshold: they do not hold the log.
    pub witnesses: BTreeMap<String, PublicKey>,
}

/// The keys of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaKeys {
    /// Signs its transactions, seals among them.
    pub author: PublicKey,
    /// Signs heads in the name of the log (C2SP signed-note, type 0x01).
    pub log: PublicKey,
    /// Co-signs heads in its own name (C2SP tlog-cosignature, type 0x04).
    pub cosign: PublicKey,
}

impl Epoch {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes an epoch. Whether anybody vouches for it is not checked; see [`EpochChain`].
    ///
    /// # Errors
    ///
    /// [`CodecError`] for anything but a canonical epoch of at most [`EPOCH_SIZE_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, EPOCH_SIZE_BYTES_MAX)
    }

    /// SHA-256 of the epoch's canonical encoding, as it stands in the [seal](crate::seal::Seal) that puts it into force.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The replica that signs transactions with this key.
    pub fn replica_of_author(&self, author: &PublicKey) -> Option<&str> {
        self.replicas.iter().find(|(_, keys)| keys.author == *author).map(|(node, _)| node.as_str())
    }
}

/// The key name of a node's co-signatures: unique beyond the consortium, as C2SP signed-note recommends.
pub fn cosigner_name(origin: &str, node: &str) -> String {
    format!("{origin}/{node}")
}

/// The node that co-signs under this key name.
pub fn cosigner_node<'a>(origin: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(origin)?.strip_prefix('/')
}
