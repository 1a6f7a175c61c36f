//! Branches, tags and revocation: promotion and rollback. Nothing is erased from history.

use super::{Context, check_name, check_text, versions::not_pruned};
use crate::{
    Event, Federation, Rejection, VersionId,
    command::{MoveBranch, RevokeVersion, Tag},
};

pub(super) fn move_branch(
    state: &mut Federation,
    context: Context<'_>,
    command: MoveBranch,
) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_name(&command.branch)?;
    check_text(&command.reason)?;
    let found = state.branches.get(&command.branch).copied();
    if found != command.from {
        return Err(Rejection::HeadMoved { expected: command.from, found });
    }
    usable(state, &command.to)?;
    not_pruned(state, &command.to)?;
    if command.from == Some(command.to) {
        return Err(Rejection::NothingToMove);
    }
    let revoked = match (command.revoke, command.from) {
        (true, Some(from)) => between(state, &command.to, &from)?,
        _ => Vec::new(),
    };
    for version in &revoked {
        not_head_of_other_branch(state, version, &command.branch)?;
    }
    for version in &revoked {
        state.versions.update(version, context.writes, |record| record.revoked = Some(command.reason.clone()));
    }
    state.branches.put(command.branch.clone(), command.to, context.writes);
    Ok(Event::BranchMoved { branch: command.branch, from: command.from, to: command.to, revoked })
}

pub(super) fn tag(state: &mut Federation, context: Context<'_>, command: Tag) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_name(&command.name)?;
    if !state.is_attested(&command.version) {
        return Err(Rejection::NotAttested(command.version));
    }
    if state.tags.contains(&command.name) {
        return Err(Rejection::TagExists(command.name));
    }
    not_pruned(state, &command.version)?;
    state.tags.put(command.name.clone(), command.version, context.writes);
    Ok(Event::Tagged { name: command.name, version: command.version })
}

pub(super) fn revoke(state: &mut Federation, context: Context<'_>, command: RevokeVersion) -> Result<Event, Rejection> {
    context.require_operator(state)?;
    check_text(&command.reason)?;
    let version = command.version;
    usable(state, &version)?;
    if state.branches.iter().any(|(_, head)| *head == version) {
        return Err(Rejection::IsHead(version));
    }
    state.versions.update(&version, context.writes, |record| record.revoked = Some(command.reason));
    Ok(Event::VersionRevoked { version })
}

/// Refuses versions that are unknown, not attested, or revoked, and those that were trained from a revoked one.
fn usable(state: &Federation, version: &VersionId) -> Result<(), Rejection> {
    let record = state.versions.get(version).ok_or(Rejection::UnknownVersion(*version))?;
    if record.number().is_none() {
        return Err(Rejection::NotAttested(*version));
    }
    let is_revoked = |id: &VersionId| state.versions.get(id).is_some_and(|record| record.revoked.is_some());
    match state.ancestry(version).find(is_revoked) {
        Some(revoked) => Err(Rejection::Revoked(revoked)),
        None => Ok(()),
    }
}

/// The versions after `ancestor` up to `head`, newest first, as far as they are not revoked yet.
fn between(state: &Federation, ancestor: &VersionId, head: &VersionId) -> Result<Vec<VersionId>, Rejection> {
    if !state.is_ancestor(ancestor, head) {
        return Err(Rejection::NotAncestor(*ancestor));
    }
    let newer = state.ancestry(head).take_while(|id| id != ancestor);
    Ok(newer.filter(|id| state.versions.get(id).is_some_and(|record| record.revoked.is_none())).collect())
}

fn not_head_of_other_branch(state: &Federation, version: &VersionId, branch: &str) -> Result<(), Rejection> {
    let other = state.branches.iter().any(|(name, head)| name != branch && head == version);
    if other { Err(Rejection::IsHead(*version)) } else { Ok(()) }
}
