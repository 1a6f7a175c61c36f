//! What requests are answered from without asking the replica's task: who is who, and which files everybody may read.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use fedledger_federation::{Event, Federation, VersionId, member::Members};
use fedledger_ledger::{Digest, log::Entry};
use tokio::sync::watch;

/// A view that the replica's task keeps up to date and everybody may read.
#[derive(Debug, Clone)]
pub struct SharedView(Arc<RwLock<View>>, Arc<watch::Sender<u64>>);

/// See [`SharedView`].
#[derive(Debug)]
pub struct View {
    /// The members as they are now.
    pub members: Members,
    /// Files of attested versions. Every other file may be a participant's raw update.
    version_files: BTreeSet<Digest>,
    /// Sizes of updates that open rounds are waiting for.
    expected_sizes: BTreeSet<u64>,
    /// Attempts at rounds so far.
    rounds_opened: u64,
}

impl View {
    /// Whether every member may read the file: it belongs to an attested version.
    pub fn is_public(&self, digest: &Digest) -> bool {
        self.version_files.contains(digest)
    }

    /// Attempts at rounds that were opened so far.
    pub const fn rounds_opened(&self) -> u64 {
        self.rounds_opened
    }

    /// Whether a round in progress waits for updates of this size.
    pub fn is_expected_size(&self, size: u64) -> bool {
        self.expected_sizes.contains(&size)
    }
}

impl SharedView {
    /// The view of a state.
    pub fn new(state: &Federation) -> Self {
        let mut view = View {
            members: state.members().clone(),
            version_files: BTreeSet::new(),
            expected_sizes: expected_sizes(state),
            rounds_opened: state.rounds().len() as u64,
        };
        for (_, _, record) in state.attested() {
            view.version_files.extend(record.manifest.artifacts.values().map(|artifact| *artifact.cid.digest()));
        }
        Self(Arc::new(RwLock::new(view)), Arc::new(watch::Sender::new(0)))
    }

    /// Changes whenever members, nodes or keys have.
    pub fn membership(&self) -> watch::Receiver<u64> {
        self.1.subscribe()
    }

    /// Looks into the view; hold it only as long as that takes.
    pub fn read(&self) -> RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what these entries changed.
    pub(crate) fn update(&self, state: &Federation, entries: &[Entry<Federation>]) {
        let events = entries.iter().filter_map(|entry| entry.result.as_ref()?.as_ref().ok());
        for event in events {
            match event {
                Event::VersionAttested { version, .. } => self.publish(state, version),
                Event::RoundOpened { .. } | Event::RoundClosed { .. } | Event::RoundAbandoned { .. } => {
                    let sizes = expected_sizes(state);
                    let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
                    view.expected_sizes = sizes;
                    view.rounds_opened = state.rounds().len() as u64;
                }
                Event::Executed { consequences, .. } => {
                    consequences.attested.iter().for_each(|version| self.publish(state, version));
                    let members = state.members().clone();
                    self.0.write().unwrap_or_else(PoisonError::into_inner).members = members;
                    self.1.send_modify(|changes| *changes += 1);
                }
                _ => {}
            }
        }
    }

    /// Lets every member read the files of a version.
    fn publish(&self, state: &Federation, version: &VersionId) {
        let Some(record) = state.versions().get(version) else { return };
        let files = record.manifest.artifacts.values().map(|artifact| *artifact.cid.digest());
        self.0.write().unwrap_or_else(PoisonError::into_inner).version_files.extend(files);
    }
}

fn expected_sizes(state: &Federation) -> BTreeSet<u64> {
    let open = state.plans().iter().filter(|(_, record)| record.open.is_some());
    open.map(|(_, record)| record.plan.architecture.update_size_bytes()).collect()
}
