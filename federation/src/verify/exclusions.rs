//! Exclusions: whether contributions were left out for reasons that hold.

use super::{Problem, ProblemKind, Report};
use crate::{
    Federation,
    command::{Contribute, RoundKey},
    history::{Source, SourceError, hash},
    member::MemberId,
    plan::Plan,
    recipe::{Update, check_update},
    records::{Participation, Phase, RoundRecord},
};

/// The reasons that follow from the update alone, so that anybody who has it can check them.
const CHECKABLE_CODES: [&str; 5] = ["wrong_length", "wrong_tensors", "not_finite", "out_of_range", "wrong_examples"];

/// Checks each excluded contribution whose update is there and undamaged.
pub(super) fn check<S: Source + ?Sized>(
    report: &mut Report,
    source: &S,
    state: &Federation,
) -> Result<(), SourceError> {
    for (key, round) in state.rounds().iter() {
        let Some(plan) = state.plans().get(&key.plan).map(|record| &record.plan) else { continue };
        let (Phase::Closed { excluded, .. } | Phase::Completed { excluded, .. }) = &round.phase else { continue };
        for (member, code) in excluded.iter().filter(|(_, code)| CHECKABLE_CODES.contains(&code.as_str())) {
            let Some((index, contribution)) = contribution(state, key, member) else { continue };
            let Some(found) = reason(report, source, plan, round, member, contribution)? else { continue };
            if found != Some(code.as_str()) {
                let found = found.unwrap_or("none");
                let detail = format!("{member} was left out as {code}, the reason that its update gives is {found}");
                report.add(Problem::new(ProblemKind::Exclusion, detail).at(index));
            }
        }
    }
    Ok(())
}

fn contribution<'a>(state: &'a Federation, key: &RoundKey, member: &MemberId) -> Option<(u64, &'a Contribute)> {
    match state.participations.get(&(*key, member.clone()))? {
        Participation::Contributed { index, contribution, .. } => Some((*index, contribution)),
        Participation::Joined { .. } | Participation::Declined { .. } | Participation::Revoked { .. } => None,
    }
}

/// The reason for which an update cannot be aggregated, if any; `None` where the update cannot be judged.
fn reason<S: Source + ?Sized>(
    report: &mut Report,
    source: &S,
    plan: &Plan,
    round: &RoundRecord,
    member: &MemberId,
    contribution: &Contribute,
) -> Result<Option<Option<&'static str>>, SourceError> {
    let blob = source.blob(&contribution.update);
    let Some(Some(content)) = report.settle(blob)? else { return Ok(None) };
    if hash(content)?.0 != contribution.update {
        return Ok(None);
    }
    let blob = source.blob(&contribution.update);
    let Some(Some(content)) = report.settle(blob)? else { return Ok(None) };
    let update = Update::of(member, contribution);
    let checked = check_update(plan, round.cohort.len(), &update, content)?;
    Ok(Some(checked.err().map(|(code, _)| code)))
}
