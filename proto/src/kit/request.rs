//! `REQUEST.toml`: the public half of keys that were made on site, with which a member asks to be admitted.

use std::{collections::BTreeSet, fmt};

use fedledger_federation::member::{GENESIS_SCHEMA, Genesis, GenesisError, Member, MemberId, Node, NodeKind, Role};
use fedledger_ledger::{Digest, PublicKey, SecretKey, codec};
use serde::{Deserialize, Serialize};

use super::{
    PARTICIPANT_FOLDER, REPLICA_FOLDER,
    description::ReplicaDescription,
    possession::{Possession, PossessionError},
};

/// The format of a member's request.
pub const MEMBER_REQUEST_SCHEMA: &str = "fedledger.member-request/1";

/// Domain of the signatures in a member's request.
const DOMAIN: &[u8] = b"fedledger/v1/member-request\n";

/// Largest request, in bytes. One with both nodes has about 4 KiB.
pub(super) const REQUEST_SIZE_BYTES_MAX: usize = 64 * 1024;

/// What a member asks to be admitted with. It holds no secret, and can be sent over any way: people compare its
/// [fingerprint](Self::fingerprint).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// [`MEMBER_REQUEST_SCHEMA`].
    pub schema: String,
    /// Id of the member.
    pub id: MemberId,
    /// For people.
    pub name: String,
    /// What it is to be allowed.
    pub roles: BTreeSet<Role>,
    /// Signs its decisions.
    pub organisation_key: PublicKey,
    /// Identifies its people and programs to the API.
    pub api_key: PublicKey,
    /// Where its replica listens and is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaDescription>,
    /// Its machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<RequestedNode>,
    /// A signature by every key above.
    #[serde(default, skip_serializing_if = "Possession::is_empty")]
    pub possession: Possession,
}

/// The keys of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RequestedNode {
    /// A replica.
    Replica {
        /// `<member>/replica`.
        name: String,
        /// Identifies it to other nodes.
        transport_key: PublicKey,
        /// Signs its transactions.
        transaction_key: PublicKey,
        /// Signs its checkpoints.
        log_key: PublicKey,
        /// Co-signs the log's head.
        cosign_key: PublicKey,
        /// Identifies its API; stands in a certificate, not in the ledger.
        server_key: PublicKey,
    },
    /// A participant.
    Participant {
        /// `<member>/participant`.
        name: String,
        /// Identifies it to other nodes.
        transport_key: PublicKey,
        /// Signs its transactions.
        transaction_key: PublicKey,
        /// Co-signs heads of the log.
        witness_key: PublicKey,
    },
}

/// A request that nobody should be admitted with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Larger than any request.
    #[error("the file is larger than {REQUEST_SIZE_BYTES_MAX} bytes, so it is no request")]
    TooLarge,
    /// Not TOML of the expected form.
    #[error("the request is malformed: {0}")]
    Malformed(Box<toml::de::Error>),
    /// A format that this software does not know.
    #[error("the request has the schema {found:?}, expected {expected:?}")]
    Schema {
        /// What it says, shortened.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A node with another name than its member and kind give it.
    #[error("a node is called {found:?}, expected {expected:?}")]
    NodeName {
        /// Its name, shortened.
        found: String,
        /// The name that it should have.
        expected: String,
    },
    /// A key that is named twice.
    #[error("key {0} is named twice: every purpose needs a key of its own")]
    SharedKey(PublicKey),
    /// Addresses of a replica that is not asked for.
    #[error("the request says where a replica of {0} is reached, but names no replica")]
    AddressesWithoutReplica(MemberId),
    /// A replica without a number, or a number without a replica.
    #[error("a replica is admitted with a number of its own in the Raft configuration, other members without one")]
    ReplicaNumber,
    /// What is asked for is no member.
    #[error("the request does not describe a member: {0}")]
    Member(#[from] GenesisError),
    /// A key whose secret half nobody has shown to hold.
    #[error(transparent)]
    Possession(#[from] PossessionError),
    /// A rotation of a key that its owner does not have, or no longer.
    #[error("the request replaces the {purpose} key {old} of {owner}, which is not the current one: make it again")]
    NotCurrent {
        /// What the key is for.
        purpose: &'static str,
        /// The key that is said to be the current one.
        old: PublicKey,
        /// The member or node.
        owner: String,
    },
    /// A rotation within another consortium.
    #[error("the request was made for the consortium with chain {found}, not for {expected}")]
    Chain {
        /// What it says.
        found: Digest,
        /// The chain at hand.
        expected: Digest,
    },
    /// A rotation that replaces nothing.
    #[error("the request replaces no key")]
    Empty,
}

/// What people compare over another way than the request came: the first 128 bits of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(Digest);

impl MemberRequest {
    /// Reads a request; [`check`](Self::check) says whether to believe it.
    ///
    /// # Errors
    ///
    /// [`RequestError`], which names the line.
    pub fn from_toml(text: &str) -> Result<Self, RequestError> {
        parse(text, MEMBER_REQUEST_SCHEMA, |request: &Self| &request.schema)
    }

    /// The request as a file.
    ///
    /// # Errors
    ///
    /// TOML cannot hold it, which is a defect.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The same request with signatures by `keys`, which should be all that it names.
    pub(super) fn prove<'a>(self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        let possession = Possession::prove(DOMAIN, &self.digest(), keys);
        Self { possession, ..self }
    }

    /// Whether a replica is asked for, which is admitted with a number.
    pub fn has_replica(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node, RequestedNode::Replica { .. }))
    }

    /// Checks names, roles, uniqueness of keys and the signature by every key, and gives the member that is asked for,
    /// whose replica, if there is one, gets this `number` in the Raft configuration.
    ///
    /// Whether the id and the keys are free in a consortium is for the genesis file or the ledger to check.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn check(&self, number: Option<u64>) -> Result<Member, RequestError> {
        check_schema(&self.schema, MEMBER_REQUEST_SCHEMA)?;
        if self.has_replica() != number.is_some() {
            return Err(RequestError::ReplicaNumber);
        }
        if self.replica.is_some() && !self.has_replica() {
            return Err(RequestError::AddressesWithoutReplica(self.id.chars().take(SHOWN_CHARACTERS).collect()));
        }
        self.nodes.iter().try_for_each(|node| node.check_name(&self.id))?;
        check_member(self.member(1))?;
        let keys = self.keys();
        let mut seen = BTreeSet::new();
        if let Some(key) = keys.iter().find(|key| !seen.insert(**key)) {
            return Err(RequestError::SharedKey(*key));
        }
        self.possession.check(DOMAIN, &self.digest(), &keys)?;
        Ok(self.member(number.unwrap_or_default()))
    }

    /// What identifies everything that the request asks for.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.digest())
    }

    /// The key of the replica's API, if there is a replica.
    pub fn server_key(&self) -> Option<&PublicKey> {
        self.nodes.iter().find_map(|node| match node {
            RequestedNode::Replica { server_key, .. } => Some(server_key),
            RequestedNode::Participant { .. } => None,
        })
    }

    /// Digest of the canonical encoding without the signatures.
    fn digest(&self) -> Digest {
        Digest::of(&codec::encode(&Self { possession: Possession::default(), ..self.clone() }))
    }

    fn keys(&self) -> Vec<PublicKey> {
        let mut keys = vec![self.organisation_key, self.api_key];
        keys.extend(self.nodes.iter().flat_map(RequestedNode::keys));
        keys
    }

    /// The member that is asked for, unchecked.
    pub(super) fn member(&self, number: u64) -> Member {
        Member {
            id: self.id.clone(),
            name: self.name.clone(),
            roles: self.roles.clone(),
            organisation_key: self.organisation_key,
            api_key: self.api_key,
            nodes: self.nodes.iter().map(|node| node.record(number)).collect(),
        }
    }
}

impl RequestedNode {
    /// The node as the ledger knows it.
    fn record(&self, number: u64) -> Node {
        match self {
            Self::Replica { name, transport_key, transaction_key, log_key, cosign_key, server_key: _ } => Node {
                name: name.clone(),
                kind: NodeKind::Replica { number, log_key: *log_key, cosign_key: *cosign_key },
                transport_key: *transport_key,
                transaction_key: *transaction_key,
            },
            Self::Participant { name, transport_key, transaction_key, witness_key } => Node {
                name: name.clone(),
                kind: NodeKind::Participant { witness_key: *witness_key },
                transport_key: *transport_key,
                transaction_key: *transaction_key,
            },
        }
    }

    fn keys(&self) -> Vec<PublicKey> {
        match self {
            Self::Replica { name: _, transport_key, transaction_key, log_key, cosign_key, server_key } => {
                vec![*transport_key, *transaction_key, *log_key, *cosign_key, *server_key]
            }
            Self::Participant { name: _, transport_key, transaction_key, witness_key } => {
                vec![*transport_key, *transaction_key, *witness_key]
            }
        }
    }

    fn check_name(&self, member: &str) -> Result<(), RequestError> {
        let (name, folder) = match self {
            Self::Replica { name, .. } => (name, REPLICA_FOLDER),
            Self::Participant { name, .. } => (name, PARTICIPANT_FOLDER),
        };
        let expected = format!("{member}/{folder}");
        if *name == expected {
            return Ok(());
        }
        let shorten = |text: &str| text.chars().take(SHOWN_CHARACTERS).collect();
        Err(RequestError::NodeName { found: shorten(name), expected: shorten(&expected) })
    }
}

/// Characters of a text in a request that an error shows.
const SHOWN_CHARACTERS: usize = 80;

/// Reads a bounded text of the format `expected`, which `schema` finds in it.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    text: &str,
    expected: &'static str,
    schema: impl FnOnce(&T) -> &str,
) -> Result<T, RequestError> {
    if text.len() > REQUEST_SIZE_BYTES_MAX {
        return Err(RequestError::TooLarge);
    }
    let request = toml::from_str(text).map_err(|error| RequestError::Malformed(Box::new(error)))?;
    check_schema(schema(&request), expected)?;
    Ok(request)
}

/// Refuses another format.
pub(super) fn check_schema(found: &str, expected: &'static str) -> Result<(), RequestError> {
    if found == expected {
        return Ok(());
    }
    Err(RequestError::Schema { found: found.chars().take(SHOWN_CHARACTERS).collect(), expected })
}

/// Checks a member as the genesis file would, in a consortium of its own in which its replica has number 1.
pub(super) fn check_member(member: Member) -> Result<(), GenesisError> {
    let replicas = member.nodes.iter().filter(|node| node.replica_number().is_some()).count() as u64;
    let alone = Genesis {
        schema: GENESIS_SCHEMA.to_owned(),
        consortium: "alone".to_owned(),
        salt: Digest::from_bytes([0; 32]),
        finality_threshold: replicas,
        members: vec![member],
    };
    match alone.check() {
        // The last thing that is checked, and all that is wrong with a consortium without replicas.
        Err(GenesisError::FinalityThreshold { replicas: 0, .. }) => Ok(()),
        result => result,
    }
}

impl Fingerprint {
    /// The fingerprint of what has this digest.
    pub(super) const fn of(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Fingerprint {
    /// Eight groups of four hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.0.as_bytes().chunks(2).take(8).map(hex::encode);
        f.write_str(&groups.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests;
