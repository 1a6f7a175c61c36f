//! The replicated state of a federation, and questions about it.

mod kept;
mod membership;

use std::collections::BTreeSet;

use fedledger_ledger::{
    Digest, PublicKey, codec,
    epoch::Epoch,
    machine::{StateMachine, WriteSet},
};

pub(crate) use self::kept::RetentionRevision;
use crate::{
    Event, Rejection, VersionId, apply, cohort,
    command::RoundKey,
    governance::{Ballot, EvidenceRecord, Policy, ProposalRecord, RevokedKey},
    limits::RECORD_SIZE_BYTES_MAX,
    member::{Genesis, MemberId, Members},
    records::{
        EvaluationRecord, MemberRecord, Participation, Phase, PlanRecord, RoundRecord, VersionRecord, VersionStatus,
    },
    table::Table,
};

/// Tag of the one record that holds the genesis file.
const GENESIS_TAG: u8 = 0;

/// Tag of the one record that holds the policy.
const POLICY_TAG: u8 = 12;

/// The replicated state machine of learning.
///
/// Every replica, participant and auditor that applies the same transactions holds the same state.
#[derive(Debug, Clone)]
pub struct Federation {
    pub(crate) genesis: Genesis,
    /// The members that there are now, as in `member_records`.
    pub(crate) members: Members,
    /// The last of `epochs`.
    pub(crate) epoch: Epoch,
    pub(crate) policy: Policy,
    /// Open proposals in `proposals` by their last index; those that have expired may be left out.
    pub(crate) open_proposals: BTreeSet<(u64, Digest)>,
    pub(crate) member_records: Table<MemberId, MemberRecord>,
    pub(crate) revoked_keys: Table<PublicKey, RevokedKey>,
    pub(crate) epochs: Table<u64, Epoch>,
    pub(crate) proposals: Table<Digest, ProposalRecord>,
    pub(crate) ballots: Table<(Digest, MemberId), Ballot>,
    pub(crate) evidence: Table<Digest, EvidenceRecord>,
    pub(crate) plans: Table<Digest, PlanRecord>,
    pub(crate) rounds: Table<RoundKey, RoundRecord>,
    pub(crate) participations: Table<(RoundKey, MemberId), Participation>,
    pub(crate) versions: Table<VersionId, VersionRecord>,
    pub(crate) branches: Table<String, VersionId>,
    pub(crate) tags: Table<String, VersionId>,
    pub(crate) evaluations: Table<(VersionId, MemberId), EvaluationRecord>,
    /// Versions by number.
    pub(crate) numbers: Table<u64, VersionId>,
    /// How often somebody selected for a round has declined, contributed or been excluded, as applied in this process.
    pub(crate) settled: u64,
    /// Which files are kept, as the records say.
    pub(crate) kept: kept::Kept,
}

impl Federation {
    fn new(genesis: Genesis) -> Self {
        Self {
            members: Members::default(),
            epoch: genesis.epoch(),
            policy: Policy::of(&genesis),
            open_proposals: BTreeSet::new(),
            genesis,
            member_records: Table::new(9),
            revoked_keys: Table::new(10),
            epochs: Table::new(11),
            proposals: Table::new(13),
            ballots: Table::new(14),
            evidence: Table::new(15),
            plans: Table::new(1),
            rounds: Table::new(2),
            participations: Table::new(3),
            versions: Table::new(4),
            branches: Table::new(5),
            tags: Table::new(6),
            evaluations: Table::new(7),
            numbers: Table::new(8),
            settled: 0,
            kept: kept::Kept::default(),
        }
    }

    /// The consortium as it began.
    pub const fn consortium(&self) -> &Genesis {
        &self.genesis
    }

    /// Plans by id.
    pub const fn plans(&self) -> &Table<Digest, PlanRecord> {
        &self.plans
    }

    /// Attempts at rounds.
    pub const fn rounds(&self) -> &Table<RoundKey, RoundRecord> {
        &self.rounds
    }

    /// Versions by id, candidates and rejected ones included.
    pub const fn versions(&self) -> &Table<VersionId, VersionRecord> {
        &self.versions
    }

    /// Attested versions by number.
    pub const fn numbers(&self) -> &Table<u64, VersionId> {
        &self.numbers
    }

    /// Heads of branches by name.
    pub const fn branches(&self) -> &Table<String, VersionId> {
        &self.branches
    }

    /// Tagged versions by tag.
    pub const fn tags(&self) -> &Table<String, VersionId> {
        &self.tags
    }

    /// What the selected participants did in a round, by member.
    pub fn participations(&self, key: &RoundKey) -> impl Iterator<Item = (&MemberId, &Participation)> {
        // A member id has at most 64 characters below `{`, so this bound lies behind all of them.
        let range = self.participations.range((*key, String::new()), (*key, "{".to_owned()));
        range.map(|((_, member), participation)| (member, participation))
    }

    /// What one member did in a round.
    pub fn participation(&self, key: &RoundKey, member: &MemberId) -> Option<&Participation> {
        self.participations.get(&(*key, member.clone()))
    }

    /// A member's evaluation of a version.
    pub fn evaluation(&self, version: &VersionId, member: &MemberId) -> Option<&EvaluationRecord> {
        self.evaluations.get(&(*version, member.clone()))
    }

    /// Changes whenever what is collected in a round may be more or less than it was.
    pub(crate) const fn settled(&self) -> u64 {
        self.settled
    }

    /// Records what a member did in a round, beside joining it.
    pub(crate) fn settle_participation(
        &mut self,
        key: (RoundKey, MemberId),
        participation: Participation,
        writes: &mut WriteSet,
    ) {
        self.participations.put(key, participation, writes);
        self.settled = self.settled.wrapping_add(1);
    }

    /// The evaluations of a version, by member.
    pub fn evaluations(&self, version: &VersionId) -> impl Iterator<Item = (&MemberId, &EvaluationRecord)> {
        let range = self.evaluations.range((*version, String::new()), (*version, "{".to_owned()));
        range.map(|((_, member), evaluation)| (member, evaluation))
    }

    /// The certificate of an attempt at a round, as far as it has come.
    pub fn certificate(&self, key: &RoundKey) -> Option<crate::event::Certificate> {
        apply::certificate::certificate(self, key)
    }

    /// The attested version that a branch points at.
    pub fn head(&self, branch: &str) -> Option<(&VersionId, &VersionRecord)> {
        let id = self.branches.get(&branch.to_owned())?;
        Some((id, self.versions.get(id)?))
    }

    /// Participants that consent to a plan, by id.
    pub fn enrolled(&self, plan: &PlanRecord) -> Vec<MemberId> {
        plan.consents.keys().cloned().collect()
    }

    /// The participants of the round that is next, as the plan and its base determine them.
    pub fn next_cohort(&self, key: &RoundKey, plan: &PlanRecord, base: &VersionRecord) -> Vec<MemberId> {
        let weights = base.manifest.weights().map(|file| file.digest).unwrap_or_default();
        let participation = &plan.plan.participation;
        cohort::draw(&self.enrolled(plan), &participation.required_members, participation.cohort_size, key, &weights)
    }

    /// The attempt that is next in a plan.
    pub const fn next_key(plan_id: Digest, plan: &PlanRecord) -> RoundKey {
        RoundKey { plan: plan_id, round: plan.next_round, attempt: plan.next_attempt }
    }

    /// The plan that is being carried out on a branch.
    pub fn active_plan(&self, branch: &str) -> Option<(&Digest, &PlanRecord)> {
        self.plans.iter().find(|(_, record)| record.status.is_active() && record.plan.branch == branch)
    }

    /// The candidate of a closed round.
    pub fn candidate(&self, key: &RoundKey) -> Option<VersionId> {
        match self.rounds.get(key)?.phase {
            Phase::Closed { candidate, .. } => candidate,
            Phase::Collecting | Phase::Completed { .. } | Phase::Abandoned { .. } => None,
        }
    }

    /// Whether `ancestor` is reached from `version` through parents, or is the same.
    pub fn is_ancestor(&self, ancestor: &VersionId, version: &VersionId) -> bool {
        self.ancestry(version).any(|id| id == *ancestor)
    }

    /// A version and its first parents, newest first.
    pub fn ancestry(&self, version: &VersionId) -> impl Iterator<Item = VersionId> {
        std::iter::successors(Some(*version), |id| self.versions.get(id)?.manifest.parents.first().copied())
    }

    /// Attested versions with their records, by number.
    pub fn attested(&self) -> impl DoubleEndedIterator<Item = (u64, &VersionId, &VersionRecord)> {
        self.numbers.iter().filter_map(|(number, id)| Some((*number, id, self.versions.get(id)?)))
    }

    /// Whether a file belongs to an attested version that keeps it, and may therefore be read by every member.
    pub fn is_version_file(&self, digest: &Digest) -> bool {
        self.versions.iter().rev().any(|(_, record)| {
            let files = record.manifest.artifacts.values();
            record.number().is_some()
                && record.pruned.files.is_none()
                && files.into_iter().any(|artifact| artifact.cid.digest() == digest)
        })
    }

    /// Replicas that must agree on a version: more than half of those there are.
    pub fn attestation_quorum(&self) -> usize {
        self.epoch.replicas.len() / 2 + 1
    }

    /// SHA-256 over every record, in the order of keys: two replicas with the same digest hold the same state.
    pub fn digest(&self) -> Digest {
        let mut all = WriteSet::default();
        all.put(vec![GENESIS_TAG], &self.genesis);
        fill(&self.plans, &mut all);
        fill(&self.rounds, &mut all);
        fill(&self.participations, &mut all);
        fill(&self.versions, &mut all);
        fill(&self.branches, &mut all);
        fill(&self.tags, &mut all);
        fill(&self.evaluations, &mut all);
        fill(&self.numbers, &mut all);
        fill(&self.member_records, &mut all);
        fill(&self.revoked_keys, &mut all);
        fill(&self.epochs, &mut all);
        all.put(vec![POLICY_TAG], &self.policy);
        fill(&self.proposals, &mut all);
        fill(&self.ballots, &mut all);
        fill(&self.evidence, &mut all);
        all.digest()
    }

    pub(crate) fn is_attested(&self, version: &VersionId) -> bool {
        let record = self.versions.get(version);
        record.is_some_and(|record| matches!(record.status, VersionStatus::Attested { .. }))
    }

    fn restore_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (tag, key) = key.split_first().ok_or("a record without a table")?;
        let restored = match *tag {
            1 => self.plans.restore(key, value),
            2 => self.rounds.restore(key, value),
            3 => self.participations.restore(key, value),
            4 => self.versions.restore(key, value),
            5 => self.branches.restore(key, value),
            6 => self.tags.restore(key, value),
            7 => self.evaluations.restore(key, value),
            8 => self.numbers.restore(key, value),
            9 => self.member_records.restore(key, value),
            10 => self.revoked_keys.restore(key, value),
            11 => self.epochs.restore(key, value),
            POLICY_TAG if key.is_empty() => return self.restore_policy(value),
            13 => self.proposals.restore(key, value),
            14 => self.ballots.restore(key, value),
            15 => self.evidence.restore(key, value),
            tag => return Err(format!("a record of unknown table {tag}")),
        };
        restored.map_err(|error| error.to_string())
    }
}

fn fill<K, V>(table: &Table<K, V>, all: &mut WriteSet)
where
    K: Ord + Clone + serde::Serialize + serde::de::DeserializeOwned,
    V: serde::Serialize + serde::de::DeserializeOwned,
{
    for (key, value) in table.iter() {
        all.put([vec![table.tag()], codec::encode(key)].concat(), value);
    }
}

impl StateMachine for Federation {
    type Event = Event;
    type Rejection = Rejection;

    fn apply(
        &mut self,
        index: u64,
        author: &fedledger_ledger::PublicKey,
        kind: &str,
        payload: &[u8],
        writes: &mut WriteSet,
    ) -> Result<Event, Rejection> {
        apply::apply(self, index, author, kind, payload, writes)
    }

    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    fn genesis(bytes: &[u8], writes: &mut WriteSet) -> Result<Self, String> {
        let genesis = Genesis::parse(bytes).map_err(|error| error.to_string())?;
        writes.put(vec![GENESIS_TAG], &genesis);
        let mut state = Self::new(genesis);
        state.found(writes);
        Ok(state)
    }

    fn restore(records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, String> {
        // The genesis record has the smallest key.
        let (key, value) = records.next().ok_or("there are no state records")?;
        if key != [GENESIS_TAG] {
            return Err("the genesis record is missing".to_owned());
        }
        let genesis = codec::decode(&value, RECORD_SIZE_BYTES_MAX).map_err(|error| error.to_string())?;
        let mut state = Self::new(genesis);
        for (key, value) in records {
            state.restore_record(&key, &value)?;
        }
        state.restore_derived()?;
        Ok(state)
    }
}
