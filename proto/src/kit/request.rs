//! The request of an organisation to become a member: its public keys and nodes, in a file that people pass on and read.
//!
//! Whoever wants to join makes its own keys and sends this file; no secret is in it. A member puts it before the
//! consortium, which decides. [`NodeRequest`] is the same for one more node of a member.

use std::collections::BTreeSet;

use fedledger_federation::member::{Member, MemberId, Node, NodeKind, Role, UNNUMBERED};
use fedledger_ledger::PublicKey;
use serde::{Deserialize, Serialize};

/// Largest request that is read, in bytes; one with as many nodes as a member may have takes a fifth of it.
pub const REQUEST_SIZE_BYTES_MAX: usize = 64 * 1024;

/// A member as it asks to be admitted. Keys are hexadecimal.
///
/// ```toml
/// id = "budapest"
/// name = "Hungarian Institute of Cardiology"
/// roles = ["replica"]
/// organisation_key = "..."
/// api_key = "..."
///
/// [[nodes]]
/// name = "budapest/replica"
/// kind = "replica"
/// transport_key = "..."
/// transaction_key = "..."
/// log_key = "..."
/// cosign_key = "..."
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// Unique and stable: lowercase letters, digits and inner hyphens.
    pub id: MemberId,
    /// For people.
    pub name: String,
    /// What it is to do. `replica` and `participant` need a node of that kind, and the other way round.
    pub roles: BTreeSet<Role>,
    /// Signs its decisions.
    pub organisation_key: PublicKey,
    /// Identifies its people and programs to the API.
    pub api_key: PublicKey,
    /// Its machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeRequest>,
}

/// A node as it asks to be admitted. Keys are hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRequest {
    /// Member's id, a slash, and a name that is unique within the member.
    pub name: String,
    /// What it is.
    pub kind: RequestedKind,
    /// Identifies the node to others.
    pub transport_key: PublicKey,
    /// Signs the node's transactions.
    pub transaction_key: PublicKey,
    /// Signs checkpoints in the name of the log; replicas have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_key: Option<PublicKey>,
    /// Co-signs heads of the log; replicas have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosign_key: Option<PublicKey>,
    /// Co-signs heads that it has witnessed; participants have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness_key: Option<PublicKey>,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestedKind {
    /// A replica of the ledger.
    Replica,
    /// A participant.
    Participant,
}

/// Text that is no request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Larger than any request.
    #[error("the request has {0} bytes, at most {REQUEST_SIZE_BYTES_MAX} are read: it is not what its name says")]
    TooLarge(usize),
    /// Not TOML of the expected form.
    #[error("the request is malformed: {0}")]
    Malformed(#[from] toml::de::Error),
    /// A node lacks a key that its kind needs.
    #[error("{node} is a {kind} and needs a {key}")]
    MissingKey {
        /// The node.
        node: String,
        /// What it is.
        kind: &'static str,
        /// Name of the field.
        key: &'static str,
    },
    /// A node has a key that its kind has no use for.
    #[error("{node} is a {kind} and has no use for a {key}: remove it")]
    UnusedKey {
        /// The node.
        node: String,
        /// What it is.
        kind: &'static str,
        /// Name of the field.
        key: &'static str,
    },
}

impl MemberRequest {
    /// Reads a request. Whether the consortium can admit the member is for its ledger to say.
    ///
    /// # Errors
    ///
    /// [`RequestError`]
    pub fn from_toml(text: &str) -> Result<Self, RequestError> {
        check_size(text)?;
        let request: Self = toml::from_str(text)?;
        request.to_member()?;
        Ok(request)
    }

    /// The request as a file.
    ///
    /// # Errors
    ///
    /// None that a request can cause: every field can be written.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The request of a member with these keys, such as one whose kits have been written.
    pub fn of(member: &Member) -> Self {
        Self {
            id: member.id.clone(),
            name: member.name.clone(),
            roles: member.roles.clone(),
            organisation_key: member.organisation_key,
            api_key: member.api_key,
            nodes: member.nodes.iter().map(NodeRequest::of).collect(),
        }
    }

    /// The member as a proposal to admit it names it; its replicas have no numbers yet.
    ///
    /// # Errors
    ///
    /// [`RequestError::MissingKey`] or [`RequestError::UnusedKey`].
    pub fn to_member(&self) -> Result<Member, RequestError> {
        Ok(Member {
            id: self.id.clone(),
            name: self.name.clone(),
            roles: self.roles.clone(),
            organisation_key: self.organisation_key,
            api_key: self.api_key,
            nodes: self.nodes.iter().map(NodeRequest::to_node).collect::<Result<_, _>>()?,
        })
    }
}

impl NodeRequest {
    /// Reads the request for one node.
    ///
    /// # Errors
    ///
    /// [`RequestError`]
    pub fn from_toml(text: &str) -> Result<Self, RequestError> {
        check_size(text)?;
        let request: Self = toml::from_str(text)?;
        request.to_node()?;
        Ok(request)
    }

    /// The request of a node with these keys.
    pub fn of(node: &Node) -> Self {
        let (kind, log_key, cosign_key, witness_key) = match node.kind {
            NodeKind::Replica { log_key, cosign_key, .. } => {
                (RequestedKind::Replica, Some(log_key), Some(cosign_key), None)
            }
            NodeKind::Participant { witness_key } => (RequestedKind::Participant, None, None, Some(witness_key)),
        };
        Self {
            name: node.name.clone(),
            kind,
            transport_key: node.transport_key,
            transaction_key: node.transaction_key,
            log_key,
            cosign_key,
            witness_key,
        }
    }

    /// The node as a proposal to admit it names it; a replica has no number yet.
    ///
    /// # Errors
    ///
    /// [`RequestError::MissingKey`] or [`RequestError::UnusedKey`].
    pub fn to_node(&self) -> Result<Node, RequestError> {
        let kind = match self.kind {
            RequestedKind::Replica => {
                self.none("witness_key", self.witness_key)?;
                NodeKind::Replica {
                    number: UNNUMBERED,
                    log_key: self.some("log_key", self.log_key)?,
                    cosign_key: self.some("cosign_key", self.cosign_key)?,
                }
            }
            RequestedKind::Participant => {
                self.none("log_key", self.log_key)?;
                self.none("cosign_key", self.cosign_key)?;
                NodeKind::Participant { witness_key: self.some("witness_key", self.witness_key)? }
            }
        };
        Ok(Node {
            name: self.name.clone(),
            kind,
            transport_key: self.transport_key,
            transaction_key: self.transaction_key,
        })
    }

    fn some(&self, name: &'static str, key: Option<PublicKey>) -> Result<PublicKey, RequestError> {
        let missing = || RequestError::MissingKey { node: self.name.clone(), kind: self.kind.name(), key: name };
        key.ok_or_else(missing)
    }

    fn none(&self, name: &'static str, key: Option<PublicKey>) -> Result<(), RequestError> {
        match key {
            Some(_) => Err(RequestError::UnusedKey { node: self.name.clone(), kind: self.kind.name(), key: name }),
            None => Ok(()),
        }
    }
}

impl RequestedKind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Participant => "participant",
        }
    }
}

fn check_size(text: &str) -> Result<(), RequestError> {
    if text.len() > REQUEST_SIZE_BYTES_MAX { Err(RequestError::TooLarge(text.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    fn member() -> Member {
        let replica = NodeKind::Replica { number: UNNUMBERED, log_key: key(5), cosign_key: key(6) };
        let participant = NodeKind::Participant { witness_key: key(9) };
        let node = |name: &str, kind, first: u8| Node {
            name: name.to_owned(),
            kind,
            transport_key: key(first),
            transaction_key: key(first + 1),
        };
        Member {
            id: "budapest".to_owned(),
            name: "Budapest".to_owned(),
            roles: BTreeSet::from([Role::Replica, Role::Participant]),
            organisation_key: key(1),
            api_key: key(2),
            nodes: vec![node("budapest/replica", replica, 3), node("budapest/participant", participant, 7)],
        }
    }

    #[test]
    fn a_request_says_everything_about_a_member() {
        let request = MemberRequest::of(&member());
        let text = request.to_toml().unwrap();
        assert!(text.contains(&format!("organisation_key = \"{}\"", "01".repeat(32))), "{text}");
        assert!(text.contains("kind = \"replica\"") && text.contains("kind = \"participant\""), "{text}");
        assert_eq!(MemberRequest::from_toml(&text).unwrap(), request);
        assert_eq!(request.to_member().unwrap(), member());
    }

    #[test]
    fn a_node_has_the_keys_of_its_kind_and_no_others() {
        let request = MemberRequest::of(&member());
        let [replica, participant] = request.nodes.as_slice() else { panic!("{request:?}") };
        let missing = NodeRequest { cosign_key: None, ..replica.clone() };
        assert!(matches!(missing.to_node(), Err(RequestError::MissingKey { key: "cosign_key", .. })));
        let unused = NodeRequest { witness_key: Some(key(8)), ..replica.clone() };
        assert!(matches!(unused.to_node(), Err(RequestError::UnusedKey { key: "witness_key", .. })));
        let unused = NodeRequest { log_key: Some(key(8)), ..participant.clone() };
        assert!(matches!(unused.to_node(), Err(RequestError::UnusedKey { key: "log_key", .. })));
        let text = toml::to_string(&missing).unwrap();
        assert!(matches!(NodeRequest::from_toml(&text), Err(RequestError::MissingKey { .. })));
    }

    #[test]
    fn text_that_is_no_request_is_refused() {
        let text = MemberRequest::of(&member()).to_toml().unwrap();
        for wrong in [
            text.replacen("organisation_key", "organization_key", 1),
            text.replacen("\"0101", "\"01", 1),
            text.replacen("kind = \"replica\"", "kind = \"learner\"", 1),
            text.replacen("\"participant\"", "\"observer\"", 1),
        ] {
            assert_ne!(wrong, text);
            assert!(matches!(MemberRequest::from_toml(&wrong), Err(RequestError::Malformed(_))), "{wrong}");
        }
        let long = format!("{text}# {}", "x".repeat(REQUEST_SIZE_BYTES_MAX));
        assert!(matches!(MemberRequest::from_toml(&long), Err(RequestError::TooLarge(_))));
    }
}
