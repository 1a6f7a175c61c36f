//! `fedledger round watch`: rounds as they change.

use clap::Args;
use fedledger_federation::{
    Event, Federation,
    command::RoundKey,
    records::{Phase, PlanStatus},
};
use fedledger_ledger::Digest;

use crate::{
    context::Context,
    error::{Exit, Failure},
    follow::Follower,
    names::{self, Short},
    output::list,
    reasons::explained,
    rounds::{self, RoundRow, exit_of},
};

/// Arguments of `fedledger round watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// End when this round is completed, or cannot be any more: exit code 5 for want of a quorum, 4 if the plan was stopped
    #[arg(long, value_name = "ROUND", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<u64>,
    /// Only rounds of this plan; with --until by default the plan that is carried out, or the latest one
    #[arg(long)]
    plan: Option<String>,
}

/// Prints a round whenever something happens in it; as JSON, one object per line.
pub(super) fn run(context: &Context, args: &WatchArgs) -> Result<(), Failure> {
    let (client, _) = context.client()?;
    let mut follower = context.block_on(Follower::current(&client))?;
    let plan = match &args.plan {
        Some(plan) => Some(names::plan(follower.state(), plan)?),
        None => args.until.map(|_| default_plan(follower.state())).transpose()?,
    };
    let wanted = |row: &RoundRow| plan.is_none_or(|plan| row.plan == plan);
    let mut shown = rounds::rows(follower.state()).into_iter().rfind(wanted);
    loop {
        if let Some(row) = shown.take() {
            context.output.line(&row, || line(&row, &Short::of(follower.state())))?;
        }
        if let (Some(plan), Some(round)) = (&plan, args.until)
            && let Some(outcome) = outcome(follower.state(), plan, round)
        {
            return outcome;
        }
        let entry = context.block_on(follower.next())?;
        if let Some(key) = entry.event.as_ref().and_then(|event| round_of(follower.state(), event)) {
            let record = follower.state().rounds().get(&key);
            shown = record.and_then(|record| RoundRow::of(follower.state(), &key, record)).filter(wanted);
        }
    }
}

/// The plan that is carried out; the one that was proposed last where none is, or several are.
fn default_plan(state: &Federation) -> Result<Digest, Failure> {
    let plans = || state.plans().iter();
    let mut active = plans().filter(|(_, record)| record.status.is_active());
    let plan = match (active.next(), active.next()) {
        (Some((plan, _)), None) => Some(plan),
        _ => plans().max_by_key(|(_, record)| record.proposed_index).map(|(plan, _)| plan),
    };
    plan.copied().ok_or_else(|| {
        Failure::new(Exit::Failed, "there is no plan yet").next("propose one with `fedledger plan propose`")
    })
}

/// How a round has come to its end; none while it has not.
fn outcome(state: &Federation, plan: &Digest, round: u64) -> Option<Result<(), Failure>> {
    let record = state.plans().get(plan)?;
    if record.next_round > round {
        return Some(Ok(()));
    }
    let what = format!("round {round} of {} was not completed", record.plan.name);
    let failure = match record.status {
        PlanStatus::Stopped => {
            let last = RoundKey { plan: *plan, round: record.next_round, attempt: record.next_attempt.checked_sub(1)? };
            // The attempt with which the plan stopped; without one, its operator has stopped it between two.
            let given_up = state.rounds().get(&last).and_then(|round| match &round.phase {
                Phase::Abandoned { index, reason, .. } if *index == record.status_index => Some(reason.as_str()),
                _ => None,
            });
            // Before the first round, the replicas may not have agreed on where to begin.
            let no_beginning = record.initial_rejections >= record.plan.participation.attempts;
            let reason = given_up.unwrap_or(if no_beginning { "version_rejected" } else { "plan_stopped" });
            let why = format!("the plan is stopped: {}", explained(reason));
            let failure = Failure::because(exit_of(reason), what, why);
            failure.next("`fedledger round show` says why; `fedledger plan start` goes on")
        }
        PlanStatus::Cancelled => Failure::because(Exit::Refused, what, "the plan was cancelled"),
        PlanStatus::Finished => Failure::because(Exit::Failed, what, "the plan is finished"),
        PlanStatus::Proposed | PlanStatus::Running | PlanStatus::Paused | PlanStatus::Draining => return None,
    };
    Some(Err(failure))
}

/// The round in which something happened.
fn round_of(state: &Federation, event: &Event) -> Option<RoundKey> {
    match event {
        Event::RoundOpened { key, .. }
        | Event::RoundJoined { key, .. }
        | Event::RoundDeclined { key, .. }
        | Event::Contributed { key, .. }
        | Event::RoundClosed { key, .. }
        | Event::RoundAbandoned { key, .. } => Some(*key),
        Event::VersionProposed { version }
        | Event::VersionAttested { version, .. }
        | Event::VersionRejected { version } => Some(state.versions().get(version)?.key),
        _ => None,
    }
}

fn line(row: &RoundRow, short: &Short) -> String {
    let version = row.version.map_or_else(String::new, |version| format!(" -> {}", short.number(&version)));
    let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let contributed = &row.certificate.contributed;
    format!(
        "{} round {}.{} {}{reason}: {} of {} contributed ({}){version}",
        row.plan_name,
        row.round,
        row.attempt,
        row.phase,
        contributed.len(),
        row.cohort.len(),
        list(contributed),
    )
}
