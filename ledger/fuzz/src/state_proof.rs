//! Proofs about the state: under one root, a key has one value or none, and nothing shows anything else.

use std::{collections::BTreeMap, sync::OnceLock};

use fedledger_ledger::{
    Digest,
    map::{STATE_PROOF_SIZE_BYTES_MAX, StateMap, StateProof, StateProofError},
};

use super::choices::Choices;

/// Records of the state whose proofs are changed; the value of a key is the key twice.
pub const RECORDS: u8 = 40;

/// Keys about which claims are checked; those from [`RECORDS`] on have no record.
pub const KEYS: u8 = 60;

/// Most changes of a map that is built.
const CHANGES_MAX: usize = 24;

/// The state with [`RECORDS`] records.
pub fn state() -> &'static StateMap {
    static STATE: OnceLock<StateMap> = OnceLock::new();
    STATE.get_or_init(|| {
        let mut map = StateMap::default();
        map.apply((0..RECORDS).map(|key| ([key], Some([key; 2]))));
        map
    })
}

/// Reads the bytes as a proof, changes a true one, and builds a map.
pub fn run(data: &[u8]) {
    if let Ok(proof) = StateProof::from_bytes(data) {
        assert!(data.len() <= STATE_PROOF_SIZE_BYTES_MAX);
        assert_eq!(proof.to_bytes(), data, "a proof has one encoding");
        tells_the_truth(&proof);
    }
    let mut choices = Choices::new(data);
    changed_proof(&mut choices);
    built_map(&mut choices);
}

/// Whatever verifies under the root of [`state`] is true, and is the one proof of it.
fn tells_the_truth(proof: &StateProof) {
    let root = state().root();
    for key in 0..KEYS {
        let value = (key < RECORDS).then_some([key; 2]);
        let truth = proof.verify(&root, &[key], value.as_ref().map(<[u8; 2]>::as_slice));
        assert!(truth.is_err() || *proof == state().prove(&[key]), "another proof of key {key} was accepted");
        assert!(proof.verify(&root, &[key], Some(b"a lie")).is_err(), "another value of key {key} was accepted");
        if value.is_some() {
            let absent = proof.verify(&root, &[key], None);
            assert!(absent.is_err(), "key {key} was accepted as absent");
            assert!(truth.is_err() || matches!(absent, Err(StateProofError::Present(_))));
        }
    }
}

fn changed_proof(choices: &mut Choices<'_>) {
    let key = choices.byte() % KEYS;
    let mut bytes = state().prove(&[key]).to_bytes();
    for _ in 0..choices.below(4) {
        let place = usize::from(choices.byte()) << 8 | usize::from(choices.byte());
        let place = place % bytes.len().max(1);
        match choices.below(3) {
            0 => bytes.insert(place, choices.byte()),
            1 if place < bytes.len() => _ = bytes.remove(place),
            _ if place < bytes.len() => bytes[place] = choices.byte(),
            _ => {}
        }
    }
    if let Ok(proof) = StateProof::from_bytes(&bytes) {
        tells_the_truth(&proof);
    }
}

/// The root depends on the records only, and every key has its proof.
fn built_map(choices: &mut Choices<'_>) {
    let (mut map, mut records) = (StateMap::default(), BTreeMap::new());
    for _ in 0..choices.below(CHANGES_MAX) {
        let key = vec![choices.byte() % KEYS];
        let length = choices.below(4);
        let value = (choices.below(3) > 0).then(|| choices.bytes(length).to_vec());
        map.apply([(&key, value.as_ref())]);
        match value {
            Some(value) => _ = records.insert(key, value),
            None => _ = records.remove(&key),
        }
    }
    let mut again = StateMap::default();
    again.apply(records.iter().rev().map(|(key, value)| (key, Some(value))));
    assert_eq!((map.root(), map.len()), (again.root(), records.len()));
    let key = vec![choices.byte() % KEYS];
    let value = records.get(&key);
    assert_eq!(map.value_digest(&key), value.map(|value| Digest::of(value)));
    let proof = StateProof::from_bytes(&map.prove(&key).to_bytes()).expect("proofs can be read");
    assert_eq!(proof.verify(&map.root(), &key, value.map(Vec::as_slice)), Ok(()));
    assert!(proof.verify(&map.root(), &key, Some(b"a lie")).is_err());
    assert!(value.is_none() || proof.verify(&map.root(), &key, None).is_err());
}
