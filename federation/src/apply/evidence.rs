//! Evidence: recording that somebody has signed two histories.

use super::Context;
use crate::{
    Event, Federation, Rejection,
    governance::{EvidenceRecord, Finding, RecordEvidence},
};

pub(super) fn record(
    state: &mut Federation,
    context: Context<'_>,
    command: &RecordEvidence,
) -> Result<Event, Rejection> {
    let finding = Finding::of(state, &command.evidence)?.ok_or(Rejection::ForeignEvidence)?;
    let Finding { id, culprits } = finding;
    if let Some(known) = state.evidence.get(&id) {
        return Err(Rejection::EvidenceKnown(known.index));
    }
    state.evidence.put(id, EvidenceRecord { index: context.index, culprits: culprits.clone() }, context.writes);
    Ok(Event::EvidenceRecorded { evidence: id, culprits })
}
