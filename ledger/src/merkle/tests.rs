//! The tree against published vectors, the RFC's own words as oracles, and every small change of a proof.

mod oracle;
mod probes;
mod tlog;
mod vectors;

use std::{collections::BTreeMap, convert::Infallible};

use proptest::prelude::*;

use self::oracle::{Side, audit_path, climb_rfc_9162, consistency_path, sides, tree_hash};
use super::*;

/// Largest size that is checked exhaustively: beyond a full tree of seven levels.
const EXHAUSTIVE_SIZE: u64 = 130;

/// A node that was never complete.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0:?} was never stored")]
struct Missing(NodeId);

/// A log in memory, storing what [`Frontier::append`] reports.
struct Log {
    frontier: Frontier,
    leaves: Vec<Digest>,
    roots: Vec<Digest>,
    nodes: BTreeMap<[u8; 9], Digest>,
}

impl Log {
    fn of_size(size: u64) -> Self {
        Self::with(size, |index| leaf_hash(&index.to_be_bytes()))
    }

    fn with(size: u64, leaf: impl Fn(u64) -> Digest) -> Self {
        let frontier = Frontier::new();
        let mut log = Self { roots: vec![frontier.root()], frontier, leaves: Vec::new(), nodes: BTreeMap::new() };
        for index in 0..size {
            log.leaves.push(leaf(index));
            for (node, hash) in log.frontier.append(leaf(index)) {
                let replaced = log.nodes.insert(node.to_key(), hash);
                assert_eq!(replaced, None, "{node:?} was reported twice");
            }
            log.roots.push(log.frontier.root());
        }
        log
    }

    fn fetch(&self, node: NodeId) -> Result<Digest, Missing> {
        self.nodes.get(&node.to_key()).copied().ok_or(Missing(node))
    }

    /// A view of the log when it had `size` entries: a node completed later is missing.
    fn fetch_at(&self, size: u64) -> impl Fn(NodeId) -> Result<Digest, Missing> {
        move |node| if node.index < size >> node.level { self.fetch(node) } else { Err(Missing(node)) }
    }

    fn leaf(&self, index: u64) -> &Digest {
        &self.leaves[index as usize]
    }

    fn root(&self, size: u64) -> &Digest {
        &self.roots[size as usize]
    }
}

/// All single-bit changes of a digest.
fn flipped(digest: &Digest) -> impl Iterator<Item = Digest> {
    (0..256).map(|bit| flip(digest, bit))
}

fn flip(digest: &Digest, bit: usize) -> Digest {
    let mut bytes = *digest.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Digest::from_bytes(bytes)
}

/// All single-bit changes of a number.
fn flipped_u64(number: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS).map(move |bit| number ^ 1 << bit)
}

#[test]
fn every_root_inclusion_and_consistency_proof_is_that_of_the_definition() {
    let log = Log::of_size(EXHAUSTIVE_SIZE);
    for size in 0..=EXHAUSTIVE_SIZE {
        let leaves = &log.leaves[..size as usize];
        assert_eq!(*log.root(size), tree_hash(leaves), "root of {size}");
        assert_eq!(root_at(size, log.fetch_at(size)).as_ref(), Ok(log.root(size)));
        for index in 0..size {
            let proof = inclusion_proof(index, size, log.fetch_at(size)).unwrap();
            assert_eq!(proof, audit_path(index as usize, leaves), "inclusion of {index} in {size}");
            assert_eq!(verify_inclusion(index, size, log.leaf(index), &proof, log.root(size)), Ok(()));
        }
        for old in 1..=size {
            let proof = consistency_proof(old, size, log.fetch_at(size)).unwrap();
            assert_eq!(proof, consistency_path(old as usize, leaves), "consistency of {old} with {size}");
            assert_eq!(verify_consistency(old, log.root(old), size, log.root(size), &proof), Ok(()));
        }
    }
}

#[test]
fn every_changed_bit_of_an_inclusion_proof_is_refused() {
    let log = Log::of_size(20);
    for (index, size) in (1..=20).flat_map(|size| (0..size).map(move |index| (index, size))) {
        let (leaf, root) = (log.leaf(index), log.root(size));
        let proof = inclusion_proof(index, size, log.fetch_at(size)).unwrap();
        let refused = |index, size, leaf: &_, proof: &[_], root: &_| {
            let result = verify_inclusion(index, size, leaf, proof, root);
            assert!(result.is_err(), "entry {index} of {size} was accepted with {proof:?}");
        };
        flipped(leaf).for_each(|leaf| refused(index, size, &leaf, &proof, root));
        flipped(root).for_each(|root| refused(index, size, leaf, &proof, &root));
        flipped_u64(index).for_each(|index| refused(index, size, leaf, &proof, root));
        for position in 0..proof.len() {
            for changed in flipped(&proof[position]) {
                let mut proof = proof.clone();
                proof[position] = changed;
                refused(index, size, leaf, &proof, root);
            }
            let mut shorter = proof.clone();
            shorter.remove(position);
            refused(index, size, leaf, &shorter, root);
        }
        refused(index, size, leaf, &[&proof[..], &[*root]].concat(), root);
        refused(index, size, leaf, &[&[*leaf][..], &proof].concat(), root);
    }
}

#[test]
fn every_changed_bit_of_a_consistency_proof_is_refused() {
    let log = Log::of_size(20);
    for (old, new) in (1..=20).flat_map(|new| (1..=new).map(move |old| (old, new))) {
        let (old_root, new_root) = (log.root(old), log.root(new));
        let proof = consistency_proof(old, new, log.fetch_at(new)).unwrap();
        let refused = |old, old_root: &_, new, new_root: &_, proof: &[_]| {
            let result = verify_consistency(old, old_root, new, new_root, proof);
            assert!(result.is_err(), "{new} was accepted as following {old} with {proof:?}");
        };
        flipped(old_root).for_each(|old_root| refused(old, &old_root, new, new_root, &proof));
        flipped(new_root).for_each(|new_root| refused(old, old_root, new, &new_root, &proof));
        flipped_u64(old).for_each(|old| refused(old, old_root, new, new_root, &proof));
        for position in 0..proof.len() {
            for changed in flipped(&proof[position]) {
                let mut proof = proof.clone();
                proof[position] = changed;
                refused(old, old_root, new, new_root, &proof);
            }
            let mut shorter = proof.clone();
            shorter.remove(position);
            refused(old, old_root, new, new_root, &shorter);
        }
        refused(old, old_root, new, new_root, &[&proof[..], &[*new_root]].concat());
        refused(old, old_root, new, new_root, &[&[*old_root][..], &proof].concat());
    }
}

/// A proof does not bind the size (see the documentation of `verify`); this is exactly how far that goes.
#[test]
fn another_size_is_accepted_only_where_the_path_has_the_same_shape() {
    let log = Log::of_size(40);
    for (index, size) in (1..=40).flat_map(|size| (0..size).map(move |index| (index, size))) {
        let proof = inclusion_proof(index, size, log.fetch_at(size)).unwrap();
        for claimed in (0..=40).chain(flipped_u64(size)) {
            let accepted = verify_inclusion(index, claimed, log.leaf(index), &proof, log.root(size)).is_ok();
            let same_shape = index < claimed && sides(index, claimed) == sides(index, size);
            assert_eq!(accepted, same_shape, "entry {index} of {size}, claimed to be of {claimed}");
        }
    }
}

#[test]
fn the_empty_log_is_the_beginning_of_every_log() {
    let log = Log::of_size(3);
    let (empty, root, other) = (empty_root(), *log.root(3), leaf_hash(b"other"));
    assert_eq!(consistency_proof(0, 3, log.fetch_at(3)), Ok(Vec::new()));
    assert_eq!(verify_consistency(0, &empty, 3, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &empty, 0, &empty, &[]), Ok(()));
    let wrong_old = ProofMismatch::OldRoot { computed: empty, expected: other };
    assert_eq!(verify_consistency(0, &other, 3, &root, &[]), Err(wrong_old.clone()));
    assert_eq!(verify_consistency(0, &other, 0, &other, &[]), Err(wrong_old));
    let wrong_new = ProofMismatch::Root { computed: empty, expected: other };
    assert_eq!(verify_consistency(0, &empty, 0, &other, &[]), Err(wrong_new));
    let too_long = ProofMismatch::Length { expected: 0, found: 1 };
    assert_eq!(verify_consistency(0, &empty, 3, &root, &[other]), Err(too_long));
}

#[test]
fn what_is_not_in_the_log_has_no_proof() {
    let log = Log::of_size(5);
    let digest = Digest::default();
    assert_eq!(inclusion_proof(5, 5, log.fetch_at(5)), Err(ProofError::IndexOutOfRange { index: 5, size: 5 }));
    assert_eq!(inclusion_proof(0, 0, log.fetch_at(5)), Err(ProofError::IndexOutOfRange { index: 0, size: 0 }));
    assert_eq!(consistency_proof(5, 4, log.fetch_at(5)), Err(ProofError::SizesOutOfOrder { old: 5, new: 4 }));
    let out_of_range = ProofMismatch::IndexOutOfRange { index: 5, size: 5 };
    assert_eq!(verify_inclusion(5, 5, &digest, &[], &digest), Err(out_of_range));
    let out_of_order = ProofMismatch::SizesOutOfOrder { old: 5, new: 4 };
    assert_eq!(verify_consistency(5, &digest, 4, &digest, &[]), Err(out_of_order));
    let missing = Missing(NodeId { level: 2, index: 1 });
    assert_eq!(inclusion_proof(0, 8, log.fetch_at(5)), Err(ProofError::Fetch(missing)));
}

#[test]
fn keys_are_ordered_as_nodes_are() {
    let ids = [(0, 0), (0, 1), (0, 256), (0, u64::MAX), (1, 0), (1, 1 << 40), (63, 1)];
    let nodes = ids.map(|(level, index)| NodeId { level, index });
    assert!(nodes.is_sorted());
    assert!(nodes.map(NodeId::to_key).is_sorted());
    assert_eq!(NodeId { level: 3, index: 0x0102 }.to_key(), [3, 0, 0, 0, 0, 0, 0, 1, 2]);
}

/// A log of any size in which all entries are alike but one, so that every node can be computed when it is asked for.
struct VastLog {
    common: Vec<Digest>,
    special: Vec<Digest>,
    special_index: u64,
}

impl VastLog {
    fn new(special_index: u64) -> Self {
        let (mut common, mut special) = (vec![leaf_hash(b"common")], vec![leaf_hash(b"special")]);
        for level in 0..63 {
            let (sibling, hash) = (common[level], special[level]);
            let on_right = special_index >> level & 1 == 1;
            common.push(node_hash(&sibling, &sibling));
            special.push(if on_right { node_hash(&sibling, &hash) } else { node_hash(&hash, &sibling) });
        }
        Self { common, special, special_index }
    }

    fn fetch(&self, node: NodeId) -> Result<Digest, Infallible> {
        let level = usize::from(node.level);
        let special = self.special_index >> level == node.index;
        Ok(if special { self.special[level] } else { self.common[level] })
    }

    fn root(&self, size: u64) -> Digest {
        root_at(size, |node| self.fetch(node)).unwrap()
    }
}

/// Numbers of every magnitude, with many ones or zeros at either end among them.
fn any_magnitude() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..u64::BITS, any::<bool>())
        .prop_map(|(number, shift, ones)| if ones { !number >> shift } else { (number >> shift).saturating_add(1) })
}

#[test]
fn proofs_reach_the_largest_sizes() {
    let last = u64::MAX - 1;
    let log = VastLog::new(last);
    let (root, leaf) = (log.root(u64::MAX), leaf_hash(b"special"));
    let proof = inclusion_proof(last, u64::MAX, |node| log.fetch(node)).unwrap();
    assert_eq!(verify_inclusion(last, u64::MAX, &leaf, &proof, &root), Ok(()));
    for old in [1, 2, 1 << 63, (1 << 63) - 1, last] {
        let proof = consistency_proof(old, u64::MAX, |node| log.fetch(node)).unwrap();
        assert_eq!(verify_consistency(old, &log.root(old), u64::MAX, &root, &proof), Ok(()), "from {old}");
    }
}

proptest! {
    #[test]
    fn vast_logs_prove_their_entries(a in any_magnitude(), b in any_magnitude(), bit in 0usize..256) {
        let (index, size) = (a.min(b).min(u64::MAX - 1), a.max(b).max(a.min(b).saturating_add(1)));
        let log = VastLog::new(index);
        let (leaf, root) = (leaf_hash(b"special"), log.root(size));
        let proof = inclusion_proof(index, size, |node| log.fetch(node)).unwrap();
        prop_assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
        for other in flipped_u64(index) {
            prop_assert!(verify_inclusion(other, size, &leaf, &proof, &root).is_err());
        }
        for position in 0..proof.len() {
            let mut proof = proof.clone();
            proof[position] = flip(&proof[position], bit);
            prop_assert!(verify_inclusion(index, size, &leaf, &proof, &root).is_err());
        }
    }

    #[test]
    fn vast_logs_prove_their_growth(
        a in any_magnitude(), b in any_magnitude(), special in any_magnitude(), bit in 0usize..256
    ) {
        let (old, new) = (a.min(b).max(1), a.max(b).max(1));
        let log = VastLog::new(special);
        let (old_root, new_root) = (log.root(old), log.root(new));
        let proof = consistency_proof(old, new, |node| log.fetch(node)).unwrap();
        prop_assert_eq!(verify_consistency(old, &old_root, new, &new_root, &proof), Ok(()));
        for position in 0..proof.len() {
            let mut proof = proof.clone();
            proof[position] = flip(&proof[position], bit);
            prop_assert!(verify_consistency(old, &old_root, new, &new_root, &proof).is_err());
        }
    }

    /// The closed form against the loop of RFC 9162, on arbitrary claims and hashes.
    #[test]
    fn verification_agrees_with_the_algorithm_of_the_rfc(
        index in any_magnitude(), size in any_magnitude(), length in 0usize..70, offset in 0usize..3
    ) {
        let hashes: Vec<_> = (0..70u64).map(|number| leaf_hash(&number.to_be_bytes())).collect();
        // Mostly around the length that fits, else nearly every claim would fail for its length alone.
        let length = Path::of_leaf(index, size).map_or(length, |path| (path.len() + offset).saturating_sub(1));
        let proof = &hashes[..length];
        let leaf = leaf_hash(b"leaf");
        match climb_rfc_9162(index, size, leaf, proof) {
            Some(root) => prop_assert_eq!(verify_inclusion(index, size, &leaf, proof, &root), Ok(())),
            None => {
                let refusal = verify_inclusion(index, size, &leaf, proof, &leaf).unwrap_err();
                let by_shape = matches!(
                    refusal,
                    ProofMismatch::IndexOutOfRange { .. } | ProofMismatch::Length { .. }
                );
                prop_assert!(by_shape, "{:?}", refusal);
            }
        }
    }

    #[test]
    fn arbitrary_claims_never_panic(
        a in any::<u64>(), b in any::<u64>(), proof in prop::collection::vec(any::<[u8; 32]>(), 0..130)
    ) {
        let proof: Vec<_> = proof.into_iter().map(Digest::from_bytes).collect();
        let digest = Digest::default();
        prop_assert!(verify_inclusion(a, b, &digest, &proof, &digest).is_err());
        prop_assert!(verify_consistency(a, &digest, b, &leaf_hash(b"other"), &proof).is_err());
    }
}

#[test]
fn sides_name_the_way_to_a_leaf() {
    assert_eq!(sides(2, 7), [Side::Right, Side::Left, Side::Right]);
    assert_eq!(sides(6, 7), [Side::Left, Side::Left]);
    assert_eq!(sides(4, 5), [Side::Left]);
}
