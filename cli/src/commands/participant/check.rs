//! `fedledger participant --check`: one round of a plan, run here and sent nowhere.
//!
//! It reads what the node would read, but takes no lock, opens no connection and writes nothing there, so it can be run while
//! the node runs. A program of the site works in a folder among the temporary files, which is removed. Only a plan that is
//! named by its name or id is read from a ledger before.

mod view;

use std::{path::Path, sync::Arc};

use fedledger_federation::{Federation, history::Keep, plan::Plan};
use fedledger_participant::{
    local_round::{self, Base, Equipment, LocalRound, LocalRoundError, run_external},
    node::{
        self, TrainerRecords,
        core::{DataSummary, Site},
        policy::{self, Objection, Surprise},
    },
    table::{SiteData, Table},
};
use fedledger_proto::kit::{ParticipantKit, Selection};
use serde::Serialize;

use super::{ParticipantArgs, stop_signal};
use crate::{
    commands::plan,
    context::Context,
    error::{Exit, Failure, chain},
    names,
};

/// The form of the result as JSON.
const CHECK_SCHEMA: &str = "fedledger.participant_check/1";

/// Name of the plan beside the node's own files.
const PLAN_FILE: &str = "plan.toml";

/// What was found.
#[derive(Debug, Serialize)]
struct Check<'a> {
    /// Name of the node.
    node: &'a str,
    /// The plan's name.
    name: &'a str,
    /// Memory that node.toml gives to a training, in bytes.
    memory_max: Option<u64>,
    #[serde(flatten)]
    round: &'a LocalRound,
    policy: Verdict,
}

/// What the site's policy says of the plan.
#[derive(Debug, Serialize)]
struct Verdict {
    /// Why the node would not take part in a round even with consent.
    declines: Option<String>,
    /// Why the node would not consent by itself.
    withholds_consent: Option<String>,
    /// What surprises, as far as the policy asks.
    surprises: Vec<Surprise>,
    /// Whether a ledger was read, so that it is known what the site has consented to.
    ledger_read: bool,
}

/// Whoever has proposed the plan: that is not among what is read here, so the policy's `operators` are not looked at.
const ANYBODY: &str = "";

/// A plan, and the ledger that it stands on, if it does.
struct Found {
    plan: Plan,
    state: Option<Federation>,
}

/// What is read at the site itself.
struct Local {
    site: Site,
    data: DataSummary,
    source: SiteData,
    /// The site's records; none if the plan's trainer has data of its own.
    table: Option<Arc<Table>>,
}

impl Local {
    /// Reads the records as a plan describes them, unless its trainer has others.
    fn read(
        context: &Context,
        kit: &ParticipantKit,
        plan: &Plan,
        failed: &dyn Fn(&dyn std::error::Error) -> Failure,
    ) -> Result<Self, Failure> {
        let _progress = context.output.progress("reading the records");
        let source = node::site_data(kit).map_err(|error| failed(&error))?;
        let trainers = node::trainers_of(kit).map_err(|error| failed(&error))?;
        let mut site = node::site(kit, Err(String::new()), trainers);
        site.policy.operators = Selection::Any;
        let (data, table) = match site.trainer_data(plan) {
            Some(own) => (own.clone(), None),
            None => {
                let table = Arc::new(source.read(plan.data.as_ref()).map_err(|error| failed(&error))?);
                (DataSummary::from(table.as_ref()), Some(table))
            }
        };
        site.own_data = Ok(data.clone());
        Ok(Self { site, data, source, table })
    }
}

/// Tries a round and shows what came of it.
pub(super) fn run(context: &Context, args: &ParticipantArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        let what = format!("the participant in {} cannot train a round", args.dir.display());
        Failure::because(Exit::Failed, what, chain(error))
    };
    let kit = context.unlock(|passphrase| ParticipantKit::load_with(&args.dir, passphrase)).map_err(|e| failed(&e))?;
    let found = find(context, args)?;
    let Local { site, data, source, table } = Local::read(context, &kit, &found.plan, &failed)?;
    let verdict = Verdict::of(&site, &data, &found);
    impediment(policy::objection_to_round(&site, Ok(&data), &found.plan, 1, ANYBODY))?;
    let base = args.base.as_deref().map_or(Base::Initial, Base::File);
    let round = match &found.plan.external_training {
        Some(training) => {
            let program = node::trainer_of(&kit, &training.trainer);
            let program = program.ok_or_else(|| refused(&Objection::UnknownTrainer(training.trainer.clone())))?;
            let records = match table {
                Some(table) => TrainerRecords::of_table(table, found.plan.data.clone()),
                None => TrainerRecords::own(&program, &|| true).map_err(|error| failed(&error))?,
            };
            let equipment = Equipment { program: &program, records: &records, source: &source };
            run_program(context, &found.plan, (&site, &data), equipment, base)?
        }
        None => {
            let Some(table) = table else { return Err(refused(&Objection::UnknownPlan)) };
            let steps = found.plan.training.as_ref().map_or(1, |training| training.steps);
            let progress = context.output.progress_of("training", steps);
            local_round::run(&found.plan, &site, &table, base, &mut |steps| progress.set(steps))
        }
    };
    let round = round.map_err(|error| failed(&error))?;
    let check = Check {
        node: &kit.config.name,
        name: &found.plan.name,
        memory_max: site.memory_max,
        round: &round,
        policy: verdict,
    };
    context.output.object(CHECK_SCHEMA, &check, || check.text(&context.output))
}

/// Tries a round with a program of the site, in a folder that is gone afterwards, also if somebody interrupts it.
fn run_program(
    context: &Context,
    plan: &Plan,
    of: (&Site, &DataSummary),
    equipment: Equipment<'_>,
    base: Base<'_>,
) -> Result<Result<LocalRound, LocalRoundError>, Failure> {
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::because(Exit::Failed, "no folder can be made for the trainer", error))?;
    let progress = context.output.progress_of("training", 100);
    let mut tell = |percent: u8| progress.set(percent.into());
    context.block_on(async {
        let stop = stop_signal()?;
        tokio::select! {
            round = run_external(plan, of, equipment, base, folder.path(), &mut tell) => Ok(round),
            () = stop => Err(Failure::new(Exit::Failed, "the trial was interrupted")),
        }
    })
}

/// What keeps a round from being tried at all; whatever else there is against it is told with the result.
fn impediment(objection: Option<Objection>) -> Result<(), Failure> {
    match objection {
        Some(objection @ (Objection::Memory { .. } | Objection::UnknownTrainer(_) | Objection::Program { .. })) => {
            Err(refused(&objection))
        }
        _ => Ok(()),
    }
}

fn refused(objection: &Objection) -> Failure {
    let failure = Failure::because(Exit::Refused, "the round is not trained", objection);
    match objection {
        Objection::Memory { .. } => {
            failure.next("raise memory_max in node.toml if the machine has more, or ask for a smaller model")
        }
        _ => failure.next("name the program in node.toml, see docs/trainers.md"),
    }
}

/// The plan that was named: a file, one of the ledger, or the one that lies in the node's directory.
fn find(context: &Context, args: &ParticipantArgs) -> Result<Found, Failure> {
    let of_file = |file: &Path| Ok(Found { plan: plan::read(file)?, state: None });
    let Some(named) = &args.plan else {
        let file = args.dir.join(PLAN_FILE);
        return if file.is_file() { of_file(&file) } else { Err(no_plan(&file)) };
    };
    if Path::new(named).is_file() {
        return of_file(Path::new(named));
    }
    let (_, history) = context.history(Keep::State).map_err(|failure| {
        failure.while_doing(&format!("{named} is no file, and no ledger can be read in which it could be a plan"))
    })?;
    let id = names::plan(history.state(), named)?;
    let record = plan::record(history.state(), &id)?;
    Ok(Found { plan: record.plan.clone(), state: Some(history.state().clone()) })
}

fn no_plan(file: &Path) -> Failure {
    Failure::new(Exit::Usage, format!("no plan is named to try, and there is no {}", file.display())).next(
        "name one with --plan FILE, or --plan ID with --ledger or --connect; `fedledger plan init` writes one for a table \
         or images",
    )
}

impl Verdict {
    /// What the policy of a site says of a plan, apart from who proposed it.
    fn of(site: &Site, data: &DataSummary, found: &Found) -> Self {
        let state = found.state.as_ref();
        let known: Vec<&Plan> = state.map(|state| policy::consented(state, &site.member).collect()).unwrap_or_default();
        let known = || known.iter().copied();
        let text = |objection: Objection| objection.to_string();
        Self {
            declines: policy::objection_to_round(site, Ok(data), &found.plan, 1, ANYBODY).map(text),
            withholds_consent: policy::objection_to_consent(site, Ok(data), &found.plan, ANYBODY, known()).map(text),
            surprises: policy::surprises(&site.policy, data.train_examples, &found.plan, known()),
            ledger_read: state.is_some(),
        }
    }
}
