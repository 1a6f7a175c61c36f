//! Rounds: opening, joining, contributing, closing, giving up.

use std::collections::BTreeMap;

use fedledger_ledger::{Digest, machine::WriteSet};

use super::{Context, certificate::certify, check_code, check_text, metrics::check_metrics, plans::known};
use crate::{
    Event, Federation, Rejection, cohort,
    command::{AbandonRound, CloseRound, Contribute, DeclineRound, JoinRound, OpenRound, RoundKey},
    data_description::{DataDescription, ROWS_MAX, are_skipped_rows},
    early_stopping,
    member::MemberId,
    plan::Plan,
    quorum::Quorum,
    records::{Participation, Phase, PlanRecord, PlanStatus, RoundRecord, VersionStatus},
};

/// The code under which an attempt is given up whose contributions do not meet the plan's quorum.
pub(crate) const BELOW_QUORUM: &str = "below_quorum";

/// The code under which an attempt is given up whose version found no majority of replicas for or against it.
pub(crate) const UNATTESTED: &str = "unattested";

/// The code under which an attempt is given up whose base is no longer the head of the branch.
pub(crate) const BASE_MOVED: &str = "base_moved";

/// The code under which a contribution is excluded that came after those that the leader had looked at.
pub const LATE: &str = "late";

pub(super) fn open(state: &mut Federation, context: Context<'_>, command: &OpenRound) -> Result<Event, Rejection> {
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
    let cohort = state.next_cohort(&key, record, base);
    if command.cohort != cohort::digest(&cohort) {
        return Err(Rejection::WrongCohort);
    }
    let round = RoundRecord {
        base: command.base,
        declared_examples: declared_examples(record, &cohort),
        cohort: cohort.clone(),
        enrolled: None,
        duration_ms: command.duration_ms,
        opened_index: context.index,
        phase: Phase::Collecting,
        pruned_index: None,
    };
    Quorum::of(state, participation, &key, &round, |_| true).check()?;
    state.rounds.put(key, round, context.writes);
    early_stopping::note_trend(state, &key.plan, &command.base, context.writes);
    state.plans.update(&key.plan, context.writes, |record| record.open = Some(key));
    Ok(Event::RoundOpened { key, base: command.base, cohort })
}

pub(super) fn join(state: &mut Federation, context: Context<'_>, command: &JoinRound) -> Result<Event, Rejection> {
    let member = context.require_participant()?.clone();
    let key = command.key;
    collecting(state, &key, &member)?;
    let record_key = (key, member.clone());
    match state.participations.get(&record_key) {
        None => {}
        Some(Participation::Declined { .. }) => return Err(Rejection::Declined(member)),
        Some(Participation::Revoked { .. }) => return Err(Rejection::ParticipationEnded(member)),
        Some(Participation::Joined { .. } | Participation::Contributed { .. }) => {
            return Err(Rejection::AlreadyJoined(member));
        }
    }
    state.participations.put(record_key, Participation::Joined { index: context.index }, context.writes);
    Ok(Event::RoundJoined { key, member })
}

pub(super) fn decline(state: &mut Federation, context: Context<'_>, command: DeclineRound) -> Result<Event, Rejection> {
    let member = context.require_participant()?.clone();
    let key = command.key;
    check_text(&command.reason)?;
    collecting(state, &key, &member)?;
    let record_key = (key, member.clone());
    let joined_index = match state.participations.get(&record_key) {
        None => None,
        // A participant that has joined may find out that it cannot train.
        Some(Participation::Joined { index }) => Some(*index),
        Some(Participation::Declined { .. }) => return Err(Rejection::Declined(member)),
        Some(Participation::Revoked { .. }) => return Err(Rejection::ParticipationEnded(member)),
        Some(Participation::Contributed { .. }) => return Err(Rejection::AlreadyContributed(member)),
    };
    let declined = Participation::Declined { index: context.index, joined_index, reason: command.reason };
    state.settle_participation(record_key, declined, context.writes);
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
    let joined_index = match state.participations.get(&record_key) {
        Some(Participation::Joined { index }) => *index,
        None => return Err(Rejection::NotJoined(member)),
        Some(Participation::Declined { .. }) => return Err(Rejection::Declined(member)),
        Some(Participation::Revoked { .. }) => return Err(Rejection::ParticipationEnded(member)),
        Some(Participation::Contributed { .. }) => return Err(Rejection::AlreadyContributed(member)),
    };
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
    // Without a description in the plan, how many may be skipped is known to the site alone.
    let allowed = plan.data.as_ref().map_or(ROWS_MAX, DataDescription::bad_rows_max);
    if !are_skipped_rows(&command.skipped_rows, allowed) {
        return Err(Rejection::WrongSkippedRows { allowed });
    }
    check_trainer(plan, command.trainer)?;
    let update = command.update;
    let contribution = Box::new(command);
    let contributed = Participation::Contributed { index: context.index, joined_index, contribution };
    state.settle_participation(record_key, contributed, context.writes);
    state.kept.name(update);
    Ok(Event::Contributed { key, member, update })
}

/// A contribution names the program that trained if, and only if, the plan leaves the training to one.
fn check_trainer(plan: &Plan, trainer: Option<Digest>) -> Result<(), Rejection> {
    let wrong = |expected: String| Err(Rejection::WrongTrainer { expected });
    match (&plan.external_training, trainer) {
        (None, None) => Ok(()),
        (None, Some(_)) => wrong("the built-in one".to_owned()),
        (Some(_), None) => wrong("a program, named by its digest".to_owned()),
        (Some(training), Some(found)) => match training.program {
            Some(program) if program != found => wrong(format!("the program {program}")),
            Some(_) | None => Ok(()),
        },
    }
}

pub(super) fn close(state: &mut Federation, context: Context<'_>, command: CloseRound) -> Result<Event, Rejection> {
    context.require_replica()?;
    let key = command.key;
    let round = state.rounds.get(&key).ok_or(Rejection::UnknownRound)?;
    if round.phase != Phase::Collecting {
        return Err(Rejection::RoundClosed);
    }
    let record = known(state, &key.plan)?;
    refuse_paused(record)?;
    check_excluded(state, &key, &command.excluded)?;
    let mut excluded = command.excluded;
    exclude_late(state, &key, command.through, &mut excluded);
    let certificate = certify(state, record, &key, round, &excluded, Some(context.index));
    certificate.quorum.check()?;
    let closed = Phase::Closed { index: context.index, excluded, candidate: None };
    let enrolled = enrolled_beside(state, record, round);
    state.rounds.update(&key, context.writes, |round| (round.phase, round.enrolled) = (closed, enrolled));
    Ok(Event::RoundClosed { key, certificate })
}

pub(super) fn abandon(state: &mut Federation, context: Context<'_>, command: AbandonRound) -> Result<Event, Rejection> {
    context.require_replica()?;
    let AbandonRound { key, reason, excluded } = command;
    check_code(&reason)?;
    let round = state.rounds.get(&key).ok_or(Rejection::UnknownRound)?;
    let record = known(state, &key.plan)?;
    check_excluded(state, &key, &excluded)?;
    let excluded = match &round.phase {
        Phase::Collecting => {
            refuse_paused(record)?;
            excluded
        }
        // Which contributions are left out is fixed by the certificate.
        Phase::Closed { candidate: None, excluded, .. } => excluded.clone(),
        Phase::Closed { candidate: Some(_), excluded, .. } if reason == UNATTESTED => {
            refuse_paused(record)?;
            excluded.clone()
        }
        Phase::Closed { candidate: Some(_), .. } => return Err(Rejection::CandidateExists),
        Phase::Completed { .. } | Phase::Abandoned { .. } => return Err(Rejection::RoundClosed),
    };
    let index = context.index;
    let certificate = certify(state, record, &key, round, &excluded, Some(index));
    if reason == BELOW_QUORUM && certificate.quorum.is_met() {
        return Err(Rejection::QuorumMet);
    }
    let base_moved = state.branches.get(&record.plan.branch) != Some(&round.base);
    if reason == BASE_MOVED && !base_moved {
        return Err(Rejection::BaseNotMoved(round.base));
    }
    let failed = failed_attempts(state, record, &key) + u64::from(is_failure(&reason));
    let exhausted = failed >= record.plan.participation.attempts;
    let plan_stopped = exhausted || record.status == PlanStatus::Draining;
    withdraw_candidate(state, &key, context.writes);
    give_up(state, &key, index, &reason, excluded, context.writes);
    state.plans.update(&key.plan, context.writes, |record| {
        if plan_stopped {
            record.status = PlanStatus::Stopped;
            record.status_index = index;
            record.status_reason = Some(reason.clone());
        }
    });
    Ok(Event::RoundAbandoned { key, reason, plan_stopped, certificate })
}

/// Attempts at a round before this one that failed since somebody last started or resumed the plan.
pub(crate) fn failed_attempts(state: &Federation, record: &PlanRecord, key: &RoundKey) -> u64 {
    let earlier = (1..key.attempt).rev().map_while(|attempt| state.rounds.get(&RoundKey { attempt, ..*key }));
    let recent = earlier.take_while(|round| round.phase.ended_index().is_some_and(|index| index > record.status_index));
    let failed =
        recent.filter(|round| matches!(&round.phase, Phase::Abandoned { reason, .. } if is_failure(reason.as_str())));
    failed.count() as u64
}

/// Whether an attempt that was given up for this reason counts against those that the plan allows: not where its operator has
/// moved the branch. That the plan was stopped need not be told from it, since it has been started since.
fn is_failure(reason: &str) -> bool {
    reason != BASE_MOVED
}

/// Takes back what was proposed for an attempt, if anything was.
pub(super) fn withdraw_candidate(state: &mut Federation, key: &RoundKey, writes: &mut WriteSet) {
    if let Some(candidate) = state.candidate(key) {
        state.versions.update(&candidate, writes, |record| record.status = VersionStatus::Withdrawn);
        state.unname_files(&candidate);
    }
}

/// Ends an attempt without a version; the round will be attempted again.
pub(super) fn give_up(
    state: &mut Federation,
    key: &RoundKey,
    index: u64,
    reason: &str,
    excluded: BTreeMap<MemberId, String>,
    writes: &mut WriteSet,
) {
    let record = state.plans.get(&key.plan);
    let enrolled = record.and_then(|record| enrolled_beside(state, record, state.rounds.get(key)?));
    state.rounds.update(key, writes, |round| {
        // Where contributions were fixed before, so was who had consented.
        if round.phase == Phase::Collecting {
            round.enrolled = enrolled;
        }
        round.phase = Phase::Abandoned { index, reason: reason.to_owned(), excluded };
    });
    state.plans.update(&key.plan, writes, |record| {
        record.open = None;
        record.next_attempt += 1;
    });
    state.note_abandoned(key);
}

/// While a plan is paused, its round in progress is neither closed nor given up.
fn refuse_paused(record: &PlanRecord) -> Result<(), Rejection> {
    match record.status {
        PlanStatus::Paused => Err(Rejection::PlanStatus { found: record.status.name(), needed: "resumed" }),
        _ => Ok(()),
    }
}

fn check_excluded(state: &Federation, key: &RoundKey, excluded: &BTreeMap<MemberId, String>) -> Result<(), Rejection> {
    let contributed = |member: &MemberId| {
        matches!(state.participations.get(&(*key, member.clone())), Some(Participation::Contributed { .. }))
    };
    for (member, reason) in excluded {
        check_code(reason)?;
        if !contributed(member) {
            return Err(Rejection::NothingToExclude(member.clone()));
        }
    }
    Ok(())
}

/// Leaves out what nobody has checked, since one update that cannot be aggregated would make the whole attempt fail.
fn exclude_late(state: &Federation, key: &RoundKey, through: u64, excluded: &mut BTreeMap<MemberId, String>) {
    for (member, participation) in state.participations(key) {
        if matches!(participation, Participation::Contributed { index, .. } if *index > through) {
            excluded.entry(member.clone()).or_insert_with(|| LATE.to_owned());
        }
    }
}

/// What the cohort has declared, as far as the plan asks for it.
fn declared_examples(record: &PlanRecord, cohort: &[MemberId]) -> BTreeMap<MemberId, u64> {
    if record.plan.participation.minimum_example_share.is_none() {
        return BTreeMap::new();
    }
    let declared = cohort.iter().filter_map(|member| Some((member.clone(), record.consents.get(member)?.examples?)));
    declared.collect()
}

/// Those that consent now, where they are not the cohort.
fn enrolled_beside(state: &Federation, record: &PlanRecord, round: &RoundRecord) -> Option<Vec<MemberId>> {
    let enrolled = state.enrolled(record);
    (enrolled != round.cohort).then_some(enrolled)
}

/// The round, if it still collects contributions and has selected the member.
fn collecting<'a>(state: &'a Federation, key: &RoundKey, member: &MemberId) -> Result<&'a RoundRecord, Rejection> {
    let round = state.rounds.get(key).ok_or(Rejection::UnknownRound)?;
    if round.phase != Phase::Collecting {
        return Err(Rejection::RoundClosed);
    }
    // It is in the order of ids.
    if round.cohort.binary_search(member).is_err() {
        return Err(Rejection::NotSelected(member.clone()));
    }
    Ok(round)
}
