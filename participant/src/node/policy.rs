//! What a site takes part in: its policy applied to plans and rounds.
//!
//! A hospital decides for itself, before anything is trained, and says why it does not take part: the reason of a declined
//! round stands on the ledger.

use fedledger_federation::{VersionId, plan::Plan};
use fedledger_ledger::Digest;
pub use fedledger_proto::kit::SitePolicy;

use super::core::{Site, TrainingMethod};
use crate::training::SettingsError;

/// Why a site does not consent to a plan, or does not take part in a round.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Objection {
    /// Consent is for people to give.
    #[error("consent needs a person of this organisation: approve the plan, or set auto_approve in policy.toml")]
    NeedsPerson,
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
    /// The site has more examples than the plan can weigh.
    #[error("this site has more training examples than the {0} that the plan can weigh")]
    TooManyExamples(u64),
    /// The model is for records of another form.
    #[error("the model takes {plan} features, the records of this site have {site}")]
    Features {
        /// Features of the model.
        plan: u32,
        /// Features of a record.
        site: u64,
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

/// Why the node does not consent by itself to a plan that `operator` proposed; none if it does.
pub fn objection_to_consent(site: &Site, plan: &Plan, operator: &str) -> Option<Objection> {
    // What the policy forbids is the better answer where both hold.
    objection_to_round(site, plan, 1, operator)
        .or_else(|| (!site.policy.auto_approve).then_some(Objection::NeedsPerson))
}

/// Why the site does not take part in a round of a plan that `operator` proposed; none if it does.
pub fn objection_to_round(site: &Site, plan: &Plan, round: u64, operator: &str) -> Option<Objection> {
    objection_of_policy(site, plan, operator)
        .or_else(|| objection_of_data(site, plan))
        .or_else(|| objection_of_trainer(site, plan))
        .or_else(|| TrainingMethod::from_plan(plan, round, &site.member).err().map(Objection::Settings))
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

fn objection_of_policy(site: &Site, plan: &Plan, operator: &str) -> Option<Objection> {
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
    if contributions < policy.contributions_min {
        return Some(Objection::Contributions { found: contributions, needed: policy.contributions_min });
    }
    (site.train_examples < policy.examples_min).then_some(Objection::TooFewExamples(policy.examples_min))
}

fn objection_of_data(site: &Site, plan: &Plan) -> Option<Objection> {
    // What an external trainer makes of which records, only it knows; how many they were, it says afterwards.
    let own = plan.external_training.is_none();
    if let Some(features) = plan.architecture.features().filter(|features| own && u64::from(*features) != site.features)
    {
        return Some(Objection::Features { plan: features, site: site.features });
    }
    if own && site.train_examples > plan.aggregation.example_scale {
        return Some(Objection::TooManyExamples(plan.aggregation.example_scale));
    }
    let required = plan.requirements.data_manifests.get(&site.member);
    if required.is_some_and(|required| *required != site.data_manifest) {
        return Some(Objection::DataManifest);
    }
    let required = plan.requirements.environment;
    required.is_some_and(|required| required != site.environment).then_some(Objection::Environment)
}
