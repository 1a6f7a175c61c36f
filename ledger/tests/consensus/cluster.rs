//! A cluster in one thread: replicas, a network whose packets wait until the test moves them, and disks whose writes
//! end when the test says so. Every step is checked against what Raft promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fedledger_ledger::consensus::{
    Config, Consensus, HardState, LogEntry, LogPosition, LogWrite, MessageRefused, Outgoing, ReadId, Ready, Recovered,
    ReplicaId, Role, SnapshotMeta,
};

/// What the state machine of these tests holds: the payloads in order, with their indexes.
pub type State = Vec<(u64, Vec<u8>)>;

/// What survives a crash.
#[derive(Clone)]
pub struct Disk {
    pub hard_state: HardState,
    pub compacted: LogPosition,
    pub entries: BTreeMap<u64, LogEntry>,
    pub applied: u64,
    pub state: State,
}

/// What is on its way to a disk, in order.
pub struct Write {
    number: u64,
    snapshot: Option<(LogPosition, State)>,
    log: Option<LogWrite>,
    applied: Option<(u64, State)>,
}

pub struct Node {
    /// Absent while the replica is down.
    pub core: Option<Consensus>,
    pub disk: Disk,
    pub writes: VecDeque<Write>,
    pub state: State,
    /// States that stand behind manifests, and fetched ones.
    snapshots: BTreeMap<u64, State>,
    boots: u64,
}

#[derive(Clone)]
pub struct Packet {
    pub from: ReplicaId,
    pub message: Outgoing,
}

pub struct Cluster {
    voters: u64,
    pub nodes: BTreeMap<ReplicaId, Node>,
    pub network: Vec<Packet>,
    /// Replicas whose packets are lost in both directions.
    pub cut: BTreeSet<ReplicaId>,
    /// Whether Raft's promises are checked; lying replicas break them.
    pub trusting: bool,
    /// Whether writes end at once.
    pub fast_disks: bool,
    /// How many applied entries stay in the log.
    pub catch_up_entries: u64,
    /// Every entry that any replica was told is committed.
    pub committed: BTreeMap<u64, (u64, Vec<u8>)>,
    pub leaders: BTreeMap<u64, ReplicaId>,
    /// Reads under way: the replica that asked, and what was committed when it did.
    pub reads: BTreeMap<ReadId, (ReplicaId, u64)>,
    pub answered: Vec<(ReadId, u64)>,
    pub lost_reads: Vec<ReadId>,
    pub refused: Vec<MessageRefused>,
    pub snapshots_installed: usize,
}

impl Cluster {
    pub fn new(voters: u64) -> Self {
        let mut cluster = Self {
            voters,
            nodes: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            trusting: true,
            fast_disks: true,
            catch_up_entries: 4,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            answered: Vec::new(),
            lost_reads: Vec::new(),
            refused: Vec::new(),
            snapshots_installed: 0,
        };
        let empty = Recovered::empty((1..=voters).map(ReplicaId));
        for id in (1..=voters).map(ReplicaId) {
            let disk = Disk {
                hard_state: empty.hard_state,
                compacted: empty.compacted,
                entries: BTreeMap::new(),
                applied: empty.applied,
                state: State::new(),
            };
            let node = Node {
                core: None,
                disk,
                writes: VecDeque::new(),
                state: State::new(),
                snapshots: BTreeMap::new(),
                boots: 0,
            };
            cluster.nodes.insert(id, node);
            cluster.start(id);
        }
        cluster
    }

    /// A cluster that the first replica leads.
    pub fn led_by_first(voters: u64) -> Self {
        let mut cluster = Self::new(voters);
        cluster.core(1).campaign();
        cluster.settle();
        assert_eq!(cluster.leader(), Some(ReplicaId(1)));
        cluster
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&ReplicaId(id)).unwrap()
    }

    pub fn core(&mut self, id: u64) -> &mut Consensus {
        self.node(id).core.as_mut().unwrap()
    }

    pub fn ids(&self) -> Vec<ReplicaId> {
        self.nodes.keys().copied().collect()
    }

    /// Starts a replica from its disk.
    pub fn start(&mut self, id: ReplicaId) {
        let voters = (1..=self.voters).map(ReplicaId).collect();
        let keep = self.catch_up_entries;
        let node = self.nodes.get_mut(&id).unwrap();
        node.boots += 1;
        let mut config = Config::new(id, node.boots, 7);
        config.catch_up_entries = keep;
        let recovered = Recovered {
            hard_state: node.disk.hard_state,
            compacted: node.disk.compacted,
            entries: node.disk.entries.values().cloned().collect(),
            applied: node.disk.applied,
            voters,
        };
        let mut core = Consensus::new(config, recovered).unwrap();
        node.state = node.disk.state.clone();
        node.snapshots.insert(node.disk.applied, node.state.clone());
        core.set_snapshot(node.disk.applied, manifest(node.disk.applied)).unwrap();
        node.core = Some(core);
    }

    /// Ends a replica's process; the first `kept` of its writes have reached the disk.
    pub fn crash(&mut self, id: ReplicaId, kept: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        for write in node.writes.drain(..).take(kept) {
            node.disk.write(write);
        }
        node.core = None;
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        let statuses = self.nodes.values().filter_map(|node| node.core.as_ref()).map(Consensus::status);
        statuses.filter(|status| status.role == Role::Leader).max_by_key(|status| status.term).map(|status| status.id)
    }

    /// Does everything that replicas ask for, but moves no packets.
    pub fn work(&mut self) {
        for id in self.ids() {
            loop {
                if self.fast_disks {
                    while self.persist(id) {}
                }
                let Some(ready) = self.nodes.get_mut(&id).and_then(|node| node.core.as_mut()?.ready()) else { break };
                self.carry_out(id, ready);
            }
        }
    }

    /// Ends the oldest write of a replica.
    pub fn persist(&mut self, id: ReplicaId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let (Some(core), Some(write)) = (node.core.as_mut(), node.writes.pop_front()) else { return false };
        let synced = write.log.as_ref().is_some_and(|log| log.must_sync);
        let number = write.number;
        node.disk.write(write);
        let released = if synced { core.persisted(number).unwrap() } else { Vec::new() };
        self.network.extend(released.into_iter().map(|message| Packet { from: id, message }));
        true
    }

    fn carry_out(&mut self, id: ReplicaId, ready: Ready) {
        let Ready { number, messages, snapshot, log, committed, reads, lost_reads, role } = ready;
        self.network.extend(messages.into_iter().map(|message| Packet { from: id, message }));
        if let Some(role) = role
            && role.role == Role::Leader
            && self.trusting
        {
            let term = self.nodes[&id].core.as_ref().unwrap().status().term;
            assert_eq!(*self.leaders.entry(term).or_insert(id), id, "two leaders in term {term}");
        }
        for entry in committed.iter().take(if self.trusting { usize::MAX } else { 0 }) {
            self.check_committed(entry.index, entry.term, &entry.payload);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        let core = node.core.as_mut().unwrap();
        let snapshot = snapshot.map(|SnapshotMeta { position, manifest }| {
            assert!(manifest == self::manifest(position.index) || !self.trusting);
            let state = node.snapshots.get(&position.index).cloned().unwrap_or_default();
            node.state = state.clone();
            core.applied(position.index).unwrap();
            self.snapshots_installed += 1;
            (position, state)
        });
        let applied = committed.last().map(|entry| entry.index);
        for entry in committed.into_iter().filter(|entry| !entry.is_noop()) {
            node.state.push((entry.index, entry.payload));
        }
        let applied = applied.map(|index| {
            core.applied(index).unwrap();
            (index, node.state.clone())
        });
        if snapshot.is_some() || log.is_some() || applied.is_some() {
            node.writes.push_back(Write { number, snapshot, log, applied });
        }
        for (read, index) in reads {
            let (asker, before) = self.reads.remove(&read).expect("an answer to a read that was asked, once");
            assert_eq!(asker, id);
            assert!(
                !self.trusting || index >= before,
                "a stale read: {index} is answered, {before} was committed before it began"
            );
            self.answered.push((read, index));
        }
        self.lost_reads.extend(lost_reads);
    }

    /// What is committed stays, and is on the disks of a majority.
    fn check_committed(&mut self, index: u64, term: u64, payload: &[u8]) {
        let known = self.committed.entry(index).or_insert_with(|| (term, payload.to_vec()));
        assert_eq!((known.0, known.1.as_slice()), (term, payload), "two entries are committed at {index}");
        let durable = self.nodes.values().filter(|node| node.disk.holds(index, term)).count();
        assert!(durable > self.voters as usize / 2, "entry {index} is committed on {durable} disks");
    }

    /// Hands a packet to its receiver; what is refused is kept for the test to look at.
    pub fn deliver(&mut self, packet: Packet) {
        if self.cut.contains(&packet.from) || self.cut.contains(&packet.message.to) {
            return;
        }
        let Packet { from, message } = packet;
        let available = self.nodes[&from].snapshots.clone();
        let node = self.nodes.get_mut(&message.to).unwrap();
        let Some(core) = node.core.as_mut() else { return };
        match core.peek_snapshot(from, &message.bytes) {
            Ok(Some(meta)) => {
                let index = meta.position.index;
                assert!(message.is_snapshot && (available.contains_key(&index) || !self.trusting));
                node.snapshots.insert(index, available.get(&index).cloned().unwrap_or_default());
            }
            Ok(None) => {}
            Err(refused) => {
                self.refused.push(refused);
                return;
            }
        }
        if let Err(refused) = core.receive(from, &message.bytes) {
            self.refused.push(refused);
        }
    }

    /// Works and delivers until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            self.work();
            let packets = std::mem::take(&mut self.network);
            if packets.is_empty() {
                return;
            }
            for packet in packets {
                self.deliver(packet);
            }
        }
    }

    /// Lets time pass for every replica, with everything delivered in between.
    pub fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            for node in self.nodes.values_mut() {
                if let Some(core) = node.core.as_mut() {
                    core.tick();
                }
            }
            self.settle();
        }
    }

    /// Lets time pass until another replica leads.
    pub fn elect(&mut self) -> ReplicaId {
        for _ in 0..200 {
            let reachable = self.leader().filter(|leader| !self.cut.contains(leader));
            if let Some(leader) = reachable {
                return leader;
            }
            self.ticks(1);
        }
        panic!("nobody was elected");
    }

    /// Proposes on the leader and settles.
    pub fn propose(&mut self, payload: &[u8]) {
        let leader = self.leader().unwrap();
        self.core(leader.0).propose(payload.to_vec()).unwrap();
        self.settle();
    }

    /// Begins a read that must see what is committed now.
    pub fn read(&mut self, id: ReplicaId) -> Option<ReadId> {
        let read = self.nodes.get_mut(&id)?.core.as_mut()?.read_index().ok()?;
        let committed = self.committed.keys().last().copied().unwrap_or(0);
        self.reads.insert(read, (id, committed));
        Some(read)
    }

    /// Makes a snapshot of what a replica has applied, and compacts its log in memory and on the disk.
    pub fn compact(&mut self, id: ReplicaId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(core) = node.core.as_mut() else { return };
        let applied = core.status().applied;
        // The disk may be behind the process; it must hold what the compacted log no longer has.
        if node.disk.applied < applied || core.set_snapshot(applied, manifest(applied)).is_err() {
            return;
        }
        node.snapshots.insert(applied, node.disk.state.clone());
        let compacted = core.compact(applied);
        node.disk.entries.retain(|index, _| *index > compacted.index);
        node.disk.compacted = compacted;
    }

    /// The payloads that every running replica has applied, which must be the same.
    pub fn agreed_payloads(&self) -> Vec<Vec<u8>> {
        let mut states = self.nodes.values().filter(|node| node.core.is_some()).map(|node| &node.state);
        let first = states.next().unwrap();
        for state in states {
            assert_eq!(state, first);
        }
        first.iter().map(|(_, payload)| payload.clone()).collect()
    }
}

impl Disk {
    fn write(&mut self, write: Write) {
        if let Some((position, state)) = write.snapshot {
            self.entries.clear();
            self.compacted = position;
            self.applied = position.index;
            self.state = state;
        }
        if let Some(log) = write.log {
            if let Some(first) = log.entries.first() {
                self.entries.split_off(&first.index);
            }
            for entry in log.entries {
                let stored = LogEntry::from_bytes(entry.index, &entry.to_bytes()).unwrap();
                assert_eq!(stored, entry);
                self.entries.insert(entry.index, entry);
            }
            if let Some(hard_state) = log.hard_state {
                self.hard_state = HardState::from_bytes(&hard_state.to_bytes()).unwrap();
            }
        }
        if let Some((index, state)) = write.applied {
            (self.applied, self.state) = (index, state);
        }
    }

    fn holds(&self, index: u64, term: u64) -> bool {
        index <= self.compacted.index || self.entries.get(&index).is_some_and(|entry| entry.term == term)
    }
}

pub fn manifest(index: u64) -> Vec<u8> {
    format!("state at {index}").into_bytes()
}
