//! Governance: how the members decide together who is one of them, with which keys, and how many must co-sign.
//!
//! A member proposes an [`Action`]; every member has one vote, whatever its roles and number of nodes, and gives it with its
//! organisation's key. The proposer's proposal is its vote. As soon as two thirds of the members that there are then
//! approve, the action is carried out, in the same entry as the deciding vote; as soon as they cannot any more, the
//! proposal is rejected. When a member is excluded, its ballots count no more, and what the members that are left have
//! voted on enough is decided in the same entry. A vote is given once and cannot be changed, so that nobody can be pressed
//! to change it.
//!
//! A ballot names the proposal's id, which is a hash over everything that is voted on, [what it was made
//! against](Propose::against) included: nobody can be made to vote for something else than what was looked at, and an
//! action is never carried out on a member that has changed since.

mod change;
mod evidence;

use fedledger_ledger::{Digest, PublicKey, codec};
use serde::{Deserialize, Serialize};

pub use self::{
    change::{Change, Policy},
    evidence::{EvidenceRecord, Finding, RecordEvidence},
};
use crate::{
    Federation,
    member::{Capacity, Member, MemberId, Node},
    retention::Retention,
};

/// Domain of proposal ids.
const PROPOSAL_DOMAIN: &[u8] = b"fedledger/v1/proposal\n";

/// Something that the members can decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Admits an organisation with its nodes. Its replicas are [unnumbered](crate::member::UNNUMBERED).
    AdmitMember {
        /// The new member.
        member: Member,
    },
    /// Excludes a member for good: its keys are revoked, its nodes and consents go, and its id is never given again.
    RevokeMember {
        /// The member.
        member: MemberId,
    },
    /// Admits one more node of a member, which gets the role for it.
    AdmitNode {
        /// Whose node it is.
        member: MemberId,
        /// The node; a replica is [unnumbered](crate::member::UNNUMBERED).
        node: Node,
    },
    /// Excludes a node; without another one of its kind, its member loses the role.
    RevokeNode {
        /// Name of the node.
        node: String,
    },
    /// Replaces keys of a member. The old ones are revoked.
    RotateKeys(RotateKeys),
    /// Changes how many replicas must co-sign.
    ChangePolicy {
        /// Co-signatures that make a head final; without it, as many as
        /// [`default_finality_threshold`](crate::member::default_finality_threshold) gives for the replicas there are.
        finality_threshold: Option<u64>,
    },
    /// Changes how many of the newest versions keep their files. What is not given is kept for ever.
    ChangeRetention(Retention),
}

/// Replaces keys of a member: its own, those of one of its nodes, or both. Keys that are not given stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKeys {
    /// The member.
    pub member: MemberId,
    /// The new organisation key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation_key: Option<PublicKey>,
    /// The new API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<PublicKey>,
    /// New keys of one of its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeKeys>,
}

/// New keys of a node. Those that are not given stay; those that its kind does not have must not be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeKeys {
    /// Name of the node.
    pub name: String,
    /// Identifies it to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_key: Option<PublicKey>,
    /// Signs its transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_key: Option<PublicKey>,
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

/// Puts an action before the members, and votes for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propose {
    /// What is to be done.
    pub action: Action,
    /// What the action changes, as the proposer knows it: [`Action::target`]. `None` for a new member.
    pub against: Option<Digest>,
    /// Last index at which a vote counts.
    pub expires_index: u64,
    /// Why, in words.
    pub reason: String,
}

/// Votes on a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// Id of the proposal.
    pub proposal: Digest,
    /// For or against.
    pub approve: bool,
}

/// A proposal and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalRecord {
    /// What is proposed.
    pub content: Propose,
    /// Who proposed it.
    pub proposer: MemberId,
    /// Index of the proposal.
    pub proposed_index: u64,
    /// Where it stands; see [`ProposalRecord::status_at`] for what that means at an index.
    pub status: ProposalStatus,
}

/// Where a proposal stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalStatus {
    /// It can be voted on until it expires.
    Open,
    /// Two thirds approved, and it was carried out.
    Executed {
        /// Index of the entry that decided it: a vote on it, or the exclusion of a member.
        index: u64,
    },
    /// Two thirds cannot approve any more.
    Rejected {
        /// Index of the entry that decided it.
        index: u64,
    },
    /// Two thirds approved, but it could not be carried out any more.
    Failed {
        /// Index of the entry that decided it.
        index: u64,
        /// Code of the [rejection](crate::Rejection) that says why.
        code: String,
    },
    /// What it was to change has been changed by another proposal.
    Superseded {
        /// Index of the change.
        index: u64,
    },
}

/// A member's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// For or against.
    pub approve: bool,
    /// Index of the vote.
    pub index: u64,
}

/// How the vote on a proposal stands among the members that there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Members.
    pub members: u64,
    /// Members that approve.
    pub approvals: u64,
    /// Members that do not.
    pub rejections: u64,
    /// Approvals that are needed.
    pub needed: u64,
}

/// A key that was revoked. Nobody can use it any more, for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKey {
    /// Index of the entry that revoked it.
    pub index: u64,
    /// Whose key it was.
    pub owner: MemberId,
    /// In which capacity it signed transactions, if it did.
    pub capacity: Option<Capacity>,
}

/// Approvals that a proposal needs of this many members: two thirds, rounded up.
pub const fn approvals_needed(members: u64) -> u64 {
    members.saturating_mul(2).div_ceil(3)
}

impl Action {
    /// The stable name, in snake case.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AdmitMember { .. } => "admit_member",
            Self::RevokeMember { .. } => "revoke_member",
            Self::AdmitNode { .. } => "admit_node",
            Self::RevokeNode { .. } => "revoke_node",
            Self::RotateKeys(_) => "rotate_keys",
            Self::ChangePolicy { .. } => "change_policy",
            Self::ChangeRetention(_) => "change_retention",
        }
    }

    /// The member that it is about, if it is about one.
    pub fn member(&self) -> Option<&str> {
        match self {
            Self::AdmitMember { member } => Some(&member.id),
            Self::RevokeMember { member }
            | Self::AdmitNode { member, .. }
            | Self::RotateKeys(RotateKeys { member, .. }) => Some(member),
            Self::RevokeNode { node } => Some(node.split_once('/').map_or(node.as_str(), |(member, _)| member)),
            Self::ChangePolicy { .. } | Self::ChangeRetention(_) => None,
        }
    }

    /// SHA-256 of what it changes, as it is now: the record of its member, the retention, or the newest epoch for a change of
    /// policy, since a number of co-signatures means something for certain replicas only. `None` for a member that has no
    /// record.
    pub fn target(&self, state: &Federation) -> Option<Digest> {
        match self.member() {
            Some(member) => {
                state.member_records().get(&member.to_owned()).map(|record| Digest::of(&codec::encode(record)))
            }
            None if matches!(self, Self::ChangeRetention(_)) => {
                Some(Digest::of(&codec::encode(&state.policy().retention)))
            }
            None => Some(state.epoch().digest()),
        }
    }
}

impl Propose {
    /// The proposal's id if `proposer` proposes it: SHA-256("fedledger/v1/proposal\n" || DAG-CBOR of `[content, proposer]`).
    pub fn id(&self, proposer: &MemberId) -> Digest {
        Digest::of_parts(&[PROPOSAL_DOMAIN, &codec::encode(&(self, proposer))])
    }
}

impl ProposalRecord {
    /// Whether a vote in the entry at `index` would count.
    pub fn is_open_at(&self, index: u64) -> bool {
        self.status == ProposalStatus::Open && index <= self.content.expires_index
    }

    /// The word for where it stands when the next entry has this index.
    pub fn status_at(&self, index: u64) -> &'static str {
        match self.status {
            ProposalStatus::Open if index > self.content.expires_index => "expired",
            ProposalStatus::Open => "open",
            ProposalStatus::Executed { .. } => "executed",
            ProposalStatus::Rejected { .. } => "rejected",
            ProposalStatus::Failed { .. } => "failed",
            ProposalStatus::Superseded { .. } => "superseded",
        }
    }
}

impl Tally {
    /// Whether enough members approve.
    pub const fn is_approved(&self) -> bool {
        self.approvals >= self.needed
    }

    /// Whether not enough members can approve any more.
    pub const fn is_rejected(&self) -> bool {
        self.members.saturating_sub(self.rejections) < self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_are_rounded_up_and_always_a_majority() {
        let needed: Vec<u64> = (1..=9).map(approvals_needed).collect();
        assert_eq!(needed, [1, 2, 2, 3, 4, 4, 5, 6, 6]);
        assert!((1..1000).all(|members| approvals_needed(members) * 3 >= members * 2));
        assert!((1..1000).all(|members| approvals_needed(members) * 2 > members));
    }

    #[test]
    fn a_vote_is_decided_one_way_at_most() {
        for members in 1..20 {
            let needed = approvals_needed(members);
            for (approvals, rejections) in (0..=members).flat_map(|a| (0..=members - a).map(move |r| (a, r))) {
                let tally = Tally { members, approvals, rejections, needed };
                assert!(!(tally.is_approved() && tally.is_rejected()), "{tally:?}");
                assert!(approvals + rejections < members || tally.is_approved() || tally.is_rejected(), "{tally:?}");
            }
        }
    }

    #[test]
    fn the_id_covers_everything_that_is_voted_on() {
        let content = Propose {
            action: Action::ChangePolicy { finality_threshold: None },
            against: Some(Digest::of(b"epoch")),
            expires_index: 9,
            reason: "because".to_owned(),
        };
        let a = "a".to_owned();
        let other = |change: &dyn Fn(&mut Propose)| {
            let mut other = content.clone();
            change(&mut other);
            other.id(&a)
        };
        let ids = [
            content.id(&a),
            content.id(&"b".to_owned()),
            other(&|content| content.action = Action::ChangePolicy { finality_threshold: Some(3) }),
            other(&|content| content.against = None),
            other(&|content| content.expires_index = 10),
            other(&|content| content.reason = "just so".to_owned()),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
