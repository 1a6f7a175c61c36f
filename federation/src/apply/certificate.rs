//! Certificates: what became of everyone enrolled in an attempt at a round, when, and whether it was enough.

use std::collections::BTreeMap;

use crate::{
    Federation,
    command::RoundKey,
    event::{Certificate, Steps},
    member::MemberId,
    quorum::Quorum,
    records::{Participation, PlanRecord, RoundRecord},
};

/// The certificate of an attempt, as if these contributions were left out and `ended_index` had ended it.
pub(super) fn certify(
    state: &Federation,
    record: &PlanRecord,
    key: &RoundKey,
    round: &RoundRecord,
    excluded: &BTreeMap<MemberId, String>,
    ended_index: Option<u64>,
) -> Certificate {
    let counts = |member: &MemberId| {
        let participation = state.participations.get(&(*key, member.clone()));
        matches!(participation, Some(Participation::Contributed { .. })) && !excluded.contains_key(member)
    };
    let enrolled = match (&round.enrolled, round.phase.ended_index()) {
        (Some(enrolled), _) => enrolled.clone(),
        (None, Some(_)) => round.cohort.clone(),
        (None, None) => state.enrolled(record),
    };
    let mut certificate = Certificate {
        enrolled,
        selected: round.cohort.clone(),
        joined: Vec::new(),
        declined: BTreeMap::new(),
        contributed: Vec::new(),
        excluded: excluded.clone(),
        missing: BTreeMap::new(),
        quorum: Quorum::of(state, &record.plan.participation, key, round, counts),
        opened_index: round.opened_index,
        ended_index,
        steps: BTreeMap::new(),
    };
    for member in &round.cohort {
        certificate.add(member, state.participations.get(&(*key, member.clone())));
    }
    certificate
}

impl Certificate {
    fn add(&mut self, member: &MemberId, participation: Option<&Participation>) {
        let id = member.clone();
        let mut steps = Steps::default();
        match participation {
            None => drop(self.missing.insert(id, "not_joined".to_owned())),
            Some(Participation::Joined { index }) => {
                steps.joined = Some(*index);
                self.joined.push(id.clone());
                self.missing.insert(id, "not_contributed".to_owned());
            }
            Some(Participation::Declined { index, joined_index, reason }) => {
                (steps.joined, steps.declined) = (*joined_index, Some(*index));
                self.declined.insert(id, reason.clone());
            }
            Some(Participation::Revoked { index }) => {
                steps.revoked = Some(*index);
                self.missing.insert(id, "revoked".to_owned());
            }
            Some(Participation::Contributed { index, joined_index, .. }) => {
                (steps.joined, steps.contributed) = (Some(*joined_index), Some(*index));
                self.joined.push(id.clone());
                if !self.excluded.contains_key(member) {
                    self.contributed.push(id);
                }
            }
        }
        if steps != Steps::default() {
            self.steps.insert(member.clone(), steps);
        }
    }
}

/// The certificate of a round as it stands, for views.
pub(crate) fn certificate(state: &Federation, key: &RoundKey) -> Option<Certificate> {
    let round = state.rounds.get(key)?;
    let none = BTreeMap::new();
    let excluded = round.phase.excluded().unwrap_or(&none);
    Some(certify(state, state.plans.get(&key.plan)?, key, round, excluded, round.phase.ended_index()))
}
