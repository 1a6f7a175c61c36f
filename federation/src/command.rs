//! Commands: everything that a transaction can ask for, by kind.

use std::collections::BTreeMap;

use fedledger_ledger::{
    Digest,
    codec::{self, CodecError},
};
use serde::{Deserialize, Serialize};

pub use crate::metrics::{GroupMetrics, Metrics};
use crate::{
    content_id::VersionId,
    data_description::SkippedRows,
    governance::{Propose, RecordEvidence, Vote},
    limits::PAYLOAD_SIZE_BYTES_MAX,
    member::MemberId,
    plan::Plan,
    retention::{PinVersion, PruneRound, PruneVersion},
};

/// A transaction's kind and payload, decoded. As JSON, which is a view only, it is the payload alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and plans are proposed once")]
pub enum Command {
    /// An operator puts a plan before the hospitals.
    ProposePlan(Plan),
    /// A hospital consents to a plan.
    ApprovePlan(ApprovePlan),
    /// A hospital takes its consent back.
    WithdrawConsent(WithdrawConsent),
    /// An operator has a plan carried out.
    StartPlan(StartPlan),
    /// An operator stops a plan, at once or after the round in progress.
    StopPlan(StopPlan),
    /// An operator has a plan wait.
    PausePlan(PausePlan),
    /// An operator has a paused plan go on.
    ResumePlan(ResumePlan),
    /// An operator takes back a plan that was never started.
    CancelPlan(CancelPlan),
    /// The coordinator ends a plan whose condition for stopping early holds.
    StopEarly(StopEarly),
    /// The coordinator opens an attempt at a round.
    OpenRound(OpenRound),
    /// A participant will train.
    JoinRound(JoinRound),
    /// A participant will not train.
    DeclineRound(DeclineRound),
    /// A participant's update is there.
    Contribute(Contribute),
    /// The coordinator ends the collection: the round's certificate.
    CloseRound(CloseRound),
    /// The coordinator gives an attempt up.
    AbandonRound(AbandonRound),
    /// A replica has computed a version.
    CommitVersion(CommitVersion),
    /// Another replica has computed it, too.
    AttestVersion(AttestVersion),
    /// A member's metrics of a version on its own data.
    Evaluate(Evaluate),
    /// An operator moves a branch: promotion or rollback.
    MoveBranch(MoveBranch),
    /// An operator names a version.
    Tag(Tag),
    /// An operator declares that a version must not be used.
    RevokeVersion(RevokeVersion),
    /// An operator has a version kept at any age, or no longer.
    PinVersion(PinVersion),
    /// A replica lets files of a version go.
    PruneVersion(PruneVersion),
    /// A replica lets the updates of an attempt go that was given up.
    PruneRound(PruneRound),
    /// A member puts something before all members.
    Propose(Propose),
    /// A member votes.
    Vote(Vote),
    /// A member shows that somebody has signed two histories.
    RecordEvidence(RecordEvidence),
}

/// Consents to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovePlan {
    /// Id of the plan.
    pub plan: Digest,
    /// Training examples that the hospital will take part with; plans with a minimum share of examples ask for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<u64>,
}

/// Withdraws consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawConsent {
    /// Id of the plan.
    pub plan: Digest,
    /// Why, in words.
    pub reason: String,
}

/// Starts a plan, or goes on with one that was stopped or finished early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartPlan {
    /// Id of the plan.
    pub plan: Digest,
}

/// Stops a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopPlan {
    /// Id of the plan.
    pub plan: Digest,
    /// Whether the round in progress is finished first.
    pub drain: bool,
    /// Why, in words.
    pub reason: String,
}

/// Has a plan wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PausePlan {
    /// Id of the plan.
    pub plan: Digest,
    /// Why, in words.
    pub reason: String,
}

/// Has a paused plan go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumePlan {
    /// Id of the plan.
    pub plan: Digest,
    /// Why, in words.
    pub reason: String,
}

/// Takes back a plan that was never started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelPlan {
    /// Id of the plan.
    pub plan: Digest,
    /// Why, in words.
    pub reason: String,
}

/// Ends a plan whose condition for stopping early holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopEarly {
    /// Id of the plan.
    pub plan: Digest,
    /// The version after which it holds, which is the head of the plan's branch.
    pub version: VersionId,
}

/// Names an attempt at a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundKey {
    /// Id of the plan.
    pub plan: Digest,
    /// Number of the round within the plan, from 1. Round 0 makes the initial version and has no participants.
    pub round: u64,
    /// Number of the attempt at the round, from 1.
    pub attempt: u64,
}

/// Opens an attempt at a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRound {
    /// The attempt.
    pub key: RoundKey,
    /// The version that is trained on.
    pub base: VersionId,
    /// SHA-256 of the cohort ([`cohort::digest`](crate::cohort::digest)): who is in it follows from the ledger, and thousands of
    /// ids would not fit into a transaction.
    pub cohort: Digest,
    /// Time for contributions, in milliseconds.
    pub duration_ms: u64,
}

/// Joins a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRound {
    /// The attempt.
    pub key: RoundKey,
}

/// Declines a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclineRound {
    /// The attempt.
    pub key: RoundKey,
    /// Why, in words.
    pub reason: String,
}

/// Records a participant's update. The update itself is a file, named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contribute {
    /// The attempt.
    pub key: RoundKey,
    /// The version that was trained on.
    pub base: VersionId,
    /// SHA-256 of the update file.
    pub update: Digest,
    /// Size of the update file, in bytes.
    pub size: u64,
    /// Training examples that stand behind it.
    pub examples: u64,
    /// Metrics of the training, in millionths.
    pub metrics: Metrics,
    /// Digest of the description of the data.
    pub data_manifest: Digest,
    /// Digest of the description of hardware and libraries.
    pub environment: Digest,
    /// Name and version of the software.
    pub software: String,
    /// Records that the site skipped because they cannot be read, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_rows: SkippedRows,
    /// Digest of the program that trained, where the plan leaves the training to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<Digest>,
}

/// Ends the collection of contributions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseRound {
    /// The attempt.
    pub key: RoundKey,
    /// Ledger index of the newest contribution that was looked at; those that came after it are excluded as `late`.
    pub through: u64,
    /// Contributions that cannot be aggregated, with the code of the reason (`blob_lost`, ...).
    pub excluded: BTreeMap<MemberId, String>,
}

/// Gives an attempt up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbandonRound {
    /// The attempt.
    pub key: RoundKey,
    /// Code of the reason.
    pub reason: String,
    /// Contributions that could not have been aggregated, with the code of the reason (`blob_lost`, ...).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub excluded: BTreeMap<MemberId, String>,
}

/// A file: SHA-256 and size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// What aggregation produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputFiles {
    /// The version's weights.
    pub weights: FileRef,
    /// The server optimiser's state, for rules that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_state: Option<FileRef>,
}

/// Proposes the version that a closed round led to. Its manifest follows from the ledger and these files; `version` is the
/// manifest's id, which everybody checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitVersion {
    /// The attempt; round 0 for the initial version.
    pub key: RoundKey,
    /// Id of the version.
    pub version: VersionId,
    /// Files computed.
    pub outputs: OutputFiles,
}

/// Confirms, or contradicts, a candidate with files computed independently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestVersion {
    /// The candidate.
    pub version: VersionId,
    /// Files computed by the author.
    pub outputs: OutputFiles,
}

/// Reports metrics of a version, or, with no examples and no metrics, that there is nothing to report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The version.
    pub version: VersionId,
    /// Examples evaluated on; 0 of a member that cannot evaluate it, so that nobody waits for it.
    pub examples: u64,
    /// Metrics, in millionths.
    pub metrics: Metrics,
    /// The same for groups of these examples, by the group's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupMetrics>,
}

/// Moves or creates a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveBranch {
    /// The branch.
    pub branch: String,
    /// Its head, as the author knows it; none for a new branch.
    pub from: Option<VersionId>,
    /// Its new head.
    pub to: VersionId,
    /// Whether the versions between the new and the old head are revoked.
    pub revoke: bool,
    /// Why, in words.
    pub reason: String,
}

/// Names a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The name.
    pub name: String,
    /// The version.
    pub version: VersionId,
}

/// Revokes a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeVersion {
    /// The version.
    pub version: VersionId,
    /// Why, in words.
    pub reason: String,
}

/// A kind and payload that are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The kind is not known.
    #[error("transactions of kind {0:?} are not known")]
    UnknownKind(String),
    /// The payload is not what the kind says.
    #[error("the payload is malformed: {0}")]
    Malformed(#[from] CodecError),
}

impl Command {
    /// Decodes a transaction's payload.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub fn decode(kind: &str, payload: &[u8]) -> Result<Self, CommandError> {
        Ok(match kind {
            "ProposePlan" => Self::ProposePlan(decode(payload)?),
            "ApprovePlan" => Self::ApprovePlan(decode(payload)?),
            "WithdrawConsent" => Self::WithdrawConsent(decode(payload)?),
            "StartPlan" => Self::StartPlan(decode(payload)?),
            "StopPlan" => Self::StopPlan(decode(payload)?),
            "PausePlan" => Self::PausePlan(decode(payload)?),
            "ResumePlan" => Self::ResumePlan(decode(payload)?),
            "CancelPlan" => Self::CancelPlan(decode(payload)?),
            "StopEarly" => Self::StopEarly(decode(payload)?),
            "OpenRound" => Self::OpenRound(decode(payload)?),
            "JoinRound" => Self::JoinRound(decode(payload)?),
            "DeclineRound" => Self::DeclineRound(decode(payload)?),
            "Contribute" => Self::Contribute(decode(payload)?),
            "CloseRound" => Self::CloseRound(decode(payload)?),
            "AbandonRound" => Self::AbandonRound(decode(payload)?),
            "CommitVersion" => Self::CommitVersion(decode(payload)?),
            "AttestVersion" => Self::AttestVersion(decode(payload)?),
            "Evaluate" => Self::Evaluate(decode(payload)?),
            "MoveBranch" => Self::MoveBranch(decode(payload)?),
            "Tag" => Self::Tag(decode(payload)?),
            "RevokeVersion" => Self::RevokeVersion(decode(payload)?),
            "PinVersion" => Self::PinVersion(decode(payload)?),
            "PruneVersion" => Self::PruneVersion(decode(payload)?),
            "PruneRound" => Self::PruneRound(decode(payload)?),
            "Propose" => Self::Propose(decode(payload)?),
            "Vote" => Self::Vote(decode(payload)?),
            "RecordEvidence" => Self::RecordEvidence(decode(payload)?),
            _ => return Err(CommandError::UnknownKind(kind.chars().take(64).collect())),
        })
    }

    /// The kind under which it stands on the ledger.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ProposePlan(_) => "ProposePlan",
            Self::ApprovePlan(_) => "ApprovePlan",
            Self::WithdrawConsent(_) => "WithdrawConsent",
            Self::StartPlan(_) => "StartPlan",
            Self::StopPlan(_) => "StopPlan",
            Self::PausePlan(_) => "PausePlan",
            Self::ResumePlan(_) => "ResumePlan",
            Self::CancelPlan(_) => "CancelPlan",
            Self::StopEarly(_) => "StopEarly",
            Self::OpenRound(_) => "OpenRound",
            Self::JoinRound(_) => "JoinRound",
            Self::DeclineRound(_) => "DeclineRound",
            Self::Contribute(_) => "Contribute",
            Self::CloseRound(_) => "CloseRound",
            Self::AbandonRound(_) => "AbandonRound",
            Self::CommitVersion(_) => "CommitVersion",
            Self::AttestVersion(_) => "AttestVersion",
            Self::Evaluate(_) => "Evaluate",
            Self::MoveBranch(_) => "MoveBranch",
            Self::Tag(_) => "Tag",
            Self::RevokeVersion(_) => "RevokeVersion",
            Self::PinVersion(_) => "PinVersion",
            Self::PruneVersion(_) => "PruneVersion",
            Self::PruneRound(_) => "PruneRound",
            Self::Propose(_) => "Propose",
            Self::Vote(_) => "Vote",
            Self::RecordEvidence(_) => "RecordEvidence",
        }
    }

    /// The canonical payload.
    pub fn payload(&self) -> Vec<u8> {
        match self {
            Self::ProposePlan(command) => codec::encode(command),
            Self::ApprovePlan(command) => codec::encode(command),
            Self::WithdrawConsent(command) => codec::encode(command),
            Self::StartPlan(command) => codec::encode(command),
            Self::StopPlan(command) => codec::encode(command),
            Self::PausePlan(command) => codec::encode(command),
            Self::ResumePlan(command) => codec::encode(command),
            Self::CancelPlan(command) => codec::encode(command),
            Self::StopEarly(command) => codec::encode(command),
            Self::OpenRound(command) => codec::encode(command),
            Self::JoinRound(command) => codec::encode(command),
            Self::DeclineRound(command) => codec::encode(command),
            Self::Contribute(command) => codec::encode(command),
            Self::CloseRound(command) => codec::encode(command),
            Self::AbandonRound(command) => codec::encode(command),
            Self::CommitVersion(command) => codec::encode(command),
            Self::AttestVersion(command) => codec::encode(command),
            Self::Evaluate(command) => codec::encode(command),
            Self::MoveBranch(command) => codec::encode(command),
            Self::Tag(command) => codec::encode(command),
            Self::RevokeVersion(command) => codec::encode(command),
            Self::PinVersion(command) => codec::encode(command),
            Self::PruneVersion(command) => codec::encode(command),
            Self::PruneRound(command) => codec::encode(command),
            Self::Propose(command) => codec::encode(command),
            Self::Vote(command) => codec::encode(command),
            Self::RecordEvidence(command) => codec::encode(command),
        }
    }
}

fn decode<T: Serialize + serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, CommandError> {
    Ok(codec::decode(payload, PAYLOAD_SIZE_BYTES_MAX)?)
}
