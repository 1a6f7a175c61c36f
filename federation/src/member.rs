//! Members of the consortium: organisations, their keys, nodes and roles.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_ledger::{Digest, PublicKey, codec, limits::GENESIS_SIZE_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::limits::{MEMBERS_MAX, NAME_LENGTH_MAX, NODES_PER_MEMBER_MAX, TEXT_LENGTH_MAX};

/// The format of the genesis file.
pub const GENESIS_SCHEMA: &str = "fedledger.genesis/1";

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
    /// Votes in governance.
    Delegate,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeKind {
    /// A replica of the ledger.
    Replica {
        /// Its number in the Raft configuration, from 1.
        number: u64,
        /// The key that signs its checkpoints.
        log_key: PublicKey,
    },
    /// A participant.
    Participant,
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

/// The genesis file: the consortium as it begins. Entry 0 of the log; its SHA-256 is the chain id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// [`GENESIS_SCHEMA`].
    pub schema: String,
    /// Name of the consortium; the origin of its checkpoints.
    pub consortium: String,
    /// Makes two consortia of the same description distinct chains.
    pub salt: Digest,
    /// Co-signatures that make a checkpoint final.
    pub finality_threshold: u64,
    /// The members, by id.
    pub members: Vec<Member>,
}

/// A genesis file that describes no consortium.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not canonical DAG-CBOR of the expected form.
    #[error("the genesis file is malformed: {0}")]
    Malformed(#[from] codec::CodecError),
    /// A format that this software does not know.
    #[error("the genesis file has the schema {0:?}, expected {GENESIS_SCHEMA:?}")]
    Schema(String),
    /// A name with other characters than lowercase letters, digits, inner hyphens and (for nodes) one slash.
    #[error("{0:?} is no valid id: use 1 to {NAME_LENGTH_MAX} lowercase letters, digits and inner hyphens")]
    Name(String),
    /// Members or nodes out of order or twice.
    #[error("{0:?} is listed twice or out of order")]
    Order(String),
    /// A key used for two purposes or by two members.
    #[error("key {key} of {owner} is used twice: every purpose needs a key of its own")]
    SharedKey {
        /// The key.
        key: PublicKey,
        /// Who uses it the second time.
        owner: String,
    },
    /// Replica numbers are not 1, 2, 3, ...
    #[error("the replicas are not numbered from 1 without gaps")]
    ReplicaNumbers,
    /// A member's nodes and roles contradict each other.
    #[error("{0} has a node without the role for it, or the role without a node")]
    RoleWithoutNode(MemberId),
    /// The threshold is unreachable or no majority.
    #[error("a finality threshold of {threshold} does not fit {replicas} replicas: at least a majority, at most all")]
    FinalityThreshold {
        /// Threshold asked for.
        threshold: u64,
        /// Replicas there are.
        replicas: u64,
    },
    /// Too many members or nodes, or an over-long text.
    #[error("the genesis file is too large: {0}")]
    TooLarge(&'static str),
}

/// Co-signatures needed by default so that no two conflicting heads can become final with f = floor((n - 1) / 3) dishonest
/// replicas out of n: ceil((n + f + 1) / 2).
pub const fn default_finality_threshold(replicas: u64) -> u64 {
    let dishonest = replicas.saturating_sub(1) / 3;
    (replicas + dishonest + 1).div_ceil(2)
}

impl Genesis {
    /// Decodes and checks a genesis file.
    ///
    /// # Errors
    ///
    /// [`GenesisError`], which names the offending member, node or key.
    pub fn parse(bytes: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = codec::decode(bytes, GENESIS_SIZE_BYTES_MAX)?;
        genesis.check()?;
        Ok(genesis)
    }

    /// The canonical bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The replicas by number.
    pub fn replicas(&self) -> impl Iterator<Item = (&Member, &Node)> {
        self.nodes().filter(|(_, node)| matches!(node.kind, NodeKind::Replica { .. }))
    }

    /// Every node with its member.
    pub fn nodes(&self) -> impl Iterator<Item = (&Member, &Node)> {
        self.members.iter().flat_map(|member| member.nodes.iter().map(move |node| (member, node)))
    }

    /// Checks what the type cannot express.
    ///
    /// # Errors
    ///
    /// [`GenesisError`].
    pub fn check(&self) -> Result<(), GenesisError> {
        if self.schema != GENESIS_SCHEMA {
            return Err(GenesisError::Schema(self.schema.chars().take(80).collect()));
        }
        check_name(&self.consortium)?;
        if self.members.len() > MEMBERS_MAX {
            return Err(GenesisError::TooLarge("members"));
        }
        for pair in self.members.windows(2) {
            if let [a, b] = pair
                && a.id >= b.id
            {
                return Err(GenesisError::Order(b.id.clone()));
            }
        }
        let mut keys = BTreeSet::new();
        let mut names = BTreeSet::new();
        for member in &self.members {
            check_member(member, &mut keys, &mut names)?;
        }
        let numbers: BTreeSet<u64> = self.replicas().filter_map(|(_, node)| node.replica_number()).collect();
        let replicas = self.replicas().count() as u64;
        if !numbers.into_iter().eq(1..=replicas) {
            return Err(GenesisError::ReplicaNumbers);
        }
        let threshold = self.finality_threshold;
        if threshold > replicas || threshold <= replicas / 2 {
            return Err(GenesisError::FinalityThreshold { threshold, replicas });
        }
        if self.to_bytes().len() > GENESIS_SIZE_BYTES_MAX {
            return Err(GenesisError::TooLarge("all members together take more than 65535 bytes"));
        }
        Ok(())
    }
}

impl Node {
    /// The number in the Raft configuration, for a replica.
    pub const fn replica_number(&self) -> Option<u64> {
        match self.kind {
            NodeKind::Replica { number, .. } => Some(number),
            NodeKind::Participant => None,
        }
    }
}

fn check_member(
    member: &Member,
    keys: &mut BTreeSet<PublicKey>,
    names: &mut BTreeSet<String>,
) -> Result<(), GenesisError> {
    check_name(&member.id)?;
    if member.name.len() > TEXT_LENGTH_MAX || member.nodes.len() > NODES_PER_MEMBER_MAX {
        return Err(GenesisError::TooLarge("a member's name or nodes"));
    }
    let mut claim = |key: PublicKey| {
        let owner = member.id.clone();
        if keys.insert(key) { Ok(()) } else { Err(GenesisError::SharedKey { key, owner }) }
    };
    claim(member.organisation_key)?;
    claim(member.api_key)?;
    let mut node_roles = BTreeSet::new();
    for node in &member.nodes {
        claim(node.transport_key)?;
        claim(node.transaction_key)?;
        match node.kind {
            NodeKind::Replica { log_key, .. } => {
                claim(log_key)?;
                node_roles.insert(Role::Replica);
            }
            NodeKind::Participant => {
                node_roles.insert(Role::Participant);
            }
        }
        let (owner, rest) = node.name.split_once('/').ok_or_else(|| GenesisError::Name(node.name.clone()))?;
        check_name(rest)?;
        if owner != member.id {
            return Err(GenesisError::Name(node.name.clone()));
        }
        if !names.insert(node.name.clone()) {
            return Err(GenesisError::Order(node.name.clone()));
        }
    }
    let wanted: BTreeSet<Role> =
        member.roles.iter().copied().filter(|role| matches!(role, Role::Replica | Role::Participant)).collect();
    if wanted == node_roles { Ok(()) } else { Err(GenesisError::RoleWithoutNode(member.id.clone())) }
}

/// Whether `name` can be the id of a member, plan, branch or tag.
pub fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn check_name(name: &str) -> Result<(), GenesisError> {
    if is_name(name) { Ok(()) } else { Err(GenesisError::Name(name.chars().take(80).collect())) }
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capacity {
    /// The organisation's own key, held by a person.
    Organisation,
    /// The key of a replica, by its node name.
    Replica(String),
    /// The key of a participant, by its node name.
    Participant(String),
}

/// Members by id and by key.
#[derive(Debug, Clone, Default)]
pub struct Members {
    by_id: BTreeMap<MemberId, Member>,
    authors: BTreeMap<PublicKey, Author>,
}

impl Members {
    /// The members of a genesis file.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Self {
        let mut result = Self::default();
        for member in members {
            let author = |capacity| Author { member: member.id.clone(), capacity };
            result.authors.insert(member.organisation_key, author(Capacity::Organisation));
            for node in &member.nodes {
                let capacity = match node.kind {
                    NodeKind::Replica { .. } => Capacity::Replica(node.name.clone()),
                    NodeKind::Participant => Capacity::Participant(node.name.clone()),
                };
                result.authors.insert(node.transaction_key, author(capacity));
            }
            result.by_id.insert(member.id.clone(), member);
        }
        result
    }

    /// The member with this id.
    pub fn get(&self, id: &str) -> Option<&Member> {
        self.by_id.get(id)
    }

    /// Every member, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    /// Who signs transactions with this key.
    pub fn author(&self, key: &PublicKey) -> Option<&Author> {
        self.authors.get(key)
    }

    /// The member whose people or programs use this API key.
    pub fn by_api_key(&self, key: &PublicKey) -> Option<&Member> {
        self.iter().find(|member| member.api_key == *key)
    }

    /// The node with this transport key, and its member.
    pub fn by_transport_key(&self, key: &PublicKey) -> Option<(&Member, &Node)> {
        self.nodes().find(|(_, node)| node.transport_key == *key)
    }

    /// Every node with its member.
    pub fn nodes(&self) -> impl Iterator<Item = (&Member, &Node)> {
        self.iter().flat_map(|member| member.nodes.iter().map(move |node| (member, node)))
    }

    /// Number of replicas.
    pub fn replica_count(&self) -> usize {
        self.nodes().filter(|(_, node)| node.replica_number().is_some()).count()
    }

    /// Whether the member has the role.
    pub fn has_role(&self, id: &str, role: Role) -> bool {
        self.get(id).is_some_and(|member| member.roles.contains(&role))
    }
}
