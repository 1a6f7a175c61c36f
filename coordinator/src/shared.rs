//! What requests are answered from without asking the replica's task: who is who, and which files everybody may read.

mod attempt;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use attempt::Attempt;
use fedledger_federation::{
    Event, Federation, VersionId,
    command::RoundKey,
    member::{MemberId, Members},
};
use fedledger_ledger::{Digest, PublicKey, log::Entry};
use tokio::sync::watch;

/// Transport keys by the names of nodes.
pub type TransportKeys = BTreeMap<String, PublicKey>;

/// A view that the replica's task keeps up to date and everybody may read.
#[derive(Debug, Clone)]
pub struct SharedView {
    view: Arc<RwLock<View>>,
    /// Counts the changes of members, nodes and keys.
    membership: Arc<watch::Sender<u64>>,
    /// Counts the times at which attempts ended.
    ended: Arc<watch::Sender<u64>>,
}

/// See [`SharedView`].
#[derive(Debug)]
pub struct View {
    /// The members as they are now.
    pub members: Members,
    /// See [`View::transport_keys`].
    transport_keys: TransportKeys,
    /// Files of attested versions. Every other file may be a participant's raw update.
    version_files: BTreeSet<Digest>,
    /// The attempt that is in progress in each plan.
    attempts: BTreeMap<Digest, Attempt>,
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
        let Some(member) = self.member(node) else { return Vec::new() };
        self.attempts.values().filter(|attempt| attempt.waits_for(member, size)).map(|attempt| attempt.key).collect()
    }

    /// Whether the ledger names a file as an update of other members than that of the node with this transport key.
    pub fn is_of_another(&self, node: &PublicKey, file: &Digest) -> bool {
        let mut contributors = self.attempts.values().filter_map(|attempt| attempt.contributed.get(file)).peekable();
        let member = self.member(node);
        contributors.peek().is_some() && !contributors.any(|members| member.is_some_and(|id| members.contains(id)))
    }

    fn member(&self, node: &PublicKey) -> Option<&MemberId> {
        self.members.by_transport_key(node).map(|(member, _)| &member.id)
    }

    /// Whether an attempt at a round collects contributions.
    pub fn is_collecting(&self, key: &RoundKey) -> bool {
        self.attempt(key).is_some_and(|attempt| attempt.collecting)
    }

    /// Whether an attempt at a round is in progress: it collects contributions, or its version is being made.
    pub fn is_in_progress(&self, key: &RoundKey) -> bool {
        self.attempt(key).is_some()
    }

    /// The attempts that collect contributions, with the size of their updates, in bytes.
    pub fn collecting(&self) -> impl Iterator<Item = (RoundKey, u64)> {
        self.attempts.values().filter(|attempt| attempt.collecting).map(|attempt| (attempt.key, attempt.size))
    }

    /// Whether an attempt in progress needs a file: as an update, or because it was computed here and may be proposed.
    pub fn needs(&self, file: &Digest) -> bool {
        self.attempts.values().any(|attempt| attempt.needs(file))
    }

    fn attempt(&self, key: &RoundKey) -> Option<&Attempt> {
        self.attempts.get(&key.plan).filter(|attempt| attempt.key == *key)
    }

    /// Takes over how a plan's attempt stands, and says whether one has ended.
    fn set_plan(&mut self, state: &Federation, plan: &Digest) -> bool {
        let before = self.attempts.remove(plan);
        let now = Attempt::of(state, plan);
        let ended = before.as_ref().is_some_and(|before| now.as_ref().is_none_or(|now| now.key != before.key));
        if let Some(attempt) = now {
            self.attempts.insert(*plan, attempt.after(before));
        }
        ended
    }
}

impl SharedView {
    /// The view of a state.
    pub fn new(state: &Federation) -> Self {
        let mut view = View {
            members: state.members().clone(),
            transport_keys: transport_keys(state.members()),
            version_files: BTreeSet::new(),
            attempts: BTreeMap::new(),
        };
        for (plan, _) in state.plans().iter() {
            view.set_plan(state, plan);
        }
        for (_, _, record) in state.attested().filter(|(_, _, record)| record.pruned.files.is_none()) {
            view.version_files.extend(record.manifest.artifacts.values().map(|artifact| *artifact.cid.digest()));
        }
        Self::from(view)
    }

    /// Changes whenever members, nodes or keys have, and when replaced transport keys come into force.
    pub fn membership(&self) -> watch::Receiver<u64> {
        self.membership.subscribe()
    }

    /// Changes whenever an attempt at a round has come to its end.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Waits until an attempt at a round is over, which may be before this begins.
    pub async fn until_over(&self, key: &RoundKey) {
        let mut ended = self.ended();
        while self.read().is_in_progress(key) && ended.changed().await.is_ok() {}
    }

    /// Takes note of files that were computed for an attempt, before they are kept: until it is over, its version may be
    /// proposed with them.
    pub fn expect_computed(&self, key: &RoundKey, files: impl IntoIterator<Item = Digest>) {
        let mut view = self.write();
        if let Some(attempt) = view.attempts.get_mut(&key.plan).filter(|attempt| attempt.key == *key) {
            attempt.computed.extend(files);
        }
    }

    /// Looks into the view; hold it only as long as that takes.
    pub fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what these entries changed.
    pub(crate) fn update(&self, state: &Federation, entries: &[Entry<Federation>]) {
        let mut is_sealed = false;
        let mut plans = BTreeSet::new();
        for entry in entries {
            is_sealed |= entry.leaf.seal.is_some();
            let Some(Ok(event)) = &entry.result else { continue };
            plans.extend(plan_of(state, event));
            match event {
                Event::VersionAttested { version, .. } => self.publish(state, version),
                Event::VersionPruned { version, files: true, .. } => self.withdraw(state, version),
                Event::Executed { consequences, .. } => {
                    consequences.attested.iter().for_each(|version| self.publish(state, version));
                    self.write().set_members(state.members().clone());
                    plans.extend(state.plans().iter().map(|(plan, _)| *plan));
                    self.membership.send_modify(|changes| *changes += 1);
                    is_sealed = false;
                }
                _ => {}
            }
        }
        self.set_plans(state, &plans);
        if is_sealed {
            self.put_keys_into_force();
        }
    }

    /// Takes over how the attempts of these plans stand.
    fn set_plans(&self, state: &Federation, plans: &BTreeSet<Digest>) {
        if plans.is_empty() {
            return;
        }
        let mut view = self.write();
        let ended = plans.iter().filter(|plan| view.set_plan(state, plan)).count();
        drop(view);
        if ended > 0 {
            self.ended.send_modify(|changes| *changes += 1);
        }
    }

    /// Takes over the transport keys that were replaced before the last seal.
    fn put_keys_into_force(&self) {
        let mut view = self.write();
        let keys = transport_keys(&view.members);
        if view.transport_keys != keys {
            view.transport_keys = keys;
            drop(view);
            self.membership.send_modify(|changes| *changes += 1);
        }
    }

    /// Lets every member read the files of a version.
    fn publish(&self, state: &Federation, version: &VersionId) {
        let Some(record) = state.versions().get(version) else { return };
        let files = record.manifest.artifacts.values().map(|artifact| *artifact.cid.digest());
        self.write().version_files.extend(files);
    }

    /// Forgets the files of a version that were let go, unless something else keeps them.
    fn withdraw(&self, state: &Federation, version: &VersionId) {
        let Some(record) = state.versions().get(version) else { return };
        let mut view = self.write();
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

/// The plan whose attempt an event may have changed.
fn plan_of(state: &Federation, event: &Event) -> Option<Digest> {
    match event {
        Event::PlanStarted { plan } | Event::PlanStopped { plan, .. } | Event::PlanStoppedEarly { plan, .. } => {
            Some(*plan)
        }
        Event::RoundOpened { key, .. }
        | Event::RoundDeclined { key, .. }
        | Event::Contributed { key, .. }
        | Event::RoundClosed { key, .. }
        | Event::RoundAbandoned { key, .. } => Some(key.plan),
        Event::VersionAttested { version, .. } => state.versions().get(version).map(|record| record.key.plan),
        _ => None,
    }
}

#[cfg(test)]
impl SharedView {
    /// A view of attempts in progress, each with the size of its updates, whether it still collects them, and those that it
    /// has.
    pub fn of_attempts(attempts: impl IntoIterator<Item = (RoundKey, u64, bool, Vec<Digest>)>) -> Self {
        let view = View {
            members: Members::default(),
            transport_keys: TransportKeys::default(),
            version_files: BTreeSet::new(),
            attempts: BTreeMap::new(),
        };
        let shared = Self::from(view);
        shared.set_attempts(attempts);
        shared
    }

    /// Takes over other attempts; files that were computed for one that goes on stay expected.
    pub fn set_attempts(&self, attempts: impl IntoIterator<Item = (RoundKey, u64, bool, Vec<Digest>)>) {
        let mut view = self.write();
        let mut before = std::mem::take(&mut view.attempts);
        for (key, size, collecting, updates) in attempts {
            let contributed = updates.into_iter().map(|update| (update, BTreeSet::new())).collect();
            let (awaited, computed) = (BTreeSet::new(), BTreeSet::new());
            let attempt = Attempt { key, collecting, size, awaited, contributed, computed };
            view.attempts.insert(key.plan, attempt.after(before.remove(&key.plan)));
        }
        drop(view);
        self.ended.send_modify(|changes| *changes += 1);
    }
}

impl From<View> for SharedView {
    fn from(view: View) -> Self {
        let [membership, ended] = std::array::from_fn(|_| Arc::new(watch::Sender::new(0)));
        Self { view: Arc::new(RwLock::new(view)), membership, ended }
    }
}
