//! Every proof of small logs against an independent implementation, `golang.org/x/mod/sumdb/tlog`.
//!
//! `tlog.go` beside this file computes the same; what it printed with version 0.7 of that module stands here.

use sha2::{Digest as _, Sha256};

use super::{EXHAUSTIVE_SIZE, Log};
use crate::{
    Digest,
    merkle::{consistency_proof, inclusion_proof},
};

const ROOTS: &str = "b9b737cd346f72d5ecbccb9c72840491ebfc6549f2567b672cc4d8c253398342";
const INCLUSION: &str = "c19ed567a029284c1ff4ed29bbd71ad45b872c33f833f2c85d5b10a458446571";
const CONSISTENCY: &str = "86be3428044776604c91a96bdc7eec0c743ab941bda6606547ba856a4cfa2085";

/// SHA-256 over hashes one after the other, in hexadecimal.
fn digest_over(hashes: impl Iterator<Item = Digest>) -> String {
    let hasher = hashes.fold(Sha256::new(), |hasher, hash| hasher.chain_update(hash.as_bytes()));
    hex::encode(hasher.finalize())
}

#[test]
fn roots_and_proofs_are_those_of_the_go_implementation() {
    let log = Log::of_size(EXHAUSTIVE_SIZE);
    let sizes = || 1..=EXHAUSTIVE_SIZE;
    assert_eq!(digest_over(sizes().map(|size| *log.root(size))), ROOTS);
    let inclusion = sizes()
        .flat_map(|size| (0..size).map(move |index| (index, size)))
        .flat_map(|(index, size)| inclusion_proof(index, size, log.fetch_at(size)).unwrap());
    assert_eq!(digest_over(inclusion), INCLUSION);
    let consistency = sizes()
        .flat_map(|new| (1..=new).map(move |old| (old, new)))
        .flat_map(|(old, new)| consistency_proof(old, new, log.fetch_at(new)).unwrap());
    assert_eq!(digest_over(consistency), CONSISTENCY);
}
