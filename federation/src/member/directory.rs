//! The members as they are now, by id and by key.

use std::collections::BTreeMap;

use fedledger_ledger::PublicKey;

use super::{Author, Capacity, Member, MemberId, Node, Role};

/// Members by id and by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    by_id: BTreeMap<MemberId, Member>,
    authors: BTreeMap<PublicKey, Author>,
    /// Whose key it is, whatever it is for.
    owners: BTreeMap<PublicKey, MemberId>,
}

impl Members {
    /// These members.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Self {
        let mut result = Self::default();
        for member in members {
            result.insert(member);
        }
        result
    }

    /// Adds a member, or puts it in the place of the one with its id.
    pub fn insert(&mut self, member: Member) {
        self.remove(&member.id);
        for used in member.keys() {
            self.owners.insert(used.key, member.id.clone());
            if let Some(capacity) = used.capacity() {
                self.authors.insert(used.key, Author { member: member.id.clone(), capacity });
            }
        }
        self.by_id.insert(member.id.clone(), member);
    }

    /// Takes a member out, if it is there.
    pub fn remove(&mut self, id: &str) {
        for used in self.by_id.remove(id).iter().flat_map(Member::keys) {
            self.owners.remove(&used.key);
            self.authors.remove(&used.key);
        }
    }

    /// The member with this id.
    pub fn get(&self, id: &str) -> Option<&Member> {
        self.by_id.get(id)
    }

    /// Every member, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Who signs transactions with this key.
    pub fn author(&self, key: &PublicKey) -> Option<&Author> {
        self.authors.get(key)
    }

    /// Whose key this is, whatever it is for.
    pub fn owner(&self, key: &PublicKey) -> Option<&MemberId> {
        self.owners.get(key)
    }

    /// The member whose people or programs use this API key.
    pub fn by_api_key(&self, key: &PublicKey) -> Option<&Member> {
        self.get(self.owner(key)?).filter(|member| member.api_key == *key)
    }

    /// The node with this transport key, and its member.
    pub fn by_transport_key(&self, key: &PublicKey) -> Option<(&Member, &Node)> {
        let member = self.get(self.owner(key)?)?;
        Some((member, member.nodes.iter().find(|node| node.transport_key == *key)?))
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

impl Capacity {
    /// The node that signs, unless the organisation itself does.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Organisation => None,
            Self::Replica(node) | Self::Participant(node) => Some(node),
        }
    }
}
