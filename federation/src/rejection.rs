//! Rejections: everything that can be refused, and why. A rejection changes nothing but stands on the ledger.

use fedledger_ledger::{Digest, PublicKey, evidence::EvidenceError, machine::RejectionCode};

use crate::{
    command::CommandError,
    content_id::VersionId,
    decimal::Decimal,
    limits::{
        GROUPS_MAX, LOSS_MILLIONTHS_MAX, METRICS_MAX, NAME_LENGTH_MAX, OPEN_PROPOSALS_MAX,
        OPEN_PROPOSALS_PER_MEMBER_MAX, TEXT_LENGTH_MAX,
    },
    member::{MemberError, MemberId},
    plan::PlanError,
    retention::KeptFor,
};

/// Why a transaction was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Rejection {
    #[error("key {0} belongs to no member of the consortium")]
    UnknownAuthor(PublicKey),
    #[error("key {key} of {owner} was revoked by entry {index}: sign with the key that replaced it")]
    RevokedKey { key: PublicKey, owner: MemberId, index: u64 },
    #[error("{kind} must be signed by {needed}")]
    NotPermitted { kind: &'static str, needed: &'static str },
    #[error(transparent)]
    UnknownKind(CommandError),
    #[error(transparent)]
    MalformedPayload(CommandError),
    #[error("a text of {0} bytes: use at most {TEXT_LENGTH_MAX}")]
    TextTooLong(usize),
    #[error("{0:?} is no valid name: use 1 to {NAME_LENGTH_MAX} lowercase letters, digits and inner hyphens")]
    InvalidName(String),
    #[error("{0} metrics: use at most {METRICS_MAX}, each with a valid name")]
    InvalidMetrics(usize),
    #[error(
        "{name} is {millionths} millionths: use 0 to {LOSS_MILLIONTHS_MAX} for a loss, and 0 to 1000000 for accuracy, auc, \
         auc_low, auc_high, f1 and calibration_error"
    )]
    ImpossibleMetric { name: String, millionths: i64 },
    #[error("auc_low and auc_high are the interval around auc: report both, with auc between them, or neither")]
    InvalidInterval,
    #[error("metrics of no examples: leave them out where there is nothing to report")]
    MetricsOfNothing,
    #[error(
        "{0} groups: use at most {GROUPS_MAX}, each with a name of 1 to {NAME_LENGTH_MAX} bytes without control characters"
    )]
    InvalidGroups(usize),
    #[error("the groups have more than the {0} examples of the report: a row belongs to one group")]
    GroupsTooLarge(u64),

    #[error("the plan cannot be carried out: {0}")]
    InvalidPlan(#[from] PlanError),
    #[error("plan {0} has been proposed already")]
    PlanExists(Digest),
    #[error("there is no plan {0}")]
    UnknownPlan(Digest),
    #[error("the plan names {0}, which is no participant of this consortium")]
    NoSuchParticipant(MemberId),
    #[error("{0} has consented to this plan already")]
    AlreadyConsented(MemberId),
    #[error("{0} has not consented to this plan")]
    NotConsented(MemberId),
    #[error("the plan is {found}; this needs it to be {needed}: see `fedledger plan show`")]
    PlanStatus { found: &'static str, needed: &'static str },
    #[error(
        "the plan weighs the share of the examples that is contributed: declare your training examples with the consent \
         (`fedledger plan approve --examples`)"
    )]
    ExamplesUndeclared,
    #[error("{found} participants have consented, the plan needs {needed}")]
    TooFewConsents { found: u64, needed: u64 },
    #[error("{0}, whom the plan requires, has not consented")]
    RequiredConsentMissing(MemberId),
    #[error("plan {plan} is running on branch {branch}: stop it first, or use another branch")]
    BranchInUse { branch: String, plan: Digest },
    #[error("the head of branch {0} is a model of another architecture: use another branch")]
    ArchitectureDiffers(String),

    #[error("a round of this plan is open already")]
    RoundOpen,
    #[error("round {round}, attempt {attempt} is next, not round {found_round}, attempt {found_attempt}")]
    WrongRound { round: u64, attempt: u64, found_round: u64, found_attempt: u64 },
    #[error("there is no such round")]
    UnknownRound,
    #[error("the base is {found}, expected {expected}")]
    WrongBase { expected: VersionId, found: VersionId },
    #[error("the branch has no head yet")]
    NoBase,
    #[error("the cohort is not the one that the plan and the base version determine")]
    WrongCohort,
    #[error("the duration is not the plan's")]
    WrongDuration,
    #[error("contributions to this round are no longer collected")]
    RoundClosed,
    #[error("the round is still collecting contributions")]
    RoundCollecting,
    #[error("{0} was not selected for this round")]
    NotSelected(MemberId),
    #[error("{0} has not joined this round")]
    NotJoined(MemberId),
    #[error("{0} has joined this round already")]
    AlreadyJoined(MemberId),
    #[error("{0} has declined this round")]
    Declined(MemberId),
    #[error("{0} was no participant for a time, and takes part again from the next round on")]
    ParticipationEnded(MemberId),
    #[error("{0} has contributed to this round already")]
    AlreadyContributed(MemberId),
    #[error("an update of {found} bytes, expected {expected} for this architecture")]
    WrongSize { expected: u64, found: u64 },
    #[error("{found} examples: the plan weighs 1 to {allowed}")]
    WrongExamples { found: u64, allowed: u64 },
    #[error("the data manifest is not the one that the plan requires of {0}")]
    WrongDataManifest(MemberId),
    #[error("skipped rows: use known reasons, with counts above 0 of at most {allowed} together")]
    WrongSkippedRows { allowed: u64 },
    #[error("the environment is not the one that the plan requires")]
    WrongEnvironment,
    #[error("the trainer is not the one that the plan requires: {expected}")]
    WrongTrainer { expected: String },
    #[error("{0} has no contribution that could be excluded")]
    NothingToExclude(MemberId),
    #[error("{found} contributions can be aggregated, the plan needs {needed}")]
    BelowQuorum { found: u64, needed: u64 },
    #[error("the contribution of {0}, whom the plan requires, is missing")]
    RequiredContributionMissing(MemberId),

    #[error("the contributions stand for {found} of {of} examples, the plan needs a share of {needed}")]
    ExampleShareTooSmall { found: u64, of: u64, needed: Decimal },
    #[error("the contributions meet the plan's quorum: close the round instead of giving it up for want of one")]
    QuorumMet,
    #[error("version {0} is still the head of the branch: give the attempt up for another reason")]
    BaseNotMoved(VersionId),
    #[error("the plan has no condition for stopping early: stop it with `fedledger plan stop`")]
    NoEarlyStopping,
    #[error("by the evaluations on record, the plan's condition for stopping early does not hold for version {0}")]
    ConditionNotMet(VersionId),

    #[error("this round has a candidate or version already")]
    CandidateExists,
    #[error("the branch has a head already, no initial version is needed")]
    BranchExists,
    #[error("version {found} is claimed, the ledger and these files give {computed}")]
    WrongVersion { computed: VersionId, found: VersionId },
    #[error("the rule keeps no optimizer state, or keeps one and none is given")]
    WrongOutputs,
    #[error("there is no version {0}")]
    UnknownVersion(VersionId),
    #[error("version {0} is no candidate any more")]
    NotCandidate(VersionId),
    #[error("{0} has attested this version already")]
    AlreadyAttested(String),
    #[error("version {0} is not attested by a majority of replicas")]
    NotAttested(VersionId),
    #[error("version {0} is revoked")]
    Revoked(VersionId),
    #[error("version {0} is the head of a branch: move the branch first")]
    IsHead(VersionId),
    #[error("{0} has evaluated this version already")]
    AlreadyEvaluated(MemberId),
    #[error("the head of the branch is {found:?}, not {expected:?}: look again before moving it")]
    HeadMoved { expected: Option<VersionId>, found: Option<VersionId> },
    #[error("the branch is there already")]
    NothingToMove,
    #[error("version {0} is no ancestor of the branch's head, so there is nothing between them to revoke")]
    NotAncestor(VersionId),
    #[error("tag {0:?} names another version already")]
    TagExists(String),
    #[error(
        "the files of version {version} were pruned by entry {index}: use a newer version, and pin those that must stay \
         (`fedledger pin`)"
    )]
    FilesPruned { version: VersionId, index: u64 },
    #[error("keep the updates of one version at least, and the files of two and of more than keep their updates")]
    RetentionTooShort,
    #[error("these files are to be kept: {0}")]
    StillKept(KeptFor),
    #[error("there is nothing left of it to prune")]
    NothingToPrune,

    #[error("a proposal expires at index {from} to {to}, not at {found}")]
    InvalidExpiry { found: u64, from: u64, to: u64 },
    #[error("what the proposal is to change is {found:?} now, not {expected:?}: look again and propose anew")]
    TargetChanged { expected: Option<Digest>, found: Option<Digest> },
    #[error("proposal {0} has been made already: give another reason or expiry to propose the same again")]
    ProposalExists(Digest),
    #[error("{0} has {OPEN_PROPOSALS_PER_MEMBER_MAX} open proposals already: wait until one is decided or expires")]
    TooManyProposalsOfMember(MemberId),
    #[error("there are {OPEN_PROPOSALS_MAX} open proposals already: wait until one is decided or expires")]
    TooManyProposals,
    #[error("there is no proposal {0}: see `fedledger proposal list`")]
    UnknownProposal(Digest),
    #[error("the proposal is {0} and can no longer be voted on")]
    ProposalClosed(&'static str),
    #[error("the proposal expired at index {0}: propose the same again")]
    ProposalExpired(u64),
    #[error("{0} has voted on this proposal already, and a vote stands")]
    AlreadyVoted(MemberId),
    #[error("there is no member {0:?}: see `fedledger member list`")]
    UnknownMember(String),
    #[error("there is no node {0:?}: see `fedledger member show`")]
    UnknownNode(String),
    #[error("{0} is or was a member, and an id is given once: ask again under another one")]
    MemberExists(MemberId),
    #[error("the consortium has as many members as there can be: exclude one first")]
    TooManyMembers,
    #[error("the member is not valid: {0}")]
    InvalidMember(MemberError),
    #[error("key {key} of {owner} is or was in use: every purpose needs a new key of its own")]
    KeyUsed { key: PublicKey, owner: String },
    #[error("a replica is numbered when it is admitted: give number 0, not {0}")]
    ReplicaNumbered(u64),
    #[error("{0} is of a kind that has no such key: leave it out")]
    NoSuchKey(String),
    #[error("nothing would change: it is so already")]
    NothingToChange,
    #[error("no member would be left: admit another one first")]
    NoMemberLeft,
    #[error("no replica would be left, and nobody could write to the ledger any more: keep one")]
    NoReplicaLeft,
    #[error(
        "{threshold} co-signatures would be needed of {replicas} replicas, which are too many or too few: \
         change the policy first"
    )]
    ThresholdImpossible { threshold: u64, replicas: u64 },
    #[error(
        "a head would need {threshold} co-signatures, but only {left} replicas of the genesis file would be left, and no \
         other can run yet: keep {threshold} of them, or have the members fix a lower threshold first \
         (`fedledger proposal new change-policy --finality-threshold`)"
    )]
    TooFewVoters { left: u64, threshold: u64 },

    #[error("the evidence shows nothing: {0}")]
    InvalidEvidence(Box<EvidenceError>),
    #[error("the evidence is about another log")]
    ForeignEvidence,
    #[error("the same is on record already, in entry {0}")]
    EvidenceKnown(u64),
}

impl RejectionCode for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownAuthor(_) => "unknown_author",
            Self::RevokedKey { .. } => "revoked_key",
            Self::NotPermitted { .. } => "not_permitted",
            Self::UnknownKind(_) => "unknown_kind",
            Self::MalformedPayload(_) => "malformed_payload",
            Self::TextTooLong(_) => "text_too_long",
            Self::InvalidName(_) => "invalid_name",
            Self::InvalidMetrics(_)
            | Self::ImpossibleMetric { .. }
            | Self::InvalidInterval
            | Self::MetricsOfNothing
            | Self::InvalidGroups(_)
            | Self::GroupsTooLarge(_) => "invalid_metrics",
            Self::InvalidPlan(_) => "invalid_plan",
            Self::PlanExists(_) => "plan_exists",
            Self::UnknownPlan(_) => "unknown_plan",
            Self::NoSuchParticipant(_) => "no_such_participant",
            Self::AlreadyConsented(_) => "already_consented",
            Self::NotConsented(_) => "not_consented",
            Self::PlanStatus { .. } => "plan_status",
            Self::ExamplesUndeclared => "examples_undeclared",
            Self::TooFewConsents { .. } => "too_few_consents",
            Self::RequiredConsentMissing(_) => "required_consent_missing",
            Self::BranchInUse { .. } => "branch_in_use",
            Self::ArchitectureDiffers(_) => "architecture_differs",
            Self::RoundOpen => "round_open",
            Self::WrongRound { .. } => "wrong_round",
            Self::UnknownRound => "unknown_round",
            Self::WrongBase { .. } => "wrong_base",
            Self::NoBase => "no_base",
            Self::WrongCohort => "wrong_cohort",
            Self::WrongDuration => "wrong_duration",
            Self::RoundClosed => "round_closed",
            Self::RoundCollecting => "round_collecting",
            Self::NotSelected(_) => "not_selected",
            Self::NotJoined(_) => "not_joined",
            Self::AlreadyJoined(_) => "already_joined",
            Self::Declined(_) => "declined",
            Self::ParticipationEnded(_) => "participation_ended",
            Self::AlreadyContributed(_) => "already_contributed",
            Self::WrongSize { .. } => "wrong_size",
            Self::WrongExamples { .. } => "wrong_examples",
            Self::WrongDataManifest(_) => "wrong_data_manifest",
            Self::WrongSkippedRows { .. } => "wrong_skipped_rows",
            Self::WrongEnvironment => "wrong_environment",
            Self::WrongTrainer { .. } => "wrong_trainer",
            Self::NothingToExclude(_) => "nothing_to_exclude",
            Self::BelowQuorum { .. } => "below_quorum",
            Self::RequiredContributionMissing(_) => "required_contribution_missing",
            Self::ExampleShareTooSmall { .. } => "example_share_too_small",
            Self::QuorumMet => "quorum_met",
            Self::BaseNotMoved(_) => "base_not_moved",
            Self::NoEarlyStopping => "no_early_stopping",
            Self::ConditionNotMet(_) => "condition_not_met",
            Self::CandidateExists => "candidate_exists",
            Self::BranchExists => "branch_exists",
            Self::WrongVersion { .. } => "wrong_version",
            Self::WrongOutputs => "wrong_outputs",
            Self::UnknownVersion(_) => "unknown_version",
            Self::NotCandidate(_) => "not_candidate",
            Self::AlreadyAttested(_) => "already_attested",
            Self::NotAttested(_) => "not_attested",
            Self::Revoked(_) => "revoked",
            Self::IsHead(_) => "is_head",
            Self::AlreadyEvaluated(_) => "already_evaluated",
            Self::HeadMoved { .. } => "head_moved",
            Self::NothingToMove => "nothing_to_move",
            Self::NotAncestor(_) => "not_ancestor",
            Self::TagExists(_) => "tag_exists",
            Self::FilesPruned { .. } => "files_pruned",
            Self::RetentionTooShort => "retention_too_short",
            Self::StillKept(_) => "still_kept",
            Self::NothingToPrune => "nothing_to_prune",
            Self::InvalidExpiry { .. } => "invalid_expiry",
            Self::TargetChanged { .. } => "target_changed",
            Self::ProposalExists(_) => "proposal_exists",
            Self::TooManyProposalsOfMember(_) => "too_many_proposals_of_member",
            Self::TooManyProposals => "too_many_proposals",
            Self::UnknownProposal(_) => "unknown_proposal",
            Self::ProposalClosed(_) => "proposal_closed",
            Self::ProposalExpired(_) => "proposal_expired",
            Self::AlreadyVoted(_) => "already_voted",
            Self::UnknownMember(_) => "unknown_member",
            Self::UnknownNode(_) => "unknown_node",
            Self::MemberExists(_) => "member_exists",
            Self::TooManyMembers => "too_many_members",
            Self::InvalidMember(_) => "invalid_member",
            Self::KeyUsed { .. } => "key_used",
            Self::ReplicaNumbered(_) => "replica_numbered",
            Self::NoSuchKey(_) => "no_such_key",
            Self::NothingToChange => "nothing_to_change",
            Self::NoMemberLeft => "no_member_left",
            Self::NoReplicaLeft => "no_replica_left",
            Self::ThresholdImpossible { .. } => "threshold_impossible",
            Self::TooFewVoters { .. } => "too_few_voters",
            Self::InvalidEvidence(_) => "invalid_evidence",
            Self::ForeignEvidence => "foreign_evidence",
            Self::EvidenceKnown(_) => "evidence_known",
        }
    }
}

impl From<EvidenceError> for Rejection {
    fn from(error: EvidenceError) -> Self {
        Self::InvalidEvidence(Box::new(error))
    }
}

impl From<CommandError> for Rejection {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::UnknownKind(_) => Self::UnknownKind(error),
            CommandError::Malformed(_) => Self::MalformedPayload(error),
        }
    }
}
