//! Contributions that were refused on record: late, double or wrong ones.

use std::collections::BTreeMap;

use fedledger_ledger::{log::Entry, machine::RejectionCode};
use serde::Serialize;

use crate::{Command, Federation, command::RoundKey, member::MemberId};

/// Most refused contributions that are remembered of an attempt. A participant can submit as many as it likes.
pub const REFUSED_PER_ROUND_MAX: usize = 256;

/// A contribution that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedContribution {
    /// Whose it was.
    pub member: MemberId,
    /// Its place in the ledger.
    pub index: u64,
    /// The rejection's code.
    pub code: String,
    /// Why, in words.
    pub reason: String,
}

/// The contribution that an entry refuses, if that is what it does, with the attempt that it was for. Attempts that there
/// never were are nobody's business.
pub(super) fn refused(state: &Federation, entry: &Entry<Federation>) -> Option<(RoundKey, RefusedContribution)> {
    let Some(Err(rejection)) = &entry.result else { return None };
    let Ok(Command::Contribute(command)) = Command::decode(&entry.transaction.kind, &entry.transaction.payload) else {
        return None;
    };
    let author = state.members().author(&entry.transaction.author)?;
    if !state.rounds().contains(&command.key) {
        return None;
    }
    let (code, reason) = (rejection.code().to_owned(), rejection.to_string());
    Some((command.key, RefusedContribution { member: author.member.clone(), index: entry.leaf.index, code, reason }))
}

/// Remembers a refused contribution, unless there are too many.
pub(super) fn remember(
    all: &mut BTreeMap<RoundKey, Vec<RefusedContribution>>,
    found: Option<(RoundKey, RefusedContribution)>,
) {
    let Some((key, refused)) = found else { return };
    let of_round = all.entry(key).or_default();
    if of_round.len() < REFUSED_PER_ROUND_MAX {
        of_round.push(refused);
    }
}
