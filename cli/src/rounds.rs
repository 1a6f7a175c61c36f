//! Rounds as people and programs look at them.

use std::collections::BTreeMap;

use fedledger_federation::{
    Federation, VersionId,
    command::RoundKey,
    records::{Participation, Phase, RoundRecord},
};
use fedledger_ledger::Digest;
use serde::Serialize;

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
    /// Members that train or have trained.
    pub joined: Vec<String>,
    /// Members whose contribution is accepted.
    pub contributed: Vec<String>,
    /// Members that do not take part, and why.
    pub declined: BTreeMap<String, String>,
    /// Members whose contribution was left out, and the reason's code.
    pub excluded: BTreeMap<String, String>,
    /// Members of whom nothing came, and how far they came.
    pub missing: BTreeMap<String, &'static str>,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Index of its opening.
    pub opened_index: u64,
    /// Time for contributions, in milliseconds.
    pub duration_ms: u64,
}

impl RoundRow {
    /// The view of an attempt.
    pub fn of(state: &Federation, key: &RoundKey, record: &RoundRecord) -> Self {
        let (phase, version, excluded, reason) = match &record.phase {
            Phase::Collecting => ("collecting", None, BTreeMap::new(), None),
            Phase::Closed { excluded, candidate, .. } => ("closed", *candidate, excluded.clone(), None),
            Phase::Completed { excluded, version } => ("completed", Some(*version), excluded.clone(), None),
            Phase::Abandoned { reason } => ("abandoned", None, BTreeMap::new(), Some(reason.clone())),
        };
        let mut row = Self {
            plan: key.plan,
            plan_name: state.plans().get(&key.plan).map(|record| record.plan.name.clone()).unwrap_or_default(),
            round: key.round,
            attempt: key.attempt,
            phase,
            base: record.base,
            version,
            cohort: record.cohort.clone(),
            joined: Vec::new(),
            contributed: Vec::new(),
            declined: BTreeMap::new(),
            excluded,
            missing: BTreeMap::new(),
            reason,
            opened_index: record.opened_index,
            duration_ms: record.duration_ms,
        };
        let participations: BTreeMap<_, _> = state.participations(key).collect();
        for member in &record.cohort {
            row.add(member, participations.get(member).copied());
        }
        row
    }

    fn add(&mut self, member: &str, participation: Option<&Participation>) {
        let member = member.to_owned();
        match participation {
            None => drop(self.missing.insert(member, "not_joined")),
            Some(Participation::Joined) => {
                self.joined.push(member.clone());
                self.missing.insert(member, "joined");
            }
            Some(Participation::Revoked) => drop(self.missing.insert(member, "revoked")),
            Some(Participation::Declined { reason }) => drop(self.declined.insert(member, reason.clone())),
            Some(Participation::Contributed { .. }) => {
                self.joined.push(member.clone());
                self.contributed.push(member);
            }
        }
    }
}

/// Every attempt at a round, in the order in which they were opened.
pub(crate) fn rows(state: &Federation) -> Vec<RoundRow> {
    let mut rows: Vec<RoundRow> = state.rounds().iter().map(|(key, record)| RoundRow::of(state, key, record)).collect();
    rows.sort_by_key(|row| row.opened_index);
    rows
}
