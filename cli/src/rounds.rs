//! Rounds as people and programs look at them.

use std::collections::BTreeMap;

use fedledger_federation::{
    Federation, VersionId,
    command::RoundKey,
    event::{Certificate, Steps},
    history::{History, SealTimes},
    records::{Phase, RoundRecord},
};
use fedledger_ledger::Digest;
use serde::Serialize;

use crate::error::Exit;

/// An attempt at a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RoundRow {
    /// The plan.
    pub plan: Digest,
    /// Its name.
    pub plan_name: String,
    /// The round.
    pub round: u64,
    /// The attempt at it.
    pub attempt: u64,
    /// `collecting`, `closed`, `completed` or `abandoned`.
    pub phase: &'static str,
    /// The version that is trained on.
    pub base: VersionId,
    /// The version that it led to, or the candidate.
    pub version: Option<VersionId>,
    /// Members selected.
    pub cohort: Vec<String>,
    /// What became of them, as far as it has come.
    #[serde(flatten)]
    pub certificate: Certificate,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Index of the entry with which its version was attested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_index: Option<u64>,
    /// Time for contributions, in milliseconds.
    pub duration_ms: u64,
    /// When it all was, where the seals of the ledger were read as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
}

/// The ledger's times of what happened in a round: those of the first seals after it, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Times {
    /// It was opened.
    pub opened_ms: Option<u64>,
    /// Contributions were fixed, or it was given up.
    pub ended_ms: Option<u64>,
    /// Its version was attested.
    pub completed_ms: Option<u64>,
    /// What the members selected did; the fields are those of `steps`.
    pub steps: BTreeMap<String, Steps>,
}

impl Times {
    fn of(times: &SealTimes, row: &RoundRow) -> Self {
        let of = |index: Option<u64>| index.and_then(|index| times.of(index));
        let step = |steps: &Steps| Steps {
            joined: of(steps.joined),
            declined: of(steps.declined),
            contributed: of(steps.contributed),
            revoked: of(steps.revoked),
        };
        Self {
            opened_ms: times.of(row.certificate.opened_index),
            ended_ms: of(row.certificate.ended_index),
            completed_ms: of(row.completed_index),
            steps: row.certificate.steps.iter().map(|(member, steps)| (member.clone(), step(steps))).collect(),
        }
    }
}

impl RoundRow {
    /// The view of an attempt; none where its plan is not known.
    pub fn of(state: &Federation, key: &RoundKey, record: &RoundRecord) -> Option<Self> {
        let (phase, version, reason, completed_index) = match &record.phase {
            Phase::Collecting => ("collecting", None, None, None),
            Phase::Closed { candidate, .. } => ("closed", *candidate, None, None),
            Phase::Completed { version, completed_index, .. } => {
                ("completed", Some(*version), None, Some(*completed_index))
            }
            Phase::Abandoned { reason, .. } => ("abandoned", None, Some(reason.clone()), None),
        };
        Some(Self {
            plan: key.plan,
            plan_name: state.plans().get(&key.plan)?.plan.name.clone(),
            round: key.round,
            attempt: key.attempt,
            phase,
            base: record.base,
            version,
            cohort: record.cohort.clone(),
            certificate: state.certificate(key)?,
            reason,
            completed_index,
            duration_ms: record.duration_ms,
            times: None,
        })
    }

    /// The attempt.
    pub const fn key(&self) -> RoundKey {
        RoundKey { plan: self.plan, round: self.round, attempt: self.attempt }
    }
}

/// Every attempt at a round, in the order in which they were opened.
pub(crate) fn rows(state: &Federation) -> Vec<RoundRow> {
    let rows = state.rounds().iter().filter_map(|(key, record)| RoundRow::of(state, key, record));
    let mut rows: Vec<RoundRow> = rows.collect();
    rows.sort_by_key(|row| row.certificate.opened_index);
    rows
}

/// The same with the times of everything.
pub(crate) fn timed_rows(history: &History) -> Vec<RoundRow> {
    let mut rows = rows(history.state());
    for row in &mut rows {
        row.times = Some(Times::of(&history.times, row));
    }
    rows
}

/// What an attempt that was given up tells programs: 5 for want of a quorum or of files in time, 4 where its plan was
/// stopped, 1 for everything else.
pub(crate) fn exit_of(reason: &str) -> Exit {
    match reason {
        "below_quorum" | "blob_lost" | "unattested" => Exit::TimedOut,
        "plan_stopped" => Exit::Refused,
        _ => Exit::Failed,
    }
}
