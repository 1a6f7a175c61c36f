//! What requests are answered from without asking the replica's task: who is who, and which files everybody may read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use fedledger_federation::{
    Event, Federation, VersionId,
    command::RoundKey,
    member::{MemberId, Members},
    records::{Participation, Phase},
};
use fedledger_ledger::{Digest, PublicKey, log::Entry};
use tokio::sync::watch;

/// Transport keys by the names of nodes.
pub type TransportKeys = BTreeMap<String, PublicKey>;

/// A view that the replica's task keeps up to date and everybody may read.
#[derive(Debug, Clone)]
pub struct SharedView(Arc<RwLock<View>>, Arc<watch::Sender<u64>>);

/// See [`SharedView`].
#[derive(Debug)]
pub struct View {
    /// The members as they are now.
    pub members: Members,
    /// See [`View::transport_keys`].
    transport_keys: TransportKeys,
    /// Files of attested versions. Every other file may be a participant's raw update.
    version_files: BTreeSet<Digest>,
    /// The attempts at rounds that collect contributions.
    collecting: BTreeMap<RoundKey, Collecting>,
}

/// What an attempt at a round waits for.
#[derive(Debug)]
struct Collecting {
    /// Size of every update, in bytes.
    size: u64,
    /// The members selected that have neither contributed nor declined.
    from: BTreeSet<MemberId>,
}

impl View {
    /// The transport keys under which nodes are talked to. A new node has its key at once, and one that is excluded loses
    /// it at once; a key that is replaced counts until the next seal, so that its owner learns of it by then.
    pub const fn transport_keys(&self) -> &TransportKeys {
        &self.transport_keys
    }

    /// Takes over the members as they are now.
    fn set_members(&mut self, members: Members) {
        let mut keys = transport_keys(&members);
        for (name, key) in &mut keys {
            *key = self.transport_keys.get(name).copied().unwrap_or(*key);
        }
        (self.members, self.transport_keys) = (members, keys);
    }

    /// Whether every member may read the file: it belongs to an attested version.
    pub fn is_public(&self, digest: &Digest) -> bool {
        self.version_files.contains(digest)
    }

    /// The attempts at rounds that wait for an update of this size from the node with this transport key.
    pub fn waiting_for(&self, node: &PublicKey, size: u64) -> Vec<RoundKey> {
        let Some((member, _)) = self.members.by_transport_key(node) else { return Vec::new() };
        let waits = |attempt: &Collecting| attempt.size == size && attempt.from.contains(&member.id);
        self.collecting.iter().filter(|(_, attempt)| waits(attempt)).map(|(key, _)| *key).collect()
    }

    /// Whether an attempt at a round collects contributions.
    pub fn is_collecting(&self, key: &RoundKey) -> bool {
        self.collecting.contains_key(key)
    }

    /// Takes over how an attempt at a round stands.
    fn set_attempt(&mut self, state: &Federation, key: &RoundKey) {
        match collecting(state, key) {
            Some(attempt) => self.collecting.insert(*key, attempt),
            None => self.collecting.remove(key),
        };
    }
}

impl SharedView {
    /// The view of a state.
    pub fn new(state: &Federation) -> Self {
        let mut view = View {
            members: state.members().clone(),
            transport_keys: transport_keys(state.members()),
            version_files: BTreeSet::new(),
            collecting: all_collecting(state),
        };
        for (_, _, record) in state.attested().filter(|(_, _, record)| record.pruned.files.is_none()) {
            view.version_files.extend(record.manifest.artifacts.values().map(|artifact| *artifact.cid.digest()));
        }
        Self(Arc::new(RwLock::new(view)), Arc::new(watch::Sender::new(0)))
    }

    /// Changes whenever members, nodes or keys have, and when replaced transport keys come into force.
    pub fn membership(&self) -> watch::Receiver<u64> {
        self.1.subscribe()
    }

    /// Looks into the view; hold it only as long as that takes.
    pub fn read(&self) -> RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what these entries changed.
    pub(crate) fn update(&self, state: &Federation, entries: &[Entry<Federation>]) {
        let mut is_sealed = false;
        for entry in entries {
            is_sealed |= entry.leaf.seal.is_some();
            let Some(Ok(event)) = &entry.result else { continue };
            match event {
                Event::VersionAttested { version, .. } => self.publish(state, version),
                Event::VersionPruned { version, files: true, .. } => self.withdraw(state, version),
                Event::RoundOpened { key, .. }
                | Event::RoundDeclined { key, .. }
                | Event::Contributed { key, .. }
                | Event::RoundClosed { key, .. }
                | Event::RoundAbandoned { key, .. } => {
                    self.0.write().unwrap_or_else(PoisonError::into_inner).set_attempt(state, key);
                }
                Event::Executed { consequences, .. } => {
                    consequences.attested.iter().for_each(|version| self.publish(state, version));
                    let (members, collecting) = (state.members().clone(), all_collecting(state));
                    let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
                    view.set_members(members);
                    view.collecting = collecting;
                    drop(view);
                    self.1.send_modify(|changes| *changes += 1);
                    is_sealed = false;
                }
                _ => {}
            }
        }
        if is_sealed {
            self.put_keys_into_force();
        }
    }

    /// Takes over the transport keys that were replaced before the last seal.
    fn put_keys_into_force(&self) {
        let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let keys = transport_keys(&view.members);
        if view.transport_keys != keys {
            view.transport_keys = keys;
            drop(view);
            self.1.send_modify(|changes| *changes += 1);
        }
    }

    /// Lets every member read the files of a version.
    fn publish(&self, state: &Federation, version: &VersionId) {
        let Some(record) = state.versions().get(version) else { return };
        let files = record.manifest.artifacts.values().map(|artifact| *artifact.cid.digest());
        self.0.write().unwrap_or_else(PoisonError::into_inner).version_files.extend(files);
    }

    /// Forgets the files of a version that were let go, unless something else keeps them.
    fn withdraw(&self, state: &Federation, version: &VersionId) {
        let Some(record) = state.versions().get(version) else { return };
        let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for file in record.manifest.artifacts.values().map(|artifact| artifact.cid.digest()) {
            if !state.retains(file) {
                view.version_files.remove(file);
            }
        }
    }
}

fn transport_keys(members: &Members) -> TransportKeys {
    members.nodes().map(|(_, node)| (node.name.clone(), node.transport_key)).collect()
}

fn all_collecting(state: &Federation) -> BTreeMap<RoundKey, Collecting> {
    let open = state.plans().iter().filter_map(|(_, record)| record.open);
    open.filter_map(|key| Some((key, collecting(state, &key)?))).collect()
}

/// What an attempt waits for, while it collects contributions.
fn collecting(state: &Federation, key: &RoundKey) -> Option<Collecting> {
    let record = state.rounds().get(key).filter(|record| record.phase == Phase::Collecting)?;
    let size = state.plans().get(&key.plan)?.plan.update_size_bytes();
    let mut from: BTreeSet<MemberId> = record.cohort.iter().cloned().collect();
    for (member, participation) in state.participations(key) {
        if !matches!(participation, Participation::Joined { .. }) {
            from.remove(member);
        }
    }
    Some(Collecting { size, from })
}
