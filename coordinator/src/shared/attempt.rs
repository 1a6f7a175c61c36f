//! What peers and files are judged by while a round is in progress.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_federation::{
    Federation,
    command::RoundKey,
    member::MemberId,
    records::{Participation, Phase},
};
use fedledger_ledger::Digest;

/// An attempt at a round that is in progress, or a plan's initial version that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub key: RoundKey,
    /// Whether it collects contributions.
    pub collecting: bool,
    /// Size of every update, in bytes.
    pub size: u64,
    /// The members selected that have neither contributed nor declined.
    pub awaited: BTreeSet<MemberId>,
    /// The updates on the ledger, and whose they are.
    pub contributed: BTreeMap<Digest, BTreeSet<MemberId>>,
    /// Files that this process has computed for the version. The ledger names them once it is proposed.
    pub computed: BTreeSet<Digest>,
}

impl Attempt {
    /// The attempt of a plan, if one is in progress.
    pub fn of(state: &Federation, plan: &Digest) -> Option<Self> {
        let record = state.plans().get(plan)?;
        let size = record.plan.update_size_bytes();
        let (awaited, contributed, computed) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        let Some(key) = record.open else {
            // Also of a plan that is stopped: the conductor proposes again what it has computed once.
            let key = RoundKey { plan: *plan, round: 0, attempt: 0 };
            let begins = record.next_round == 1 && state.head(&record.plan.branch).is_none();
            return begins.then_some(Self { key, collecting: false, size, awaited, contributed, computed });
        };
        let round = state.rounds().get(&key)?;
        let collecting = round.phase == Phase::Collecting;
        let mut attempt = Self { key, collecting, size, awaited, contributed, computed };
        if collecting {
            attempt.awaited.extend(round.cohort.iter().cloned());
        }
        for (member, participation) in state.participations(&key) {
            if let Participation::Contributed { contribution, .. } = participation {
                attempt.contributed.entry(contribution.update).or_default().insert(member.clone());
            }
            if !matches!(participation, Participation::Joined { .. }) {
                attempt.awaited.remove(member);
            }
        }
        Some(attempt)
    }

    /// The same attempt with what was computed for it before.
    pub fn after(self, before: Option<Self>) -> Self {
        match before.filter(|before| before.key == self.key) {
            Some(before) => Self { computed: before.computed, ..self },
            None => self,
        }
    }

    /// Whether it waits for an update of this size from a member.
    pub fn waits_for(&self, member: &MemberId, size: u64) -> bool {
        self.collecting && self.size == size && self.awaited.contains(member)
    }

    /// Whether a file is one of its updates, or may become part of its version.
    pub fn needs(&self, file: &Digest) -> bool {
        self.contributed.contains_key(file) || self.computed.contains(file)
    }
}
