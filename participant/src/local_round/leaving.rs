//! What would leave the site: every tensor of the update, and everything that is said beside it.

use fedledger_federation::{
    VersionId,
    command::{Evaluate, FileRef, Metrics, RoundKey},
    plan::Plan,
    tensors::{Tensor, TensorLayout},
};
use fedledger_ledger::Digest;
use serde::Serialize;
use serde_json::Value;

use crate::{
    evaluation::{Evaluation, report},
    node::core::{DataSummary, Site, TrainedUpdate, decide::contribution},
};

/// What would leave the site in a round, as it would be encoded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leaving {
    /// Training examples that are declared with the consent, where the plan asks for them.
    pub consent_examples: Option<u64>,
    /// The file of the update.
    pub update: FileRef,
    /// Its tensors.
    pub tensors: Vec<LeavingTensor>,
    /// What stands in the contribution, beside the attempt and the version that it is for.
    pub contribution: Value,
    /// What would be reported of a version that were exactly this site's; none if nothing is reported.
    pub evaluation: Option<Value>,
}

/// One tensor of an update, with the values that are sent: after rounding to the plan's element type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeavingTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Type of its elements.
    pub dtype: String,
    /// Its size in the file.
    pub bytes: u64,
    /// Root of the sum of its squared values (L2 norm).
    pub norm: f64,
    /// Largest absolute value.
    pub largest: f64,
}

impl Leaving {
    /// What would leave the site with an update, whose tensors are those of `layout`.
    pub(super) fn of(
        plan: &Plan,
        (site, data): (&Site, &DataSummary),
        key: RoundKey,
        trained: &TrainedUpdate,
        layout: &TensorLayout,
        update: &[Tensor],
        evaluation: Option<&Evaluate>,
    ) -> Self {
        let declares = plan.participation.minimum_example_share.is_some();
        let tensors = layout.tensors().iter().zip(update).map(|(spec, tensor)| {
            let (sum, largest) = tensor.values.iter().fold((0.0, 0.0), |(sum, largest): (f64, f64), &value| {
                let value = f64::from(value);
                (sum + value * value, largest.max(value.abs()))
            });
            LeavingTensor {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                dtype: spec.dtype.to_string(),
                bytes: (tensor.values.len() as u64).saturating_mul(spec.dtype.size_bytes() as u64),
                norm: sum.sqrt(),
                largest,
            }
        });
        let version = unknown_version();
        Self {
            consent_examples: declares.then_some(data.train_examples),
            update: trained.file,
            tensors: tensors.collect(),
            contribution: without(&contribution(site, key, version, trained), &["key", "base"]),
            evaluation: evaluation.map(|report| without(report, &["version"])),
        }
    }
}

/// Which version a command is for is not known before a round is opened.
pub(super) const fn unknown_version() -> VersionId {
    VersionId::of_manifest(Digest::from_bytes([0; 32]))
}

/// What a site would report of an evaluation if it left nothing out.
pub(super) fn metrics(evaluation: &Evaluation) -> Metrics {
    report(unknown_version(), Some(evaluation), 0).metrics
}

/// The fields of a command except some.
fn without(command: &impl Serialize, left_out: &[&str]) -> Value {
    // A command is made of what JSON has.
    let mut value = serde_json::to_value(command).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        left_out.iter().for_each(|field| drop(fields.remove(*field)));
    }
    value
}
