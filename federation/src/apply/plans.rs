//! Plans: proposal, consent, and everything that makes them begin, wait and end.

use std::collections::BTreeMap;

use fedledger_ledger::{Digest, machine::WriteSet};

use super::{
    Context, check_text,
    rounds::{give_up, withdraw_candidate},
};
use crate::{
    Event, Federation, Rejection,
    command::{ApprovePlan, CancelPlan, PausePlan, ResumePlan, StartPlan, StopEarly, StopPlan, WithdrawConsent},
    early_stopping,
    member::Role,
    plan::Plan,
    records::{Consent, PlanRecord, PlanStatus},
};

/// The code under which an attempt is given up when its plan is stopped.
pub(crate) const PLAN_STOPPED: &str = "plan_stopped";

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
        consents: BTreeMap::new(),
        status: PlanStatus::Proposed,
        status_index: context.index,
        status_reason: None,
        early_stop: None,
        judged_from: 0,
        initial: None,
        initial_rejections: 0,
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
    if record.status == PlanStatus::Cancelled {
        return Err(wrong_status(record, "one that was not cancelled; propose another one"));
    }
    if record.consents.contains_key(&member) {
        return Err(Rejection::AlreadyConsented(member));
    }
    let plan = &record.plan;
    let allowed = plan.aggregation.example_scale;
    match command.examples {
        None if plan.participation.minimum_example_share.is_some() => return Err(Rejection::ExamplesUndeclared),
        Some(found) if !(1..=allowed).contains(&found) => return Err(Rejection::WrongExamples { found, allowed }),
        _ => {}
    }
    let consent = Consent { index: context.index, examples: command.examples };
    state.plans.update(&command.plan, context.writes, |record| {
        record.consents.insert(member.clone(), consent);
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
    if !known(state, &command.plan)?.consents.contains_key(&member) {
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
    let stopped_early = record.status == PlanStatus::Finished && record.early_stop.is_some();
    if !stopped_early && !matches!(record.status, PlanStatus::Proposed | PlanStatus::Stopped) {
        return Err(wrong_status(record, "proposed, stopped or finished early (one that is paused is resumed)"));
    }
    let needed = record.plan.participation.minimum_participants;
    let found = record.consents.len() as u64;
    if found < needed {
        return Err(Rejection::TooFewConsents { found, needed });
    }
    let missing = record.plan.participation.required_members.iter().find(|id| !record.consents.contains_key(*id));
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
    state.plans.update(&command.plan, context.writes, |record| {
        if record.early_stop.take().is_some() {
            record.judged_from = context.index;
        }
    });
    set_status(state, &command.plan, PlanStatus::Running, context.index, None, context.writes);
    Ok(Event::PlanStarted { plan: command.plan })
}

pub(super) fn stop(state: &mut Federation, context: Context<'_>, command: &StopPlan) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_text(&command.reason)?;
    let record = known(state, &command.plan)?;
    if !record.status.is_active() {
        return Err(wrong_status(record, "running"));
    }
    if command.drain && record.status == PlanStatus::Paused {
        return Err(wrong_status(record, "running, since nothing is finished while it is paused: resume it first"));
    }
    let open = record.open;
    // Nothing is in progress, so there is nothing to finish first.
    let drain = command.drain && open.is_some();
    if let Some(key) = open.filter(|_| !drain) {
        withdraw_candidate(state, &key, context.writes);
        let round = state.rounds.get(&key);
        let excluded = round.and_then(|round| round.phase.excluded()).cloned().unwrap_or_default();
        give_up(state, &key, context.index, PLAN_STOPPED, excluded, context.writes);
    }
    let status = if drain { PlanStatus::Draining } else { PlanStatus::Stopped };
    let reason = Some(command.reason.clone());
    set_status(state, &command.plan, status, context.index, reason, context.writes);
    Ok(Event::PlanStopped { plan: command.plan, drain })
}

pub(super) fn pause(state: &mut Federation, context: Context<'_>, command: PausePlan) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_text(&command.reason)?;
    let (plan, reason) = (command.plan, Some(command.reason));
    let record = known(state, &plan)?;
    if record.status != PlanStatus::Running {
        return Err(wrong_status(record, "running (one that drains can be stopped)"));
    }
    set_status(state, &plan, PlanStatus::Paused, context.index, reason, context.writes);
    Ok(Event::PlanPaused { plan })
}

pub(super) fn resume(state: &mut Federation, context: Context<'_>, command: ResumePlan) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_text(&command.reason)?;
    let (plan, reason) = (command.plan, Some(command.reason));
    let record = known(state, &plan)?;
    if record.status != PlanStatus::Paused {
        return Err(wrong_status(record, "paused (one that is stopped is started)"));
    }
    set_status(state, &plan, PlanStatus::Running, context.index, reason, context.writes);
    Ok(Event::PlanResumed { plan })
}

pub(super) fn cancel(state: &mut Federation, context: Context<'_>, command: CancelPlan) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_text(&command.reason)?;
    let (plan, reason) = (command.plan, Some(command.reason));
    let record = known(state, &plan)?;
    if record.status != PlanStatus::Proposed {
        return Err(wrong_status(record, "proposed and never started (one that was started is stopped)"));
    }
    set_status(state, &plan, PlanStatus::Cancelled, context.index, reason, context.writes);
    Ok(Event::PlanCancelled { plan })
}

/// The coordinator says when; whether the condition holds follows from the evaluations on record.
pub(super) fn stop_early(
    state: &mut Federation,
    context: Context<'_>,
    command: &StopEarly,
) -> Result<Event, Rejection> {
    context.require_replica()?;
    let StopEarly { plan, version } = *command;
    let record = known(state, &plan)?;
    if record.plan.early_stopping.is_none() {
        return Err(Rejection::NoEarlyStopping);
    }
    if record.status != PlanStatus::Running {
        return Err(wrong_status(record, "running"));
    }
    if record.open.is_some() {
        return Err(Rejection::RoundOpen);
    }
    let stop = early_stopping::verdict(state, &plan).filter(|stop| stop.version == version);
    let stop = stop.ok_or(Rejection::ConditionNotMet(version))?;
    set_status(state, &plan, PlanStatus::Finished, context.index, None, context.writes);
    state.plans.update(&plan, context.writes, |record| record.early_stop = Some(stop));
    Ok(Event::PlanStoppedEarly { plan, stop })
}

fn set_status(
    state: &mut Federation,
    plan: &Digest,
    status: PlanStatus,
    index: u64,
    reason: Option<String>,
    writes: &mut WriteSet,
) {
    state.plans.update(plan, writes, |record| {
        (record.status, record.status_index, record.status_reason) = (status, index, reason);
        if status == PlanStatus::Running {
            record.initial_rejections = 0;
        }
    });
}

fn wrong_status(record: &PlanRecord, needed: &'static str) -> Rejection {
    Rejection::PlanStatus { found: record.status.name(), needed }
}

pub(super) fn known<'a>(state: &'a Federation, plan: &Digest) -> Result<&'a PlanRecord, Rejection> {
    state.plans.get(plan).ok_or(Rejection::UnknownPlan(*plan))
}
