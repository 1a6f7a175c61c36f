//! Governance: proposing, voting, deciding.

use fedledger_ledger::{Digest, machine::WriteSet};

use super::{Context, check_text, membership};
use crate::{
    Event, Federation, Rejection,
    event::Consequences,
    governance::{Ballot, Change, ProposalRecord, ProposalStatus, Propose, Vote},
    limits::{OPEN_PROPOSALS_MAX, OPEN_PROPOSALS_PER_MEMBER_MAX, PROPOSAL_VALIDITY_ENTRIES_MAX},
    member::{Capacity, MemberId},
};

pub(super) fn propose(state: &mut Federation, context: Context<'_>, content: Propose) -> Result<Event, Rejection> {
    let member = context.require_delegation()?.clone();
    let index = context.index;
    check_text(&content.reason)?;
    let to = index.saturating_add(PROPOSAL_VALIDITY_ENTRIES_MAX);
    if !(index..=to).contains(&content.expires_index) {
        return Err(Rejection::InvalidExpiry { found: content.expires_index, from: index, to });
    }
    let found = content.action.target(state);
    if content.against != found {
        return Err(Rejection::TargetChanged { expected: content.against, found });
    }
    Change::of(state, &content.action, index)?;
    let id = content.id(&member);
    if state.proposals.contains(&id) {
        return Err(Rejection::ProposalExists(id));
    }
    check_room(state, &member, index)?;
    let expires_index = content.expires_index;
    let status = ProposalStatus::Open;
    let record = ProposalRecord { content, proposer: member.clone(), proposed_index: index, status };
    state.proposals.put(id, record, context.writes);
    state.forget_expired_proposals(index);
    state.open_proposals.insert((expires_index, id));
    let proposed = Event::Proposed { proposal: id, member: member.clone() };
    Ok(cast(state, id, member, Ballot { approve: true, index }, context.writes).unwrap_or(proposed))
}

pub(super) fn vote(state: &mut Federation, context: Context<'_>, command: &Vote) -> Result<Event, Rejection> {
    let member = context.require_delegation()?.clone();
    let (proposal, approve, index) = (command.proposal, command.approve, context.index);
    let record = state.proposals.get(&proposal).ok_or(Rejection::UnknownProposal(proposal))?;
    if record.status != ProposalStatus::Open {
        return Err(Rejection::ProposalClosed(record.status_at(index)));
    }
    if !record.is_open_at(index) {
        return Err(Rejection::ProposalExpired(record.content.expires_index));
    }
    if state.ballots.contains(&(proposal, member.clone())) {
        return Err(Rejection::AlreadyVoted(member));
    }
    let voted = Event::Voted { proposal, member: member.clone(), approve };
    Ok(cast(state, proposal, member, Ballot { approve, index }, context.writes).unwrap_or(voted))
}

/// Refuses a proposal where too many can be voted on already.
fn check_room(state: &Federation, member: &MemberId, index: u64) -> Result<(), Rejection> {
    let (mut all, mut own) = (0, 0);
    for (_, record) in state.open_proposals(index) {
        all += 1;
        own += usize::from(record.proposer == *member);
    }
    if own >= OPEN_PROPOSALS_PER_MEMBER_MAX {
        return Err(Rejection::TooManyProposalsOfMember(member.clone()));
    }
    if all >= OPEN_PROPOSALS_MAX { Err(Rejection::TooManyProposals) } else { Ok(()) }
}

/// Takes a ballot, and decides the proposal if that is possible now.
fn cast(
    state: &mut Federation,
    proposal: Digest,
    member: MemberId,
    ballot: Ballot,
    writes: &mut WriteSet,
) -> Option<Event> {
    let index = ballot.index;
    state.ballots.put((proposal, member.clone()), ballot, writes);
    let tally = state.tally(&proposal);
    if tally.is_approved() {
        return Some(execute(state, proposal, member, index, writes));
    }
    if tally.is_rejected() {
        close(state, &proposal, ProposalStatus::Rejected { index }, writes);
        return Some(Event::ProposalRejected { proposal, member });
    }
    None
}

/// Carries an approved proposal out, with everything that is decided by that, or records why it is impossible now.
fn execute(state: &mut Federation, proposal: Digest, member: MemberId, index: u64, writes: &mut WriteSet) -> Event {
    match carry_out(state, &proposal, index, writes) {
        Ok(mut consequences) => {
            settle(state, index, &mut consequences, writes);
            Event::Executed { proposal, member, consequences }
        }
        Err(rejection) => {
            let code = fedledger_ledger::machine::RejectionCode::code(&rejection);
            Event::ProposalFailed { proposal, member, code, reason: rejection.to_string() }
        }
    }
}

/// Carries an approved proposal out, or closes it as failed.
fn carry_out(
    state: &mut Federation,
    proposal: &Digest,
    index: u64,
    writes: &mut WriteSet,
) -> Result<Consequences, Rejection> {
    let change = match state.proposals.get(proposal) {
        Some(record) => Change::of(state, &record.content.action, index),
        None => Err(Rejection::UnknownProposal(*proposal)),
    };
    let change = change.inspect_err(|rejection| {
        let code = fedledger_ledger::machine::RejectionCode::code(rejection).to_owned();
        close(state, proposal, ProposalStatus::Failed { index, code }, writes);
    })?;
    close(state, proposal, ProposalStatus::Executed { index }, writes);
    let mut consequences = membership::carry_out(state, &change, index, writes);
    consequences.superseded = supersede(state, index, writes);
    Ok(consequences)
}

/// Decides the proposals on which the members that are left have voted enough: with an excluded member, its ballots and a
/// part of the majority that is needed are gone, and nobody may be left to cast the vote that would notice. The oldest
/// comes first; each may change the members again.
fn settle(state: &mut Federation, index: u64, consequences: &mut Consequences, writes: &mut WriteSet) {
    while let Some((_, proposal, is_approved)) = oldest_decided(state, index) {
        if is_approved {
            // Why one fails stands in its record.
            if let Ok(further) = carry_out(state, &proposal, index, writes) {
                consequences.add(further);
            }
        } else {
            close(state, &proposal, ProposalStatus::Rejected { index }, writes);
        }
        if let Some(record) = state.proposals.get(&proposal) {
            consequences.decided.insert(proposal, record.status.clone());
        }
    }
}

/// The oldest open proposal that enough members approve, or that too many reject: its index, its id, and which of the two.
fn oldest_decided(state: &Federation, index: u64) -> Option<(u64, Digest, bool)> {
    let decided = state.open_proposals(index).filter_map(|(id, record)| {
        let tally = state.tally(id);
        (tally.is_approved() || tally.is_rejected()).then(|| (record.proposed_index, *id, tally.is_approved()))
    });
    decided.min()
}

fn close(state: &mut Federation, proposal: &Digest, status: ProposalStatus, writes: &mut WriteSet) {
    if let Some(record) = state.proposals.get(proposal) {
        state.open_proposals.remove(&(record.content.expires_index, *proposal));
    }
    state.proposals.update(proposal, writes, |record| record.status = status);
}

/// Closes the proposals that were made against what has just changed.
fn supersede(state: &mut Federation, index: u64, writes: &mut WriteSet) -> Vec<Digest> {
    let stale = |record: &ProposalRecord| record.content.action.target(state) != record.content.against;
    let superseded: Vec<Digest> =
        state.open_proposals(index).filter(|(_, record)| stale(record)).map(|(id, _)| *id).collect();
    for proposal in &superseded {
        close(state, proposal, ProposalStatus::Superseded { index }, writes);
    }
    superseded
}

impl Context<'_> {
    /// The member whose people signed, with their organisation's key.
    fn require_delegation(&self) -> Result<&MemberId, Rejection> {
        match self.author.capacity {
            Capacity::Organisation => Ok(&self.author.member),
            Capacity::Replica(_) | Capacity::Participant(_) => {
                Err(Rejection::NotPermitted { kind: self.kind, needed: "a member's organisation key" })
            }
        }
    }
}
