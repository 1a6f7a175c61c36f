//! What carrying an action out changes: computed from the state without touching it, so that a proposal can be checked when
//! it is made, shown before it is voted on, and carried out exactly so.

use std::collections::BTreeSet;

use fedledger_ledger::epoch::Epoch;
use serde::{Deserialize, Serialize};

use super::{Action, NodeKeys, RotateKeys};
use crate::{
    Federation, Rejection,
    limits::MEMBERS_MAX,
    member::{
        Genesis, KeyUse, Member, MemberError, Node, NodeKind, Role, UNNUMBERED, default_finality_threshold,
        is_finality_threshold, with_member, without_member,
    },
    retention::Retention,
};

/// Rules that the members have given themselves, and the numbers of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Co-signatures that make a head final, if their number is fixed; without it, they follow the number of replicas.
    pub finality_threshold: Option<u64>,
    /// The highest number that a replica has ever had.
    pub last_replica_number: u64,
    /// Which files are kept.
    #[serde(default, skip_serializing_if = "Retention::keeps_all")]
    pub retention: Retention,
}

/// What an action changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The member that is changed, as it is; `None` for a new one, and where no member is changed.
    pub before: Option<Member>,
    /// The member as it will be; `None` for one that goes, and where no member is changed.
    pub after: Option<Member>,
    /// The policy as it will be.
    pub policy: Policy,
    /// The epoch that it makes; `None` if replicas, witnesses, their keys and the threshold stay as they are.
    pub epoch: Option<Epoch>,
}

impl Policy {
    /// The policy that a consortium begins with.
    pub fn of(genesis: &Genesis) -> Self {
        let replicas = genesis.replicas().count() as u64;
        let fixed = genesis.finality_threshold != default_finality_threshold(replicas);
        Self {
            finality_threshold: fixed.then_some(genesis.finality_threshold),
            last_replica_number: replicas,
            retention: Retention::default(),
        }
    }

    fn threshold(&self, replicas: u64) -> u64 {
        self.finality_threshold.unwrap_or(default_finality_threshold(replicas))
    }
}

impl Change {
    /// What `action` changes if it is carried out by the entry at `index`.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] if it cannot be carried out.
    pub fn of(state: &Federation, action: &Action, index: u64) -> Result<Self, Rejection> {
        let mut policy = *state.policy();
        let (before, after) = match action {
            Action::AdmitMember { member } => (None, Some(admitted(state, member, &mut policy)?)),
            Action::RevokeMember { member } => {
                let member = current(state, member)?;
                if state.members().len() == 1 {
                    return Err(Rejection::NoMemberLeft);
                }
                (Some(member.clone()), None)
            }
            Action::AdmitNode { member, node } => {
                let before = current(state, member)?;
                (Some(before.clone()), Some(with_node(before, node, &mut policy)?))
            }
            Action::RevokeNode { node } => {
                let before = current(state, action.member().unwrap_or_default())?;
                (Some(before.clone()), Some(without_node(before, node)?))
            }
            Action::RotateKeys(rotate) => {
                let before = current(state, &rotate.member)?;
                (Some(before.clone()), Some(rotated(before, rotate)?))
            }
            Action::ChangePolicy { finality_threshold } => {
                if policy.finality_threshold == *finality_threshold {
                    return Err(Rejection::NothingToChange);
                }
                policy.finality_threshold = *finality_threshold;
                (None, None)
            }
            Action::ChangeRetention(retention) => {
                retention.check()?;
                if policy.retention == *retention {
                    return Err(Rejection::NothingToChange);
                }
                policy.retention = *retention;
                (None, None)
            }
        };
        if let Some(after) = &after {
            after.check()?;
            let revoked = |used: &_| state.revoked_keys().contains(used);
            after.check_keys(before.as_ref(), |key| state.members().owner(key).is_some() || revoked(key))?;
        }
        let epoch = epoch(state.epoch(), before.as_ref(), after.as_ref(), &policy, index)?;
        if let Some(epoch) = &epoch {
            check_voters(state, epoch)?;
        }
        Ok(Self { before, after, policy, epoch })
    }

    /// The keys that are revoked.
    pub fn revoked_keys(&self) -> impl Iterator<Item = KeyUse<'_>> {
        let kept: BTreeSet<_> = self.after.iter().flat_map(Member::keys).map(|used| used.key).collect();
        self.before.iter().flat_map(Member::keys).filter(move |used| !kept.contains(&used.key))
    }
}

fn current<'a>(state: &'a Federation, member: &str) -> Result<&'a Member, Rejection> {
    state.members().get(member).ok_or_else(|| Rejection::UnknownMember(member.chars().take(80).collect()))
}

fn admitted(state: &Federation, member: &Member, policy: &mut Policy) -> Result<Member, Rejection> {
    if state.member_records().contains(&member.id) {
        return Err(Rejection::MemberExists(member.id.clone()));
    }
    if state.members().len() >= MEMBERS_MAX {
        return Err(Rejection::TooManyMembers);
    }
    let mut member = member.clone();
    for node in &mut member.nodes {
        give_number(node, policy)?;
    }
    Ok(member)
}

/// Gives a replica the next number.
fn give_number(node: &mut Node, policy: &mut Policy) -> Result<(), Rejection> {
    let NodeKind::Replica { number, .. } = &mut node.kind else { return Ok(()) };
    if *number != UNNUMBERED {
        return Err(Rejection::ReplicaNumbered(*number));
    }
    policy.last_replica_number = policy.last_replica_number.saturating_add(1);
    *number = policy.last_replica_number;
    Ok(())
}

fn with_node(member: &Member, node: &Node, policy: &mut Policy) -> Result<Member, Rejection> {
    let (mut member, mut node) = (member.clone(), node.clone());
    give_number(&mut node, policy)?;
    member.nodes.push(node);
    set_node_roles(&mut member);
    Ok(member)
}

fn without_node(member: &Member, name: &str) -> Result<Member, Rejection> {
    let mut member = member.clone();
    let count = member.nodes.len();
    member.nodes.retain(|node| node.name != name);
    if member.nodes.len() == count {
        return Err(Rejection::UnknownNode(name.chars().take(160).collect()));
    }
    set_node_roles(&mut member);
    Ok(member)
}

/// Takes the roles that need a node from the nodes.
fn set_node_roles(member: &mut Member) {
    member.roles.retain(|role: &Role| !role.needs_node());
    let roles = member.node_roles();
    member.roles.extend(roles);
}

fn rotated(member: &Member, rotate: &RotateKeys) -> Result<Member, Rejection> {
    let mut after = member.clone();
    set(&mut after.organisation_key, rotate.organisation_key);
    set(&mut after.api_key, rotate.api_key);
    if let Some(keys) = &rotate.node {
        let unknown = || Rejection::UnknownNode(keys.name.chars().take(160).collect());
        let node = after.nodes.iter_mut().find(|node| node.name == keys.name).ok_or_else(unknown)?;
        rotate_node(node, keys)?;
    }
    if after == *member { Err(Rejection::NothingToChange) } else { Ok(after) }
}

fn rotate_node(node: &mut Node, keys: &NodeKeys) -> Result<(), Rejection> {
    set(&mut node.transport_key, keys.transport_key);
    set(&mut node.transaction_key, keys.transaction_key);
    let superfluous = match &mut node.kind {
        NodeKind::Replica { log_key, cosign_key, .. } => {
            set(log_key, keys.log_key);
            set(cosign_key, keys.cosign_key);
            keys.witness_key.is_some()
        }
        NodeKind::Participant { witness_key } => {
            set(witness_key, keys.witness_key);
            keys.log_key.is_some() || keys.cosign_key.is_some()
        }
    };
    if superfluous { Err(Rejection::NoSuchKey(node.name.clone())) } else { Ok(()) }
}

fn set<T>(value: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *value = new;
    }
}

/// Only the replicas of the genesis file vote in Raft, so only they can run. They must be enough to make heads final without
/// those that were admitted since: an epoch that nobody can vouch for could never be left again.
fn check_voters(state: &Federation, epoch: &Epoch) -> Result<(), Rejection> {
    let left = state.consortium().replicas().filter(|(_, node)| epoch.replicas.contains_key(&node.name)).count() as u64;
    if left < epoch.threshold {
        return Err(Rejection::TooFewVoters { left, threshold: epoch.threshold });
    }
    Ok(())
}

/// The epoch after a change, if it differs from `newest`.
fn epoch(
    newest: &Epoch,
    before: Option<&Member>,
    after: Option<&Member>,
    policy: &Policy,
    index: u64,
) -> Result<Option<Epoch>, Rejection> {
    let mut epoch = newest.clone();
    if let Some(before) = before {
        without_member(&mut epoch, before);
    }
    if let Some(after) = after {
        with_member(&mut epoch, after);
    }
    let replicas = epoch.replicas.len() as u64;
    if replicas == 0 {
        return Err(Rejection::NoReplicaLeft);
    }
    epoch.threshold = policy.threshold(replicas);
    if !is_finality_threshold(epoch.threshold, replicas) {
        return Err(Rejection::ThresholdImpossible { threshold: epoch.threshold, replicas });
    }
    if epoch == *newest {
        return Ok(None);
    }
    // One entry may carry several proposals out; what it leads to is one epoch.
    if newest.index != index {
        epoch.number = newest.number.saturating_add(1);
    }
    epoch.index = index;
    Ok(Some(epoch))
}

impl From<MemberError> for Rejection {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::SharedKey { key, owner } => Self::KeyUsed { key, owner },
            error => Self::InvalidMember(error),
        }
    }
}
