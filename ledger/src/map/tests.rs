//! The map against its definition, and proofs against every small change and every claim that is not so.

mod forgeries;
mod oracle;
mod vectors;

use std::{collections::BTreeMap, mem::size_of};

use proptest::prelude::*;

use self::oracle::Records;
use super::*;
use crate::machine::WriteSet;

/// Most memory for a record, in bytes; the budget of an offline verifier allows no more.
const RECORD_MEMORY_BYTES_MAX: usize = 250;

/// Both counters of an `Arc`.
const ARC_OVERHEAD_BYTES: usize = 16;

/// Bits in which the positions of random tests differ: neighbours, ends of bytes and both ends of the way.
const VARIED_BITS: [u8; 9] = [0, 1, 2, 7, 8, 100, 101, 254, 255];

/// A map of the numbers below `count`, and its records.
fn numbered(count: u64) -> (StateMap, BTreeMap<Vec<u8>, Vec<u8>>) {
    let records: BTreeMap<_, _> =
        (0..count).map(|number| (format!("key/{number}").into_bytes(), number.to_be_bytes().to_vec())).collect();
    let mut map = StateMap::default();
    map.apply(records.iter().map(|(key, value)| (key, Some(value))));
    (map, records)
}

/// The position whose bits at [`VARIED_BITS`] are those of `choice`, all others zero.
fn varied(choice: u16) -> [u8; 32] {
    let chosen = VARIED_BITS.iter().enumerate().filter(|(index, _)| choice >> index & 1 == 1);
    chosen.fold([0; 32], |position, (_, bit)| flipped(position, *bit))
}

fn flipped(mut position: [u8; 32], bit: u8) -> [u8; 32] {
    position[usize::from(bit / 8)] ^= 0x80 >> (bit % 8);
    position
}

/// Puts 257 records so that the way of the first divides at every bit; its position is all zeros.
fn deepest() -> (StateMap, Records) {
    let mut map = StateMap::default();
    let positions = (0..=u8::MAX).map(|bit| flipped([0; 32], bit)).chain([[0; 32]]);
    let records: Records = positions.map(|position| (position, Digest::of(&position))).collect();
    for (position, value) in &records {
        map.put(Position::from_bytes(*position), *value);
    }
    (map, records)
}

#[test]
fn an_empty_map_proves_the_absence_of_everything() {
    let map = StateMap::default();
    let proof = map.prove(b"key");
    assert_eq!((map.root(), map.len(), map.is_empty()), (oracle::root(&Records::new()), 0, true));
    assert_eq!(proof.verify(&map.root(), b"key", None), Ok(()));
    assert_eq!(proof.verify(&map.root(), b"", None), Ok(()));
    assert_eq!(proof.verify(&map.root(), b"key", Some(b"")), Err(StateProofError::Absent));
}

#[test]
fn one_record_is_proven_and_every_other_key_absent() {
    let mut map = StateMap::default();
    map.apply([(b"key", Some(b"value"))]);
    let (root, recorded) = (map.root(), Digest::of(b"value"));
    assert_eq!(map.len(), 1);
    assert_eq!(map.value_digest(b"key"), Some(recorded));
    assert_eq!(map.value_digest(b"other"), None);
    assert_eq!(map.prove(b"key"), map.prove(b"other"), "one record is the end of every way");
    let proof = map.prove(b"key");
    assert_eq!(proof.verify(&root, b"key", Some(b"value")), Ok(()));
    assert_eq!(proof.verify(&root, b"other", None), Ok(()));
    assert_eq!(proof.verify(&root, b"key", None), Err(StateProofError::Present(recorded)));
    assert_eq!(proof.verify(&root, b"other", Some(b"value")), Err(StateProofError::Absent));
    let given = Digest::of(b"values");
    assert_eq!(proof.verify(&root, b"key", Some(b"values")), Err(StateProofError::Value { recorded, given }));
    map.apply([(b"key", None::<&[u8]>)]);
    assert_eq!((map.root(), map.len()), (StateMap::default().root(), 0));
}

#[test]
fn absence_and_an_empty_value_are_different_states() {
    let (mut map, _) = numbered(3);
    let before = map.root();
    map.apply([(b"empty", Some(b""))]);
    let proof = map.prove(b"empty");
    assert_ne!(map.root(), before);
    assert_eq!(proof.verify(&map.root(), b"empty", Some(b"")), Ok(()));
    assert!(proof.verify(&map.root(), b"empty", None).is_err());
}

#[test]
fn write_sets_apply_as_they_are() {
    let mut writes = WriteSet::default();
    writes.put(b"kept".to_vec(), &1u64);
    writes.remove(b"key/0".to_vec());
    let (mut map, mut records) = numbered(5);
    map.apply(writes.iter());
    records.remove(b"key/0".as_slice());
    records.insert(b"kept".to_vec(), crate::codec::encode(&1u64));
    assert_eq!((map.root(), map.len()), (oracle::root(&oracle::records(&records)), 5));
}

#[test]
fn the_last_of_several_writes_of_one_key_counts() {
    let mut map = StateMap::default();
    map.apply([(b"key", Some(b"one")), (b"key", None), (b"key", Some(b"two"))]);
    let mut once = StateMap::default();
    once.apply([(b"key", Some(b"two"))]);
    assert_eq!((map.root(), map.len()), (once.root(), 1));
}

#[test]
fn removing_what_is_not_there_changes_nothing() {
    let (mut map, _) = numbered(20);
    let before = map.root();
    map.apply([(b"absent", None::<&[u8]>)]);
    assert_eq!((map.root(), map.len()), (before, 20));
}

#[test]
fn snapshots_stay_as_they_were() {
    const fn for_other_threads<T: Send + Sync>() {}
    const { for_other_threads::<StateMap>() };
    let (mut map, records) = numbered(100);
    let unhashed = map.clone();
    let root = map.root();
    let snapshot = map.clone();
    for round in 0..5u64 {
        map.apply((0..60).map(|number| (format!("key/{number}"), (number % 3 > 0).then(|| round.to_be_bytes()))));
        assert_ne!(map.root(), root);
    }
    for snapshot in [snapshot, unhashed] {
        assert_eq!((snapshot.root(), snapshot.len()), (root, 100));
        for (key, value) in &records {
            let proof = snapshot.prove(key);
            assert_eq!(proof.verify(&root, key, Some(value)), Ok(()));
            assert_eq!(snapshot.value_digest(key), Some(Digest::of(value)));
        }
        assert_eq!(snapshot.prove(b"absent").verify(&root, b"absent", None), Ok(()));
    }
}

#[test]
fn every_record_is_proven_and_neighbours_are_absent() {
    let (map, records) = numbered(300);
    let root = map.root();
    for (key, value) in &records {
        let proof = map.prove(key);
        let mut neighbour = key.clone();
        neighbour.push(b'x');
        assert_eq!(proof.verify(&root, key, Some(value)), Ok(()));
        assert_eq!(proof.verify(&root, key, None), Err(StateProofError::Present(Digest::of(value))));
        let proof = map.prove(&neighbour);
        assert_eq!(proof.verify(&root, &neighbour, None), Ok(()));
        assert_eq!(proof.verify(&root, &neighbour, Some(value)), Err(StateProofError::Absent));
    }
}

#[test]
fn proofs_reach_the_largest_depth_and_exactly_the_size_that_is_allowed() {
    let (mut map, mut records) = deepest();
    let root = map.root();
    assert_eq!(root, oracle::root(&records));
    let position = Position::from_bytes([0; 32]);
    let proof = map.prove_at(&position);
    assert_eq!(proof.verify_at(&root, &position, Some(records[&[0; 32]])), Ok(()));
    assert_eq!(proof.to_bytes().len(), STATE_PROOF_SIZE_BYTES_MAX);
    assert_eq!(StateProof::from_bytes(&proof.to_bytes()), Ok(proof));
    // From the deepest record up, so that long ways shrink step by step.
    for bit in (0..=u8::MAX).rev() {
        let removed = flipped([0; 32], bit);
        map.remove(&Position::from_bytes(removed));
        records.remove(&removed);
        assert_eq!(map.len(), records.len());
        if bit % 16 == 0 {
            assert_eq!(map.root(), oracle::root(&records));
        }
        let absent = Position::from_bytes(removed);
        assert_eq!(map.prove_at(&absent).verify_at(&map.root(), &absent, None), Ok(()));
    }
}

#[test]
fn positions_read_their_bits_from_the_most_significant_on() {
    let zeros = Position::from_bytes([0; 32]);
    assert_eq!(zeros.first_difference(&zeros), None);
    for bit in 0..=u8::MAX {
        let one = Position::from_bytes(flipped([0; 32], bit));
        assert!((0..=u8::MAX).all(|other| one.bit(other) == (other == bit)));
        assert_eq!(one.first_difference(&zeros), Some(bit));
    }
}

#[test]
fn a_record_fits_into_its_share_of_memory() {
    // A tree of n records has n leaves and n - 1 inner nodes.
    let record = 2 * ARC_OVERHEAD_BYTES + size_of::<tree::Leaf>() + size_of::<tree::Inner>();
    assert!(record <= RECORD_MEMORY_BYTES_MAX, "{record} bytes for a record");
}

/// Writes and removals of positions with long common prefixes.
fn any_changes() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    prop::collection::vec((0u16..1 << VARIED_BITS.len(), prop::option::weighted(0.6, any::<u8>())), 0..120)
}

proptest! {
    #[test]
    fn the_root_is_that_of_the_definition_after_every_change(changes in any_changes(), ask_every in 1usize..10) {
        let (mut map, mut records) = (StateMap::default(), Records::new());
        let mut snapshots = Vec::new();
        for (number, (choice, value)) in changes.into_iter().enumerate() {
            let position = varied(choice);
            match value {
                Some(value) => {
                    map.put(Position::from_bytes(position), Digest::of(&[value]));
                    records.insert(position, Digest::of(&[value]));
                }
                None => {
                    map.remove(&Position::from_bytes(position));
                    records.remove(&position);
                }
            }
            // Hashes and snapshots are left over from some of the states in between, not from all.
            if number % ask_every == 0 {
                prop_assert_eq!(map.root(), oracle::root(&records));
                snapshots.push((map.clone(), records.clone()));
            }
        }
        snapshots.push((map, records));
        for (map, records) in snapshots {
            prop_assert_eq!((map.root(), map.len()), (oracle::root(&records), records.len()));
        }
    }

    #[test]
    fn proofs_show_what_is_so_and_nothing_else(changes in any_changes(), asked in 0u16..1 << VARIED_BITS.len()) {
        let mut map = StateMap::default();
        let mut records = Records::new();
        for (choice, value) in changes {
            let value = Digest::of(&[value.unwrap_or_default()]);
            map.put(Position::from_bytes(varied(choice)), value);
            records.insert(varied(choice), value);
        }
        let (root, position) = (map.root(), Position::from_bytes(varied(asked)));
        let recorded = records.get(&varied(asked)).copied();
        let proof = StateProof::from_bytes(&map.prove_at(&position).to_bytes()).unwrap();
        prop_assert_eq!(proof.verify_at(&root, &position, recorded), Ok(()));
        let claims = [None, Some(Digest::of(b"never written"))].into_iter().chain(records.values().copied().map(Some));
        for claim in claims.filter(|claim| *claim != recorded) {
            prop_assert!(proof.verify_at(&root, &position, claim).is_err(), "{claim:?} for {recorded:?}");
        }
    }

    #[test]
    fn batches_and_order_do_not_matter(
        records in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 0..3), prop::collection::vec(any::<u8>(), 0..3), 0..60
        ),
        transient in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..20),
        order in any::<prop::sample::Index>(),
        batch in 1usize..20,
    ) {
        let expected = oracle::root(&oracle::records(&records));
        let mut entries: Vec<_> = records.iter().map(|(key, value)| (key, Some(value))).collect();
        let mut map = StateMap::default();
        map.apply(transient.iter().map(|key| (key, Some(b"gone"))));
        map.apply(transient.iter().map(|key| (key, None::<&[u8]>)));
        if !entries.is_empty() {
            let from = order.index(entries.len());
            entries.rotate_left(from);
        }
        entries.reverse();
        for batch in entries.chunks(batch) {
            map.apply(batch.iter().copied());
            map.root();
        }
        prop_assert_eq!((map.root(), map.len()), (expected, records.len()));
        for key in transient {
            prop_assert_eq!(map.value_digest(&key), records.get(&key).map(|value| Digest::of(value)));
        }
    }
}
