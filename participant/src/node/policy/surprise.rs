//! What surprises in a plan, so that a person of the site is to look at it before anything is trained.
//!
//! Whoever proposes a plan chooses the model, and a crafted one can make the update, or the sum of all updates, give single
//! records away (Boenisch et al., arXiv 2112.02918; Fowl et al., arXiv 2110.13057). No program can tell every such model,
//! so a node trains by itself only what resembles what its people have consented to.

use std::mem::discriminant;

use fedledger_federation::{
    Federation,
    architecture::Architecture,
    member::MemberId,
    plan::{Plan, Training},
};
use fedledger_proto::kit::{SitePolicy, Surprises};
use serde::Serialize;

/// Something about a plan that a node does not decide by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Surprise {
    /// No plan that this site consents to has tensors of these names and shapes.
    #[error("this site has not consented to a model of these tensor shapes before")]
    Shapes,
    /// Single records could get a unit of their own.
    #[error("{tensor} has {units} units, more than the {batch} records of a batch")]
    WiderThanBatch {
        /// Name of the layer's weights.
        tensor: String,
        /// Its units.
        units: u64,
        /// Records of a batch.
        batch: u64,
    },
    /// An update may be made of few records, so that it tells much about each of them.
    #[error("an update may be made of {records} records only: this site tells nothing of fewer than {below}")]
    FewRecords {
        /// Fewest records behind an update.
        records: u64,
        /// Below how many the site is asked.
        below: u64,
    },
    /// No plan that this site consents to describes its records so. What is skipped is counted, so descriptions can be made to
    /// count.
    #[error("this site has not consented to records that are described like this before")]
    Records,
    /// The model is large.
    #[error("the model has {found} parameters, this site's policy allows {allowed} without asking")]
    Parameters {
        /// Parameters of the model.
        found: u64,
        /// Most that are allowed without asking.
        allowed: u64,
    },
}

/// All plans that a member consents to.
pub fn consented<'a>(state: &'a Federation, member: &'a MemberId) -> impl Iterator<Item = &'a Plan> {
    let plans = state.plans().iter().filter(move |(_, record)| record.consents.contains_key(member));
    plans.map(|(_, record)| &record.plan)
}

/// Fewest records that an update of a plan is made of, where there are so many `examples`: rounds go through the rows one
/// after the other, and what is left for the last batch of a pass may be few.
pub fn records_of_update(training: &Training, examples: u64) -> u64 {
    let batch = u64::from(training.batch_size).clamp(1, examples.max(1));
    let last = match examples % batch {
        0 => batch,
        rest => rest,
    };
    training.steps.saturating_sub(1).saturating_mul(batch).saturating_add(last).min(examples)
}

/// What a site's people must look at before it takes part in a plan, where it has so many training `examples` and has
/// consented to the plans `known`.
pub fn surprises<'a>(
    policy: &SitePolicy,
    examples: u64,
    plan: &Plan,
    known: impl IntoIterator<Item = &'a Plan>,
) -> Vec<Surprise> {
    let model = &plan.architecture;
    let mut found = Vec::new();
    if policy.surprises == Surprises::Ask {
        let (mut knows_shapes, mut knows_records) = (false, plan.data.is_none());
        for known in known {
            knows_shapes = knows_shapes || same_shapes(&known.architecture, model);
            knows_records = knows_records || known.data == plan.data;
        }
        if !knows_shapes {
            found.push(Surprise::Shapes);
        }
        if !knows_records {
            found.push(Surprise::Records);
        }
        // What an external trainer does with its tensors and records, its people know.
        let records = plan.training.as_ref().map(|training| records_of_update(training, examples));
        if let Some(records) = records.filter(|records| *records < policy.suppress_below) {
            found.push(Surprise::FewRecords { records, below: policy.suppress_below });
        }
        let batch = plan.training.as_ref().map(|training| u64::from(training.batch_size)).zip(records);
        let batch = batch.map(|(batch, records)| batch.min(records));
        if let (Some(batch), Some(widest)) = (batch, model.widest_layer())
            && widest.units > batch
        {
            found.push(Surprise::WiderThanBatch { tensor: widest.tensor, units: widest.units, batch });
        }
    }
    let (parameters, allowed) = (model.parameter_count(), policy.parameters_max);
    if parameters > allowed {
        found.push(Surprise::Parameters { found: parameters, allowed });
    }
    found
}

/// Whether two models are of one kind and have the same tensors. The first comparisons are cheap and mostly decide.
pub fn same_shapes(known: &Architecture, model: &Architecture) -> bool {
    known == model
        || discriminant(known) == discriminant(model)
            && known.parameter_count() == model.parameter_count()
            && known.parameters() == model.parameters()
}
