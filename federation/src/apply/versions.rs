//! Versions: proposal by one replica, attestation by the others, evaluation by the hospitals.

use std::collections::BTreeMap;

use super::{Context, metrics::check_evaluation, plans::known};
use crate::{
    Event, Federation, Rejection, VersionId,
    command::{AttestVersion, CommitVersion, Evaluate, OutputFiles, RoundKey},
    content_id::BlobId,
    event::Consequences,
    manifest::{ContributionRef, MANIFEST_SCHEMA, Manifest, artifacts},
    member::Role,
    plan::Rule,
    records::{EvaluationRecord, Participation, Phase, PlanStatus, VersionRecord, VersionStatus},
    retention::Pruned,
};

/// The code under which an attempt is given up, or a plan stopped, whose version a majority of the replicas contradicts.
pub(crate) const VERSION_REJECTED: &str = "version_rejected";

/// The manifest that an attempt leads to with these files.
pub(crate) fn manifest(state: &Federation, key: &RoundKey, outputs: &OutputFiles) -> Result<Manifest, Rejection> {
    let plan = &known(state, &key.plan)?.plan;
    let keeps_state = key.round > 0 && !matches!(plan.aggregation.rule, Rule::FedAvg { .. });
    if keeps_state != outputs.optimizer_state.is_some() {
        return Err(Rejection::WrongOutputs);
    }
    let mut manifest = Manifest {
        schema: MANIFEST_SCHEMA.to_owned(),
        parents: Vec::new(),
        artifacts: artifacts(outputs),
        plan: key.plan,
        round: key.round,
        rule: None,
        contributions: Vec::new(),
        excluded: BTreeMap::new(),
    };
    if key.round == 0 {
        return Ok(manifest);
    }
    let round = state.rounds.get(key).ok_or(Rejection::UnknownRound)?;
    let excluded = match &round.phase {
        Phase::Closed { excluded, .. } | Phase::Completed { excluded, .. } => excluded.clone(),
        Phase::Collecting => return Err(Rejection::RoundCollecting),
        Phase::Abandoned { .. } => return Err(Rejection::RoundClosed),
    };
    let contributions = state.participations(key).filter_map(|(member, participation)| match participation {
        Participation::Contributed { contribution, .. } if !excluded.contains_key(member) => Some(ContributionRef {
            member: member.clone(),
            update: BlobId::of_file(contribution.update),
            size: contribution.size,
            examples: contribution.examples,
        }),
        _ => None,
    });
    manifest.contributions = contributions.collect();
    manifest.parents = vec![round.base];
    manifest.rule = Some(plan.aggregation.rule.clone());
    manifest.excluded = excluded;
    Ok(manifest)
}

pub(super) fn commit(
    state: &mut Federation,
    context: Context<'_>,
    command: &CommitVersion,
) -> Result<Event, Rejection> {
    let node = context.require_replica()?.to_owned();
    let key = command.key;
    check_place(state, &key)?;
    let manifest = manifest(state, &key, &command.outputs)?;
    let computed = manifest.id();
    if computed != command.version {
        return Err(Rejection::WrongVersion { computed, found: command.version });
    }
    match state.versions.get(&computed).map(|record| (record.status, record.revoked.is_some())) {
        None | Some((VersionStatus::Rejected | VersionStatus::Withdrawn, _)) => {}
        Some((VersionStatus::Candidate, _)) => return Err(Rejection::CandidateExists),
        Some((VersionStatus::Attested { .. }, true)) => return Err(Rejection::Revoked(computed)),
        // After a rollback the same recipe may come up again; the version that it leads to is attested already.
        Some((VersionStatus::Attested { .. }, false)) => {
            return Ok(complete(state, &computed, &key, context.index, context.writes));
        }
    }
    let record = VersionRecord {
        manifest,
        key,
        created_index: context.index,
        status: VersionStatus::Candidate,
        attestations: BTreeMap::from([(node, command.outputs)]),
        revoked: None,
        pinned: None,
        trend: None,
        pruned: Pruned::default(),
    };
    state.versions.put(computed, record, context.writes);
    state.name_files(&computed);
    set_candidate(state, &key, Some(computed), context.writes);
    let proposed = Event::VersionProposed { version: computed };
    // With a single replica, the proposal is the majority.
    Ok(settle(state, &computed, context.index, context.writes).unwrap_or(proposed))
}

pub(super) fn attest(
    state: &mut Federation,
    context: Context<'_>,
    command: &AttestVersion,
) -> Result<Event, Rejection> {
    let node = context.require_replica()?.to_owned();
    let version = command.version;
    let record = state.versions.get(&version).ok_or(Rejection::UnknownVersion(version))?;
    if matches!(record.status, VersionStatus::Rejected | VersionStatus::Withdrawn) {
        return Err(Rejection::NotCandidate(version));
    }
    if record.attestations.contains_key(&node) {
        return Err(Rejection::AlreadyAttested(node));
    }
    let agrees = record.manifest.outputs() == Some(command.outputs);
    state.versions.update(&version, context.writes, |record| {
        record.attestations.insert(node, command.outputs);
    });
    let recorded = Event::AttestationRecorded { version, agrees };
    Ok(settle(state, &version, context.index, context.writes).unwrap_or(recorded))
}

pub(super) fn evaluate(state: &mut Federation, context: Context<'_>, command: Evaluate) -> Result<Event, Rejection> {
    let member = &context.author.member;
    if !state.members.has_role(member, Role::Evaluator) {
        context.require_participant()?;
    }
    check_evaluation(&command)?;
    let version = command.version;
    if !state.versions.contains(&version) {
        return Err(Rejection::UnknownVersion(version));
    }
    if !state.is_attested(&version) {
        return Err(Rejection::NotAttested(version));
    }
    let key = (version, member.clone());
    if state.evaluations.contains(&key) {
        return Err(Rejection::AlreadyEvaluated(member.clone()));
    }
    let Evaluate { examples, metrics, groups, .. } = command;
    let record = EvaluationRecord { examples, metrics, groups };
    state.evaluations.put(key, record, context.writes);
    Ok(Event::Evaluated { version, member: member.clone() })
}

/// Refuses versions whose weights are no longer kept.
pub(super) fn not_pruned(state: &Federation, version: &VersionId) -> Result<(), Rejection> {
    match state.versions.get(version).and_then(|record| record.pruned.files) {
        Some(index) => Err(Rejection::FilesPruned { version: *version, index }),
        None => Ok(()),
    }
}

/// Refuses a candidate where none is wanted.
fn check_place(state: &Federation, key: &RoundKey) -> Result<(), Rejection> {
    let record = known(state, &key.plan)?;
    if key.round == 0 {
        if record.status != PlanStatus::Running {
            return Err(Rejection::PlanStatus { found: record.status.name(), needed: "running" });
        }
        if key.attempt != 0 {
            return Err(Rejection::UnknownRound);
        }
        return match (state.head(&record.plan.branch), record.initial) {
            (Some(_), _) => Err(Rejection::BranchExists),
            (None, Some(_)) => Err(Rejection::CandidateExists),
            (None, None) => Ok(()),
        };
    }
    match &state.rounds.get(key).ok_or(Rejection::UnknownRound)?.phase {
        Phase::Closed { candidate: None, .. } => Ok(()),
        Phase::Closed { candidate: Some(_), .. } | Phase::Completed { .. } => Err(Rejection::CandidateExists),
        Phase::Collecting => Err(Rejection::RoundCollecting),
        Phase::Abandoned { .. } => Err(Rejection::RoundClosed),
    }
}

fn set_candidate(
    state: &mut Federation,
    key: &RoundKey,
    version: Option<VersionId>,
    writes: &mut fedledger_ledger::machine::WriteSet,
) {
    if key.round == 0 {
        return state.plans.update(&key.plan, writes, |record| record.initial = version);
    }
    state.rounds.update(key, writes, |round| {
        if let Phase::Closed { candidate, .. } = &mut round.phase {
            *candidate = version;
        }
    });
}

/// Decides on a candidate once enough replicas have spoken: attested, or out of reach.
fn settle(
    state: &mut Federation,
    version: &VersionId,
    index: u64,
    writes: &mut fedledger_ledger::machine::WriteSet,
) -> Option<Event> {
    let record = state.versions.get(version)?;
    if record.status != VersionStatus::Candidate {
        return None;
    }
    let claimed = record.manifest.outputs();
    // Replicas that are gone have no say.
    let counted = || record.attestations.iter().filter(|(node, _)| state.epoch.replicas.contains_key(*node));
    let agreeing = counted().filter(|(_, outputs)| claimed.as_ref() == Some(*outputs)).count();
    let differing = counted().count() - agreeing;
    let quorum = state.attestation_quorum();
    let key = record.key;
    if agreeing >= quorum {
        return Some(complete(state, version, &key, index, writes));
    }
    if differing > state.epoch.replicas.len() - quorum {
        state.versions.update(version, writes, |record| record.status = VersionStatus::Rejected);
        state.unname_files(version);
        set_candidate(state, &key, None, writes);
        if key.round == 0 {
            count_initial_rejection(state, &key, index, writes);
        }
        return Some(Event::VersionRejected { version: *version });
    }
    None
}

/// Stops a plan whose initial version the replicas cannot agree on: unlike a round, it would be proposed without end.
fn count_initial_rejection(
    state: &mut Federation,
    key: &RoundKey,
    index: u64,
    writes: &mut fedledger_ledger::machine::WriteSet,
) {
    state.plans.update(&key.plan, writes, |record| {
        record.initial_rejections += 1;
        if record.status.is_active() && record.initial_rejections >= record.plan.participation.attempts {
            (record.status, record.status_index) = (PlanStatus::Stopped, index);
            record.status_reason = Some(VERSION_REJECTED.to_owned());
        }
    });
}

/// Decides on every candidate, after the replicas have changed.
pub(super) fn settle_all(
    state: &mut Federation,
    index: u64,
    consequences: &mut Consequences,
    writes: &mut fedledger_ledger::machine::WriteSet,
) {
    let is_candidate = |record: &VersionRecord| record.status == VersionStatus::Candidate;
    let candidates: Vec<VersionId> =
        state.versions.iter().filter(|(_, record)| is_candidate(record)).map(|(id, _)| *id).collect();
    for version in candidates {
        match settle(state, &version, index, writes) {
            Some(Event::VersionAttested { .. }) => consequences.attested.push(version),
            Some(_) => consequences.rejected.push(version),
            None => {}
        }
    }
}

fn complete(
    state: &mut Federation,
    version: &VersionId,
    key: &RoundKey,
    index: u64,
    writes: &mut fedledger_ledger::machine::WriteSet,
) -> Event {
    let known = state.versions.get(version).and_then(VersionRecord::number);
    let number = known.unwrap_or(state.numbers.len() as u64);
    if known.is_none() {
        state.numbers.put(number, *version, writes);
        state.versions.update(version, writes, |record| record.status = VersionStatus::Attested { number });
    }
    state.note_made(version, number, writes);
    let parent = state.versions.get(version).and_then(|record| record.manifest.parents.first().copied());
    let branch = state.plans.get(&key.plan).map(|record| record.plan.branch.clone()).unwrap_or_default();
    // The branch may have been moved meanwhile; then the version stands beside it.
    let moved = state.branches.get(&branch).copied() == parent;
    if moved {
        state.branches.put(branch.clone(), *version, writes);
    }
    state.rounds.update(key, writes, |round| {
        if let Phase::Closed { index: closed, excluded, .. } = &mut round.phase {
            let (closed, excluded) = (*closed, std::mem::take(excluded));
            round.phase = Phase::Completed { index: closed, completed_index: index, excluded, version: *version };
        }
    });
    let mut plan_finished = false;
    if key.round > 0 {
        state.plans.update(&key.plan, writes, |record| {
            if record.open != Some(*key) {
                return;
            }
            record.open = None;
            if moved {
                record.next_round += 1;
                record.next_attempt = 1;
            } else {
                record.next_attempt += 1;
            }
            if record.next_round > record.plan.rounds {
                (record.status, record.status_index, record.status_reason) = (PlanStatus::Finished, index, None);
                plan_finished = true;
            } else if record.status == PlanStatus::Draining {
                (record.status, record.status_index) = (PlanStatus::Stopped, index);
            }
        });
    }
    Event::VersionAttested { version: *version, number, branch, moved, plan_finished }
}
