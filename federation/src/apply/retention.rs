//! What is kept: pinning by operators, and pruning by replicas as far as the members' rules let it.

use super::{Context, check_text, versions::not_pruned};
use crate::{
    Event, Federation, Rejection,
    retention::{Horizon, PinVersion, PruneRound, PruneVersion, Pruned, is_abandoned},
};

pub(super) fn pin(state: &mut Federation, context: Context<'_>, command: PinVersion) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_text(&command.reason)?;
    let PinVersion { version, pinned, reason } = command;
    let record = state.versions.get(&version).ok_or(Rejection::UnknownVersion(version))?;
    if record.number().is_none() {
        return Err(Rejection::NotAttested(version));
    }
    if record.pinned.is_some() == pinned {
        return Err(Rejection::NothingToChange);
    }
    if pinned {
        not_pruned(state, &version)?;
        state.kept.pinned.insert(version);
    } else {
        state.kept.pinned.remove(&version);
    }
    state.versions.update(&version, context.writes, |record| record.pinned = pinned.then_some(reason));
    Ok(Event::VersionPinned { version, pinned })
}

pub(super) fn prune_version(
    state: &mut Federation,
    context: Context<'_>,
    command: &PruneVersion,
) -> Result<Event, Rejection> {
    context.require_replica()?;
    let PruneVersion { version, updates, files } = *command;
    let record = state.versions.get(&version).ok_or(Rejection::UnknownVersion(version))?;
    let number = record.number().ok_or(Rejection::NotAttested(version))?;
    let missing =
        (updates && !state.kept.with_updates.contains(&number)) || (files && !state.kept.with_files.contains(&number));
    if missing || !(updates || files) {
        return Err(Rejection::NothingToPrune);
    }
    let horizon = Horizon::of(state);
    let kept_for = updates.then(|| horizon.updates_kept_for(&version, record)).flatten();
    if let Some(kept_for) = kept_for.or_else(|| files.then(|| horizon.files_kept_for(&version, record)).flatten()) {
        return Err(Rejection::StillKept(kept_for));
    }
    let index = Some(context.index);
    let pruned = Pruned { updates: index.filter(|_| updates), files: index.filter(|_| files) };
    state.prune_version(&version, pruned, context.writes);
    Ok(Event::VersionPruned { version, updates, files })
}

pub(super) fn prune_round(
    state: &mut Federation,
    context: Context<'_>,
    command: &PruneRound,
) -> Result<Event, Rejection> {
    context.require_replica()?;
    let key = command.key;
    let round = state.rounds.get(&key).ok_or(Rejection::UnknownRound)?;
    if !is_abandoned(round) || !state.kept.attempts.contains(&key) {
        return Err(Rejection::NothingToPrune);
    }
    if let Some(kept_for) = Horizon::of(state).attempt_kept_for(round) {
        return Err(Rejection::StillKept(kept_for));
    }
    state.prune_attempt(&key, context.index, context.writes);
    Ok(Event::RoundPruned { key })
}
