//! Plans: proposal, consent, start and stop.

use std::collections::BTreeSet;

use fedledger_ledger::Digest;

use super::{Context, check_text};
use crate::{
    Event, Federation, Rejection,
    command::{ApprovePlan, StartPlan, StopPlan, WithdrawConsent},
    member::Role,
    plan::Plan,
    records::{Phase, PlanRecord, PlanStatus, VersionStatus},
};

pub(super) fn propose(state: &mut Federation, context: Context<'_>, plan: Plan) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    plan.check()?;
    let id = plan.id();
    if state.plans.contains(&id) {
        return Err(Rejection::PlanExists(id));
    }
    let named = plan.participation.required_members.iter().chain(plan.requirements.data_manifests.keys());
    for member in named {
        if !state.members.has_role(member, Role::Participant) {
            return Err(Rejection::NoSuchParticipant(member.clone()));
        }
    }
    let record = PlanRecord {
        plan,
        proposed_index: context.index,
        consents: BTreeSet::new(),
        status: PlanStatus::Proposed,
        next_round: 1,
        next_attempt: 1,
        open: None,
    };
    state.plans.put(id, record, context.writes);
    Ok(Event::PlanProposed { plan: id })
}

pub(super) fn approve(state: &mut Federation, context: Context<'_>, command: &ApprovePlan) -> Result<Event, Rejection> {
    let member = context.require_hospital(state)?.clone();
    let record = known(state, &command.plan)?;
    if record.consents.contains(&member) {
        return Err(Rejection::AlreadyConsented(member));
    }
    state.plans.update(&command.plan, context.writes, |record| {
        record.consents.insert(member.clone());
    });
    Ok(Event::ConsentGiven { plan: command.plan, member })
}

pub(super) fn withdraw(
    state: &mut Federation,
    context: Context<'_>,
    command: &WithdrawConsent,
) -> Result<Event, Rejection> {
    let member = context.require_hospital(state)?.clone();
    check_text(&command.reason)?;
    if !known(state, &command.plan)?.consents.contains(&member) {
        return Err(Rejection::NotConsented(member));
    }
    state.plans.update(&command.plan, context.writes, |record| {
        record.consents.remove(&member);
    });
    Ok(Event::ConsentWithdrawn { plan: command.plan, member })
}

pub(super) fn start(state: &mut Federation, context: Context<'_>, command: &StartPlan) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    let record = known(state, &command.plan)?;
    if !matches!(record.status, PlanStatus::Proposed | PlanStatus::Stopped) {
        let needed = "proposed or stopped";
        return Err(Rejection::PlanStatus { found: record.status.name(), needed });
    }
    let needed = record.plan.participation.minimum_participants;
    let found = record.consents.len() as u64;
    if found < needed {
        return Err(Rejection::TooFewConsents { found, needed });
    }
    let missing = record.plan.participation.required_members.iter().find(|id| !record.consents.contains(*id));
    if let Some(member) = missing {
        return Err(Rejection::RequiredConsentMissing(member.clone()));
    }
    let branch = &record.plan.branch;
    if let Some((plan, _)) = state.active_plan(branch) {
        return Err(Rejection::BranchInUse { branch: branch.clone(), plan: *plan });
    }
    if let Some((_, head)) = state.head(branch) {
        let trained = state.plans.get(&head.manifest.plan).map(|record| &record.plan.architecture);
        if trained != Some(&record.plan.architecture) {
            return Err(Rejection::ArchitectureDiffers(branch.clone()));
        }
    }
    state.plans.update(&command.plan, context.writes, |record| record.status = PlanStatus::Running);
    Ok(Event::PlanStarted { plan: command.plan })
}

pub(super) fn stop(state: &mut Federation, context: Context<'_>, command: &StopPlan) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_text(&command.reason)?;
    let record = known(state, &command.plan)?;
    if !matches!(record.status, PlanStatus::Running | PlanStatus::Draining) {
        return Err(Rejection::PlanStatus { found: record.status.name(), needed: "running" });
    }
    let open = record.open;
    // Nothing is in progress, so there is nothing to finish first.
    let drain = command.drain && open.is_some();
    let abandoned = open.filter(|_| !drain);
    if let Some(key) = abandoned {
        if let Some(candidate) = state.candidate(&key) {
            state.versions.update(&candidate, context.writes, |record| record.status = VersionStatus::Rejected);
        }
        state.rounds.update(&key, context.writes, |round| {
            round.phase = Phase::Abandoned { reason: "plan_stopped".to_owned() };
        });
    }
    state.plans.update(&command.plan, context.writes, |record| {
        record.status = if drain { PlanStatus::Draining } else { PlanStatus::Stopped };
        if abandoned.is_some() {
            record.open = None;
            record.next_attempt += 1;
        }
    });
    Ok(Event::PlanStopped { plan: command.plan, drain })
}

pub(super) fn known<'a>(state: &'a Federation, plan: &Digest) -> Result<&'a PlanRecord, Rejection> {
    state.plans.get(plan).ok_or(Rejection::UnknownPlan(*plan))
}
