//! Retention: which files the consortium keeps, and which it lets go, by rules that stand on the ledger.
//!
//! The members fix by vote how many of the newest versions keep their weights and optimiser state, and how many keep the
//! updates that they were made of ([`Retention`]). What is older is pruned: a replica says so on the ledger, one version or
//! attempt at a time, every replica checks it against the same rules ([`Horizon`]), and only then are files deleted. What a
//! branch points at, what is tagged or pinned, and what rounds in progress train on is kept at any age. Entries, manifests
//! and digests stay for ever, so that what was pruned can be told from what is missing.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    Command, Federation, Rejection, VersionId,
    command::RoundKey,
    records::{Phase, RoundRecord, VersionRecord},
};

/// Fewest versions of which the files are kept: a branch's head and the one to go back to.
const VERSIONS_MIN: u64 = 2;

/// How many of the newest versions keep their files; what is not said is kept for ever.
///
/// A version is among the newest `n` if less than `n` steps lead to it from the head of a branch, or if less than `n`
/// versions were attested after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Versions that keep the updates of their rounds; at least one, and fewer than `versions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// Versions that keep their weights and optimiser state; at least two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<u64>,
}

/// Lets files of a version go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneVersion {
    /// The version.
    pub version: VersionId,
    /// Whether the updates of its rounds go, those that were left out included.
    pub updates: bool,
    /// Whether its weights and optimiser state go.
    pub files: bool,
}

/// Lets the updates of an attempt go that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRound {
    /// The attempt.
    pub key: RoundKey,
}

/// Keeps everything of a version at any age, or leaves it to the rules again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinVersion {
    /// The version.
    pub version: VersionId,
    /// Whether it is kept.
    pub pinned: bool,
    /// Why, in words.
    pub reason: String,
}

/// What of a version has been pruned, and by which entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pruned {
    /// Index of the entry that let the updates of its rounds go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// Index of the entry that let its weights and optimiser state go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

/// Why files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptFor {
    /// The members have fixed no limit for files of this kind.
    Policy,
    /// They belong to one of so many newest versions, or to an attempt that began with one.
    Newest(u64),
    /// A branch points at the version.
    Branch,
    /// The version is tagged.
    Tag,
    /// The version is pinned.
    Pin,
    /// A round in progress trains on the version.
    Round,
    /// A tagged or pinned version was made from it and could not be computed again without it.
    Base,
}

impl fmt::Display for KeptFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("no limit is fixed for them: see `fedledger proposal new change-retention`"),
            Self::Newest(count) => write!(f, "the newest {count} keep them"),
            Self::Branch => f.write_str("a branch points at the version"),
            Self::Tag => f.write_str("the version is tagged"),
            Self::Pin => f.write_str("the version is pinned"),
            Self::Round => f.write_str("a round in progress trains on the version"),
            Self::Base => f.write_str("a tagged or pinned version was made from it"),
        }
    }
}

impl Retention {
    /// Whether nothing is ever pruned.
    pub const fn keeps_all(&self) -> bool {
        self.updates.is_none() && self.versions.is_none()
    }

    /// Whether a consortium can work with it: what is kept of a version must suffice to go back to it, and a version that
    /// keeps its updates needs its base to be computed again.
    ///
    /// # Errors
    ///
    /// [`Rejection::RetentionTooShort`].
    pub const fn check(&self) -> Result<(), Rejection> {
        let possible = match (self.updates, self.versions) {
            (Some(0), _) => false,
            (Some(updates), Some(versions)) => versions > updates,
            (None, Some(versions)) => versions >= VERSIONS_MIN,
            (_, None) => true,
        };
        if possible { Ok(()) } else { Err(Rejection::RetentionTooShort) }
    }
}

impl Pruned {
    /// Whether everything is still kept.
    pub const fn is_nothing(&self) -> bool {
        self.updates.is_none() && self.files.is_none()
    }
}

/// What the rules keep, as the state is now. To make one takes as long as the branches' newest versions are many.
#[derive(Debug)]
pub struct Horizon<'a> {
    state: &'a Federation,
    retention: Retention,
    /// Steps from the nearest head, for versions within reach of the rules.
    depths: BTreeMap<VersionId, u64>,
    heads: BTreeSet<VersionId>,
    tagged: BTreeSet<VersionId>,
    /// What rounds in progress train on.
    in_use: BTreeSet<VersionId>,
    /// What tagged and pinned versions that keep their updates were made from.
    bases: BTreeSet<VersionId>,
}

impl<'a> Horizon<'a> {
    /// The horizon of a state.
    pub fn of(state: &'a Federation) -> Self {
        let retention = state.policy().retention;
        let reach = retention.updates.max(retention.versions).unwrap_or(0);
        let open = state.plans().iter().filter_map(|(_, record)| state.rounds().get(&record.open?));
        let tagged: BTreeSet<VersionId> = state.tags().iter().map(|(_, version)| *version).collect();
        let named = tagged.iter().chain(&state.kept.pinned).filter_map(|version| state.versions().get(version));
        let whole = named.filter(|record| record.pruned.updates.is_none());
        Self {
            state,
            retention,
            depths: depths(state, reach),
            heads: state.branches().iter().map(|(_, head)| *head).collect(),
            in_use: open.map(|round| round.base).collect(),
            bases: whole.flat_map(|record| record.manifest.parents.iter().copied()).collect(),
            tagged,
        }
    }

    /// Why the updates of a version's rounds are kept; `None` if the rules let them go.
    pub fn updates_kept_for(&self, version: &VersionId, record: &VersionRecord) -> Option<KeptFor> {
        let Some(count) = self.retention.updates else { return Some(KeptFor::Policy) };
        self.among_newest(version, record, count).or_else(|| self.named(version, record))
    }

    /// Why a version's weights and optimiser state are kept; `None` if the rules let them go.
    pub fn files_kept_for(&self, version: &VersionId, record: &VersionRecord) -> Option<KeptFor> {
        let Some(count) = self.retention.versions else { return Some(KeptFor::Policy) };
        let is_base = || self.bases.contains(version).then_some(KeptFor::Base);
        self.among_newest(version, record, count).or_else(|| self.named(version, record)).or_else(is_base)
    }

    /// Why the updates of an attempt are kept that was given up; `None` if the rules let them go.
    pub fn attempt_kept_for(&self, round: &RoundRecord) -> Option<KeptFor> {
        let Some(count) = self.retention.updates else { return Some(KeptFor::Policy) };
        self.among_newest(&round.base, self.state.versions().get(&round.base)?, count)
    }

    /// The oldest thing that the rules let go, if there is one.
    pub fn next(&self) -> Option<Command> {
        self.next_version().map(Command::PruneVersion).or_else(|| self.next_attempt().map(Command::PruneRound))
    }

    fn next_version(&self) -> Option<PruneVersion> {
        let kept = &self.state.kept;
        let with_updates = self.retention.updates.map(|_| kept.with_updates.iter()).into_iter().flatten();
        let with_files = self.retention.versions.map(|_| kept.with_files.iter()).into_iter().flatten();
        let updates = self.first(with_updates, Self::updates_kept_for);
        let files = self.first(with_files, Self::files_kept_for);
        let number = [updates, files].into_iter().flatten().min()?;
        let version = *self.state.numbers().get(&number)?;
        let record = self.state.versions().get(&version)?;
        let updates = kept.with_updates.contains(&number) && self.updates_kept_for(&version, record).is_none();
        let files = kept.with_files.contains(&number) && self.files_kept_for(&version, record).is_none();
        Some(PruneVersion { version, updates, files })
    }

    /// The first of these versions, by number, that is kept for no reason.
    fn first<'n>(
        &self,
        mut numbers: impl Iterator<Item = &'n u64>,
        kept_for: impl Fn(&Self, &VersionId, &VersionRecord) -> Option<KeptFor>,
    ) -> Option<u64> {
        let is_free = |number: &&u64| {
            let version = self.state.numbers().get(number);
            let record = version.and_then(|version| Some((version, self.state.versions().get(version)?)));
            record.is_some_and(|(version, record)| kept_for(self, version, record).is_none())
        };
        numbers.find(is_free).copied()
    }

    fn next_attempt(&self) -> Option<PruneRound> {
        self.retention.updates?;
        let rounds = self.state.kept.attempts.iter().filter_map(|key| Some((key, self.state.rounds().get(key)?)));
        let mut free = rounds.filter(|(_, round)| self.attempt_kept_for(round).is_none());
        free.next().map(|(key, _)| PruneRound { key: *key })
    }

    fn among_newest(&self, version: &VersionId, record: &VersionRecord, count: u64) -> Option<KeptFor> {
        let near = self.depths.get(version).is_some_and(|depth| *depth < count);
        let later = |number| (self.state.numbers().len() as u64).saturating_sub(number);
        let young = record.number().is_none_or(|number| later(number) <= count);
        (near || young).then_some(KeptFor::Newest(count))
    }

    fn named(&self, version: &VersionId, record: &VersionRecord) -> Option<KeptFor> {
        if self.heads.contains(version) {
            Some(KeptFor::Branch)
        } else if self.tagged.contains(version) {
            Some(KeptFor::Tag)
        } else if record.pinned.is_some() {
            Some(KeptFor::Pin)
        } else if self.in_use.contains(version) {
            Some(KeptFor::Round)
        } else {
            None
        }
    }
}

/// Steps from the nearest head to each version that less than `reach` steps lead to.
fn depths(state: &Federation, reach: u64) -> BTreeMap<VersionId, u64> {
    let mut depths = BTreeMap::new();
    for (_, head) in state.branches().iter() {
        for (depth, version) in (0..reach).zip(state.ancestry(head)) {
            match depths.entry(version) {
                Entry::Vacant(vacant) => {
                    vacant.insert(depth);
                }
                Entry::Occupied(mut nearest) if *nearest.get() > depth => {
                    nearest.insert(depth);
                }
                // Everything behind it is as near to the other head.
                Entry::Occupied(_) => break,
            }
        }
    }
    depths
}

/// Whether an attempt was given up.
pub(crate) const fn is_abandoned(round: &RoundRecord) -> bool {
    matches!(round.phase, Phase::Abandoned { .. })
}
