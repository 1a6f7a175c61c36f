//! Published proofs with everything about them that can be wrong.
//!
//! The corruptions are those of the cases under `testdata` of transparency-dev/merkle
//! (<https://github.com/transparency-dev/merkle>), applied to the same proofs. Its cases with hashes of another length
//! are missing: such hashes cannot be expressed here.

use super::{
    flip,
    vectors::{CONSISTENCY, INCLUSION, LEAVES, ROOTS, digest, digests},
};
use crate::{
    Digest,
    merkle::{ProofMismatch, empty_root, leaf_hash, verify_consistency, verify_inclusion},
};

/// A hash that occurs in no proof.
const STRANGER: &str = "abacaba000000000000000000000000000000000000000000060061e00123456";

fn root(size: u64) -> Digest {
    digest(ROOTS[size as usize])
}

fn stranger() -> Digest {
    digest(STRANGER)
}

/// The proof with one more hash at its end.
fn extended(proof: &[Digest], last: Digest) -> Vec<Digest> {
    [proof, &[last]].concat()
}

/// The proof with one more hash before its first.
fn preceded(first: Digest, proof: &[Digest]) -> Vec<Digest> {
    [&[first], proof].concat()
}

#[derive(Debug, Clone)]
struct Inclusion {
    index: u64,
    size: u64,
    leaf: Digest,
    root: Digest,
    proof: Vec<Digest>,
}

impl Inclusion {
    fn verify(&self) -> Result<(), ProofMismatch> {
        verify_inclusion(self.index, self.size, &self.leaf, &self.proof, &self.root)
    }

    fn corrupted(&self) -> Vec<(String, Self)> {
        let Self { index, size, root, proof, .. } = self;
        let with_proof = |proof| Self { proof, ..self.clone() };
        let mut cases = vec![
            ("index - 1".to_owned(), Self { index: index.wrapping_sub(1), ..self.clone() }),
            ("index + 1".into(), Self { index: index + 1, ..self.clone() }),
            ("index ^ 2".into(), Self { index: index ^ 2, ..self.clone() }),
            ("size * 2".into(), Self { size: size * 2, ..self.clone() }),
            ("size / 2".into(), Self { size: size / 2, ..self.clone() }),
            ("wrong leaf".into(), Self { leaf: leaf_hash(b"wrong"), ..self.clone() }),
            ("empty root".into(), Self { root: empty_root(), ..self.clone() }),
            ("random root".into(), Self { root: stranger(), ..self.clone() }),
            ("trailing garbage".into(), with_proof(extended(proof, stranger()))),
            ("trailing root".into(), with_proof(extended(proof, *root))),
            ("preceding garbage".into(), with_proof(preceded(stranger(), proof))),
            ("preceding root".into(), with_proof(preceded(*root, proof))),
        ];
        for position in 0..proof.len() {
            let mut changed = proof.clone();
            changed[position] = flip(&proof[position], 3);
            cases.push((format!("bit 3 of hash {position}"), with_proof(changed)));
        }
        if let Some((_, shorter)) = proof.split_last() {
            cases.push(("removed component".into(), with_proof(shorter.to_vec())));
        }
        if let [first, rest @ ..] = proof.as_slice()
            && !rest.is_empty()
        {
            cases.push(("inserted component".into(), with_proof([&[*first, stranger()], rest].concat())));
        }
        cases
    }
}

#[derive(Debug, Clone)]
struct Consistency {
    old: u64,
    new: u64,
    old_root: Digest,
    new_root: Digest,
    proof: Vec<Digest>,
}

impl Consistency {
    fn verify(&self) -> Result<(), ProofMismatch> {
        verify_consistency(self.old, &self.old_root, self.new, &self.new_root, &self.proof)
    }

    fn corrupted(&self) -> Vec<(String, Self)> {
        let Self { old, new, old_root, new_root, proof } = self;
        let with_proof = |proof| Self { proof, ..self.clone() };
        let mut cases = vec![
            ("old size - 1".to_owned(), Self { old: old - 1, ..self.clone() }),
            ("old size + 1".into(), Self { old: old + 1, ..self.clone() }),
            ("old size ^ 2".into(), Self { old: old ^ 2, ..self.clone() }),
            ("new size * 2".into(), Self { new: new * 2, ..self.clone() }),
            ("new size / 2".into(), Self { new: new / 2, ..self.clone() }),
            ("wrong old root".into(), Self { old_root: stranger(), ..self.clone() }),
            ("wrong new root".into(), Self { new_root: stranger(), ..self.clone() }),
            ("swapped roots".into(), Self { old_root: *new_root, new_root: *old_root, ..self.clone() }),
            ("empty proof".into(), with_proof(Vec::new())),
            ("trailing garbage".into(), with_proof(extended(proof, stranger()))),
            ("trailing old root".into(), with_proof(extended(proof, *old_root))),
            ("trailing new root".into(), with_proof(extended(proof, *new_root))),
            ("preceding garbage".into(), with_proof(preceded(stranger(), proof))),
            ("preceding old root".into(), with_proof(preceded(*old_root, proof))),
            ("preceding new root".into(), with_proof(preceded(*new_root, proof))),
            ("preceding first hash".into(), with_proof(preceded(proof[0], proof))),
            ("truncated proof".into(), with_proof(proof[..proof.len() - 1].to_vec())),
        ];
        for position in 0..proof.len() {
            let mut changed = proof.clone();
            changed[position] = flip(&proof[position], 4);
            cases.push((format!("bit 4 of hash {position}"), with_proof(changed)));
        }
        cases
    }
}

#[test]
fn every_corruption_of_a_published_inclusion_proof_is_refused() {
    let mut probed = 0;
    for (index, size, path) in INCLUSION {
        let leaf = leaf_hash(LEAVES[index as usize]);
        let case = Inclusion { index, size, leaf, root: root(size), proof: digests(path) };
        assert_eq!(case.verify(), Ok(()), "entry {index} of {size}");
        for (what, corrupted) in case.corrupted() {
            assert!(corrupted.verify().is_err(), "{what} was accepted for entry {index} of {size}");
            probed += 1;
        }
    }
    assert_eq!(probed, 77);
}

#[test]
fn every_corruption_of_a_published_consistency_proof_is_refused() {
    let mut probed = 0;
    for (old, new, path) in CONSISTENCY {
        let case = Consistency { old, new, old_root: root(old), new_root: root(new), proof: digests(path) };
        assert_eq!(case.verify(), Ok(()), "from {old} to {new}");
        if case.proof.is_empty() {
            continue;
        }
        for (what, corrupted) in case.corrupted() {
            assert!(corrupted.verify().is_err(), "{what} was accepted from {old} to {new}");
            probed += 1;
        }
    }
    assert_eq!(probed, 79);
}

#[test]
fn proofs_without_hashes_are_accepted_only_where_there_is_nothing_to_prove() {
    let (one, other, empty) = (root(1), stranger(), empty_root());
    let inclusion = |index, size, leaf: &_, root: &_| verify_inclusion(index, size, leaf, &[], root).is_ok();
    assert!(inclusion(0, 1, &one, &one));
    for (index, size) in [(0, 0), (0, 1), (1, 0), (2, 1)] {
        assert!(!inclusion(index, size, &other, &empty), "{index} of {size}");
        assert!(!inclusion(index, size, &other, &Digest::default()), "{index} of {size}");
    }
    let consistency = |old, old_root: &_, new, new_root: &_, proof: &[_]| {
        verify_consistency(old, old_root, new, new_root, proof).is_ok()
    };
    assert!(consistency(0, &empty, 0, &empty, &[]));
    assert!(consistency(0, &empty, 1, &one, &[]));
    assert!(consistency(1, &one, 1, &one, &[]));
    // That library takes any two equal roots of the empty log, and any old root; here the empty log has one root.
    assert!(!consistency(0, &other, 0, &other, &[]));
    assert!(!consistency(0, &other, 1, &one, &[]));
    for (old, old_root, new, new_root) in
        [(0, &other, 0, &one), (1, &other, 1, &one), (1, &one, 0, &empty), (2, &other, 1, &one), (1, &one, 2, &other)]
    {
        assert!(!consistency(old, old_root, new, new_root, &[]), "from {old} to {new}");
    }
    for (old, new, root) in [(0, 0, &empty), (0, 1, &one), (1, 1, &one)] {
        assert!(!consistency(old, root, new, root, &[empty]), "from {old} to {new}");
    }
}
