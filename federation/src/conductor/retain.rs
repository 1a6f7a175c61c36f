//! Retention: the leader has pruned on record what the rules let go, one thing at a time, and every replica then deletes the
//! files.

use std::collections::BTreeSet;

use fedledger_ledger::Digest;

use super::{Conductor, Duty, View};
use crate::{Command, Federation, retention::Horizon, state::RetentionRevision};

/// Entries whose files are deleted together at most.
const DISCARD_AT_ONCE_MAX: usize = 16;

/// Wait before files that could not be deleted are tried again, in milliseconds.
const DISCARD_RETRY_MS: u64 = 10_000;

/// How far this replica has come with what is not kept.
#[derive(Debug, Default)]
pub(super) struct Retaining {
    /// What was found to be pruned next, and in which state. The rules are applied anew only when what they speak of has
    /// changed.
    found: Option<(RetentionRevision, Option<Command>)>,
    /// What entries before this index have let go is deleted. A new process begins anew: a crash may have come between.
    next_index: u64,
    /// Index up to which files are being deleted.
    under_way: Option<u64>,
    /// When files that could not be deleted are tried again, in milliseconds.
    retry_at_ms: Option<u64>,
}

impl Retaining {
    pub(super) const fn report(&mut self, last_index: u64, complete: bool, now_ms: u64) {
        self.under_way = None;
        if complete {
            self.next_index = last_index.saturating_add(1);
        } else {
            self.retry_at_ms = Some(now_ms.saturating_add(DISCARD_RETRY_MS));
        }
    }

    /// When files are to be deleted again that could not be, in milliseconds.
    pub(super) const fn wake_at(&self) -> Option<u64> {
        if self.under_way.is_some() { None } else { self.retry_at_ms }
    }
}

impl Conductor {
    /// Has the oldest thing that the rules let go recorded as pruned.
    pub(super) fn prune(&mut self, view: &View<'_>, duties: &mut Vec<Duty>) {
        if !view.leads || view.state.policy().retention.keeps_all() {
            self.retaining.found = None;
            return;
        }
        let revision = view.state.retention_revision();
        if self.retaining.found.as_ref().is_none_or(|(found, _)| *found != revision) {
            self.retaining.found = Some((revision, Horizon::of(view.state).next()));
        }
        if let Some((_, Some(command))) = &self.retaining.found {
            let command = command.clone();
            self.submit(view, command, duties);
        }
    }

    /// Deletes what entries have let go.
    pub(super) fn discard(&mut self, view: &View<'_>, duties: &mut Vec<Duty>) {
        if self.retaining.under_way.is_some() || self.retaining.retry_at_ms.is_some_and(|at_ms| at_ms > view.now_ms) {
            return;
        }
        self.retaining.retry_at_ms = None;
        while let Some((last_index, files)) = released(view.state, self.retaining.next_index) {
            if !files.is_empty() {
                self.retaining.under_way = Some(last_index);
                return duties.push(Duty::Discard { last_index, files: files.into_iter().collect() });
            }
            self.retaining.next_index = last_index.saturating_add(1);
        }
    }
}

/// What the next few entries from this index on have let go, with the index of the last of them.
fn released(state: &Federation, index: u64) -> Option<(u64, BTreeSet<Digest>)> {
    let mut last_index = None;
    let mut files = BTreeSet::new();
    for (index, released) in state.discarded_since(index).take(DISCARD_AT_ONCE_MAX) {
        last_index = Some(index);
        files.extend(released);
    }
    Some((last_index?, files))
}
