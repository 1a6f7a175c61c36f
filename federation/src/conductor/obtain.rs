//! Files: one version after the other, every replica comes to hold what auditors need.

use std::collections::BTreeMap;

use super::{Computation, Conductor, Duty, View};
use crate::{Federation, command::FileRef, member::MemberId, records::VersionRecord};

/// Wait before files that nobody had are looked for again, in milliseconds.
const OBTAIN_RETRY_MS: u64 = 10_000;

/// Versions that are passed over while some of their files cannot be had; with more, the oldest ones are waited for.
const INCOMPLETE_MAX: usize = 64;

/// How far this replica has come with the files of versions.
#[derive(Debug, Default)]
pub(super) struct Obtaining {
    /// Versions below this number have all their files here, but for those in `incomplete`.
    next: u64,
    /// The version whose files are being looked for.
    under_way: Option<u64>,
    /// Versions of which some file could not be had, and when each is looked for again, in milliseconds. One that nobody has
    /// must not keep this replica from the files of other plans.
    incomplete: BTreeMap<u64, u64>,
}

impl Obtaining {
    pub(super) fn report(&mut self, number: u64, complete: bool, now_ms: u64) {
        self.under_way = None;
        if complete {
            self.incomplete.remove(&number);
        } else {
            self.incomplete.insert(number, now_ms + OBTAIN_RETRY_MS);
        }
    }

    /// When files are looked for again, in milliseconds.
    pub(super) fn wake_at(&self) -> Option<u64> {
        if self.under_way.is_some() { None } else { self.incomplete.values().min().copied() }
    }
}

impl Conductor {
    /// Versions that this replica computed itself are complete; their files were needed for that.
    pub(super) fn obtain(&mut self, view: &View<'_>, duties: &mut Vec<Duty>) {
        if self.obtaining.under_way.is_some() {
            return;
        }
        while self.obtaining.incomplete.len() < INCOMPLETE_MAX
            && let Some(id) = view.state.numbers().get(&self.obtaining.next)
        {
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
        let due = self.obtaining.incomplete.iter().find(|(_, at_ms)| view.now_ms >= **at_ms);
        if let Some(number) = due.map(|(number, _)| *number) {
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
