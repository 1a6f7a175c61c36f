//! Proofs that were changed in any way show nothing.

use serde::Serialize;
use serde_bytes::ByteBuf;

use super::*;
use crate::codec::{self, CodecError};

/// A proof as anybody could write it, without the checks of [`StateProof`].
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Forged {
    leaf: Option<(Digest, Digest)>,
    path: Vec<(u8, Digest)>,
}

impl Forged {
    /// A valid proof, to be changed.
    fn from(proof: &StateProof) -> Self {
        #[derive(serde::Deserialize)]
        struct Parts {
            leaf: Option<(Digest, Digest)>,
            path: Vec<(u8, Digest)>,
        }
        let Parts { leaf, path } = serde_ipld_dagcbor::from_slice(&proof.to_bytes()).unwrap();
        Self { leaf, path }
    }

    fn decoded(&self) -> Result<StateProof, StateProofError> {
        StateProof::from_bytes(&codec::encode(self))
    }

    /// Whether the proof is accepted for the claim.
    fn shows(&self, root: &Digest, key: &[u8], value: Option<&[u8]>) -> bool {
        self.decoded().is_ok_and(|proof| proof.verify(root, key, value).is_ok())
    }
}

/// Asserts that no proof which differs from this one in a single bit shows anything about `key`, and that the proof shows
/// nothing under a root, for a key or for a value that differs in a bit.
fn assert_every_flip_is_refused(map: &StateMap, key: &[u8], value: Option<&[u8]>) {
    let (proof, root) = (map.prove(key), map.root());
    assert_eq!(proof.verify(&root, key, value), Ok(()));
    let flips = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        (0..bytes.len() * 8).map(move |bit| {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
    };
    for bytes in flips(&proof.to_bytes()) {
        let Ok(forged) = StateProof::from_bytes(&bytes) else { continue };
        for claim in [value, None, Some(b"forged")] {
            assert!(forged.verify(&root, key, claim).is_err(), "{forged:?} shows {claim:?}");
        }
    }
    for root in flips(root.as_bytes()) {
        let root = Digest::from_bytes(root.try_into().unwrap());
        assert!(matches!(proof.verify(&root, key, value), Err(StateProofError::Root { .. })));
    }
    for value in value.into_iter().flat_map(flips) {
        assert!(matches!(proof.verify(&root, key, Some(&value)), Err(StateProofError::Value { .. })));
    }
    if value.is_some() {
        for key in flips(key) {
            assert!(proof.verify(&root, &key, value).is_err());
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (map, records) = numbered(70);
    for (key, value) in records.iter().take(6) {
        assert_every_flip_is_refused(&map, key, Some(value));
    }
    for key in ["", "absent", "key/70", "key/"] {
        assert_every_flip_is_refused(&map, key.as_bytes(), None);
    }
    let (single, _) = numbered(1);
    assert_every_flip_is_refused(&single, b"key/0", Some(&[0; 8]));
    assert_every_flip_is_refused(&single, b"absent", None);
    assert_every_flip_is_refused(&StateMap::default(), b"absent", None);
}

/// Keys with a long common prefix of their positions stand deep, with bits skipped above them.
#[test]
fn every_flipped_bit_is_refused_where_many_bits_are_skipped() {
    let (first, second) = colliding_keys();
    let mut map = StateMap::default();
    map.apply([(&first, Some("first")), (&second, Some("second"))]);
    assert_eq!(map.prove(first.as_bytes()).to_bytes().len(), map.prove(second.as_bytes()).to_bytes().len());
    assert_every_flip_is_refused(&map, first.as_bytes(), Some(b"first"));
    assert_every_flip_is_refused(&map, b"absent", None);
    map.apply([(&second, None::<&str>)]);
    assert_every_flip_is_refused(&map, second.as_bytes(), None);
}

/// Two keys whose positions agree in their first 24 bits at least; some thousand attempts.
fn colliding_keys() -> (String, String) {
    let mut seen: BTreeMap<[u8; 3], String> = BTreeMap::new();
    for number in 0u64.. {
        let key = format!("key/{number}");
        let prefix = *Digest::of(key.as_bytes()).as_bytes().first_chunk().unwrap();
        if let Some(first) = seen.insert(prefix, key.clone()) {
            return (first, key);
        }
    }
    unreachable!("2^24 prefixes are used up long before the numbers are")
}

#[test]
fn proofs_for_other_keys_and_states_show_nothing() {
    let (map, _) = numbered(50);
    let (grown, _) = numbered(51);
    let proof = map.prove(b"key/7");
    assert!(matches!(
        proof.verify(&grown.root(), b"key/7", Some(&7u64.to_be_bytes())),
        Err(StateProofError::Root { .. })
    ));
    let others = (0..50).filter(|number| *number != 7).map(|number| format!("key/{number}").into_bytes());
    for other in others {
        assert!(
            matches!(proof.verify(&map.root(), &other, None), Err(StateProofError::OtherKey { .. })),
            "the proof for one record was taken as absence of another"
        );
    }
}

#[test]
fn an_inner_node_is_never_a_record() {
    let (map, _) = numbered(2);
    let whole = Forged::from(&map.prove(b"key/0"));
    let (bit, other) = whole.path[0];
    let (position, value) = whole.leaf.unwrap();
    let leaf = hashing::leaf_hash(&Position::from_bytes(*position.as_bytes()), &value);
    for (left, right) in [(leaf, other), (other, leaf)] {
        let truncated = Forged { leaf: Some((left, right)), path: Vec::new() };
        assert!(matches!(
            truncated.decoded().unwrap().verify(&map.root(), b"absent", None),
            Err(StateProofError::Root { .. })
        ));
    }
    // A way that goes on below a record.
    let extended = Forged { leaf: whole.leaf, path: vec![(bit, other), (255, other)] };
    assert!(!extended.shows(&map.root(), b"key/0", Some(&[0; 8])));
}

#[test]
fn what_no_map_has_is_not_decoded() {
    let (map, _) = numbered(9);
    let proof = Forged::from(&map.prove(b"key/3"));
    assert!(proof.path.len() > 1);
    let decoded = |change: &dyn Fn(&mut Forged)| {
        let mut forged = proof.clone();
        change(&mut forged);
        forged.decoded()
    };
    assert!(decoded(&|_| ()).is_ok());
    let (first, second) = (proof.path[0].0, proof.path[1].0);
    assert_eq!(decoded(&|forged| forged.path.swap(0, 1)), Err(StateProofError::Order { previous: second, bit: first }));
    let repeated = decoded(&|forged| forged.path[1].0 = first);
    assert_eq!(repeated, Err(StateProofError::Order { previous: first, bit: first }));
    let steps = proof.path.len();
    assert_eq!(decoded(&|forged| forged.leaf = None), Err(StateProofError::StepsWithoutRecord { steps }));
}

#[test]
fn no_other_encoding_is_accepted() {
    /// A record, and steps whose bits need not be bits.
    #[derive(Serialize)]
    struct Loose {
        leaf: Option<(ByteBuf, ByteBuf)>,
        path: Vec<(u64, ByteBuf)>,
    }
    #[derive(Serialize)]
    struct Longer {
        leaf: Option<ByteBuf>,
        path: Vec<u8>,
        time: u64,
    }
    #[derive(Serialize)]
    struct Shorter {
        path: Vec<u8>,
    }
    let refused = |bytes: &[u8]| matches!(StateProof::from_bytes(bytes), Err(StateProofError::Encoding(_)));
    let (map, _) = numbered(9);
    let bytes = map.prove(b"key/3").to_bytes();
    for end in 0..bytes.len() {
        assert!(refused(&bytes[..end]), "{end} bytes of {} were accepted", bytes.len());
    }
    assert!(refused(&[bytes.as_slice(), &[0]].concat()));
    assert!(refused(&codec::encode(&Longer { leaf: None, path: vec![], time: 0 })));
    assert!(refused(&codec::encode(&Shorter { path: vec![] })));
    let loose = |value: &[u8], bit: u64| {
        let digest = || ByteBuf::from([1; 32]);
        codec::encode(&Loose { leaf: Some((digest(), ByteBuf::from(value))), path: vec![(bit, digest())] })
    };
    assert!(!refused(&loose(&[1; 32], 255)));
    assert!(refused(&loose(&[1; 31], 255)));
    assert!(refused(&loose(&[1; 33], 255)));
    assert!(refused(&loose(&[1; 32], 256)));
    let large = vec![0; STATE_PROOF_SIZE_BYTES_MAX + 1];
    let expected = CodecError::TooLarge { size: large.len(), limit: STATE_PROOF_SIZE_BYTES_MAX };
    assert_eq!(StateProof::from_bytes(&large), Err(StateProofError::Encoding(expected)));
}

/// One change to the parts of a proof, with material from the same map, as a forger has it.
#[derive(Clone, Debug)]
enum Change {
    DropStep(prop::sample::Index),
    RepeatStep(prop::sample::Index),
    MoveStep(prop::sample::Index, u8),
    Sibling(prop::sample::Index, prop::sample::Index),
    Leaf(prop::sample::Index),
    NoLeaf,
    Value(prop::sample::Index),
    Position(u8),
    Truncate(prop::sample::Index),
    Replace(prop::sample::Index),
}

fn any_change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        index().prop_map(Change::DropStep),
        index().prop_map(Change::RepeatStep),
        (index(), any::<u8>()).prop_map(|(step, bit)| Change::MoveStep(step, bit)),
        (index(), index()).prop_map(|(step, hash)| Change::Sibling(step, hash)),
        index().prop_map(Change::Leaf),
        Just(Change::NoLeaf),
        index().prop_map(Change::Value),
        any::<u8>().prop_map(Change::Position),
        index().prop_map(Change::Truncate),
        index().prop_map(Change::Replace),
    ]
}

/// Everything that proofs of a map contain, in the right places and in wrong ones.
struct Material {
    proofs: Vec<Forged>,
    leaves: Vec<(Digest, Digest)>,
    hashes: Vec<Digest>,
}

impl Material {
    fn of<'a>(map: &StateMap, keys: impl Iterator<Item = &'a Vec<u8>>) -> Self {
        let proofs: Vec<_> = keys.map(|key| Forged::from(&map.prove(key))).collect();
        let leaves: Vec<_> = proofs.iter().filter_map(|proof| proof.leaf).collect();
        let digests = leaves.iter().flat_map(|(position, value)| [*position, *value]);
        let others = proofs.iter().flat_map(|proof| &proof.path).map(|(_, hash)| *hash);
        let hashes = digests.chain(others).chain([map.root()]).collect();
        Self { proofs, leaves, hashes }
    }
}

impl Change {
    fn apply(&self, proof: &mut Forged, material: &Material) {
        let steps = proof.path.len();
        match self {
            Self::Replace(other) => *proof = other.get(&material.proofs).clone(),
            Self::Leaf(leaf) => proof.leaf = Some(*leaf.get(&material.leaves)),
            Self::NoLeaf => proof.leaf = None,
            Self::Value(value) => proof.leaf.iter_mut().for_each(|(_, digest)| *digest = *value.get(&material.hashes)),
            Self::Position(bit) => proof.leaf.iter_mut().for_each(|(position, _)| {
                *position = Digest::from_bytes(flipped(*position.as_bytes(), *bit));
            }),
            _ if steps == 0 => (),
            Self::DropStep(step) => drop(proof.path.remove(step.index(steps))),
            Self::RepeatStep(step) => proof.path.insert(step.index(steps), proof.path[step.index(steps)]),
            Self::MoveStep(step, bit) => proof.path[step.index(steps)].0 = *bit,
            Self::Sibling(step, hash) => proof.path[step.index(steps)].1 = *hash.get(&material.hashes),
            Self::Truncate(step) => proof.path.truncate(step.index(steps)),
        }
    }
}

proptest! {
    #[test]
    fn rearranged_proofs_show_nothing(
        count in 1u64..40, asked in 0u64..50, changes in prop::collection::vec(any_change(), 1..4)
    ) {
        let (map, records) = numbered(count);
        let key = format!("key/{asked}").into_bytes();
        let material = Material::of(&map, records.keys());
        let genuine = Forged::from(&map.prove(&key));
        let mut forged = genuine.clone();
        changes.iter().for_each(|change| change.apply(&mut forged, &material));
        let truth = records.get(&key).map(Vec::as_slice);
        for claim in [None, Some(&[9; 8][..])].into_iter().chain(records.values().map(|value| Some(value.as_slice()))) {
            let shown = forged.shows(&map.root(), &key, claim);
            prop_assert_eq!(shown, forged == genuine && claim == truth, "{:?} as {:?}", changes, claim);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_have_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(proof) = StateProof::from_bytes(&bytes) {
            prop_assert_eq!(proof.to_bytes(), bytes);
        }
    }
}
