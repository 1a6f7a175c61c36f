//! Names that people type for versions and plans, and short forms of long ones.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_federation::{Federation, VersionId};
use fedledger_ledger::Digest;

use crate::error::{Exit, Failure};

/// Fewest characters of a version's id that are shown: the first seven are the same in all.
const VERSION_LENGTH_MIN: usize = 13;

/// Fewest digits of a digest that are shown.
const DIGEST_LENGTH_MIN: usize = 8;

/// Most candidates that an error lists.
const CANDIDATES_MAX: usize = 10;

/// What a name is for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A version.
    Version,
    /// A plan.
    Plan,
    /// A proposal.
    Proposal,
}

/// Shortens ids as far as they stay unique.
#[derive(Debug)]
pub(crate) struct Short {
    version_length: usize,
    plan_length: usize,
    proposal_length: usize,
    numbers: BTreeMap<VersionId, u64>,
}

impl Short {
    /// For the ids in `state`.
    pub fn of(state: &Federation) -> Self {
        let versions = state.versions().iter().map(|(id, _)| id.to_string()).collect();
        let proposals = state.proposals().iter().map(|(id, _)| id.to_string()).collect();
        let plans = state.plans().iter().map(|(id, _)| id.to_string()).collect();
        Self {
            version_length: unique_length(&versions, VERSION_LENGTH_MIN),
            plan_length: unique_length(&plans, DIGEST_LENGTH_MIN),
            proposal_length: unique_length(&proposals, DIGEST_LENGTH_MIN),
            numbers: state.numbers().iter().map(|(number, id)| (*id, *number)).collect(),
        }
    }

    /// A version's id, shortened.
    pub fn version(&self, id: &VersionId) -> String {
        id.to_string().chars().take(self.version_length).collect()
    }

    /// A version by its number, if it has one, else by its shortened id.
    pub fn number(&self, id: &VersionId) -> String {
        self.numbers.get(id).map_or_else(|| self.version(id), |number| format!("v{number}"))
    }

    /// A plan's id, shortened.
    pub fn plan(&self, id: &Digest) -> String {
        id.to_string().chars().take(self.plan_length).collect()
    }

    /// A proposal's id, shortened.
    pub fn proposal(&self, id: &Digest) -> String {
        id.to_string().chars().take(self.proposal_length).collect()
    }
}

impl Kind {
    /// The word for it.
    const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Plan => "plan",
            Self::Proposal => "proposal",
        }
    }

    /// Which commands list the names.
    const fn listed_by(self) -> &'static str {
        match self {
            Self::Version => "`fedledger log` lists the versions, and `fedledger branch list` the branches",
            Self::Plan => "`fedledger plan list` lists the plans",
            Self::Proposal => "`fedledger proposal list` lists the proposals",
        }
    }
}

/// The first digits of a digest, where there is nothing to confuse it with.
pub(crate) fn short_digest(digest: &Digest) -> String {
    digest.to_string().chars().take(DIGEST_LENGTH_MIN).collect()
}

/// How many characters tell all of these texts apart.
fn unique_length(texts: &BTreeSet<String>, least: usize) -> usize {
    let neighbours = texts.iter().zip(texts.iter().skip(1));
    let common = neighbours.map(|(a, b)| a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count() + 1);
    common.max().unwrap_or(least).max(least)
}

/// The version that `text` names: a branch, a tag, a number (`3` or `v3`), or a unique beginning of a branch, tag, id
/// or digest.
///
/// # Errors
///
/// A [`Failure`] that lists what may have been meant.
pub(crate) fn version(state: &Federation, text: &str) -> Result<VersionId, Failure> {
    let number = text.strip_prefix('v').unwrap_or(text).parse::<u64>().ok();
    let exact = [
        state.branches().get(&text.to_owned()),
        state.tags().get(&text.to_owned()),
        number.and_then(|number| state.numbers().get(&number)),
    ];
    let named = |table: &fedledger_federation::table::Table<String, VersionId>| -> Vec<VersionId> {
        table.iter().filter(|(name, _)| name.starts_with(text)).map(|(_, id)| *id).collect()
    };
    let begins = |id: &VersionId| id.to_string().starts_with(text) || id.digest().to_string().starts_with(text);
    let versions = state.versions().iter().map(|(id, _)| *id);
    let beginning = versions.filter(begins).chain(named(state.branches())).chain(named(state.tags()));
    let short = Short::of(state);
    let describe = |id: &VersionId| format!("{} {}", short.number(id), short.version(id));
    choose(Kind::Version, text, exact.into_iter().flatten().copied().collect(), beginning.collect(), describe, || {
        state.numbers().iter().rev().map(|(_, id)| *id).collect()
    })
}

/// The plan that `text` names: a name that only one plan has, or a unique beginning of a name or id.
///
/// # Errors
///
/// A [`Failure`] that lists what may have been meant.
pub(crate) fn plan(state: &Federation, text: &str) -> Result<Digest, Failure> {
    let exact = state.plans().iter().filter(|(_, record)| record.plan.name == text).map(|(id, _)| *id);
    let begins = |id: &Digest, name: &str| id.to_string().starts_with(text) || name.starts_with(text);
    let beginning = state.plans().iter().filter(|(id, record)| begins(id, &record.plan.name)).map(|(id, _)| *id);
    let short = Short::of(state);
    let name = |id: &Digest| state.plans().get(id).map(|record| record.plan.name.clone()).unwrap_or_default();
    let describe = |id: &Digest| format!("{} {}", short.plan(id), name(id));
    choose(Kind::Plan, text, exact.collect(), beginning.collect(), describe, || {
        state.plans().iter().map(|(id, _)| *id).collect()
    })
}

/// The proposal whose id begins with `text`.
///
/// # Errors
///
/// A [`Failure`] that lists what may have been meant.
pub(crate) fn proposal(state: &Federation, text: &str) -> Result<Digest, Failure> {
    let ids = || state.proposals().iter().map(|(id, _)| *id);
    let beginning = ids().filter(|id| id.to_string().starts_with(text)).collect();
    let short = Short::of(state);
    let action = |id: &Digest| state.proposals().get(id).map_or("", |record| record.content.action.name());
    let describe = |id: &Digest| format!("{} {}", short.proposal(id), action(id));
    choose(Kind::Proposal, text, BTreeSet::new(), beginning, describe, || ids().collect())
}

/// The one thing that is meant.
fn choose<T: Copy + Ord>(
    kind: Kind,
    text: &str,
    exact: BTreeSet<T>,
    beginning: BTreeSet<T>,
    describe: impl Fn(&T) -> String,
    all: impl FnOnce() -> Vec<T>,
) -> Result<T, Failure> {
    let what = kind.name();
    let candidates = if exact.is_empty() { beginning } else { exact };
    match candidates.first() {
        Some(only) if candidates.len() == 1 && !text.is_empty() => Ok(*only),
        Some(_) => {
            let candidates = listed(candidates.into_iter().collect(), describe);
            Err(Failure::because(Exit::Failed, format!("{text:?} is ambiguous"), format!("it may mean {candidates}"))
                .next(format!("type more characters of the {what}'s id")))
        }
        None => {
            let known = all();
            let why = if known.is_empty() {
                format!("the ledger has no {what} yet")
            } else {
                format!("there are {}", listed(known, describe))
            };
            Err(Failure::because(Exit::Failed, format!("there is no {what} {text:?}"), why).next(kind.listed_by()))
        }
    }
}

fn listed<T>(candidates: Vec<T>, describe: impl Fn(&T) -> String) -> String {
    let more = candidates.len().saturating_sub(CANDIDATES_MAX);
    let shown: Vec<String> = candidates.iter().take(CANDIDATES_MAX).map(describe).collect();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn short_forms_are_unique() {
        assert_eq!(unique_length(&texts(&[]), 3), 3);
        assert_eq!(unique_length(&texts(&["abcdef", "xyz"]), 3), 3);
        assert_eq!(unique_length(&texts(&["abcdef", "abcdxx", "b"]), 3), 5);
    }

    #[test]
    fn one_beginning_is_enough_and_two_are_too_many() {
        let choose = |text: &str, exact: &[u8], beginning: &[u8]| {
            let set = |ids: &[u8]| ids.iter().copied().collect::<BTreeSet<_>>();
            super::choose(Kind::Version, text, set(exact), set(beginning), u8::to_string, || vec![1, 2, 3])
        };
        assert_eq!(choose("a", &[], &[2]).unwrap(), 2);
        assert_eq!(choose("a", &[1], &[2, 3]).unwrap(), 1, "an exact name goes before beginnings");
        let error = format!("{:?}", choose("a", &[], &[2, 3]).unwrap_err());
        assert!(error.contains("ambiguous") && error.contains("2, 3"), "{error}");
        let error = format!("{:?}", choose("a", &[], &[]).unwrap_err());
        assert!(error.contains("no version") && error.contains("1, 2, 3"), "{error}");
        assert!(choose("", &[], &[2]).is_err(), "nothing names nothing");
    }
}
