//! Rounds: opening, joining, contributing, closing, giving up.

use std::collections::BTreeMap;

use super::{Context, check_code, check_metrics, check_text, plans::known};
use crate::{
    Event, Federation, Rejection,
    command::{AbandonRound, CloseRound, Contribute, DeclineRound, JoinRound, OpenRound, RoundKey},
    event::Certificate,
    member::MemberId,
    records::{Participation, Phase, PlanRecord, PlanStatus, RoundRecord},
};

pub(super) fn open(state: &mut Federation, context: Context<'_>, command: OpenRound) -> Result<Event, Rejection> {
    context.require_replica()?;
    let key = command.key;
    let record = known(state, &key.plan)?;
    if record.status != PlanStatus::Running {
        return Err(Rejection::PlanStatus { found: record.status.name(), needed: "running" });
    }
    if record.open.is_some() {
        return Err(Rejection::RoundOpen);
    }
    let next = Federation::next_key(key.plan, record);
    if next != key {
        return Err(Rejection::WrongRound {
            round: next.round,
            attempt: next.attempt,
            found_round: key.round,
            found_attempt: key.attempt,
        });
    }
    let (head, base) = state.head(&record.plan.branch).ok_or(Rejection::NoBase)?;
    if *head != command.base {
        return Err(Rejection::WrongBase { expected: *head, found: command.base });
    }
    let participation = &record.plan.participation;
    if command.duration_ms != participation.round_duration_ms {
        return Err(Rejection::WrongDuration);
    }
    if command.cohort != state.next_cohort(&key, record, base) {
        return Err(Rejection::WrongCohort);
    }
    check_quorum(record, |member| command.cohort.contains(member), command.cohort.len() as u64)?;
    let round = RoundRecord {
        base: command.base,
        cohort: command.cohort.clone(),
        duration_ms: command.duration_ms,
        opened_index: context.index,
        phase: Phase::Collecting,
    };
    state.rounds.put(key, round, context.writes);
    state.plans.update(&key.plan, context.writes, |record| record.open = Some(key));
    Ok(Event::RoundOpened { key, base: command.base, cohort: command.cohort })
}

pub(super) fn join(state: &mut Federation, context: Context<'_>, command: &JoinRound) -> Result<Event, Rejection> {
    let member = context.require_participant()?.clone();
    let key = command.key;
    collecting(state, &key, &member)?;
    let record_key = (key, member.clone());
    match state.participations.get(&record_key) {
        None => {}
        Some(Participation::Declined { .. }) => return Err(Rejection::Declined(member)),
        Some(Participation::Revoked) => return Err(Rejection::ParticipationEnded(member)),
        Some(Participation::Joined | Participation::Contributed { .. }) => {
            return Err(Rejection::AlreadyJoined(member));
        }
    }
    state.participations.put(record_key, Participation::Joined, context.writes);
    Ok(Event::RoundJoined { key, member })
}

pub(super) fn decline(state: &mut Federation, context: Context<'_>, command: DeclineRound) -> Result<Event, Rejection> {
    let member = context.require_participant()?.clone();
    let key = command.key;
    check_text(&command.reason)?;
    collecting(state, &key, &member)?;
    let record_key = (key, member.clone());
    match state.participations.get(&record_key) {
        // A participant that has joined may find out that it cannot train.
        None | Some(Participation::Joined) => {}
        Some(Participation::Declined { .. }) => return Err(Rejection::Declined(member)),
        Some(Participation::Revoked) => return Err(Rejection::ParticipationEnded(member)),
        Some(Participation::Contributed { .. }) => return Err(Rejection::AlreadyContributed(member)),
    }
    let declined = Participation::Declined { reason: command.reason };
    state.participations.put(record_key, declined, context.writes);
    Ok(Event::RoundDeclined { key, member })
}

pub(super) fn contribute(
    state: &mut Federation,
    context: Context<'_>,
    command: Contribute,
) -> Result<Event, Rejection> {
    let member = context.require_participant()?.clone();
    let key = command.key;
    check_text(&command.software)?;
    check_metrics(&command.metrics)?;
    let round = collecting(state, &key, &member)?;
    let record_key = (key, member.clone());
    match state.participations.get(&record_key) {
        Some(Participation::Joined) => {}
        None => return Err(Rejection::NotJoined(member)),
        Some(Participation::Declined { .. }) => return Err(Rejection::Declined(member)),
        Some(Participation::Revoked) => return Err(Rejection::ParticipationEnded(member)),
        Some(Participation::Contributed { .. }) => return Err(Rejection::AlreadyContributed(member)),
    }
    if command.base != round.base {
        return Err(Rejection::WrongBase { expected: round.base, found: command.base });
    }
    let plan = &known(state, &key.plan)?.plan;
    let expected = plan.update_size_bytes();
    if command.size != expected {
        return Err(Rejection::WrongSize { expected, found: command.size });
    }
    let allowed = plan.aggregation.example_scale;
    if !(1..=allowed).contains(&command.examples) {
        return Err(Rejection::WrongExamples { found: command.examples, allowed });
    }
    let wanted = plan.requirements.data_manifests.get(&member);
    if wanted.is_some_and(|wanted| *wanted != command.data_manifest) {
        return Err(Rejection::WrongDataManifest(member));
    }
    if plan.requirements.environment.is_some_and(|wanted| wanted != command.environment) {
        return Err(Rejection::WrongEnvironment);
    }
    let update = command.update;
    let contributed = Participation::Contributed { index: context.index, contribution: Box::new(command) };
    state.participations.put(record_key, contributed, context.writes);
    Ok(Event::Contributed { key, member, update })
}

pub(super) fn close(state: &mut Federation, context: Context<'_>, command: CloseRound) -> Result<Event, Rejection> {
    context.require_replica()?;
    let key = command.key;
    let round = state.rounds.get(&key).ok_or(Rejection::UnknownRound)?;
    if round.phase != Phase::Collecting {
        return Err(Rejection::RoundClosed);
    }
    let record = known(state, &key.plan)?;
    for reason in command.excluded.values() {
        check_code(reason)?;
    }
    let certificate = certify(state, record, &key, round, &command.excluded);
    let excludable = |member: &MemberId| {
        matches!(state.participations.get(&(key, member.clone())), Some(Participation::Contributed { .. }))
    };
    if let Some(member) = command.excluded.keys().find(|member| !excludable(member)) {
        return Err(Rejection::NothingToExclude(member.clone()));
    }
    let count = certificate.contributed.len() as u64;
    check_quorum(record, |member| certificate.contributed.contains(member), count)?;
    let closed = Phase::Closed { index: context.index, excluded: command.excluded, candidate: None };
    state.rounds.update(&key, context.writes, |round| round.phase = closed);
    Ok(Event::RoundClosed { key, certificate })
}

pub(super) fn abandon(state: &mut Federation, context: Context<'_>, command: AbandonRound) -> Result<Event, Rejection> {
    context.require_replica()?;
    let key = command.key;
    check_code(&command.reason)?;
    let round = state.rounds.get(&key).ok_or(Rejection::UnknownRound)?;
    match round.phase {
        Phase::Collecting | Phase::Closed { candidate: None, .. } => {}
        Phase::Closed { candidate: Some(_), .. } => return Err(Rejection::CandidateExists),
        Phase::Completed { .. } | Phase::Abandoned { .. } => return Err(Rejection::RoundClosed),
    }
    let record = known(state, &key.plan)?;
    let exhausted = key.attempt >= record.plan.participation.attempts;
    let plan_stopped = exhausted || record.status == PlanStatus::Draining;
    let reason = command.reason;
    state.rounds.update(&key, context.writes, |round| round.phase = Phase::Abandoned { reason: reason.clone() });
    state.plans.update(&key.plan, context.writes, |record| {
        record.open = None;
        record.next_attempt += 1;
        if plan_stopped {
            record.status = PlanStatus::Stopped;
        }
    });
    Ok(Event::RoundAbandoned { key, reason, plan_stopped })
}

/// The round, if it still collects contributions and has selected the member.
fn collecting<'a>(state: &'a Federation, key: &RoundKey, member: &MemberId) -> Result<&'a RoundRecord, Rejection> {
    let round = state.rounds.get(key).ok_or(Rejection::UnknownRound)?;
    if round.phase != Phase::Collecting {
        return Err(Rejection::RoundClosed);
    }
    if !round.cohort.contains(member) {
        return Err(Rejection::NotSelected(member.clone()));
    }
    Ok(round)
}

/// Refuses fewer than the plan's minimum, or without a member that the plan requires.
fn check_quorum(record: &PlanRecord, present: impl Fn(&MemberId) -> bool, found: u64) -> Result<(), Rejection> {
    let participation = &record.plan.participation;
    let needed = participation.minimum_participants;
    if found < needed {
        return Err(Rejection::BelowQuorum { found, needed });
    }
    match participation.required_members.iter().find(|member| !present(member)) {
        Some(member) => Err(Rejection::RequiredContributionMissing(member.clone())),
        None => Ok(()),
    }
}

fn certify(
    state: &Federation,
    record: &PlanRecord,
    key: &RoundKey,
    round: &RoundRecord,
    excluded: &BTreeMap<MemberId, String>,
) -> Certificate {
    let mut certificate = Certificate {
        enrolled: state.enrolled(record),
        selected: round.cohort.clone(),
        excluded: excluded.clone(),
        ..Certificate::default()
    };
    for member in &round.cohort {
        let id = member.clone();
        match state.participations.get(&(*key, member.clone())) {
            None => {
                certificate.missing.insert(id, "not_joined".to_owned());
            }
            Some(Participation::Joined) => {
                certificate.joined.push(id.clone());
                certificate.missing.insert(id, "not_contributed".to_owned());
            }
            Some(Participation::Declined { reason }) => {
                certificate.declined.insert(id, reason.clone());
            }
            Some(Participation::Revoked) => {
                certificate.missing.insert(id, "revoked".to_owned());
            }
            Some(Participation::Contributed { .. }) => {
                certificate.joined.push(id.clone());
                if !excluded.contains_key(member) {
                    certificate.contributed.push(id);
                }
            }
        }
    }
    certificate
}

/// The certificate of a round as it stands, for views.
pub(crate) fn certificate(state: &Federation, key: &RoundKey) -> Option<Certificate> {
    let round = state.rounds.get(key)?;
    let none = BTreeMap::new();
    let excluded = match &round.phase {
        Phase::Closed { excluded, .. } | Phase::Completed { excluded, .. } => excluded,
        Phase::Collecting | Phase::Abandoned { .. } => &none,
    };
    Some(certify(state, state.plans.get(&key.plan)?, key, round, excluded))
}
