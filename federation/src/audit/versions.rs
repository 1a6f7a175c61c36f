//! Versions as a log of commits.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{AuditError, GroupMeans, mean_groups, mean_metrics};
use crate::{
    Federation, VersionId,
    member::MemberId,
    records::{VersionRecord, VersionStatus},
    retention::Pruned,
};

use fedledger_ledger::Digest;

/// The branch whose head is in use.
const PRODUCTION_BRANCH: &str = "production";

/// A version as `fedledger log` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionRow {
    /// Its id.
    pub version: VersionId,
    /// Its number, once it is attested.
    pub number: Option<u64>,
    /// The versions that it was made from.
    pub parents: Vec<VersionId>,
    /// The plan that was carried out.
    pub plan: Digest,
    /// The round of the plan; 0 for an initial version.
    pub round: u64,
    /// Name of the aggregation rule; none for an initial version.
    pub rule: Option<&'static str>,
    /// Branches that point at it.
    pub branch_heads: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Members whose updates are in it.
    pub contributors: Vec<MemberId>,
    /// Mean over the members' evaluations, weighted by examples.
    pub metrics: BTreeMap<String, f64>,
    /// The same for the groups that members report.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupMeans>,
    /// Where it stands.
    pub state: VersionState,
    /// Whether the entry that attests it is final.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Whether it must not be used.
    pub revoked: bool,
    /// Why it must not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<String>,
    /// Whether it is kept at any age.
    pub pinned: bool,
    /// Why it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_reason: Option<String>,
    /// Which of its files were let go, and by which entry.
    #[serde(skip_serializing_if = "Pruned::is_nothing")]
    pub pruned: Pruned,
    /// Index at which it was proposed.
    pub created_index: u64,
}

/// Where a version stands, in one word; the last that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Proposed by one replica.
    Candidate,
    /// A majority of replicas computed other files.
    Rejected,
    /// Taken back before a majority had attested it: its plan was stopped, or no majority could compute it.
    Withdrawn,
    /// A majority of replicas computed the same files.
    Attested,
    /// The branch `production` points at it.
    Production,
    /// It must not be used.
    Revoked,
}

/// Which entries are final.
#[derive(Debug, Clone, Copy)]
pub struct Finality<'a> {
    /// Index of the entry that attested a version, for each that is; see [`History`](crate::history::History).
    pub attested: &'a BTreeMap<VersionId, u64>,
    /// Entries that are final; 0 where that is not known.
    pub final_entries: u64,
}

impl VersionRow {
    fn of(state: &Federation, id: &VersionId, record: &VersionRecord, finality: Finality<'_>) -> Self {
        let pointing = |table: &crate::table::Table<String, VersionId>| -> Vec<String> {
            table.iter().filter(|(_, version)| *version == id).map(|(name, _)| name.clone()).collect()
        };
        let manifest = &record.manifest;
        let attested = finality.attested.get(id);
        Self {
            version: *id,
            number: record.number(),
            parents: manifest.parents.clone(),
            plan: manifest.plan,
            round: manifest.round,
            rule: manifest.rule.as_ref().map(crate::plan::Rule::name),
            branch_heads: pointing(state.branches()),
            tags: pointing(state.tags()),
            contributors: manifest.contributions.iter().map(|contribution| contribution.member.clone()).collect(),
            metrics: mean_metrics(state.evaluations(id).map(|(_, evaluation)| evaluation)),
            groups: mean_groups(state.evaluations(id).map(|(_, evaluation)| evaluation)),
            state: VersionState::of(state, id, record),
            is_final: attested.is_some_and(|index| *index < finality.final_entries),
            revoked: record.revoked.is_some(),
            revocation: record.revoked.clone(),
            pinned: record.pinned.is_some(),
            pin_reason: record.pinned.clone(),
            pruned: record.pruned,
            created_index: record.created_index,
        }
    }
}

impl VersionState {
    /// Where a version stands.
    pub fn of(state: &Federation, id: &VersionId, record: &VersionRecord) -> Self {
        if record.revoked.is_some() {
            return Self::Revoked;
        }
        match record.status {
            VersionStatus::Candidate => Self::Candidate,
            VersionStatus::Rejected => Self::Rejected,
            VersionStatus::Withdrawn => Self::Withdrawn,
            VersionStatus::Attested { .. } if state.branches().get(&PRODUCTION_BRANCH.to_owned()) == Some(id) => {
                Self::Production
            }
            VersionStatus::Attested { .. } => Self::Attested,
        }
    }
}

/// The versions of a branch, newest first.
///
/// # Errors
///
/// [`AuditError::UnknownBranch`].
pub fn branch_log(state: &Federation, branch: &str, finality: Finality<'_>) -> Result<Vec<VersionRow>, AuditError> {
    let (head, _) = state.head(branch).ok_or_else(|| AuditError::UnknownBranch(branch.to_owned()))?;
    let records = state.ancestry(head).filter_map(|id| Some((id, state.versions().get(&id)?)));
    Ok(records.map(|(id, record)| VersionRow::of(state, &id, record, finality)).collect())
}

/// Every version, on a branch or not, newest first.
pub fn version_rows(state: &Federation, finality: Finality<'_>) -> Vec<VersionRow> {
    let mut rows: Vec<VersionRow> =
        state.versions().iter().map(|(id, record)| VersionRow::of(state, id, record, finality)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.created_index));
    rows
}
