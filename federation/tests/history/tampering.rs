//! Every change of a bundle is noticed, and the place is named.

use fedledger_federation::verify::{Options, Problem, ProblemKind, Report, verify};
use fedledger_ledger::{
    Digest,
    bundle::BundleIndex,
    leaf::{Leaf, Outcome},
    transaction::Envelope,
};
use rayon::prelude::*;

use crate::{
    consortium::{Consortium, key, open_bundle},
    rewriting::rewritten,
};

/// Bytes of the digest at the end of a bundle.
const CHECKSUM_BYTES: usize = 32;

fn check(bundle: &[u8]) -> Report {
    verify(&open_bundle(bundle), &Options::default()).unwrap()
}

/// Makes the digest at the end right again, as a forger would.
fn fix_checksum(bundle: &mut [u8]) {
    let (body, checksum) = bundle.split_at_mut(bundle.len() - CHECKSUM_BYTES);
    checksum.copy_from_slice(Digest::of(body).as_bytes());
}

/// Whether a report is of tampering, with a place.
fn names_a_place(report: &Report) -> bool {
    let place = |problem: &Problem| problem.index.is_some() || problem.offset.is_some();
    !report.ok && !report.problems.is_empty() && report.problems.iter().all(place)
}

fn flipped(bundle: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bundle.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

/// A history with everything in it that is still so short that every bit of it can be tried.
fn short_history() -> Consortium {
    let (mut consortium, plan) = Consortium::ready(2);
    let version = consortium.run_round(&plan);
    consortium.evaluate(&version);
    consortium.sign_checkpoints(3);
    consortium
}

/// Whether a forged bundle is noticed, with a place. What is wrong with its form is told before anything is replayed.
fn is_noticed(forged: &[u8]) -> bool {
    BundleIndex::scan(forged).unwrap().defect.is_some() || names_a_place(&check(forged))
}

/// Flips bits of a bundle whose checksum is made right again, and asserts that none passes.
fn try_flips(bundle: &[u8], bits: impl IntoParallelIterator<Item = usize>) {
    let unnoticed: Vec<usize> = bits
        .into_par_iter()
        .filter(|bit| {
            let mut forged = flipped(bundle, *bit);
            fix_checksum(&mut forged);
            !is_noticed(&forged)
        })
        .collect();
    assert_eq!(unnoticed, [] as [usize; 0], "flipped bits that were not noticed, or without a place");
}

#[test]
fn what_is_wrong_with_the_form_is_always_in_the_report() {
    let bundle = short_history().bundle();
    for (byte, report) in (0..bundle.len()).step_by(97).map(|byte| (byte, check(&flipped(&bundle, byte * 8)))) {
        let defect = BundleIndex::scan(flipped(&bundle, byte * 8).as_slice()).unwrap().defect.unwrap();
        let told =
            |problem: &Problem| problem.offset == Some(defect.offset) && problem.detail == defect.defect.to_string();
        assert!(report.problems.iter().any(told), "byte {byte}: {defect}, {report:?}");
    }
}

#[test]
fn a_flipped_bit_of_every_few_of_a_short_history_is_noticed_even_if_the_checksum_is_made_right() {
    let bundle = short_history().bundle();
    // A step that is prime to eight, so that every bit of a byte comes up.
    try_flips(&bundle, (0..(bundle.len() - CHECKSUM_BYTES) * 8).into_par_iter().step_by(23));
}

#[test]
#[ignore = "takes minutes"]
fn every_flipped_bit_of_a_longer_history_is_noticed() {
    let bundle = Consortium::with_history(4).bundle();
    try_flips(&bundle, 0..(bundle.len() - CHECKSUM_BYTES) * 8);
}

#[test]
fn without_a_right_checksum_a_flipped_bit_of_every_byte_is_noticed_by_the_form_alone() {
    let bundle = short_history().bundle();
    let scan = |bytes: &[u8]| BundleIndex::scan(bytes).unwrap().defect;
    assert_eq!(scan(&bundle), None);
    // The checksum covers each byte alike; one bit of each stands for all but those of the checksum itself.
    let body = bundle.len() - CHECKSUM_BYTES;
    let bits = (0..body).map(|byte| byte * 8 + byte % 8).chain(body * 8..bundle.len() * 8);
    let bits: Vec<usize> = bits.collect();
    let unnoticed: Vec<usize> = bits.into_par_iter().filter(|bit| scan(&flipped(&bundle, *bit)).is_none()).collect();
    assert_eq!(unnoticed, [] as [usize; 0]);
}

#[test]
fn every_truncation_is_noticed() {
    let bundle = short_history().bundle();
    let unnoticed: Vec<usize> = (0..bundle.len())
        .into_par_iter()
        .filter(|length| {
            let report = check(&bundle[..*length]);
            let at_the_end = |problem: &Problem| problem.offset == Some(*length as u64);
            !names_a_place(&report) || !report.problems.iter().any(at_the_end)
        })
        .collect();
    assert_eq!(unnoticed, [] as [usize; 0], "lengths at which the missing end was not named");
}

/// A bundle of the same form with other leaves.
fn with_leaves(consortium: &Consortium, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut leaves = consortium.leaves.clone();
    change(&mut leaves);
    rewritten(&consortium.bundle(), |parts| parts.leaves = leaves)
}

/// The first problem with the entries.
fn first_problem(bundle: &[u8]) -> (ProblemKind, Option<u64>) {
    let report = check(bundle);
    assert!(names_a_place(&report), "{report:?}");
    (report.problems[0].kind, report.problems[0].index)
}

/// Changes what a leaf records beside its envelope.
fn rewrite(leaf: &mut Vec<u8>, change: impl FnOnce(&mut Leaf)) {
    let mut decoded = Leaf::from_bytes(leaf).unwrap();
    change(&mut decoded);
    *leaf = decoded.to_bytes();
}

#[test]
fn leaves_out_of_order_are_noticed() {
    let consortium = short_history();
    let swapped = with_leaves(&consortium, |leaves| leaves.swap(7, 8));
    assert_eq!(first_problem(&swapped), (ProblemKind::Order, Some(8)));
    // The last two entries before the seal are evaluations, which would have the same effects the other way round.
    let (a, b) = (consortium.leaves.len() - 3, consortium.leaves.len() - 2);
    let renumbered = with_leaves(&consortium, |leaves| {
        leaves.swap(a, b);
        rewrite(&mut leaves[a], |leaf| leaf.index -= 1);
        rewrite(&mut leaves[b], |leaf| leaf.index += 1);
    });
    // The Raft indexes still tell.
    assert_eq!(first_problem(&renumbered), (ProblemKind::Order, Some(b as u64 + 1)));
    let raft_indexes_too = with_leaves(&consortium, |leaves| {
        leaves.swap(a, b);
        rewrite(&mut leaves[a], |leaf| (leaf.index, leaf.raft_index) = (leaf.index - 1, leaf.raft_index - 2));
        rewrite(&mut leaves[b], |leaf| (leaf.index, leaf.raft_index) = (leaf.index + 1, leaf.raft_index + 2));
    });
    let report = check(&raft_indexes_too);
    // No checkpoint that holds covers the entries any more.
    let expected = |kind| matches!(kind, ProblemKind::Root | ProblemKind::Missing);
    assert!(report.problems.iter().all(|problem| expected(problem.kind)), "{report:?}");
    assert!(names_a_place(&report), "the checkpoints did not tell: {report:?}");
    let removed = with_leaves(&consortium, |leaves| drop(leaves.remove(7)));
    assert_eq!(first_problem(&removed), (ProblemKind::Order, Some(8)));
    let repeated = with_leaves(&consortium, |leaves| leaves.insert(8, leaves[7].clone()));
    assert_eq!(first_problem(&repeated), (ProblemKind::Order, Some(9)));
    let replayed = with_leaves(&consortium, |leaves| {
        let (index, raft_index) = (leaves.len() as u64 + 1, u64::MAX);
        let mut again = leaves[7].clone();
        rewrite(&mut again, |leaf| (leaf.index, leaf.raft_index) = (index, raft_index));
        leaves.push(again);
    });
    assert_eq!(first_problem(&replayed).0, ProblemKind::Order, "a transaction that stands there already");
}

#[test]
fn a_history_that_is_cut_short_is_noticed_by_its_checkpoints() {
    let consortium = short_history();
    let cut = with_leaves(&consortium, |leaves| drop(leaves.pop()));
    let report = check(&cut);
    assert!(names_a_place(&report));
    assert!(report.problems.iter().any(|problem| problem.kind == ProblemKind::Checkpoint), "{report:?}");
}

#[test]
fn what_a_leaf_records_must_be_what_its_transaction_does() {
    let consortium = short_history();
    let outcome = with_leaves(&consortium, |leaves| {
        rewrite(&mut leaves[4], |leaf| leaf.outcome = Outcome::Rejected("unknown_plan".to_owned()));
    });
    assert_eq!(first_problem(&outcome), (ProblemKind::Outcome, Some(5)));
    let writes = with_leaves(&consortium, |leaves| {
        rewrite(&mut leaves[4], |leaf| leaf.write_set = Digest::of(b"something else"));
    });
    assert_eq!(first_problem(&writes), (ProblemKind::WriteSet, Some(5)));
    let raft_index = with_leaves(&consortium, |leaves| rewrite(&mut leaves[4], |leaf| leaf.raft_index += 1));
    let report = check(&raft_index);
    assert!(report.problems.iter().any(|problem| problem.kind == ProblemKind::Root), "{report:?}");
}

#[test]
fn a_transaction_signed_anew_by_another_key_is_noticed() {
    let consortium = short_history();
    let resign = |leaf: &mut Vec<u8>, author: &str, signer: &str| {
        rewrite(leaf, |leaf| {
            let mut transaction = Envelope::open_unverified(&leaf.envelope).unwrap();
            transaction.author = key(author).public();
            leaf.envelope = transaction.sign(&key(signer)).to_bytes();
        });
    };
    // In the name of the same author, but without its key.
    let forged = with_leaves(&consortium, |leaves| resign(&mut leaves[1], "basel/participant", "mallory"));
    assert_eq!(first_problem(&forged), (ProblemKind::Signature, Some(2)));
    // By a stranger in its own name: the outcome is no longer the recorded one.
    let stranger = with_leaves(&consortium, |leaves| resign(&mut leaves[1], "mallory", "mallory"));
    assert_eq!(first_problem(&stranger), (ProblemKind::Outcome, Some(2)));
    // By another member, who could have done the same: the state is another one.
    let member = with_leaves(&consortium, |leaves| resign(&mut leaves[1], "lyon/participant", "lyon/participant"));
    assert_eq!(first_problem(&member), (ProblemKind::WriteSet, Some(2)));
}

#[test]
fn a_history_of_another_consortium_is_noticed() {
    let consortium = short_history();
    let mut other = crate::consortium::genesis(2);
    other.salt = Digest::of(b"another");
    let forged = rewritten(&consortium.bundle(), |parts| parts.genesis = other.to_bytes());
    assert_eq!(first_problem(&forged), (ProblemKind::Chain, Some(1)));
}

#[test]
fn random_bytes_are_no_bundle_and_do_no_harm() {
    let bundle = short_history().bundle();
    (0..500_usize).into_par_iter().for_each(|round| {
        // Overwrites a run of bytes by a digest's, which is as good as random and always the same.
        let noise = Digest::of(&round.to_be_bytes());
        let at = round * 7919 % (bundle.len() - CHECKSUM_BYTES);
        let mut noisy = bundle.clone();
        noisy[at..at + noise.as_bytes().len()].copy_from_slice(noise.as_bytes());
        if round % 2 == 0 {
            fix_checksum(&mut noisy);
        }
        assert!(names_a_place(&check(&noisy)), "noise at {at} was not noticed");
    });
}
