//! Members of the consortium: organisations, their keys, nodes and roles.

mod check;
mod directory;
mod genesis;

use std::collections::BTreeSet;

use fedledger_ledger::{
    PublicKey,
    epoch::{Epoch, ReplicaKeys},
};
use serde::{Deserialize, Serialize};

pub use self::{
    check::{KeyUse, MemberError, Purpose, is_name},
    directory::Members,
    genesis::{GENESIS_SCHEMA, Genesis, GenesisError, default_finality_threshold, is_finality_threshold},
};

/// The number of a replica in a proposal to admit it. It is given the next one that was never used when it is admitted.
pub const UNNUMBERED: u64 = 0;

/// A member's id: the string in the genesis file. Lowercase letters, digits and inner hyphens.
pub type MemberId = String;

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Trains on its own data and contributes updates.
    Participant,
    /// Runs a replica of the ledger.
    Replica,
    /// Reports metrics of versions without training.
    Evaluator,
    /// Reads everything, raw updates included.
    Auditor,
    /// Proposes plans, starts and stops them, moves branches.
    Operator,
    /// Speaks for its organisation's people. It gives no vote in governance: every member has one.
    Delegate,
}

impl Role {
    /// Whether only a member with a node of that kind can have it.
    pub const fn needs_node(self) -> bool {
        matches!(self, Self::Participant | Self::Replica)
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeKind {
    /// A replica of the ledger.
    Replica {
        /// Its number in the Raft configuration, from 1 and never used twice; [`UNNUMBERED`] in a proposal to admit it.
        number: u64,
        /// The key that signs its checkpoints, in the name of the log.
        log_key: PublicKey,
        /// The key that co-signs the log's head, in its own name. C2SP tlog-cosignature does not sign the name, so that
        /// every co-signer needs a key of its own.
        cosign_key: PublicKey,
    },
    /// A participant.
    Participant {
        /// The key with which it co-signs heads of the log that it has witnessed.
        witness_key: PublicKey,
    },
}

/// A machine of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique in the consortium, such as `cleveland/replica`.
    pub name: String,
    /// Replica or participant.
    pub kind: NodeKind,
    /// Identifies the node to others (libp2p).
    pub transport_key: PublicKey,
    /// Signs the node's transactions.
    pub transaction_key: PublicKey,
}

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Unique and stable; part of every training seed.
    pub id: MemberId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// Signs its decisions: consents, and the transactions of its operator.
    pub organisation_key: PublicKey,
    /// Identifies its people and programs to the API (TLS client key).
    pub api_key: PublicKey,
    /// Its machines.
    pub nodes: Vec<Node>,
}

impl Node {
    /// The number in the Raft configuration, for a replica.
    pub const fn replica_number(&self) -> Option<u64> {
        match self.kind {
            NodeKind::Replica { number, .. } => Some(number),
            NodeKind::Participant { .. } => None,
        }
    }

    /// In which capacity it signs transactions.
    pub fn capacity(&self) -> Capacity {
        match self.kind {
            NodeKind::Replica { .. } => Capacity::Replica(self.name.clone()),
            NodeKind::Participant { .. } => Capacity::Participant(self.name.clone()),
        }
    }
}

/// Who signed a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The organisation.
    pub member: MemberId,
    /// In which capacity it signed.
    pub capacity: Capacity,
}

/// The purpose of the key that signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    /// The organisation's own key, held by a person.
    Organisation,
    /// The key of a replica, by its node name.
    Replica(String),
    /// The key of a participant, by its node name.
    Participant(String),
}

/// Adds the member's replicas and witnesses to an epoch.
pub(crate) fn with_member(epoch: &mut Epoch, member: &Member) {
    for node in &member.nodes {
        match node.kind {
            NodeKind::Replica { log_key, cosign_key, .. } => {
                let keys = ReplicaKeys { author: node.transaction_key, log: log_key, cosign: cosign_key };
                epoch.replicas.insert(node.name.clone(), keys);
            }
            NodeKind::Participant { witness_key } => {
                epoch.witnesses.insert(node.name.clone(), witness_key);
            }
        }
    }
}

/// Takes the member's replicas and witnesses out of an epoch.
pub(crate) fn without_member(epoch: &mut Epoch, member: &Member) {
    for node in &member.nodes {
        epoch.replicas.remove(&node.name);
        epoch.witnesses.remove(&node.name);
    }
}
