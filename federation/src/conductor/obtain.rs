//! Files: one version after the other, every replica comes to hold what auditors need.

use std::collections::{BTreeMap, BTreeSet};

use super::{Computation, Conductor, Duty, View};
use crate::{Federation, command::FileRef, member::MemberId, records::VersionRecord};

/// Wait before files that nobody had are looked for again, in milliseconds; twice as long every time that they are not found.
const OBTAIN_RETRY_MS: u64 = 10_000;

/// Longest such wait, in milliseconds: an hour. What nobody had for a day seldom turns up within a minute.
const OBTAIN_RETRY_MS_MAX: u64 = 3600 * 1000;

/// How far this replica has come with the files of versions.
#[derive(Debug, Default)]
pub(super) struct Obtaining {
    /// Versions below this number have all their files here, but for those in `incomplete`.
    next: u64,
    /// The version whose files are being looked for.
    under_way: Option<u64>,
    /// Versions of which some file could not be had, and how long is waited for it, in milliseconds. They never keep this
    /// replica from the files of newer versions.
    incomplete: BTreeMap<u64, u64>,
    /// When each of them is looked for again, in milliseconds, with its number.
    due: BTreeSet<(u64, u64)>,
}

impl Obtaining {
    pub(super) fn report(&mut self, number: u64, complete: bool, now_ms: u64) {
        self.under_way = None;
        if complete {
            self.incomplete.remove(&number);
            return;
        }
        let longer_ms = |wait_ms: &u64| (wait_ms * 2).min(OBTAIN_RETRY_MS_MAX);
        let wait_ms = self.incomplete.get(&number).map_or(OBTAIN_RETRY_MS, longer_ms);
        self.incomplete.insert(number, wait_ms);
        self.due.insert((now_ms.saturating_add(wait_ms), number));
    }

    /// When files are looked for again, in milliseconds.
    pub(super) fn wake_at(&self) -> Option<u64> {
        if self.under_way.is_some() { None } else { self.due.first().map(|(at_ms, _)| *at_ms) }
    }

    /// A version whose files are to be looked for again.
    fn take_due(&mut self, now_ms: u64) -> Option<u64> {
        let due = self.due.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        self.due.remove(&due);
        Some(due.1)
    }
}

impl Conductor {
    /// Versions that this replica computed itself are complete; their files were needed for that.
    pub(super) fn obtain(&mut self, view: &View<'_>, duties: &mut Vec<Duty>) {
        if self.obtaining.under_way.is_some() {
            return;
        }
        while let Some(id) = view.state.numbers().get(&self.obtaining.next) {
            let Some(record) = view.state.versions().get(id) else { return };
            match self.computations.get(&record.key) {
                Some(Computation::Done(_)) => self.obtaining.next += 1,
                // It is being computed, which obtains the files as well.
                Some(Computation::UnderWay) => return,
                Some(Computation::Failed { .. }) | None => {
                    let number = self.obtaining.next;
                    self.obtaining.next += 1;
                    self.ask_for(view, number, duties);
                    if self.obtaining.under_way.is_some() {
                        return;
                    }
                }
            }
        }
        while self.obtaining.under_way.is_none()
            && let Some(number) = self.obtaining.take_due(view.now_ms)
        {
            self.ask_for(view, number, duties);
        }
    }

    fn ask_for(&mut self, view: &View<'_>, number: u64, duties: &mut Vec<Duty>) {
        let record = view.state.numbers().get(&number).and_then(|id| view.state.versions().get(id));
        if let Some(record) = record {
            let files = files_of(view.state, record);
            if files.is_empty() {
                // What it had is pruned.
                return self.obtaining.report(number, true, view.now_ms);
            }
            self.obtaining.under_way = Some(number);
            duties.push(Duty::Obtain { number, files });
        }
    }
}

/// Everything that a version was made of and that came out, as far as it is kept.
fn files_of(state: &Federation, record: &VersionRecord) -> Vec<(FileRef, Option<MemberId>)> {
    let manifest = &record.manifest;
    let outputs = [manifest.weights(), manifest.optimizer_state()].into_iter().flatten().map(|file| (file, None));
    let updates = manifest.contributions.iter().map(|contribution| {
        let file = FileRef { digest: *contribution.update.digest(), size: contribution.size };
        (file, Some(contribution.member.clone()))
    });
    outputs.chain(updates).filter(|(file, _)| state.retains(&file.digest)).collect()
}
