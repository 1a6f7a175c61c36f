//! Conversions between the progress of plans on the wire and what it means.

use fedledger_federation::{
    limits::PROGRESS_NAMES_MAX,
    progress::{PlanProgress, Step},
};

use super::{
    convert::{InvalidField, digest},
    limits::PLANS_MAX,
    v1,
};

/// The progress of the plans in a status.
///
/// # Errors
///
/// [`InvalidField`]: too many, or one that means nothing.
pub(super) fn plans(plans: Vec<v1::PlanProgress>) -> Result<Vec<PlanProgress>, InvalidField> {
    if plans.len() > PLANS_MAX {
        return Err(InvalidField("the status names too many plans"));
    }
    plans.into_iter().map(TryInto::try_into).collect()
}

impl From<PlanProgress> for v1::PlanProgress {
    fn from(progress: PlanProgress) -> Self {
        Self {
            plan: progress.plan.as_bytes().to_vec().into(),
            name: progress.name,
            round: progress.round,
            attempt: progress.attempt,
            step: progress.step.name().to_owned(),
            waiting_for: progress.waiting_for,
            names: progress.names,
            name_count: progress.name_count,
            lasting_ms: progress.lasting_ms,
            left_ms: progress.left_ms,
            stuck: progress.stuck,
            cause: progress.cause,
        }
    }
}

impl TryFrom<v1::PlanProgress> for PlanProgress {
    type Error = InvalidField;

    fn try_from(progress: v1::PlanProgress) -> Result<Self, InvalidField> {
        if progress.names.len() > PROGRESS_NAMES_MAX {
            return Err(InvalidField("the progress of a plan names too many members"));
        }
        let step = Step::ALL.into_iter().find(|step| step.name() == progress.step);
        Ok(Self {
            plan: digest(&progress.plan)?,
            name: progress.name,
            round: progress.round,
            attempt: progress.attempt,
            step: step.ok_or(InvalidField("the step of a plan is unknown"))?,
            waiting_for: progress.waiting_for,
            names: progress.names,
            name_count: progress.name_count,
            lasting_ms: progress.lasting_ms,
            left_ms: progress.left_ms,
            stuck: progress.stuck,
            cause: progress.cause,
        })
    }
}
