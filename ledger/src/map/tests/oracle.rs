//! The definition of the root in its own words: recursive, over a plain map, hashing everything every time.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::Digest;

/// Records by position: the digests of their values.
pub(super) type Records = BTreeMap<[u8; 32], Digest>;

/// The root of these records.
pub(super) fn root(records: &Records) -> Digest {
    let records: Vec<_> = records.iter().map(|(position, value)| (*position, *value)).collect();
    if records.is_empty() { sha256(&[b"fedledger/v1/state/empty\n"]) } else { hash(&records) }
}

/// The records of a key-value map.
pub(super) fn records(map: &BTreeMap<Vec<u8>, Vec<u8>>) -> Records {
    map.iter().map(|(key, value)| (*sha256(&[key]).as_bytes(), sha256(&[value]))).collect()
}

fn hash(records: &[([u8; 32], Digest)]) -> Digest {
    if let [(position, value)] = records {
        return sha256(&[b"fedledger/v1/state/leaf\n", position, value.as_bytes()]);
    }
    let divides =
        |bit: &usize| records.iter().any(|(position, _)| bit_of(position, *bit) != bit_of(&records[0].0, *bit));
    let bit = (0..256).find(divides).expect("positions are distinct");
    let (right, left): (Vec<_>, Vec<_>) = records.iter().partition(|(position, _)| bit_of(position, bit));
    sha256(&[b"fedledger/v1/state/node\n", &[bit as u8], hash(&left).as_bytes(), hash(&right).as_bytes()])
}

fn bit_of(position: &[u8; 32], bit: usize) -> bool {
    position[bit / 8] >> (7 - bit % 8) & 1 == 1
}

fn sha256(parts: &[&[u8]]) -> Digest {
    Digest::from_bytes(Sha256::digest(parts.concat()).into())
}
