//! Which files somebody still needs, derived from the records: looking it up must not take longer the more there ever was.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_ledger::{Digest, machine::WriteSet};

use super::Federation;
use crate::{
    VersionId,
    command::RoundKey,
    records::{Participation, Phase, VersionRecord, VersionStatus},
    retention::{Pruned, Retention, is_abandoned},
};

/// What is kept, and what was pruned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// How many records that keep their files name each file.
    names: BTreeMap<Digest, u64>,
    /// Numbers of versions whose rounds keep their updates.
    pub(crate) with_updates: BTreeSet<u64>,
    /// Numbers of versions that keep their weights and optimiser state.
    pub(crate) with_files: BTreeSet<u64>,
    /// Attempts given up that keep updates.
    pub(crate) attempts: BTreeSet<RoundKey>,
    /// Pinned versions.
    pub(crate) pinned: BTreeSet<VersionId>,
    /// What the entry at each index has pruned.
    pruned: BTreeMap<u64, PrunedThing>,
}

/// Tells states apart in which the rules may keep other files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetentionRevision {
    retention: Retention,
    changes: [u64; 4],
}

/// Something that was pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrunedThing {
    Version(VersionId),
    Round(RoundKey),
}

impl Kept {
    pub(crate) fn name(&mut self, file: Digest) {
        *self.names.entry(file).or_default() += 1;
    }

    pub(crate) fn unname(&mut self, file: &Digest) {
        if let Some(count) = self.names.get_mut(file) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.names.remove(file);
            }
        }
    }
}

impl Federation {
    /// Whether a version, candidate, round or attempt that keeps its files names this one. Files that the ledger names but
    /// nothing keeps were pruned.
    pub fn retains(&self, file: &Digest) -> bool {
        self.kept.names.contains_key(file)
    }

    /// Attested versions that keep their weights and optimiser state.
    pub fn versions_with_files(&self) -> usize {
        self.kept.with_files.len()
    }

    /// Attested versions whose rounds keep their updates.
    pub fn versions_with_updates(&self) -> usize {
        self.kept.with_updates.len()
    }

    /// Files that entries from this index on have let go and that nothing keeps, with the index of the entry, in its order.
    pub fn discarded_since(&self, index: u64) -> impl Iterator<Item = (u64, Vec<Digest>)> {
        self.kept.pruned.range(index..).map(|(index, thing)| {
            let mut files = match thing {
                PrunedThing::Round(key) => self.updates(key).collect(),
                PrunedThing::Version(version) => self.released_by(*index, version),
            };
            files.retain(|file| !self.retains(file));
            (*index, files)
        })
    }

    /// Changes whenever the rules may keep other files.
    pub(crate) const fn retention_revision(&self) -> RetentionRevision {
        let changes = [self.branches.changes(), self.tags.changes(), self.versions.changes(), self.rounds.changes()];
        RetentionRevision { retention: self.policy.retention, changes }
    }

    /// Updates of an attempt's contributions, whatever became of them.
    pub(crate) fn updates(&self, key: &RoundKey) -> impl Iterator<Item = Digest> {
        self.participations(key).filter_map(|(_, participation)| match participation {
            Participation::Contributed { contribution, .. } => Some(contribution.update),
            Participation::Joined { .. } | Participation::Declined { .. } | Participation::Revoked { .. } => None,
        })
    }

    /// The attempts that led to a version: one, but for those that did so again after a rollback.
    pub(crate) fn attempts_at(&self, version: &VersionId) -> Vec<RoundKey> {
        let Some(record) = self.versions.get(version) else { return Vec::new() };
        let (from, to) = (RoundKey { attempt: 0, ..record.key }, RoundKey { attempt: u64::MAX, ..record.key });
        let led = |phase: &Phase| matches!(phase, Phase::Completed { version: found, .. } if found == version);
        self.rounds.range(from, to).filter(|(_, round)| led(&round.phase)).map(|(key, _)| *key).collect()
    }

    /// The files of a version that the entry at this index has let go.
    fn released_by(&self, index: u64, version: &VersionId) -> Vec<Digest> {
        let record = self.versions.get(version).filter(|record| record.pruned.files == Some(index));
        let artifacts = record.into_iter().flat_map(|record| record.manifest.artifacts.values());
        let mut files: Vec<Digest> = artifacts.map(|artifact| *artifact.cid.digest()).collect();
        for key in self.attempts_at(version) {
            if self.rounds.get(&key).is_some_and(|round| round.pruned_index == Some(index)) {
                files.extend(self.updates(&key));
            }
        }
        files
    }

    /// Takes note of a version's weights and optimiser state.
    pub(crate) fn name_files(&mut self, version: &VersionId) {
        let Some(record) = self.versions.get(version) else { return };
        let files = record.manifest.artifacts.values();
        files.for_each(|artifact| self.kept.name(*artifact.cid.digest()));
    }

    /// Nothing needs the weights and optimiser state of a version any more on its account.
    pub(crate) fn unname_files(&mut self, version: &VersionId) {
        let Some(record) = self.versions.get(version) else { return };
        let files = record.manifest.artifacts.values();
        files.for_each(|artifact| self.kept.unname(artifact.cid.digest()));
    }

    /// A version has got a number, or its files have been made again after they were pruned.
    pub(crate) fn note_made(&mut self, version: &VersionId, number: u64, writes: &mut WriteSet) {
        let Some(record) = self.versions.get(version) else { return };
        let (pruned, has_updates) = (record.pruned, has_updates(record));
        if pruned.files.is_some() {
            self.name_files(version);
        }
        if !pruned.is_nothing() {
            self.versions.update(version, writes, |record| record.pruned = Pruned::default());
        }
        self.kept.with_files.insert(number);
        if has_updates {
            self.kept.with_updates.insert(number);
        }
    }

    /// An attempt was given up.
    pub(crate) fn note_abandoned(&mut self, key: &RoundKey) {
        if self.updates(key).next().is_some() {
            self.kept.attempts.insert(*key);
        }
    }

    /// Lets the updates of an attempt go.
    pub(crate) fn prune_attempt(&mut self, key: &RoundKey, index: u64, writes: &mut WriteSet) {
        for update in self.updates(key).collect::<Vec<_>>() {
            self.kept.unname(&update);
        }
        self.kept.attempts.remove(key);
        self.kept.pruned.entry(index).or_insert(PrunedThing::Round(*key));
        self.rounds.update(key, writes, |round| round.pruned_index = Some(index));
    }

    /// Lets files of an attested version go.
    pub(crate) fn prune_version(&mut self, version: &VersionId, pruned: Pruned, writes: &mut WriteSet) {
        let number = self.versions.get(version).and_then(VersionRecord::number).unwrap_or_default();
        if let Some(index) = pruned.updates {
            self.kept.pruned.insert(index, PrunedThing::Version(*version));
            self.kept.with_updates.remove(&number);
            for key in self.attempts_at(version) {
                if self.rounds.get(&key).is_some_and(|round| round.pruned_index.is_none()) {
                    self.prune_attempt(&key, index, writes);
                }
            }
        }
        if let Some(index) = pruned.files {
            self.kept.pruned.insert(index, PrunedThing::Version(*version));
            self.kept.with_files.remove(&number);
            self.unname_files(version);
        }
        self.versions.update(version, writes, |record| {
            record.pruned.updates = record.pruned.updates.or(pruned.updates);
            record.pruned.files = record.pruned.files.or(pruned.files);
        });
    }

    /// Derives all of this from the records.
    pub(super) fn restore_kept(&mut self) {
        let mut kept = Kept::default();
        for (id, record) in self.versions.iter() {
            restore_version(&mut kept, id, record);
        }
        for (key, round) in self.rounds.iter() {
            match (round.pruned_index, &round.phase) {
                (None, _) => {
                    self.updates(key).for_each(|update| kept.name(update));
                    if is_abandoned(round) && self.updates(key).next().is_some() {
                        kept.attempts.insert(*key);
                    }
                }
                (Some(index), Phase::Completed { version, .. }) => {
                    kept.pruned.insert(index, PrunedThing::Version(*version));
                }
                (Some(index), _) => {
                    kept.pruned.insert(index, PrunedThing::Round(*key));
                }
            }
        }
        self.kept = kept;
    }
}

fn restore_version(kept: &mut Kept, id: &VersionId, record: &VersionRecord) {
    if let Some(index) = record.pruned.files {
        kept.pruned.insert(index, PrunedThing::Version(*id));
    } else if !matches!(record.status, VersionStatus::Rejected | VersionStatus::Withdrawn) {
        record.manifest.artifacts.values().for_each(|artifact| kept.name(*artifact.cid.digest()));
    }
    if record.pinned.is_some() {
        kept.pinned.insert(*id);
    }
    let Some(number) = record.number() else { return };
    if record.pruned.files.is_none() {
        kept.with_files.insert(number);
    }
    if record.pruned.updates.is_none() && has_updates(record) {
        kept.with_updates.insert(number);
    }
}

/// Whether updates belong to a version: initial ones are made of nothing.
const fn has_updates(record: &VersionRecord) -> bool {
    record.manifest.round > 0
}
