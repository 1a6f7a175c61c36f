//! Events: what an accepted transaction brought about.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_ledger::Digest;
use serde::Serialize;

use crate::{
    command::RoundKey, content_id::VersionId, early_stopping::EarlyStop, governance::ProposalStatus, member::MemberId,
    quorum::Quorum,
};

/// What an accepted transaction brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant repeats the command it answers; fields are named as there")]
pub enum Event {
    PlanProposed { plan: Digest },
    ConsentGiven { plan: Digest, member: MemberId },
    ConsentWithdrawn { plan: Digest, member: MemberId },
    PlanStarted { plan: Digest },
    PlanStopped { plan: Digest, drain: bool },
    PlanPaused { plan: Digest },
    PlanResumed { plan: Digest },
    PlanCancelled { plan: Digest },
    PlanStoppedEarly { plan: Digest, stop: EarlyStop },
    RoundOpened { key: RoundKey, base: VersionId, cohort: Vec<MemberId> },
    RoundJoined { key: RoundKey, member: MemberId },
    RoundDeclined { key: RoundKey, member: MemberId },
    Contributed { key: RoundKey, member: MemberId, update: Digest },
    RoundClosed { key: RoundKey, certificate: Certificate },
    RoundAbandoned { key: RoundKey, reason: String, plan_stopped: bool, certificate: Certificate },
    VersionProposed { version: VersionId },
    VersionAttested { version: VersionId, number: u64, branch: String, moved: bool, plan_finished: bool },
    AttestationRecorded { version: VersionId, agrees: bool },
    VersionRejected { version: VersionId },
    Evaluated { version: VersionId, member: MemberId },
    BranchMoved { branch: String, from: Option<VersionId>, to: VersionId, revoked: Vec<VersionId> },
    Tagged { name: String, version: VersionId },
    VersionRevoked { version: VersionId },
    VersionPinned { version: VersionId, pinned: bool },
    VersionPruned { version: VersionId, updates: bool, files: bool },
    RoundPruned { key: RoundKey },
    Proposed { proposal: Digest, member: MemberId },
    Voted { proposal: Digest, member: MemberId, approve: bool },
    Executed { proposal: Digest, member: MemberId, consequences: Consequences },
    ProposalRejected { proposal: Digest, member: MemberId },
    EvidenceRecorded { evidence: Digest, culprits: BTreeSet<String> },
    ProposalFailed { proposal: Digest, member: MemberId, code: &'static str, reason: String },
}

/// What followed from carrying a proposal out, beside what it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Consequences {
    /// Number of the newest epoch.
    pub epoch: u64,
    /// Proposals that were made against what has changed.
    pub superseded: Vec<Digest>,
    /// Open proposals that the members that are left had voted on enough, and what became of them.
    pub decided: BTreeMap<Digest, ProposalStatus>,
    /// Candidates that a majority of the replicas there are now agrees with.
    pub attested: Vec<VersionId>,
    /// Candidates with which a majority can no longer agree.
    pub rejected: Vec<VersionId>,
}

impl Consequences {
    /// Adds what followed from carrying another proposal out, later in the same entry.
    pub(crate) fn add(&mut self, later: Self) {
        let Self { epoch, superseded, decided, attested, rejected } = later;
        self.epoch = epoch;
        self.superseded.extend(superseded);
        self.decided.extend(decided);
        self.attested.extend(attested);
        self.rejected.extend(rejected);
    }
}

/// The certificate of an attempt at a round: everyone enrolled, what became of them and when, and whether it was enough.
///
/// Indexes are places in the ledger; the first seal at or after one tells the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Participants that have consented to the plan.
    pub enrolled: Vec<MemberId>,
    /// Participants selected for the round.
    pub selected: Vec<MemberId>,
    /// Those that joined.
    pub joined: Vec<MemberId>,
    /// Those that declined, and why.
    pub declined: BTreeMap<MemberId, String>,
    /// Those whose updates are aggregated.
    pub contributed: Vec<MemberId>,
    /// Those whose contribution is excluded, and why.
    pub excluded: BTreeMap<MemberId, String>,
    /// Those that did neither contribute nor decline, and how far they came.
    pub missing: BTreeMap<MemberId, String>,
    /// The contributions that count, held against what the plan wants.
    pub quorum: Quorum,
    /// Index of the attempt's opening.
    pub opened_index: u64,
    /// Index of the entry that fixed the contributions or gave the attempt up.
    pub ended_index: Option<u64>,
    /// Index of each step of those selected.
    pub steps: BTreeMap<MemberId, Steps>,
}

/// When a participant did what in a round, as places in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// It joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined: Option<u64>,
    /// It declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declined: Option<u64>,
    /// It contributed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contributed: Option<u64>,
    /// The members excluded it, or took its role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
}
