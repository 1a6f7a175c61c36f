//! Merkle proofs: valid ones that were changed, and arbitrary ones. Nothing must verify but what is true.
//!
//! What verification promises is checked in full: with the root of the log at some size and that very size, it accepts
//! the true entry with its true proof and nothing else. With another size, which no signed checkpoint binds to the root,
//! it accepts true entries with true proofs of the same shape only; see the documentation of `merkle::verify`.

use fedledger_ledger::{
    Digest,
    merkle::{empty_root, leaf_hash, verify_consistency, verify_inclusion},
};

use super::{
    choices::Choices,
    history::{History, SIZE, entry},
};

/// Most changes to one proof.
const CHANGES_MAX: usize = 8;

/// Verifies a changed proof of either kind, and an arbitrary one.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.below(3) {
        0 => changed_inclusion(&mut choices),
        1 => changed_consistency(&mut choices),
        _ => arbitrary(&mut choices),
    }
}

fn changed_inclusion(choices: &mut Choices<'_>) {
    let log = History::get();
    let size = 1 + choices.number_below(SIZE);
    let true_index = choices.number_below(size);
    let (mut index, mut claimed, mut place) = (true_index, size, true_index);
    let mut proof = log.inclusion(index, size);
    for _ in 0..choices.below(CHANGES_MAX) {
        match choices.below(5) {
            0 => index = any_size(choices),
            1 => claimed = any_size(choices),
            2 => place = any_size(choices),
            _ => change(choices, &mut proof, log),
        }
    }
    // An entry is given by its content, so no inner node can stand for one.
    let leaf = leaf_hash(&entry(place));
    if verify_inclusion(index, claimed, &leaf, &proof, &log.root(size)).is_err() {
        let changed = (index, claimed, place) != (true_index, size, true_index);
        assert!(changed || proof != log.inclusion(true_index, size), "a true proof was refused");
        return;
    }
    assert!(place < size, "an entry {place} that is not there was accepted in a log of {size}");
    assert_eq!(proof, log.inclusion(place, size), "a wrong proof was accepted");
    assert!(claimed != size || index == place, "entry {place} of {size} was accepted at {index}");
}

fn changed_consistency(choices: &mut Choices<'_>) {
    let log = History::get();
    let new = choices.number_below(SIZE + 1);
    let true_old = choices.number_below(new + 1);
    let mut old = true_old;
    let mut old_root = log.root(old);
    let mut proof = log.consistency(old, new);
    for _ in 0..choices.below(CHANGES_MAX) {
        match choices.below(5) {
            0 => old = any_size(choices),
            1 => old_root = any_hash(choices, log),
            _ => change(choices, &mut proof, log),
        }
    }
    if verify_consistency(old, &old_root, new, &log.root(new), &proof).is_err() {
        let changed = old != true_old || old_root != log.root(true_old);
        assert!(changed || proof != log.consistency(true_old, new), "a true proof was refused");
        return;
    }
    assert!(old <= new, "a log of {old} entries became one of {new}");
    assert_eq!(old_root, log.root(old), "another log of {old} was accepted as the beginning of {new}");
    assert_eq!(proof, log.consistency(old, new), "a wrong proof was accepted");
}

/// Claims of any magnitude, with hashes that belong to no log.
fn arbitrary(choices: &mut Choices<'_>) {
    let (a, b) = (choices.number(), choices.number());
    let (first, second) = (choices.digest(), choices.digest());
    let mut proof = Vec::new();
    while !choices.is_empty() {
        proof.push(choices.digest());
    }
    let _ = verify_inclusion(a, b, &first, &proof, &second);
    if verify_consistency(a, &first, b, &second, &proof).is_ok() && a > 0 {
        assert!(a <= b);
        assert!(a != b || first == second, "one size, two roots");
    }
    let root = History::get().root(SIZE);
    // Finding hashes that lead to a given root takes a break of SHA-256.
    let stranger = leaf_hash(b"not in the log");
    assert!(verify_inclusion(a, b, &stranger, &proof, &root).is_err());
    if a > 0 {
        assert!(verify_consistency(a, &stranger, b, &root, &proof).is_err());
    }
    assert!(first == empty_root() || verify_consistency(0, &first, b, &second, &proof).is_err());
}

/// Changes one thing about the hashes of a proof.
fn change(choices: &mut Choices<'_>, proof: &mut Vec<Digest>, log: &History) {
    let place = choices.below(proof.len() + 1);
    match choices.below(5) {
        0 => proof.insert(place, any_hash(choices, log)),
        1 if place < proof.len() => _ = proof.remove(place),
        2 if place < proof.len() => proof[place] = any_hash(choices, log),
        3 if place < proof.len() => {
            let other = choices.below(proof.len());
            proof.swap(place, other);
        }
        _ if place < proof.len() => {
            let mut bytes = *proof[place].as_bytes();
            let bit = choices.byte();
            bytes[usize::from(bit / 8)] ^= 1 << (bit % 8);
            proof[place] = Digest::from_bytes(bytes);
        }
        _ => proof.clear(),
    }
}

/// A hash of the log, or another.
fn any_hash(choices: &mut Choices<'_>, log: &History) -> Digest {
    let place = choices.byte();
    match choices.below(4) {
        0 => log.roots[usize::from(place) % log.roots.len()],
        1 => log.leaves[usize::from(place) % log.leaves.len()],
        2 => *log.nodes.values().nth(usize::from(place) % log.nodes.len()).expect("the log has nodes"),
        _ => choices.digest(),
    }
}

/// A size or an index, mostly one that the log has had.
fn any_size(choices: &mut Choices<'_>) -> u64 {
    if choices.below(4) == 0 { choices.number() } else { choices.number_below(SIZE + 2) }
}
