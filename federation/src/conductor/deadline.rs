//! The end of a round's collection, as its leader keeps it.

use crate::{
    Federation,
    command::RoundKey,
    records::{Participation, RoundRecord},
};

/// Longest time for which checks under way are waited for after a round's deadline, in milliseconds: ten minutes. A large
/// update may take minutes to fetch, and one that was made in time is worth them; a round is not held up for ever.
const CHECKS_WAIT_MS_MAX: u64 = 10 * 60 * 1000;

/// When the collection of a round ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// After this time no further contribution is taken into account, in milliseconds.
    at_ms: u64,
    /// Until this time, checks are waited for of contributions that were made before, in milliseconds.
    checks_until_ms: u64,
    /// Once the deadline has passed, the ledger index of the newest contribution made before.
    pub(super) through: Option<u64>,
}

impl Deadline {
    pub(super) fn of(round: &RoundRecord, now_ms: u64) -> Self {
        let at_ms = now_ms.saturating_add(round.duration_ms);
        let checks_until_ms = at_ms.saturating_add(round.duration_ms.min(CHECKS_WAIT_MS_MAX));
        Self { at_ms, checks_until_ms, through: None }
    }

    /// Fixes what was contributed in time, once that time is over.
    pub(super) fn pass(&mut self, state: &Federation, key: &RoundKey, now_ms: u64) {
        if now_ms >= self.at_ms && self.through.is_none() {
            self.through = Some(newest_contribution(state, key));
        }
    }

    /// After this time no further contribution is taken into account, in milliseconds.
    pub(super) const fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Whether checks are no longer waited for.
    pub(super) const fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.checks_until_ms
    }

    /// When something changes, in milliseconds.
    pub(super) const fn times(&self) -> [u64; 2] {
        [self.at_ms, self.checks_until_ms]
    }

    /// When the leader goes on at the latest, in milliseconds.
    pub(super) fn next(&self, now_ms: u64) -> u64 {
        if now_ms < self.at_ms { self.at_ms } else { self.checks_until_ms }
    }
}

/// Ledger index of the newest contribution to a round; 0 without one.
fn newest_contribution(state: &Federation, key: &RoundKey) -> u64 {
    let indexes = state.participations(key).filter_map(|(_, participation)| match participation {
        Participation::Contributed { index, .. } => Some(*index),
        Participation::Joined { .. } | Participation::Declined { .. } | Participation::Revoked { .. } => None,
    });
    indexes.max().unwrap_or(0)
}
