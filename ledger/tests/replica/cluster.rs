//! Whole replicas in one thread: messages and notes arrive at once, disks are instant, and the clock is the test's.
//!
//! Whatever happens, two things are checked after every step: no replica signs two roots of one size, and no two heads
//! of one size become final with different roots.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    consensus::{Config, ReplicaId, Role},
    finality::Finding,
    log::{read_leaf, read_root},
    note::SignedNote,
    replica::{Answer, Fault, Identity, Replica, Step, Submission},
    storage::{LogStorage, memory::MemoryStorage},
};

use crate::machine::{self, ORIGIN, Words, author_key, cosign_key, genesis, log_key, name, with_faults};

/// Milliseconds of a tick of the consensus.
const TICK_MS: u64 = 50;

/// When the tests begin, in milliseconds since the Unix epoch.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

pub struct Node {
    pub replica: Replica<Words>,
    pub storage: Arc<MemoryStorage>,
    pub answers: BTreeMap<u64, Answer>,
    pub findings: Vec<Finding>,
    pub cosign_key: SecretKey,
    /// How far its clock is ahead.
    pub skew_ms: i64,
    /// Whether its state machine computes wrongly.
    pub faulty: bool,
    /// Whether its disk is so slow that what is to be co-signed is not durable yet.
    pub is_stuck: bool,
    /// The note that the others have got.
    told: Option<String>,
    boots: u64,
}

pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    /// Replicas that are off: they get no messages, no ticks and no time.
    pub down: BTreeSet<u64>,
    /// Why replicas have stopped.
    pub faults: BTreeMap<u64, Fault>,
    pub now_ms: u64,
    /// Whether snapshots name another root than they should.
    pub forges_snapshots: bool,
    /// Snapshots of another size than the receiver's log, as they came: the size of the snapshot, and that of the log.
    pub snapshots: Vec<(u64, u64)>,
    genesis: Vec<u8>,
    tickets: u64,
    nonces: u64,
    queue: VecDeque<(u64, u64, Vec<u8>)>,
    /// Roots that replicas have co-signed, by replica and size.
    signed: BTreeMap<(u64, u64), Digest>,
    /// Roots that are final, by size.
    finals: BTreeMap<u64, Digest>,
}

pub fn open(
    id: u64,
    replicas: u64,
    boot: u64,
    key: &SecretKey,
    storage: &MemoryStorage,
) -> Result<Replica<Words>, Fault> {
    let identity = Identity {
        name: name(id),
        origin: ORIGIN.into(),
        log_key: log_key(id),
        cosign_key: key.clone(),
        transaction_key: author_key(id),
    };
    let mut config = Config::new(ReplicaId(id), boot, 7);
    config.catch_up_entries = 16;
    Replica::open(identity, config, (1..=replicas).map(ReplicaId).collect(), &genesis(replicas), storage)
}

impl Cluster {
    /// Replicas of which the first leads.
    pub fn new(replicas: u64) -> Self {
        let node = |id| {
            let storage = Arc::new(MemoryStorage::default());
            let cosign_key = cosign_key(id);
            let replica = open(id, replicas, 1, &cosign_key, &storage).unwrap();
            let node = Node {
                replica,
                storage,
                answers: BTreeMap::new(),
                findings: Vec::new(),
                cosign_key,
                skew_ms: 0,
                faulty: false,
                is_stuck: false,
                told: None,
                boots: 1,
            };
            (id, node)
        };
        let mut cluster = Self {
            nodes: (1..=replicas).map(node).collect(),
            down: BTreeSet::new(),
            faults: BTreeMap::new(),
            now_ms: BEGIN_MS,
            forges_snapshots: false,
            snapshots: Vec::new(),
            genesis: genesis(replicas),
            tickets: 0,
            nonces: 1_000_000,
            queue: VecDeque::new(),
            signed: BTreeMap::new(),
            finals: BTreeMap::new(),
        };
        cluster.node(1).replica.campaign();
        cluster.settle();
        assert_eq!(cluster.leader(), Some(1));
        cluster
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub fn chain(&self) -> Digest {
        Digest::of(&self.genesis)
    }

    fn up(&self) -> Vec<u64> {
        self.nodes.keys().copied().filter(|id| !self.down.contains(id)).collect()
    }

    /// The replica that leads in the latest term, if one that is up does.
    pub fn leader(&self) -> Option<u64> {
        let statuses = self.up().into_iter().map(|id| self.nodes[&id].replica.status());
        statuses.filter(|status| status.role == Role::Leader).max_by_key(|status| status.term).map(|status| status.id.0)
    }

    /// Delivers messages and notes until nobody has anything to say.
    pub fn settle(&mut self) {
        loop {
            self.work();
            if let Some((from, to, bytes)) = self.queue.pop_front() {
                self.deliver(from, to, &bytes);
            } else if !self.gossip() {
                return;
            }
        }
    }

    /// Lets every replica do what it has to.
    pub fn work(&mut self) {
        for id in self.up() {
            loop {
                let node = self.node(id);
                match with_faults(node.faulty, || node.replica.step()) {
                    Ok(Some(step)) => self.perform(id, step),
                    Ok(None) => break,
                    Err(fault) => {
                        self.faults.insert(id, fault);
                        self.down.insert(id);
                        break;
                    }
                }
            }
        }
    }

    fn deliver(&mut self, from: u64, to: u64, bytes: &[u8]) {
        if self.down.contains(&from) || self.down.contains(&to) {
            return;
        }
        let bytes = &self.fetch_if_wanted(from, to, bytes);
        // Late messages may be refused; that is for the consensus tests.
        let _ = self.node(to).replica.receive(ReplicaId(from), bytes);
    }

    /// What the shell does for a snapshot: leaves or the root first, then the message, which may be a forged one.
    fn fetch_if_wanted(&mut self, from: u64, to: u64, bytes: &[u8]) -> Vec<u8> {
        let wanted = self.nodes[&to].replica.wanted(ReplicaId(from), bytes);
        let Ok(Some(manifest)) = wanted else { return bytes.to_vec() };
        let known = self.size(to);
        self.snapshots.push((manifest.size, known));
        if manifest.size > known {
            let leaves = self.leaves(from, known, manifest.size);
            self.catch_up(to, &leaves);
        } else {
            let root = read_root(&*self.nodes[&to].storage, manifest.size).unwrap();
            self.node(to).replica.compare(manifest.size, root);
        }
        if self.forges_snapshots { replaced(bytes, &manifest.root, &Digest::of(b"forged")) } else { bytes.to_vec() }
    }

    /// Entries that a replica has on its disk.
    pub fn leaves(&self, id: u64, from: u64, to: u64) -> Vec<Vec<u8>> {
        (from..to).map(|index| read_leaf(&*self.nodes[&id].storage, index).unwrap()).collect()
    }

    /// Hands fetched entries to a replica.
    pub fn catch_up(&mut self, id: u64, leaves: &[Vec<u8>]) {
        let (step, outcome) = self.node(id).replica.catch_up(leaves);
        outcome.unwrap();
        self.perform(id, step);
    }

    /// Hands the newest note of every replica to all others, where it has changed.
    fn gossip(&mut self) -> bool {
        let mut told_anything = false;
        for id in self.up() {
            let newest = self.nodes[&id].replica.finality().newest_note();
            let Some(note) = newest.filter(|note| self.nodes[&id].told.as_ref() != Some(note)) else { continue };
            self.node(id).told = Some(note.clone());
            told_anything = true;
            for other in self.up().into_iter().filter(|other| *other != id) {
                self.offer(other, &note);
            }
        }
        told_anything
    }

    /// Hands a note to a replica.
    pub fn offer(&mut self, to: u64, note: &str) {
        // A note by a replica that this one does not know yet is refused; it will come again.
        if let Ok((step, _)) = self.node(to).replica.offer(note) {
            self.perform(to, step);
        }
    }

    pub fn perform(&mut self, id: u64, step: Step<Words>) {
        let node = self.nodes.get_mut(&id).unwrap();
        self.queue.extend(step.send.into_iter().map(|message| (id, message.to.0, message.bytes)));
        node.answers.extend(step.answers);
        self.found(id, step.findings);
        let Some(write) = step.write else { return };
        let node = self.nodes.get_mut(&id).unwrap();
        node.storage.write(&write.batch, write.number.is_some() || write.cosign.is_some()).unwrap();
        if let Some(number) = write.number {
            let released = node.replica.persisted(number).unwrap();
            self.queue.extend(released.into_iter().map(|message| (id, message.to.0, message.bytes)));
        }
        if let Some(size) = write.cosign.filter(|_| !self.nodes[&id].is_stuck) {
            let step = self.node(id).replica.cosign(size);
            self.perform(id, step);
            self.check_signed(id);
        }
    }

    fn found(&mut self, id: u64, findings: Vec<Finding>) {
        for finding in &findings {
            if let Finding::Final { size, note, .. } | Finding::Unanimous { size, note } = finding {
                let root = *Checkpoint::parse(SignedNote::parse(note).unwrap().text()).unwrap().root();
                assert_eq!(*self.finals.entry(*size).or_insert(root), root, "two heads of {size} entries are final");
            }
        }
        self.node(id).findings.extend(findings);
    }

    fn check_signed(&mut self, id: u64) {
        let Some(note) = self.nodes[&id].replica.finality().note_by(&name(id)) else { return };
        let checkpoint = Checkpoint::parse(note.text()).unwrap();
        let first = *self.signed.entry((id, checkpoint.size())).or_insert(*checkpoint.root());
        assert_eq!(first, *checkpoint.root(), "replica {id} has signed two roots of {} entries", checkpoint.size());
    }

    /// Lets time pass in steps of a tick.
    pub fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(TICK_MS) {
            self.ticks(1);
            self.advance(TICK_MS);
        }
    }

    /// Lets ticks of the consensus pass, while all clocks stand still.
    pub fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            for id in self.up() {
                self.node(id).replica.tick();
            }
            self.settle();
        }
    }

    /// Moves the clock at once; no consensus tick passes.
    pub fn advance(&mut self, milliseconds: u64) {
        self.now_ms += milliseconds;
        for id in self.up() {
            let now_ms = self.now_ms.saturating_add_signed(self.nodes[&id].skew_ms);
            self.node(id).replica.clock(now_ms);
        }
        self.settle();
    }

    /// Lets the leader seal with a time of its own making, at which its clock stands neither before nor after.
    pub fn seal_falsely(&mut self, ahead_ms: u64) {
        let (leader, now_ms) = (self.leader().unwrap(), self.now_ms);
        let replica = &mut self.node(leader).replica;
        replica.clock(now_ms + ahead_ms);
        replica.clock(now_ms);
        self.settle();
    }

    /// Lets time pass until `condition` holds, at most so long.
    pub fn pass_until(&mut self, milliseconds: u64, condition: impl Fn(&Self) -> bool) -> bool {
        let end_ms = self.now_ms + milliseconds;
        while !condition(self) && self.now_ms < end_ms {
            self.pass(TICK_MS);
        }
        condition(self)
    }

    pub fn submit(&mut self, at: u64, envelope: &[u8]) -> Answer {
        self.tickets += 1;
        let ticket = self.tickets;
        let submission = self.node(at).replica.submit(ticket, envelope).unwrap();
        match submission {
            Submission::Known(index) => return Answer::Committed { index, reason: None },
            Submission::Proposed => {}
            Submission::Forward(leader) => {
                self.node(leader.unwrap().0).replica.propose_for_peer(envelope).unwrap();
            }
        }
        self.settle();
        for _ in 0..10 {
            if let Some(answer) = self.node(at).answers.remove(&ticket) {
                return answer;
            }
            self.ticks(1);
        }
        panic!("no answer");
    }

    /// Says a word through the leader and returns its index.
    pub fn say(&mut self, word: &[u8]) -> u64 {
        self.submit_kind("Say", word)
    }

    /// Brings a new transaction onto the log through the leader and returns its index.
    pub fn submit_kind(&mut self, kind: &str, payload: &[u8]) -> u64 {
        self.nonces += 1;
        let envelope = machine::transaction(self.chain(), self.nonces, kind, payload);
        let leader = self.leader().unwrap();
        index(&self.submit(leader, &envelope))
    }

    /// Ends a replica's process, forgets what was not durable, and starts it again from its disk.
    pub fn restart(&mut self, id: u64) {
        self.try_restart(id).unwrap();
    }

    pub fn try_restart(&mut self, id: u64) -> Result<(), Fault> {
        let replicas = self.nodes.len() as u64;
        let now_ms = self.now_ms;
        let node = self.node(id);
        node.storage.crash();
        node.boots += 1;
        node.replica = open(id, replicas, node.boots, &node.cosign_key, &node.storage)?;
        node.replica.clock(now_ms.saturating_add_signed(node.skew_ms));
        node.answers.clear();
        node.told = None;
        self.faults.remove(&id);
        self.turn_on(id);
        Ok(())
    }

    pub fn turn_off(&mut self, id: u64) {
        self.down.insert(id);
    }

    /// Connects a replica again; everybody tells it anew.
    pub fn turn_on(&mut self, id: u64) {
        self.down.remove(&id);
        for node in self.nodes.values_mut() {
            node.told = None;
        }
    }

    pub fn final_size(&self, id: u64) -> u64 {
        self.nodes[&id].replica.finality().final_size()
    }

    pub fn unanimous_size(&self, id: u64) -> u64 {
        self.nodes[&id].replica.finality().unanimous_size()
    }

    pub fn size(&self, id: u64) -> u64 {
        self.nodes[&id].replica.log().size()
    }

    /// Whether every replica that is up knows that the entry at `index` is final.
    pub fn is_final(&self, index: u64) -> bool {
        self.up().into_iter().all(|id| self.final_size(id) > index)
    }

    pub fn is_unanimous(&self, index: u64) -> bool {
        self.up().into_iter().all(|id| self.unanimous_size(id) > index)
    }

    /// Sizes of the heads that are final anywhere.
    pub fn final_sizes(&self) -> Vec<u64> {
        self.finals.keys().copied().collect()
    }

    pub fn assert_agree(&self) {
        let mut heads = self.up().into_iter().map(|id| (self.size(id), self.nodes[&id].replica.log().root()));
        let first = heads.next().unwrap();
        assert!(heads.all(|head| head == first), "the replicas' logs differ");
    }
}

/// A message in which one digest stands in place of another.
fn replaced(message: &[u8], old: &Digest, new: &Digest) -> Vec<u8> {
    let at = message.windows(32).position(|window| window == old.as_bytes()).unwrap();
    [&message[..at], new.as_bytes(), &message[at + 32..]].concat()
}

pub fn index(answer: &Answer) -> u64 {
    match answer {
        Answer::Committed { index, .. } => *index,
        other => panic!("not committed: {other:?}"),
    }
}
