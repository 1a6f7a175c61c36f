//! Seals in the applied log, without consensus: what they fix, who may propose them, and that every change shows.

use fedledger_ledger::{
    Digest, SecretKey, codec,
    epoch::Epoch,
    leaf::Leaf,
    log::{Applied, Log, ReplayError},
    map::StateMap,
    seal::{RULES_VERSION, SEAL_KIND, SEAL_MALFORMED, SEAL_NOT_BY_REPLICA, Seal, SealProposal},
    storage::{Batch, Column, LogStorage as _, memory::MemoryStorage, scan_all},
};

use crate::machine::{CHANGE_EPOCH, Words, author_key, epoch_of, genesis, name, signed, transaction};

/// A log on a disk, fed with envelopes as consensus would.
struct Writer {
    log: Log<Words>,
    storage: MemoryStorage,
    leaves: Vec<Vec<u8>>,
    nonce: u64,
}

impl Writer {
    fn new() -> Self {
        let (log, batch) = Log::genesis(&genesis(4)).unwrap();
        let storage = MemoryStorage::default();
        storage.write(&batch, true).unwrap();
        Self { log, storage, leaves: Vec::new(), nonce: 0 }
    }

    fn apply(&mut self, envelope: &[u8]) -> Leaf {
        match self.log.apply(self.leaves.len() as u64 + 2, envelope) {
            Applied::Entry(entry) => {
                self.storage.write(&entry.batch, true).unwrap();
                self.leaves.push(entry.leaf.to_bytes());
                entry.leaf
            }
            other => panic!("no leaf: {other:?}"),
        }
    }

    fn say(&mut self, kind: &str, payload: &[u8]) -> Leaf {
        self.nonce += 1;
        self.apply(&transaction(Digest::of(&genesis(4)), self.nonce, kind, payload))
    }

    fn propose(&mut self, key: &SecretKey, payload: &[u8]) -> Leaf {
        self.nonce += 1;
        self.apply(&signed(key, Digest::of(&genesis(4)), self.nonce, SEAL_KIND, payload))
    }

    fn seal(&mut self, time_ms: u64) -> Leaf {
        self.propose(&author_key(1), &proposal(time_ms))
    }
}

fn proposal(time_ms: u64) -> Vec<u8> {
    SealProposal { time_ms, term: 2, cosigned: vec![name(2)] }.to_bytes()
}

/// What replaying `leaves` comes to: the error of the first that does not fit.
fn replay(leaves: &[Vec<u8>]) -> Result<Log<Words>, ReplayError> {
    let (mut log, _) = Log::genesis(&genesis(4)).unwrap();
    for leaf in leaves {
        log.replay(leaf)?;
    }
    Ok(log)
}

#[test]
fn a_seal_fixes_the_records_the_epoch_and_the_time() {
    let mut writer = Writer::new();
    assert!(writer.log.is_dirty(), "the genesis file is not sealed yet");
    writer.say("Say", b"one");
    let first = writer.seal(1_000);
    writer.say("Say", b"no");
    assert!(writer.log.is_dirty());
    let mut records = StateMap::default();
    for (key, value) in scan_all(&writer.storage, Column::State, Vec::new()).map(Result::unwrap) {
        records.apply([(key, Some(value))]);
    }
    let second = writer.seal(2_000);
    assert!(!writer.log.is_dirty(), "a seal alone is nothing to seal");
    assert_eq!((first.outcome.code(), second.outcome.code()), ("accepted", "accepted"));
    let expected = Seal {
        number: 2,
        previous: first.index,
        state_root: records.root(),
        epoch: 0,
        next_epoch: epoch_of(4).digest(),
        time_ms: 2_000,
        rules_version: RULES_VERSION,
    };
    assert_eq!(second.seal, Some(expected));
    let sealed = writer.log.sealed();
    assert_eq!((sealed.number, sealed.index, sealed.time_ms), (2, second.index, 2_000));
}

#[test]
fn every_changed_field_of_a_seal_is_noticed_in_a_replay() {
    let mut writer = Writer::new();
    writer.say("Say", b"one");
    let leaf = writer.seal(1_000);
    assert_eq!(replay(&writer.leaves).unwrap().root(), writer.log.root());
    let seal = leaf.seal.unwrap();
    let changed = [
        Seal { number: 2, ..seal },
        Seal { previous: 1, ..seal },
        Seal { state_root: Digest::of(b"other"), ..seal },
        Seal { epoch: 1, ..seal },
        Seal { next_epoch: Digest::of(b"other"), ..seal },
        Seal { time_ms: 1_001, ..seal },
        Seal { rules_version: RULES_VERSION + 1, ..seal },
    ];
    for forged in changed.map(Some).into_iter().chain([None]) {
        let forged = Leaf { seal: forged, ..leaf.clone() };
        let leaves = [writer.leaves[0].clone(), forged.to_bytes()];
        let error = replay(&leaves).unwrap_err();
        assert!(error.is_divergence());
        match error {
            ReplayError::Seal { recorded, computed } => {
                assert_eq!((recorded.map(|seal| *seal), computed.map(|seal| *seal)), (forged.seal, Some(seal)));
            }
            other => panic!("{other}"),
        }
    }
    // Nor can a seal be hung on an entry that is none.
    let mut other = Leaf::from_bytes(&writer.leaves[0]).unwrap();
    other.seal = Some(seal);
    assert!(matches!(replay(&[other.to_bytes()]), Err(ReplayError::Seal { computed: None, .. })));
}

#[test]
fn seals_by_strangers_and_malformed_ones_are_rejected_and_fix_nothing() {
    let mut writer = Writer::new();
    let before = writer.log.sealed().clone();
    let stranger = SecretKey::from_seed([9; 32]);
    let trailing = [proposal(1), vec![0]].concat();
    let cases: [(_, &[u8], _); 4] = [
        (&stranger, &proposal(1), SEAL_NOT_BY_REPLICA),
        (&author_key(1), b"", SEAL_MALFORMED),
        (&author_key(1), &trailing, SEAL_MALFORMED),
        (&author_key(5), &proposal(1), SEAL_NOT_BY_REPLICA),
    ];
    for (key, payload, code) in cases {
        let leaf = writer.propose(key, payload);
        assert_eq!((leaf.outcome.code(), leaf.seal), (code, None));
    }
    assert_eq!(writer.log.sealed(), &before);
    assert_eq!(replay(&writer.leaves).unwrap().root(), writer.log.root());
}

#[test]
fn a_log_opened_again_seals_as_if_it_had_never_been_closed() {
    let mut writer = Writer::new();
    writer.say("Say", b"one");
    writer.seal(1_000);
    writer.say(CHANGE_EPOCH, &codec::encode(&Epoch { threshold: 4, ..epoch_of(4) }));
    writer.seal(2_000);
    writer.say("Say", b"two");
    let mut opened: Log<Words> = Log::load(&writer.storage).unwrap().unwrap();
    assert_eq!(opened.sealed(), writer.log.sealed());
    assert_eq!(opened.state().root(), writer.log.state().root());
    assert_eq!((opened.root(), opened.is_dirty()), (writer.log.root(), true));
    let leaf = writer.seal(3_000);
    let Applied::Entry(entry) = opened.apply(leaf.raft_index, &leaf.envelope) else { panic!("no leaf") };
    assert_eq!(entry.leaf, leaf);
    assert_eq!(replay(&writer.leaves).unwrap().root(), writer.log.root());
}

#[test]
fn the_seal_that_dismisses_a_replica_may_still_be_its_own_but_no_later_one() {
    let mut writer = Writer::new();
    let mut next = epoch_of(4);
    next.replicas.remove(&name(1));
    writer.say(CHANGE_EPOCH, &codec::encode(&next));
    let last = writer.seal(1_000).seal.unwrap();
    let in_force = writer.log.sealed().epoch.clone();
    assert_eq!((last.epoch, last.next_epoch, in_force.number), (0, in_force.digest(), 1));
    assert_eq!(writer.log.sealed().head_epoch().number, 0);
    let refused = writer.seal(2_000);
    assert_eq!((refused.outcome.code(), refused.seal), (SEAL_NOT_BY_REPLICA, None));
    let taken = writer.propose(&author_key(2), &proposal(3_000));
    assert_eq!(taken.seal.map(|seal| (seal.number, seal.epoch)), Some((2, 1)));
    assert_eq!(writer.log.sealed().head_epoch().number, 1);
}

#[test]
fn damaged_records_of_sealing_are_refused() {
    let mut writer = Writer::new();
    writer.seal(1_000);
    let mut batch = Batch::default();
    batch.put(Column::Meta, b"sealed".as_slice(), b"damaged".as_slice());
    writer.storage.write(&batch, true).unwrap();
    let error = Log::<Words>::load(&writer.storage).unwrap_err();
    assert!(error.to_string().contains("the last seal"), "{error}");
}
