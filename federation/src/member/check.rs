//! What a member must be like, at the beginning and whenever it is admitted or changed.

use std::collections::BTreeSet;

use fedledger_ledger::PublicKey;

use super::{Capacity, Member, MemberId, Node, NodeKind, Role};
use crate::limits::{NAME_LENGTH_MAX, NODES_PER_MEMBER_MAX, TEXT_LENGTH_MAX};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Signs the organisation's decisions.
    Organisation,
    /// Identifies the organisation's people and programs to the API.
    Api,
    /// Identifies a node to others.
    Transport,
    /// Signs a node's transactions.
    Transaction,
    /// Signs checkpoints in the name of the log.
    Log,
    /// Co-signs heads as a replica.
    Cosign,
    /// Co-signs heads as a witness.
    Witness,
}

/// A key of a member and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUse<'a> {
    /// The key.
    pub key: PublicKey,
    /// What it is for.
    pub purpose: Purpose,
    /// The node that has it, unless the organisation itself does.
    pub node: Option<&'a Node>,
}

/// A member that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// A name with other characters than lowercase letters, digits, inner hyphens and (for nodes) one slash.
    #[error("{0:?} is no valid id: use 1 to {NAME_LENGTH_MAX} lowercase letters, digits and inner hyphens")]
    Name(String),
    /// Two nodes of one name.
    #[error("node {0:?} is listed twice")]
    NodeTwice(String),
    /// A key that is used, or was used, for another purpose or by another member.
    #[error("key {key} of {owner} is used twice, or was used before: every purpose needs a new key of its own")]
    SharedKey {
        /// The key.
        key: PublicKey,
        /// Who uses it the second time.
        owner: String,
    },
    /// The member's nodes and roles contradict each other.
    #[error("{0} has a node without the role for it, or the role without a node")]
    RoleWithoutNode(MemberId),
    /// An over-long name for people.
    #[error("the name of {0} for people is longer than {TEXT_LENGTH_MAX} bytes")]
    LongName(MemberId),
    /// Too many nodes.
    #[error("{0} has more than {NODES_PER_MEMBER_MAX} nodes")]
    TooManyNodes(MemberId),
}

impl Member {
    /// Every key of the member and its nodes.
    pub fn keys(&self) -> impl Iterator<Item = KeyUse<'_>> {
        let own = [(self.organisation_key, Purpose::Organisation), (self.api_key, Purpose::Api)];
        let own = own.into_iter().map(|(key, purpose)| KeyUse { key, purpose, node: None });
        own.chain(self.nodes.iter().flat_map(Node::keys))
    }

    /// Checks the member by itself: names, number of nodes, roles.
    ///
    /// # Errors
    ///
    /// [`MemberError`]
    pub fn check(&self) -> Result<(), MemberError> {
        check_name(&self.id)?;
        if self.name.len() > TEXT_LENGTH_MAX {
            return Err(MemberError::LongName(self.id.clone()));
        }
        if self.nodes.len() > NODES_PER_MEMBER_MAX {
            return Err(MemberError::TooManyNodes(self.id.clone()));
        }
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            let invalid = || MemberError::Name(node.name.chars().take(80).collect());
            let (owner, rest) = node.name.split_once('/').ok_or_else(invalid)?;
            check_name(rest)?;
            if owner != self.id {
                return Err(invalid());
            }
            if !names.insert(&node.name) {
                return Err(MemberError::NodeTwice(node.name.clone()));
            }
        }
        let wanted: BTreeSet<Role> = self.roles.iter().copied().filter(|role| role.needs_node()).collect();
        if wanted == self.node_roles() { Ok(()) } else { Err(MemberError::RoleWithoutNode(self.id.clone())) }
    }

    /// Checks that every key is used once. `is_taken` says of each key, in order, whether it is used already; keys that
    /// serve the same purpose in `before`, the member as it was, need not be new.
    ///
    /// # Errors
    ///
    /// [`MemberError::SharedKey`]
    pub fn check_keys(
        &self,
        before: Option<&Self>,
        mut is_taken: impl FnMut(&PublicKey) -> bool,
    ) -> Result<(), MemberError> {
        let mut own = BTreeSet::new();
        for used in self.keys() {
            let kept = before.is_some_and(|before| before.keys().any(|known| known.is_same_use(&used)));
            if !own.insert(used.key) || (!kept && is_taken(&used.key)) {
                return Err(MemberError::SharedKey { key: used.key, owner: used.owner(self) });
            }
        }
        Ok(())
    }

    /// The roles that its nodes have.
    pub(crate) fn node_roles(&self) -> BTreeSet<Role> {
        let role = |node: &Node| match node.kind {
            NodeKind::Replica { .. } => Role::Replica,
            NodeKind::Participant { .. } => Role::Participant,
        };
        self.nodes.iter().map(role).collect()
    }
}

impl Node {
    /// Every key of the node.
    pub fn keys(&self) -> impl Iterator<Item = KeyUse<'_>> {
        let [third, fourth] = match self.kind {
            NodeKind::Replica { log_key, cosign_key, .. } => {
                [Some((log_key, Purpose::Log)), Some((cosign_key, Purpose::Cosign))]
            }
            NodeKind::Participant { witness_key } => [Some((witness_key, Purpose::Witness)), None],
        };
        let keys = [
            Some((self.transport_key, Purpose::Transport)),
            Some((self.transaction_key, Purpose::Transaction)),
            third,
            fourth,
        ];
        keys.into_iter().flatten().map(|(key, purpose)| KeyUse { key, purpose, node: Some(self) })
    }
}

impl KeyUse<'_> {
    /// In which capacity it signs transactions, if it does.
    pub fn capacity(&self) -> Option<Capacity> {
        match (self.purpose, self.node) {
            (Purpose::Organisation, _) => Some(Capacity::Organisation),
            (Purpose::Transaction, Some(node)) => Some(node.capacity()),
            _ => None,
        }
    }

    fn owner(&self, member: &Member) -> String {
        self.node.map_or_else(|| member.id.clone(), |node| node.name.clone())
    }

    fn is_same_use(&self, other: &Self) -> bool {
        let node = |used: &Self| used.node.map(|node| node.name.clone());
        self.key == other.key && self.purpose == other.purpose && node(self) == node(other)
    }
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

pub(super) fn check_name(name: &str) -> Result<(), MemberError> {
    if is_name(name) { Ok(()) } else { Err(MemberError::Name(name.chars().take(80).collect())) }
}
