//! Carrying out what the members have decided about each other.

use fedledger_ledger::machine::WriteSet;

use super::versions;
use crate::{
    Federation,
    event::Consequences,
    governance::{Change, RevokedKey},
    member::{Member, MemberId, Role},
    records::{MemberRecord, Participation, Phase},
};

/// Makes a change that has been found possible.
pub(super) fn carry_out(state: &mut Federation, change: &Change, index: u64, writes: &mut WriteSet) -> Consequences {
    let Change { before, after, policy, epoch } = change;
    if let Some(before) = before {
        for used in change.revoked_keys() {
            let revoked = RevokedKey { index, owner: before.id.clone(), capacity: used.capacity() };
            state.revoked_keys.put(used.key, revoked, writes);
        }
    }
    match (before, after) {
        (_, Some(after)) => put_member(state, after, index, writes),
        (Some(before), None) => {
            state.members.remove(&before.id);
            state.member_records.update(&before.id, writes, |record| record.revoked_index = Some(index));
        }
        (None, None) => {}
    }
    if state.policy != *policy {
        state.set_policy(*policy, writes);
    }
    if let Some(before) = before.as_ref().filter(|before| !keeps_participating(before, after.as_ref())) {
        stop_participating(state, &before.id, index, writes);
    }
    let mut consequences = Consequences::default();
    if let Some(epoch) = epoch {
        state.set_epoch(epoch.clone(), writes);
        // Another majority may be enough for a candidate, and nobody may be left to say so in an entry of its own.
        versions::settle_all(state, index, &mut consequences, writes);
    }
    consequences.epoch = state.epoch.number;
    consequences
}

fn put_member(state: &mut Federation, member: &Member, index: u64, writes: &mut WriteSet) {
    let known = state.member_records.get(&member.id);
    let admitted_index = known.map_or(index, |record| record.admitted_index);
    let record = MemberRecord { member: member.clone(), admitted_index, revoked_index: None };
    state.member_records.put(member.id.clone(), record, writes);
    state.members.insert(member.clone());
}

/// Whether a member that has consented to plans remains a participant, or never was one.
fn keeps_participating(before: &Member, after: Option<&Member>) -> bool {
    let participates = |member: &Member| member.roles.contains(&Role::Participant);
    !participates(before) || after.is_some_and(participates)
}

/// Takes back the consents of a member that is no participant any more. Rounds that collect contributions go on without it;
/// in rounds that are closed, what it contributed is fixed by the certificate.
fn stop_participating(state: &mut Federation, member: &MemberId, index: u64, writes: &mut WriteSet) {
    let consenting: Vec<_> =
        state.plans.iter().filter(|(_, record)| record.consents.contains_key(member)).map(|(id, _)| *id).collect();
    for plan in consenting {
        state.plans.update(&plan, writes, |record| {
            record.consents.remove(member);
        });
    }
    let open: Vec<_> = state.plans.iter().filter_map(|(_, record)| record.open).collect();
    for key in open {
        let round = state.rounds.get(&key);
        if round.is_some_and(|round| round.phase == Phase::Collecting && round.cohort.contains(member)) {
            let record_key = (key, member.clone());
            if let Some(Participation::Contributed { contribution, .. }) = state.participations.get(&record_key) {
                state.kept.unname(&contribution.update);
            }
            state.settle_participation(record_key, Participation::Revoked { index }, writes);
        }
    }
}
