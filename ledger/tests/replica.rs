//! Whole replicas in memory: submission, idempotence, restart, and catching up from a peer's leaves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fedledger_ledger::{
    Digest, PublicKey, SecretKey,
    consensus::{Config, ReplicaId, Role},
    epoch::{Epoch, ReplicaKeys},
    leaf::Leaf,
    log::{Log, read_leaf},
    machine::{RejectionCode, StateMachine, WriteSet},
    replica::{Answer, Fault, Identity, Replica, Step, Submission},
    storage::memory::MemoryStorage,
    storage::{LogStorage, notes::read_notes},
    transaction::{Nonce, Transaction},
};

const GENESIS: &[u8] = b"genesis of the counters";

/// Counts how often each word was said; refuses the word "no".
#[derive(Debug)]
struct Words(BTreeMap<Vec<u8>, u64>, Epoch);

#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("that word is not taken")
    }
}

impl RejectionCode for Refused {
    fn code(&self) -> &'static str {
        "refused_word"
    }
}

impl StateMachine for Words {
    type Event = u64;
    type Rejection = Refused;

    fn apply(
        &mut self,
        _index: u64,
        _author: &PublicKey,
        _kind: &str,
        payload: &[u8],
        writes: &mut WriteSet,
    ) -> Result<u64, Refused> {
        if payload == b"no" {
            return Err(Refused);
        }
        let count = self.0.entry(payload.to_vec()).or_default();
        *count += 1;
        writes.put(payload.to_vec(), count);
        Ok(*count)
    }

    fn epoch(&self) -> &Epoch {
        &self.1
    }

    fn genesis(_bytes: &[u8], _writes: &mut WriteSet) -> Result<Self, String> {
        Ok(Self(BTreeMap::new(), epoch()))
    }

    fn restore(records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, String> {
        let decode = |value: Vec<u8>| fedledger_ledger::codec::decode(&value, 64).map_err(|error| error.to_string());
        let words = records.map(|(key, value)| Ok((key, decode(value)?))).collect::<Result<_, String>>()?;
        Ok(Self(words, epoch()))
    }
}

fn log_key(id: u64) -> SecretKey {
    SecretKey::from_seed([id as u8; 32])
}

fn cosign_key(id: u64) -> SecretKey {
    SecretKey::from_seed([id as u8 + 50; 32])
}

fn author_key(id: u64) -> SecretKey {
    SecretKey::from_seed([id as u8 + 100; 32])
}

/// Three replicas, of which two make a head final.
fn epoch() -> Epoch {
    let keys = |id| ReplicaKeys {
        author: author_key(id).public(),
        log: log_key(id).public(),
        cosign: cosign_key(id).public(),
    };
    let replicas = (1..=3).map(|id| (format!("replica-{id}"), keys(id))).collect();
    Epoch { number: 0, index: 0, threshold: 2, replicas, witnesses: BTreeMap::new() }
}

struct Node {
    replica: Replica<Words>,
    storage: Arc<MemoryStorage>,
    answers: BTreeMap<u64, Answer>,
}

/// Three replicas whose messages arrive at once and whose disks are instant.
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    cut: Option<u64>,
    tickets: u64,
}

fn open(id: u64, boot: u64, storage: &MemoryStorage, genesis: &[u8]) -> Result<Replica<Words>, Fault> {
    let identity = Identity { name: format!("replica-{id}"), origin: "test".into(), log_key: log_key(id) };
    let mut config = Config::new(ReplicaId(id), boot, 7);
    config.catch_up_entries = 16;
    Replica::open(identity, config, (1..=3).map(ReplicaId).collect(), genesis, storage)
}

impl Cluster {
    fn new() -> Self {
        let node = |id| {
            let storage = Arc::new(MemoryStorage::default());
            let replica = open(id, 1, &storage, GENESIS).unwrap();
            (id, Node { replica, storage, answers: BTreeMap::new() })
        };
        let mut cluster = Self { nodes: (1..=3).map(node).collect(), cut: None, tickets: 0 };
        cluster.nodes.get_mut(&1).unwrap().replica.campaign();
        cluster.settle();
        cluster
    }

    /// Delivers messages until nobody has anything to say.
    fn settle(&mut self) {
        let mut queue = VecDeque::new();
        loop {
            for (id, node) in &mut self.nodes {
                while let Some(step) = node.replica.step().unwrap() {
                    perform(*id, node, step, &mut queue);
                }
            }
            let Some((from, to, bytes)) = queue.pop_front() else { return };
            if self.cut == Some(from) || self.cut == Some(to) {
                continue;
            }
            self.fetch_if_wanted(from, to, &bytes, &mut queue);
            // Late messages may be refused; that is for the consensus tests.
            let _ = self.nodes.get_mut(&to).unwrap().replica.receive(ReplicaId(from), &bytes);
        }
    }

    /// What the shell does for a snapshot: leaves first, then the message.
    fn fetch_if_wanted(&mut self, from: u64, to: u64, bytes: &[u8], queue: &mut VecDeque<(u64, u64, Vec<u8>)>) {
        let wanted = self.nodes[&to].replica.wanted(ReplicaId(from), bytes);
        let Ok(Some(manifest)) = wanted else { return };
        let known = self.nodes[&to].replica.log().size();
        let source = Arc::clone(&self.nodes[&from].storage);
        let leaves: Vec<Vec<u8>> = (known..manifest.size).map(|index| read_leaf(&*source, index).unwrap()).collect();
        let node = self.nodes.get_mut(&to).unwrap();
        let (step, outcome) = node.replica.catch_up(&leaves);
        outcome.unwrap();
        perform(to, node, step, queue);
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            for (id, node) in &mut self.nodes {
                if self.cut != Some(*id) {
                    node.replica.tick();
                }
            }
            self.settle();
        }
    }

    fn leader(&self) -> u64 {
        let leads = |node: &Node| node.replica.status().role == Role::Leader;
        let connected = self.nodes.iter().filter(|(id, _)| self.cut != Some(**id));
        *connected.filter(|(_, node)| leads(node)).max_by_key(|(_, node)| node.replica.status().term).unwrap().0
    }

    fn submit(&mut self, at: u64, envelope: &[u8]) -> Answer {
        self.tickets += 1;
        let ticket = self.tickets;
        let submission = self.nodes.get_mut(&at).unwrap().replica.submit(ticket, envelope).unwrap();
        match submission {
            Submission::Known(index) => return Answer::Committed { index, reason: None },
            Submission::Proposed => {}
            Submission::Forward(leader) => {
                let leader = self.nodes.get_mut(&leader.unwrap().0).unwrap();
                leader.replica.propose_for_peer(envelope).unwrap();
            }
        }
        self.settle();
        for _ in 0..10 {
            if let Some(answer) = self.nodes.get_mut(&at).unwrap().answers.remove(&ticket) {
                return answer;
            }
            self.tick(1);
        }
        panic!("no answer");
    }

    fn restart(&mut self, id: u64, boot: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.storage.crash();
        node.replica = open(id, boot, &node.storage, GENESIS).unwrap();
        node.answers.clear();
    }

    fn assert_agree(&self) {
        let mut heads = self.nodes.values().map(|node| (node.replica.log().size(), node.replica.log().root()));
        let first = heads.next().unwrap();
        assert!(heads.all(|head| head == first), "the replicas' logs differ");
    }
}

fn perform(id: u64, node: &mut Node, step: Step<Words>, queue: &mut VecDeque<(u64, u64, Vec<u8>)>) {
    queue.extend(step.send.into_iter().map(|message| (id, message.to.0, message.bytes)));
    if let Some(write) = step.write {
        node.storage.write(&write.batch, write.number.is_some()).unwrap();
        if let Some(number) = write.number {
            let released = node.replica.persisted(number).unwrap();
            queue.extend(released.into_iter().map(|message| (id, message.to.0, message.bytes)));
        }
    }
    node.answers.extend(step.answers);
}

fn envelope(nonce: u64, word: &[u8]) -> Vec<u8> {
    let key = SecretKey::from_seed([9; 32]);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&nonce.to_be_bytes());
    let transaction = Transaction {
        chain: Digest::of(GENESIS),
        author: key.public(),
        nonce: Nonce(bytes),
        not_after_index: 50_000,
        kind: "Say".into(),
        payload: word.to_vec(),
    };
    transaction.sign(&key).to_bytes()
}

fn index(answer: &Answer) -> u64 {
    match answer {
        Answer::Committed { index, .. } => *index,
        other => panic!("not committed: {other:?}"),
    }
}

#[test]
fn transactions_come_through_any_replica_and_once() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.leader(), 1);
    for at in 1..=3 {
        let first = cluster.submit(at, &envelope(at, b"yes"));
        assert_eq!(index(&first), at);
        // The same bytes again, through another replica: the first outcome.
        let again = cluster.submit(at % 3 + 1, &envelope(at, b"yes"));
        assert_eq!(index(&again), at);
    }
    cluster.tick(5);
    cluster.assert_agree();
    assert_eq!(cluster.nodes[&2].replica.log().size(), 4);
    assert_eq!(cluster.nodes[&3].replica.log().machine().0[b"yes".as_slice()], 3);
}

#[test]
fn rejections_stand_on_the_ledger_and_change_nothing() {
    let mut cluster = Cluster::new();
    let rejected = cluster.submit(1, &envelope(1, b"no"));
    assert_eq!(rejected, Answer::Committed { index: 1, reason: Some("that word is not taken".into()) });
    // A nonce used for other bytes is a rejection too, and evidence.
    cluster.submit(1, &envelope(2, b"yes"));
    let reused = cluster.submit(1, &envelope(2, b"other"));
    let leaf = |index| Leaf::from_bytes(&read_leaf(&*cluster.nodes[&1].storage, index).unwrap()).unwrap();
    assert_eq!(leaf(1).outcome.code(), "refused_word");
    assert_eq!(leaf(index(&reused)).outcome.code(), "nonce_reused");
    assert_eq!(leaf(1).write_set, WriteSet::default().digest());
    assert_eq!(cluster.nodes[&1].replica.log().machine().0.len(), 1);
}

#[test]
fn what_is_no_transaction_never_becomes_a_leaf() {
    let mut cluster = Cluster::new();
    let mut damaged = envelope(1, b"yes");
    *damaged.last_mut().unwrap() ^= 1;
    let replica = &mut cluster.nodes.get_mut(&1).unwrap().replica;
    assert!(replica.submit(1, &damaged).is_err());
    assert!(replica.submit(2, b"garbage").is_err());
    // A dishonest leader proposes it all the same: every replica refuses it in apply.
    assert_eq!(cluster.nodes[&2].replica.log().size(), 1);
}

#[test]
fn a_replica_restarts_with_everything_acknowledged() {
    let mut cluster = Cluster::new();
    for nonce in 1..=20 {
        cluster.submit(1, &envelope(nonce, b"yes"));
    }
    cluster.restart(3, 2);
    cluster.tick(30);
    cluster.assert_agree();
    // And the whole cluster at once.
    for id in 1..=3 {
        cluster.restart(id, 3);
    }
    cluster.tick(100);
    let leader = cluster.leader();
    let answer = cluster.submit(leader, &envelope(21, b"yes"));
    assert_eq!(index(&answer), 21);
    // Deduplication survives, too.
    assert_eq!(index(&cluster.submit(leader, &envelope(5, b"yes"))), 5);
    cluster.tick(5);
    cluster.assert_agree();
    assert_eq!(cluster.nodes[&3].replica.log().machine().0[b"yes".as_slice()], 21);
}

#[test]
fn a_replica_that_was_away_for_long_catches_up_from_leaves() {
    let mut cluster = Cluster::new();
    cluster.submit(1, &envelope(0, b"before"));
    cluster.cut = Some(3);
    // More than the Raft log keeps: it is compacted every 4,096 entries.
    for nonce in 1..=4_300 {
        cluster.submit(1, &envelope(nonce, b"yes"));
    }
    let first_kept = cluster.nodes[&1].replica.status().compacted.index;
    assert!(first_kept > 3_000, "nothing was compacted: {first_kept}");
    cluster.cut = None;
    cluster.tick(200);
    cluster.assert_agree();
    assert_eq!(cluster.nodes[&3].replica.log().size(), 4_302);
    // It counts in the quorum again, and restarts from what it fetched.
    cluster.cut = Some(2);
    cluster.submit(1, &envelope(9_999, b"after"));
    cluster.cut = None;
    cluster.restart(3, 2);
    cluster.tick(100);
    cluster.assert_agree();
}

#[test]
fn forged_leaves_are_refused_while_catching_up() {
    let mut cluster = Cluster::new();
    cluster.submit(1, &envelope(1, b"yes"));
    let leaf = read_leaf(&*cluster.nodes[&1].storage, 1).unwrap();
    let storage = MemoryStorage::default();
    let mut fresh = open(2, 9, &storage, GENESIS).unwrap();
    let mut forged = Leaf::from_bytes(&leaf).unwrap();
    forged.write_set = Digest::of(b"something else");
    let (_, outcome) = fresh.catch_up(&[forged.to_bytes()]);
    assert!(matches!(outcome, Err(Fault::Diverged { index: 1, .. })), "{outcome:?}");
}

#[test]
fn a_directory_of_another_consortium_is_refused() {
    let storage = MemoryStorage::default();
    open(1, 1, &storage, GENESIS).unwrap();
    let refused = open(1, 2, &storage, b"another genesis");
    assert!(matches!(refused, Err(Fault::OtherChain { .. })));
}

#[test]
fn every_replica_keeps_its_signed_checkpoint() {
    let mut cluster = Cluster::new();
    cluster.submit(1, &envelope(1, b"yes"));
    cluster.tick(5);
    for (id, node) in &cluster.nodes {
        let notes = read_notes(&*node.storage).unwrap();
        let note = fedledger_ledger::note::SignedNote::parse(&notes[0]).unwrap();
        let key = SecretKey::from_seed([*id as u8; 32]).public();
        note.verify(&format!("replica-{id}"), &key).unwrap();
        let checkpoint = fedledger_ledger::checkpoint::Checkpoint::parse(note.text()).unwrap();
        assert_eq!((checkpoint.size(), *checkpoint.root()), (2, node.replica.log().root()));
    }
}

#[test]
fn replaying_the_leaves_gives_the_same_log() {
    let mut cluster = Cluster::new();
    for nonce in 1..=10 {
        cluster.submit(1, &envelope(nonce, if nonce % 3 == 0 { b"no" } else { b"yes" }));
    }
    let (mut log, _) = Log::<Words>::genesis(GENESIS).unwrap();
    for index in 1..=10 {
        log.replay(&read_leaf(&*cluster.nodes[&1].storage, index).unwrap()).unwrap();
    }
    assert_eq!(log.root(), cluster.nodes[&1].replica.log().root());
}
