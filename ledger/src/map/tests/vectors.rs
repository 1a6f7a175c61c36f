//! Figures of `docs/formats/state-proof.md`, computed by a program of a few lines that shares no code with this one.

use super::*;

/// Number of records of [`pairs`] and the root over them.
const ROOTS: [(usize, &str); 4] = [
    (0, "0e1ac19b7e7b6768f046422d587130e52e8d54b9a64337dd6b5484bc0895b025"),
    (1, "6a888074674438c8f2464b8d2d0f7027f907daf2c57cfccb339a75b6119724fb"),
    (2, "6f53f6fbf6d60958eecc84ba4b04568c7fc2eaf38c438cd1fcbcf111c738c187"),
    (3, "bfd03b7968d1a1fb91350192a6aeb8880953920f4b78735c0b019ce60fe35758"),
];

/// Root over the squares of 0 to 999, key and value in decimal.
const SQUARES_ROOT: &str = "53b5fc5a36e81a4041e8a910bbef0511699ad2aa3bd8d13219de107f1fe845d6";

/// Proof for "beta" and of the absence of "delta" in the map of three records.
const PROOF: &str = "\
    a2646c656166825820f44e64e75f3948e9f73f8dfa94721c4ce8cbb4f265c4790c702b2d41cfbf2753\
    5820d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35\
    64706174688182015820\
    4c253a6b25eda06c5045ebfd7c3f69e0e754656212516ca071f4c387c15dfbe2";

fn pairs() -> [(&'static str, Option<&'static str>); 3] {
    [("alpha", Some("1")), ("beta", Some("2")), ("gamma", Some(""))]
}

#[test]
fn roots_are_those_of_the_document() {
    for (count, root) in ROOTS {
        let mut map = StateMap::default();
        map.apply(pairs().into_iter().take(count));
        assert_eq!(map.root().to_string(), root, "of {count} records");
    }
    let mut map = StateMap::default();
    map.apply((0u32..1000).map(|number| (number.to_string(), Some((number * number).to_string()))));
    assert_eq!(map.root().to_string(), SQUARES_ROOT);
}

#[test]
fn proofs_are_those_of_the_document() {
    let mut map = StateMap::default();
    map.apply(pairs());
    for (key, value) in [(b"beta".as_slice(), Some(b"2".as_slice())), (b"delta", None)] {
        assert_eq!(hex::encode(map.prove(key).to_bytes()), PROOF);
        let proof = StateProof::from_bytes(&hex::decode(PROOF).unwrap()).unwrap();
        assert_eq!(proof.verify(&ROOTS[3].1.parse().unwrap(), key, value), Ok(()));
    }
}
