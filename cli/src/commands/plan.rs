//! `fedledger plan`: training plans and the hospitals' consent.

mod init;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use fedledger_federation::{
    Command, Federation,
    architecture::WidestLayer,
    command::{ApprovePlan, CancelPlan, PausePlan, ResumePlan, StartPlan, StopPlan, WithdrawConsent},
    early_stopping::{Cause, EarlyStop},
    history::Keep,
    plan::Plan,
    records::{PlanRecord, PlanStatus},
};
use fedledger_ledger::Digest;
use fedledger_participant::node::policy;
use serde::Serialize;
use serde_json::json;

use crate::{
    context::{Context, read_text},
    error::{Exit, Failure},
    follow::Follower,
    names::{self, Short},
    output::{Table, list},
    reasons::explained,
    writing::Writer,
};

/// The form of a plan as JSON.
const PLAN_SCHEMA: &str = "fedledger.plan/1";

/// What to do with plans.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// List the plans
    List,
    /// Show a plan, its settings and who has consented
    Show {
        /// Name or id of the plan
        plan: String,
    },
    /// Write a plan for a table or images, and a schema beside it, to go on from
    Init(init::InitArgs),
    /// Put a plan before the hospitals (operator)
    Propose {
        /// The plan, as TOML
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Consent to a plan for this identity's organisation
    Approve {
        /// Name or id of the plan
        plan: String,
        /// Training examples that the organisation takes part with, for plans that weigh them
        #[arg(long)]
        examples: Option<u64>,
    },
    /// Take this identity's organisation's consent back: it is out of the next round
    Withdraw(StopArgs),
    /// Carry a plan out, or go on with one that was stopped or finished early (operator)
    Start {
        /// Name or id of the plan
        plan: String,
    },
    /// Stop a plan at once (operator)
    Stop(StopArgs),
    /// Stop a plan when the round in progress is done (operator)
    Drain(StopArgs),
    /// Have a plan wait: the round in progress is not closed, and no other is opened (operator)
    Pause(StopArgs),
    /// Go on with a paused plan (operator)
    Resume(StopArgs),
    /// Take back a plan that was never started, for good (operator)
    Cancel(StopArgs),
}

/// Arguments of commands about a plan that give a reason.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Name or id of the plan
    plan: String,
    /// Why, for the record
    #[arg(long, default_value = "no reason given")]
    reason: String,
}

#[derive(Debug, Serialize)]
struct PlanRow {
    plan: Digest,
    name: String,
    branch: String,
    status: PlanStatus,
    rule: &'static str,
    rounds: u64,
    next_round: u64,
    next_attempt: u64,
    consents: BTreeSet<String>,
    /// Training examples, by member, as declared with the consents.
    declared_examples: BTreeMap<String, u64>,
    minimum_participants: u64,
    proposed_index: u64,
    /// Index of the entry since which the status is what it is.
    status_index: u64,
    /// Why it is, if somebody has said so.
    status_reason: Option<String>,
    /// How it was finished before all of its rounds were done.
    early_stop: Option<EarlyStop>,
}

#[derive(Debug, Serialize)]
struct PlanView<'a> {
    #[serde(flatten)]
    row: PlanRow,
    model: ModelView,
    settings: &'a Plan,
}

/// How large a plan's model is, beside a batch.
#[derive(Debug, Serialize)]
struct ModelView {
    parameters: u64,
    widest_layer: Option<WidestLayer>,
    batch_size: Option<u32>,
    /// Other plans whose models have the same tensors.
    same_shapes: Vec<Digest>,
}

/// Shows or changes plans.
pub(crate) fn run(context: &Context, command: PlanCommand) -> Result<(), Failure> {
    match command {
        PlanCommand::List => list_plans(context),
        PlanCommand::Show { plan } => show(context, &plan),
        PlanCommand::Init(args) => init::run(context, &args),
        PlanCommand::Propose { file } => propose(context, &file),
        PlanCommand::Approve { plan, examples } => {
            write(context, &plan, "consented to", |plan| Command::ApprovePlan(ApprovePlan { plan, examples }))
        }
        PlanCommand::Withdraw(StopArgs { plan, reason }) => {
            let command = |plan| Command::WithdrawConsent(WithdrawConsent { plan, reason });
            write(context, &plan, "took back the consent to", command)
        }
        PlanCommand::Pause(StopArgs { plan, reason }) => {
            write(context, &plan, "paused", |plan| Command::PausePlan(PausePlan { plan, reason }))
        }
        PlanCommand::Resume(StopArgs { plan, reason }) => {
            write(context, &plan, "resumed", |plan| Command::ResumePlan(ResumePlan { plan, reason }))
        }
        PlanCommand::Cancel(StopArgs { plan, reason }) => {
            write(context, &plan, "cancelled", |plan| Command::CancelPlan(CancelPlan { plan, reason }))
        }
        PlanCommand::Start { plan } => write(context, &plan, "started", |plan| Command::StartPlan(StartPlan { plan })),
        PlanCommand::Stop(StopArgs { plan, reason }) => {
            write(context, &plan, "stopped", |plan| Command::StopPlan(StopPlan { plan, drain: false, reason }))
        }
        PlanCommand::Drain(StopArgs { plan, reason }) => {
            write(context, &plan, "draining", |plan| Command::StopPlan(StopPlan { plan, drain: true, reason }))
        }
    }
}

fn list_plans(context: &Context) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let mut rows: Vec<PlanRow> = history.state().plans().iter().map(|(id, record)| PlanRow::of(*id, record)).collect();
    rows.sort_by_key(|row| row.proposed_index);
    context.output.array(&rows, || {
        let short = Short::of(history.state());
        let mut table = Table::new(&["plan", "name", "branch", "status", "rule", "rounds", "consents"]);
        for row in &rows {
            table.row(vec![
                short.plan(&row.plan),
                row.name.clone(),
                row.branch.clone(),
                row.status.name().to_owned(),
                row.rule.to_owned(),
                format!("{}/{}", row.next_round.saturating_sub(1), row.rounds),
                list(&row.consents),
            ]);
        }
        context.output.table(&table)
    })
}

fn show(context: &Context, text: &str) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let id = names::plan(history.state(), text)?;
    let record = record(history.state(), &id)?;
    let view = PlanView {
        row: PlanRow::of(id, record),
        model: ModelView::of(history.state(), &id, &record.plan),
        settings: &record.plan,
    };
    context.output.object(PLAN_SCHEMA, &view, || {
        let settings = toml::to_string(&record.plan).unwrap_or_else(|error| error.to_string());
        let row = &view.row;
        let consents = row.consents.iter().map(|member| match row.declared_examples.get(member) {
            Some(examples) => format!("{member} ({examples} examples)"),
            None => member.clone(),
        });
        let mut lines = vec![
            format!("plan      {id}"),
            format!("status    {}", row.standing()),
            format!("consents  {} (needed: {})", list(consents), row.minimum_participants),
            format!("proposed  entry {}", row.proposed_index),
            format!("model     {}", view.model.text(&Short::of(history.state()))),
        ];
        lines.extend(row.early_stop.map(|stop| format!("stopped   {}", early(&stop, &Short::of(history.state())))));
        format!("{}\n\n{settings}", lines.join("\n"))
    })
}

/// A plan that people have written.
pub(crate) fn read(file: &Path) -> Result<Plan, Failure> {
    let no_plan = |why: String| {
        Failure::because(Exit::Failed, format!("{} is no plan that can be carried out", file.display()), why)
    };
    let plan: Plan = toml::from_str(&read_text(file)?).map_err(|error| no_plan(error.to_string()))?;
    plan.check().map_err(|error| no_plan(error.to_string()))?;
    Ok(plan)
}

fn propose(context: &Context, file: &Path) -> Result<(), Failure> {
    let plan = read(file)?;
    let (id, name) = (plan.id(), plan.name.clone());
    let command = Command::ProposePlan(plan);
    let writer = Writer::connect(context)?;
    let submitted = writer.submit(context, &command)?;
    let about = json!({ "plan": id, "name": name });
    writer.show(context, &command, &submitted, about, || format!("proposed plan {id}"))?;
    if !context.output.is_json() {
        let hint = format!("each hospital consents with `fedledger plan approve {}`", names::short_digest(&id));
        context.output.remark(&hint);
    }
    Ok(())
}

fn write(context: &Context, text: &str, done: &str, command: impl FnOnce(Digest) -> Command) -> Result<(), Failure> {
    let writer = Writer::connect(context)?;
    let follower = context.block_on(Follower::current(&writer.client))?;
    let id = names::plan(follower.state(), text)?;
    let name = record(follower.state(), &id)?.plan.name.clone();
    let command = command(id);
    let submitted = writer.submit(context, &command)?;
    let about = json!({ "plan": id, "name": name });
    writer.show(context, &command, &submitted, about, || format!("{done} plan {name} {}", names::short_digest(&id)))
}

pub(crate) fn record<'a>(state: &'a Federation, id: &Digest) -> Result<&'a PlanRecord, Failure> {
    state.plans().get(id).ok_or_else(|| Failure::new(Exit::Failed, format!("there is no plan {id}")))
}

impl ModelView {
    fn of(state: &Federation, id: &Digest, plan: &Plan) -> Self {
        let same = state.plans().iter().filter(|(other, record)| {
            *other != id && policy::same_shapes(&record.plan.architecture, &plan.architecture)
        });
        Self {
            parameters: plan.architecture.parameter_count(),
            widest_layer: plan.architecture.widest_layer(),
            batch_size: plan.training.as_ref().map(|training| training.batch_size),
            same_shapes: same.map(|(id, _)| *id).collect(),
        }
    }

    /// In words, with what a steward should look at.
    fn text(&self, short: &Short) -> String {
        let Self { parameters, widest_layer, batch_size, same_shapes } = self;
        let widest = widest_layer.as_ref().map_or_else(String::new, |WidestLayer { tensor, units }| {
            let wide =
                if batch_size.is_some_and(|batch| *units > u64::from(batch)) { ", WIDER THAN A BATCH" } else { "" };
            format!("; widest layer {tensor} of {units} units{wide}")
        });
        let known = match same_shapes.as_slice() {
            [] => "no other plan has its tensor shapes".to_owned(),
            plans => format!("tensor shapes of {}", list(plans.iter().map(|plan| short.plan(plan)))),
        };
        let batches = batch_size.map_or_else(String::new, |batch| format!("; batches of {batch} records"));
        format!("{parameters} parameters{widest}{batches}; {known}")
    }
}

impl PlanRow {
    fn of(plan: Digest, record: &PlanRecord) -> Self {
        Self {
            plan,
            name: record.plan.name.clone(),
            branch: record.plan.branch.clone(),
            status: record.status,
            rule: record.plan.aggregation.rule.name(),
            rounds: record.plan.rounds,
            next_round: record.next_round,
            next_attempt: record.next_attempt,
            consents: record.consents.keys().cloned().collect(),
            declared_examples: record
                .consents
                .iter()
                .filter_map(|(member, consent)| Some((member.clone(), consent.examples?)))
                .collect(),
            minimum_participants: record.plan.participation.minimum_participants,
            proposed_index: record.proposed_index,
            status_index: record.status_index,
            status_reason: record.status_reason.clone(),
            early_stop: record.early_stop,
        }
    }

    /// Where the plan stands, since when and why.
    fn standing(&self) -> String {
        let (done, rounds) = (self.next_round.saturating_sub(1), self.rounds);
        let since = format!("{} since entry {}", self.status.name(), self.status_index);
        let why = self.status_reason.as_ref().map_or_else(String::new, |reason| format!(" ({})", explained(reason)));
        format!("{since}{why}, {done} of {rounds} rounds done")
    }
}

/// How a plan was finished early, in words.
fn early(stop: &EarlyStop, short: &Short) -> String {
    let (version, best) = (short.number(&stop.version), short.number(&stop.best));
    let (value, best_value) = (millionths(stop.value), millionths(stop.best_value));
    match stop.cause {
        Cause::TargetReached => format!("early with {version}, which reached the target: {value}"),
        Cause::NoImprovement => format!("early with {version} ({value}): no improvement on {best} ({best_value})"),
    }
}

/// Millionths as a decimal, such as `-0.250000`.
fn millionths(value: i64) -> String {
    let (sign, value) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
    format!("{sign}{}.{:06}", value / 1_000_000, value % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_are_shown_with_all_their_digits() {
        for (value, text) in [(812_345, "0.812345"), (-250_000, "-0.250000"), (1_000_001, "1.000001"), (0, "0.000000")]
        {
            assert_eq!(millionths(value), text);
        }
    }
}
