//! Seals: entries that fix the replicated state, the epoch and the time, and whose heads are co-signed.
//!
//! The leader proposes a seal as a transaction of its own whenever there are new entries. What it seals is computed by every
//! replica when the transaction is applied, and stands in the leaf: a replica whose state differs writes another leaf, has
//! another root, and so cannot agree on the head with the others.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    digest::Digest,
};

/// The kind of the transaction with which a leader proposes a seal. No other transaction may have it.
pub const SEAL_KIND: &str = "Seal";

/// The oldest version of the rules by which the log is applied that leads to the same state; older software must stop.
pub const RULES_VERSION: u64 = 1;

/// Largest encoded proposal, in bytes: names of co-signers take most of it.
pub const SEAL_PROPOSAL_SIZE_BYTES_MAX: usize = 16 * 1024;

/// Code of the rejection of a seal by somebody who is no replica.
pub const SEAL_NOT_BY_REPLICA: &str = "seal_not_by_replica";

/// Code of the rejection of a seal that is not well formed.
pub const SEAL_MALFORMED: &str = "seal_malformed";

/// What the leader puts into the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealProposal {
    /// The leader's time in milliseconds since the Unix epoch. Nothing is decided by it; replicas whose clocks say
    /// something else do not co-sign.
    pub time_ms: u64,
    /// The Raft term in which it leads.
    pub term: u64,
    /// Node names of the replicas whose co-signature of the previous seal's head the leader has seen: who is slow stands on
    /// record.
    pub cosigned: Vec<String>,
}

/// What a seal fixes, as it stands in its leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "SealTuple", from = "SealTuple")]
pub struct Seal {
    /// Seals are counted from 1.
    pub number: u64,
    /// Index of the seal before; 0 for the first.
    pub previous: u64,
    /// Root of the [state map](crate::map::StateMap) over all records after the entries before the seal.
    pub state_root: Digest,
    /// The epoch whose replicas co-sign this seal's head.
    pub epoch: u64,
    /// Digest of the [epoch](crate::epoch::Epoch) that is in force after the seal.
    pub next_epoch: Digest,
    /// The proposed time, in milliseconds since the Unix epoch. A replica co-signs only what agrees with its own clock.
    pub time_ms: u64,
    /// See [`RULES_VERSION`].
    pub rules_version: u64,
}

impl SealProposal {
    /// The canonical bytes of the transaction's payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a payload.
    ///
    /// # Errors
    ///
    /// [`CodecError`] for anything but a canonical proposal.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, SEAL_PROPOSAL_SIZE_BYTES_MAX)
    }
}

#[derive(Serialize, Deserialize)]
struct SealTuple(u64, u64, Digest, u64, Digest, u64, u64);

impl From<Seal> for SealTuple {
    fn from(seal: Seal) -> Self {
        Self(seal.number, seal.previous, seal.state_root, seal.epoch, seal.next_epoch, seal.time_ms, seal.rules_version)
    }
}

impl From<SealTuple> for Seal {
    fn from(tuple: SealTuple) -> Self {
        let SealTuple(number, previous, state_root, epoch, next_epoch, time_ms, rules_version) = tuple;
        Self { number, previous, state_root, epoch, next_epoch, time_ms, rules_version }
    }
}
