use fedledger_ledger::{
    Digest,
    merkle::{Frontier, leaf_hash, node_hash},
};

use super::*;

/// The roots of logs of one, two and three entries.
fn heads() -> [Checkpoint; 3] {
    let mut frontier = Frontier::new();
    [1u64, 2, 3].map(|size| {
        frontier.append(leaf_hash(&size.to_be_bytes()));
        Checkpoint::new("fedledger/heart", size, frontier.root()).unwrap()
    })
}

#[test]
fn a_later_head_needs_its_proof() {
    let [one, two, three] = heads();
    let second = leaf_hash(&2u64.to_be_bytes());
    assert_eq!(check_extension(&one, &two, Some(&[second])), Ok(()));
    assert_eq!(check_extension(&two, &three, Some(&[leaf_hash(&3u64.to_be_bytes())])), Ok(()));
    assert!(check_extension(&one, &two, None).unwrap_err().contains("does not prove"));
    assert!(check_extension(&one, &two, Some(&[])).is_err());
    assert!(check_extension(&one, &two, Some(&[Digest::of(b"made up")])).is_err());
}

#[test]
fn another_history_has_no_proof() {
    let [one, two, _] = heads();
    let other = Checkpoint::new("fedledger/heart", 1, Digest::of(b"another entry")).unwrap();
    let second = leaf_hash(&2u64.to_be_bytes());
    assert!(check_extension(&other, &two, Some(&[second])).unwrap_err().contains("root"));
    // Two heads of one size are the same or contradict each other, whatever is said.
    let forked = node_hash(other.root(), &second);
    let forked = Checkpoint::new("fedledger/heart", 2, forked).unwrap();
    assert!(check_extension(&two, &forked, Some(&[])).is_err());
    assert!(check_extension(&two, &forked, None).is_err());
    assert_eq!(check_extension(&two, &two.clone(), None), Ok(()));
    assert_eq!(check_extension(&two, &one, None), Ok(()), "a replica may lag");
}
