//! What a site takes part in: its policy applied to plans and rounds.
//!
//! A hospital decides for itself, before anything is trained, and says why it does not take part: the reason of a declined
//! round stands on the ledger.

mod surprise;

use fedledger_federation::{VersionId, plan::Plan};
use fedledger_ledger::Digest;
pub use fedledger_proto::kit::SitePolicy;

use super::core::{DataSummary, KnownData, Site, TrainingMethod};
use crate::{
    memory::{self, Megabytes, MemoryEstimate, Records},
    training::{SettingsError, TrainingSettings},
};

pub use surprise::{Surprise, consented, records_of_update, same_shapes, surprises};

/// Why a site does not consent to a plan, or does not take part in a round.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Objection {
    /// Consent is for people to give, who should look at what surprises first.
    #[error(
        "consent needs a person of this organisation: approve the plan, or set auto_approve in policy.toml{}",
        listed(.0)
    )]
    NeedsPerson(Vec<Surprise>),
    /// The node consents by itself, but not to this.
    #[error(
        "consent needs a person of this organisation, who looks at the plan and approves it, or changes surprises or \
         parameters_max in policy.toml{}",
        listed(.0)
    )]
    Surprising(Vec<Surprise>),
    /// The policy lists other plans.
    #[error("plan {0:?} is not among the plans that this site's policy allows")]
    Plan(String),
    /// The policy lists other operators.
    #[error("plans of {0:?} are not among those that this site's policy allows")]
    Operator(String),
    /// The policy lists other architectures.
    #[error("models of kind {0:?} are not among those that this site's policy allows")]
    Architecture(&'static str),
    /// The plan is too long.
    #[error("the plan has {found} rounds, this site's policy allows {allowed}")]
    Rounds {
        /// Rounds of the plan.
        found: u64,
        /// Most that are allowed.
        allowed: u64,
    },
    /// Too few updates would be aggregated.
    #[error("the plan aggregates as few as {found} contributions, this site's policy wants {needed}")]
    Contributions {
        /// The plan's minimum.
        found: u64,
        /// The policy's minimum.
        needed: u64,
    },
    /// The site has fewer examples than its policy wants.
    #[error("this site has fewer training examples than the {0} that its policy wants")]
    TooFewExamples(u64),
    /// The plan's updates may be made of fewer examples than the site's policy wants.
    #[error("updates of the plan may be made of {found} training examples only, this site's policy wants {needed}")]
    TooFewInUpdate {
        /// Fewest examples behind an update.
        found: u64,
        /// The policy's minimum.
        needed: u64,
    },
    /// The plan asks how many examples there are, and the trainer's own data are not counted.
    #[error("the plan asks how many examples this site has: say so for trainer {0:?} in node.toml (examples)")]
    UncountedExamples(String),
    /// The site has more examples than the plan can weigh.
    #[error("this site has more training examples than the {0} that the plan can weigh")]
    TooManyExamples(u64),
    /// The site's records cannot be read as the plan describes them.
    #[error("the records of this site cannot be used: {0}")]
    Data(String),
    /// The model is for records of another form.
    #[error("the model takes {plan} features, the records of this site have {site}")]
    Features {
        /// Features of the model.
        plan: u32,
        /// Features of a record.
        site: u64,
    },
    /// The model tells other classes apart.
    #[error("the model tells {plan} classes apart, the records of this site have {site}")]
    Classes {
        /// Classes of the model.
        plan: u32,
        /// Classes of the records.
        site: u32,
    },
    /// The training would take more memory than the site gives it.
    #[error(
        "training would take about {}, of which {} are the model's and {} the records'; memory_max in node.toml allows {}",
        Megabytes(.estimate.total_bytes),
        Megabytes(.estimate.model_bytes),
        Megabytes(.estimate.data_bytes),
        Megabytes(*.allowed)
    )]
    Memory {
        /// What it would take.
        estimate: MemoryEstimate,
        /// Most that is allowed, in bytes.
        allowed: u64,
    },
    /// The plan requires other data.
    #[error("the plan requires other data of this site than those that are configured")]
    DataManifest,
    /// The plan requires another environment.
    #[error("the plan requires another software environment than that of this site")]
    Environment,
    /// The plan's training is beyond this software.
    #[error("the plan cannot be trained here: {0}")]
    Settings(#[from] SettingsError),
    /// The site has no such trainer.
    #[error("the plan's trainer {0:?} is not among those that node.toml of this site names")]
    UnknownTrainer(String),
    /// The plan requires another program.
    #[error("the plan requires program {expected} as trainer {trainer:?}, this site had {found} when its node started")]
    Program {
        /// The trainer.
        trainer: String,
        /// Digest in the plan.
        expected: Digest,
        /// Digest of the site's program.
        found: Digest,
    },
    /// The site has taken its consent back.
    #[error("this site does not consent to the plan any more")]
    NoConsent,
    /// The round's base must not be used.
    #[error("version {0}, which the round is based on, is revoked")]
    RevokedBase(VersionId),
    /// The ledger names no plan for the round.
    #[error("the round's plan is not known")]
    UnknownPlan,
    /// The ledger names no base for the round.
    #[error("the version that the round is based on is not known")]
    UnknownBase,
}

/// Why the node does not consent by itself to a plan that `operator` proposed, where the site has consented to the plans
/// `known`; none if it does. `data` is what is known of the records that the plan is about.
pub fn objection_to_consent<'a>(
    site: &Site,
    data: KnownData<'_>,
    plan: &Plan,
    operator: &str,
    known: impl IntoIterator<Item = &'a Plan>,
) -> Option<Objection> {
    // What the policy forbids is the better answer where both hold.
    objection_to_round(site, data, plan, 1, operator).or_else(|| {
        let examples = data.map_or(0, |data| data.train_examples);
        let surprises = surprises(&site.policy, examples, plan, known);
        match (site.policy.auto_approve, surprises.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Objection::Surprising(surprises)),
            (false, _) => Some(Objection::NeedsPerson(surprises)),
        }
    })
}

/// Why the site does not take part in a round of a plan that `operator` proposed; none if it does.
pub fn objection_to_round(
    site: &Site,
    data: KnownData<'_>,
    plan: &Plan,
    round: u64,
    operator: &str,
) -> Option<Objection> {
    objection_of_policy(site, plan, operator).or_else(|| match data {
        Err(reason) => Some(Objection::Data(reason.to_owned())),
        Ok(data) => objection_of_data(site, data, plan)
            .or_else(|| objection_of_trainer(site, plan))
            .or_else(|| objection_of_method(site, data, plan, round)),
    })
}

/// Whether this software can do what the plan says, within the site's limits.
fn objection_of_method(site: &Site, data: &DataSummary, plan: &Plan, round: u64) -> Option<Objection> {
    match TrainingMethod::from_plan(plan, round, &site.member) {
        Ok(TrainingMethod::BuiltIn(settings)) => objection_of_memory(site, data, &settings),
        // Its memory is limited while it runs.
        Ok(TrainingMethod::External(_)) => None,
        Err(error) => Some(Objection::Settings(error)),
    }
}

/// What runs here is for the site to say: a plan can only choose among the programs that the site has named.
fn objection_of_trainer(site: &Site, plan: &Plan) -> Option<Objection> {
    let training = plan.external_training.as_ref()?;
    let trainer = training.trainer.clone();
    let Some(found) = site.trainers.get(&trainer).map(|program| program.program) else {
        return Some(Objection::UnknownTrainer(trainer));
    };
    let expected = training.program.filter(|expected| *expected != found)?;
    Some(Objection::Program { trainer, expected, found })
}

/// How much memory a training on these records with these settings takes, and an evaluation of its model.
pub fn memory_of(data: &DataSummary, settings: &TrainingSettings) -> MemoryEstimate {
    let DataSummary { features: columns, value_bytes, train_examples, test_examples, .. } = *data;
    memory::estimate(settings, &Records { train_rows: train_examples, test_rows: test_examples, columns, value_bytes })
}

fn objection_of_memory(site: &Site, data: &DataSummary, settings: &TrainingSettings) -> Option<Objection> {
    let (estimate, allowed) = (memory_of(data, settings), site.memory_max?);
    (estimate.total_bytes > allowed).then_some(Objection::Memory { estimate, allowed })
}

/// Why the node will not consent by itself to a plan that `operator` proposed, whatever the records are; none if that depends
/// on them. `known` are the plans that the site has consented to.
pub(super) fn objection_before_reading<'a>(
    site: &Site,
    plan: &Plan,
    operator: &str,
    known: impl IntoIterator<Item = &'a Plan>,
) -> Option<Objection> {
    objection_of_policy(site, plan, operator).or_else(|| {
        // As many as an update can be made of: how many there are is not known.
        let examples = plan
            .training
            .as_ref()
            .map_or(u64::MAX, |training| training.steps.saturating_mul(u64::from(training.batch_size)));
        let surprises = surprises(&site.policy, examples, plan, known);
        match (site.policy.auto_approve, surprises.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Objection::Surprising(surprises)),
            (false, _) => Some(Objection::NeedsPerson(surprises)),
        }
    })
}

/// What the policy says against a plan that `operator` proposed, whatever the records are.
pub(super) fn objection_of_policy(site: &Site, plan: &Plan, operator: &str) -> Option<Objection> {
    let policy = &site.policy;
    let kind = plan.architecture.kind();
    let contributions = plan.participation.minimum_participants;
    if !policy.plans.allows(&plan.name) {
        return Some(Objection::Plan(plan.name.clone()));
    }
    if !policy.operators.allows(operator) {
        return Some(Objection::Operator(operator.to_owned()));
    }
    if !policy.architectures.allows(kind) {
        return Some(Objection::Architecture(kind));
    }
    if plan.rounds > policy.rounds_max {
        return Some(Objection::Rounds { found: plan.rounds, allowed: policy.rounds_max });
    }
    let needed = policy.contributions_min;
    (contributions < needed).then_some(Objection::Contributions { found: contributions, needed })
}

/// Why a plan's model cannot take the site's records; none if it can, or if only an external trainer knows.
fn objection_to_form(data: &DataSummary, plan: &Plan) -> Option<Objection> {
    if plan.external_training.is_some() { None } else { objection_to_shape(data, plan) }
}

/// Whether the built-in evaluation can test the plan's model on the site's records. What an external trainer makes of records
/// before they reach its model, is known only where the plan itself describes them for everybody.
pub(super) fn is_testable(data: &DataSummary, plan: &Plan) -> bool {
    let is_known = plan.external_training.is_none() || plan.data.is_some();
    let has_form = plan.architecture.inputs().is_some() && objection_to_shape(data, plan).is_none();
    is_known && has_form && data.test_examples > 0
}

/// Why records have another form than a model that is known here.
fn objection_to_shape(data: &DataSummary, plan: &Plan) -> Option<Objection> {
    let features = plan.architecture.inputs()?;
    if u64::from(features) != data.features {
        return Some(Objection::Features { plan: features, site: data.features });
    }
    let classes = plan.architecture.classes();
    (classes != data.classes).then_some(Objection::Classes { plan: classes, site: data.classes })
}

fn objection_of_data(site: &Site, data: &DataSummary, plan: &Plan) -> Option<Objection> {
    // Of data that only a trainer reads, it says afterwards how many examples there are, if the site does not.
    let is_counted = data.manifest.is_some() || data.train_examples > 0;
    if is_counted && data.train_examples < site.policy.examples_min {
        return Some(Objection::TooFewExamples(site.policy.examples_min));
    }
    let found = plan.training.as_ref().map(|training| surprise::records_of_update(training, data.train_examples));
    if let Some(found) = found.filter(|found| *found < site.policy.examples_min) {
        return Some(Objection::TooFewInUpdate { found, needed: site.policy.examples_min });
    }
    if let Some(training) = plan.external_training.as_ref().filter(|_| !is_counted)
        && plan.participation.minimum_example_share.is_some()
    {
        return Some(Objection::UncountedExamples(training.trainer.clone()));
    }
    if let Some(objection) = objection_to_form(data, plan) {
        return Some(objection);
    }
    // How many records an external trainer took, it says afterwards.
    if plan.external_training.is_none() && data.train_examples > plan.aggregation.example_scale {
        return Some(Objection::TooManyExamples(plan.aggregation.example_scale));
    }
    let required = plan.requirements.data_manifests.get(&site.member);
    if required.is_some_and(|required| data.manifest.is_some_and(|found| *required != found)) {
        return Some(Objection::DataManifest);
    }
    let required = plan.requirements.environment;
    required.is_some_and(|required| required != site.environment).then_some(Objection::Environment)
}

/// What surprises, behind the sentence that says what is to be done.
fn listed(surprises: &[Surprise]) -> String {
    let texts: Vec<String> = surprises.iter().map(Surprise::to_string).collect();
    if texts.is_empty() { String::new() } else { format!("; surprising: {}", texts.join("; ")) }
}
