//! Records: what the replicated state remembers of plans, rounds, contributions and versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    command::{Contribute, OutputFiles, RoundKey},
    content_id::VersionId,
    early_stopping::{EarlyStop, Trend},
    manifest::Manifest,
    member::{Member, MemberId},
    metrics::{GroupMetrics, Metrics},
    plan::Plan,
    retention::Pruned,
};

/// A member, present or former.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The member as it is now, or as it was last.
    pub member: Member,
    /// Index of the entry that admitted it; 0 for a founder.
    pub admitted_index: u64,
    /// Index of the entry that excluded it, if one did.
    pub revoked_index: Option<u64>,
}

/// A proposed plan and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The plan.
    pub plan: Plan,
    /// Index of its proposal.
    pub proposed_index: u64,
    /// Members that consent, and what each has said with that.
    pub consents: BTreeMap<MemberId, Consent>,
    /// Where it stands.
    pub status: PlanStatus,
    /// Index of the entry since which it stands there.
    pub status_index: u64,
    /// Why, in words or as the code of an abandoned round's reason, if somebody has said so.
    pub status_reason: Option<String>,
    /// The version after which its condition for stopping early held, if it is finished for that.
    pub early_stop: Option<EarlyStop>,
    /// Index of the entry that started it again after it was finished early; 0 without one. Its condition is held against
    /// versions that were proposed since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub judged_from: u64,
    /// Its initial version, while that is not rejected; none where its branch began with another plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<VersionId>,
    /// Initial versions that were rejected since somebody last started or resumed the plan.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub initial_rejections: u64,
    /// The round to be opened next, from 1.
    pub next_round: u64,
    /// The attempt at it, from 1.
    pub next_attempt: u64,
    /// The attempt in progress.
    pub open: Option<RoundKey>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A hospital's consent to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// Index of the entry by which it was given.
    pub index: u64,
    /// Training examples that the hospital has declared, if it has.
    pub examples: Option<u64>,
}

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStatus {
    /// Proposed, never started.
    Proposed,
    /// Rounds are opened.
    Running,
    /// The round in progress takes contributions and is not closed, and no other is opened, until it is resumed.
    Paused,
    /// The round in progress is finished, then the plan stops.
    Draining,
    /// Stopped; it can be started again.
    Stopped,
    /// Taken back before it was ever started, for good.
    Cancelled,
    /// Every round is done, or as many as its condition for stopping early wanted; then it can be started again.
    Finished,
}

impl PlanStatus {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::Finished => "finished",
        }
    }

    /// Whether it is being carried out: it holds its branch, and participants keep what they need for it.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Draining)
    }

    /// Whether nothing can come of it any more.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Cancelled | Self::Finished)
    }
}

/// An attempt at a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// The version that is trained on.
    pub base: VersionId,
    /// The participants selected.
    pub cohort: Vec<MemberId>,
    /// Training examples that the participants selected had declared at the opening, for plans with a minimum share.
    pub declared_examples: BTreeMap<MemberId, u64>,
    /// Members that consented to the plan when contributions were fixed or the attempt was given up, where that is not
    /// the cohort.
    pub enrolled: Option<Vec<MemberId>>,
    /// Time for contributions, in milliseconds.
    pub duration_ms: u64,
    /// Index of its opening.
    pub opened_index: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Index of the entry that let the updates go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned_index: Option<u64>,
}

/// Where an attempt at a round stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Contributions are collected.
    Collecting,
    /// The contributions are fixed; a version is to be computed.
    Closed {
        /// Index of the certificate.
        index: u64,
        /// Contributions left out, with the code of the reason.
        excluded: BTreeMap<MemberId, String>,
        /// The version proposed, while it is neither attested nor rejected.
        candidate: Option<VersionId>,
    },
    /// It led to an attested version.
    Completed {
        /// Index of the certificate.
        index: u64,
        /// Index of the entry with which the version was attested.
        completed_index: u64,
        /// Contributions left out, with the code of the reason.
        excluded: BTreeMap<MemberId, String>,
        /// The version.
        version: VersionId,
    },
    /// It was given up.
    Abandoned {
        /// Index of the entry by which it was.
        index: u64,
        /// Code of the reason.
        reason: String,
        /// Contributions that could not have been aggregated, with the code of the reason.
        excluded: BTreeMap<MemberId, String>,
    },
}

/// What a selected participant did in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Participation {
    /// It trains.
    Joined {
        /// Index of the entry by which it joined.
        index: u64,
    },
    /// It does not train.
    Declined {
        /// Index of the entry by which it declined.
        index: u64,
        /// Index of the entry by which it had joined, if it had.
        joined_index: Option<u64>,
        /// Why, in words.
        reason: String,
    },
    /// Its contribution is accepted.
    Contributed {
        /// Index of the contribution.
        index: u64,
        /// Index of the entry by which it had joined.
        joined_index: u64,
        /// The contribution.
        contribution: Box<Contribute>,
    },
    /// It was excluded from the consortium while the round collected contributions; nothing that it did counts.
    Revoked {
        /// Index of the entry by which it was.
        index: u64,
    },
}

impl Phase {
    /// Contributions that were left out, with the code of the reason.
    pub fn excluded(&self) -> Option<&BTreeMap<MemberId, String>> {
        match self {
            Self::Collecting => None,
            Self::Closed { excluded, .. } | Self::Completed { excluded, .. } | Self::Abandoned { excluded, .. } => {
                Some(excluded)
            }
        }
    }

    /// Index of the entry that ended the collection of contributions.
    pub const fn ended_index(&self) -> Option<u64> {
        match self {
            Self::Collecting => None,
            Self::Closed { index, .. } | Self::Completed { index, .. } | Self::Abandoned { index, .. } => Some(*index),
        }
    }
}

/// A version and what the consortium thinks of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The recipe.
    pub manifest: Manifest,
    /// The attempt that led to it.
    pub key: RoundKey,
    /// Index at which it was proposed.
    pub created_index: u64,
    /// Where it stands.
    pub status: VersionStatus,
    /// Files that each replica computed, by node; the proposer's are those of the manifest.
    pub attestations: BTreeMap<String, OutputFiles>,
    /// Why it must not be used, if so.
    pub revoked: Option<String>,
    /// Why all of it is kept at any age, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// What later versions of a plan with a patience are held against, once a round has trained on this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend: Option<Trend>,
    /// Which of its files were let go.
    #[serde(default, skip_serializing_if = "Pruned::is_nothing")]
    pub pruned: Pruned,
}

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionStatus {
    /// Proposed by one replica.
    Candidate,
    /// A majority of replicas computed the same files.
    Attested {
        /// Versions are numbered from 0 in the order in which they were attested.
        number: u64,
    },
    /// A majority for these files is out of reach.
    Rejected,
    /// Its plan was stopped while the replicas were being asked. Nobody has contradicted it, and since training is
    /// deterministic, the next attempt may well propose it again.
    Withdrawn,
}

impl VersionRecord {
    /// The version's number, once it is attested.
    pub const fn number(&self) -> Option<u64> {
        match self.status {
            VersionStatus::Attested { number } => Some(number),
            VersionStatus::Candidate | VersionStatus::Rejected | VersionStatus::Withdrawn => None,
        }
    }
}

/// A member's metrics of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Examples evaluated on.
    pub examples: u64,
    /// Metrics, in millionths.
    pub metrics: Metrics,
    /// The same for groups of these examples, by the group's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupMetrics>,
}
