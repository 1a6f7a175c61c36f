//! The members, their keys and their votes, as the state knows them.

use fedledger_ledger::{Digest, PublicKey, codec, epoch::Epoch, machine::WriteSet};

use super::{Federation, POLICY_TAG};
use crate::{
    governance::{Ballot, EvidenceRecord, Policy, ProposalRecord, ProposalStatus, RevokedKey, Tally, approvals_needed},
    limits::RECORD_SIZE_BYTES_MAX,
    member::{MemberId, Members},
    records::{MemberRecord, Participation},
    table::Table,
};

impl Federation {
    /// The members as they are now.
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// Members by id, those that were excluded included.
    pub const fn member_records(&self) -> &Table<MemberId, MemberRecord> {
        &self.member_records
    }

    /// Keys that were revoked.
    pub const fn revoked_keys(&self) -> &Table<PublicKey, RevokedKey> {
        &self.revoked_keys
    }

    /// Epochs by number, from 0, that of the genesis file.
    pub const fn epochs(&self) -> &Table<u64, Epoch> {
        &self.epochs
    }

    /// The newest epoch: the replicas, witnesses and threshold that there are now.
    pub const fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The rules that the members have given themselves.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Proposals by id, decided and expired ones included.
    pub const fn proposals(&self) -> &Table<Digest, ProposalRecord> {
        &self.proposals
    }

    /// The votes on a proposal, by member, those of former members included.
    pub fn ballots(&self, proposal: &Digest) -> impl Iterator<Item = (&MemberId, &Ballot)> {
        // A member id has at most 64 characters below `{`, so this bound lies behind all of them.
        let range = self.ballots.range((*proposal, String::new()), (*proposal, "{".to_owned()));
        range.map(|((_, member), ballot)| (member, ballot))
    }

    /// Evidence that somebody has signed two histories, by the id of the [finding](crate::governance::Finding).
    pub const fn evidence(&self) -> &Table<Digest, EvidenceRecord> {
        &self.evidence
    }

    /// How the vote on a proposal stands among the members that there are now.
    pub fn tally(&self, proposal: &Digest) -> Tally {
        let members = self.members.len() as u64;
        let mut tally = Tally { members, needed: approvals_needed(members), ..Tally::default() };
        for (_, ballot) in self.ballots(proposal).filter(|(member, _)| self.members.get(member).is_some()) {
            if ballot.approve {
                tally.approvals += 1;
            } else {
                tally.rejections += 1;
            }
        }
        tally
    }

    /// Proposals that can be voted on in the entry at `index`.
    pub fn open_proposals(&self, index: u64) -> impl Iterator<Item = (&Digest, &ProposalRecord)> {
        let open = self.open_proposals.range((index, Digest::default())..);
        open.filter_map(|(_, id)| Some((id, self.proposals.get(id)?)))
    }

    pub(crate) fn forget_expired_proposals(&mut self, index: u64) {
        self.open_proposals = self.open_proposals.split_off(&(index, Digest::default()));
    }

    pub(crate) fn set_policy(&mut self, policy: Policy, writes: &mut WriteSet) {
        writes.put(vec![POLICY_TAG], &policy);
        self.policy = policy;
    }

    pub(crate) fn set_epoch(&mut self, epoch: Epoch, writes: &mut WriteSet) {
        self.epochs.put(epoch.number, epoch.clone(), writes);
        self.epoch = epoch;
    }

    /// Records what the genesis file says.
    pub(super) fn found(&mut self, writes: &mut WriteSet) {
        for member in self.genesis.members.clone() {
            let record = MemberRecord { member: member.clone(), admitted_index: 0, revoked_index: None };
            self.member_records.put(member.id.clone(), record, writes);
            self.members.insert(member);
        }
        self.set_policy(self.policy, writes);
        self.set_epoch(self.epoch.clone(), writes);
    }

    pub(super) fn restore_policy(&mut self, value: &[u8]) -> Result<(), String> {
        let policy = codec::decode(value, RECORD_SIZE_BYTES_MAX);
        self.policy = policy.map_err(|error| format!("the record of the policy is damaged: {error}"))?;
        Ok(())
    }

    /// Derives from the records what is kept beside them.
    pub(super) fn restore_derived(&mut self) -> Result<(), String> {
        let current = self.member_records.iter().filter(|(_, record)| record.revoked_index.is_none());
        self.members = Members::new(current.map(|(_, record)| record.member.clone()));
        let (_, newest) = self.epochs.iter().next_back().ok_or("there is no record of an epoch")?;
        self.epoch = newest.clone();
        let open = self.proposals.iter().filter(|(_, record)| record.status == ProposalStatus::Open);
        self.open_proposals = open.map(|(id, record)| (record.content.expires_index, *id)).collect();
        let joined = |participation: &&Participation| matches!(participation, Participation::Joined { .. });
        self.settled = self.participations.iter().filter(|(_, done)| !joined(done)).count() as u64;
        self.restore_kept();
        Ok(())
    }
}
