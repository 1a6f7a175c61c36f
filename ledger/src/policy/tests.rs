//! Policies: what the format allows and what it does not, and which notes satisfy them.

mod syntax;

use proptest::prelude::*;

use super::*;
use crate::{
    Digest,
    keys::SecretKey,
    note::{NoteSignature, sign_note},
};

const ORIGIN: &str = "example.com/log";

/// The example of the specification, with keys and addresses: two of X1 to X3 and any of Y1 to Y3.
const TWO_LEVELS: &[u8] = include_bytes!("../../tests/vectors/policy/two_levels.policy");

/// The witnesses of [`TWO_LEVELS`] in the order of its lines.
const WITNESSES: [&str; 6] = ["X1", "X2", "X3", "Y1", "Y2", "Y3"];

/// The key of a witness, which no witness of another name has.
pub(super) fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(*Digest::of(name.as_bytes()).as_bytes())
}

pub(super) fn log_key(name: &str) -> VerifierKey {
    VerifierKey::ed25519(name, secret(name).public()).unwrap()
}

pub(super) fn witness_key(name: &str) -> VerifierKey {
    VerifierKey::cosignature_v1(&format!("{name}.example/w"), secret(name).public()).unwrap()
}

fn text() -> String {
    Checkpoint::new(ORIGIN, 7, Digest::of(b"root")).unwrap().to_note_text()
}

fn line(name: &str, time_s: u64) -> NoteSignature {
    NoteSignature::cosign(&text(), &format!("{name}.example/w"), &secret(name), time_s).unwrap()
}

/// A note signed by the log, and by some of [`WITNESSES`] at times from 100 on.
fn note(witnesses: &[&str]) -> SignedNote {
    let mut note = sign_note(&text(), ORIGIN, &secret(ORIGIN)).unwrap();
    for (name, time_s) in witnesses.iter().zip(100..) {
        note.add(line(name, time_s)).unwrap();
    }
    note
}

fn two_levels() -> Policy {
    Policy::parse(TWO_LEVELS).unwrap()
}

/// A policy with these witnesses of which the quorum line names one, or `none`.
fn with_quorum(name: &str) -> Policy {
    let mut builder = PolicyBuilder::new();
    builder.log(log_key(ORIGIN), None).unwrap();
    for name in WITNESSES {
        builder.witness(name.as_bytes(), witness_key(name), None).unwrap();
    }
    builder.quorum(name.as_bytes()).unwrap();
    builder.build().unwrap()
}

/// The names and times of the witnesses that co-signed an accepted note.
fn witnessed(accepted: &Accepted) -> Vec<(String, u64)> {
    accepted.witnesses.iter().map(|witness| (witness.name.to_string(), witness.time_s)).collect()
}

#[test]
fn what_is_accepted_says_who_vouches_for_it_and_when() {
    let accepted = two_levels().check(&note(&["Y3", "X1", "X3"])).unwrap();
    assert_eq!(accepted.checkpoint, Checkpoint::new(ORIGIN, 7, Digest::of(b"root")).unwrap());
    assert_eq!(accepted.logs, [log_key(ORIGIN)]);
    assert_eq!(witnessed(&accepted), [("X1".into(), 101), ("X3".into(), 102), ("Y3".into(), 100)]);
    assert_eq!(accepted.witnesses[0].key, witness_key("X1"));
    assert_eq!(accepted.time_s, Some(101));
}

#[test]
fn a_quorum_of_groups_needs_exactly_what_it_says() {
    let policy = two_levels();
    for chosen in 0..1u32 << WITNESSES.len() {
        let signers: Vec<&str> =
            WITNESSES.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, name)| *name).collect();
        let (xs, ys) = ((chosen & 0b111).count_ones(), (chosen >> 3).count_ones());
        match policy.check(&note(&signers)) {
            Ok(accepted) => {
                assert!(xs >= 2 && ys >= 1, "accepted with {signers:?}");
                assert_eq!(accepted.witnesses.len(), signers.len());
            }
            Err(error) => {
                assert!(xs < 2 || ys < 1, "refused with {signers:?}");
                let quorum = PolicyName::new("X-and-Y").unwrap();
                assert_eq!(error, PolicyError::NoQuorum { cosigned: signers.len(), listed: 6, quorum });
            }
        }
    }
}

#[test]
fn a_quorum_may_be_one_witness_or_none() {
    let policy = with_quorum("X2");
    assert!(policy.check(&note(&["X2"])).is_ok());
    assert!(matches!(policy.check(&note(&["X1", "X3", "Y1"])), Err(PolicyError::NoQuorum { cosigned: 3, .. })));
    let policy = with_quorum("none");
    assert_eq!(policy.quorum(), None);
    let accepted = policy.check(&note(&[])).unwrap();
    assert_eq!((accepted.witnesses.len(), accepted.time_s), (0, None));
    // Witnesses that nobody needs still tell the time.
    assert_eq!(policy.check(&note(&["Y1"])).unwrap().time_s, Some(100));
}

#[test]
fn the_time_is_the_lower_median() {
    let median = |times: &[u64]| lower_median(times.to_vec());
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[5]), Some(5));
    assert_eq!(median(&[9, 5]), Some(5));
    assert_eq!(median(&[9, 1, 5]), Some(5));
    assert_eq!(median(&[9, 1, u64::MAX, 5]), Some(5));
    assert_eq!(median(&[5, 5, 0, u64::MAX, 6]), Some(5));
}

#[test]
fn a_checkpoint_needs_the_signature_of_its_own_log() {
    let policy = two_levels();
    let all = |note: SignedNote| {
        WITNESSES.iter().fold(note, |mut note, name| {
            note.add(line(name, 1)).unwrap();
            note
        })
    };
    // Signed by a key that is not listed.
    let stranger = all(sign_note(&text(), ORIGIN, &secret("stranger")).unwrap());
    assert_eq!(policy.check(&stranger), Err(PolicyError::NotSignedByLog(ORIGIN.into())));
    // Signed by a listed key, but under the name of no log.
    let renamed = all(sign_note(&text(), "example.com/other", &secret(ORIGIN)).unwrap());
    assert_eq!(policy.check(&renamed), Err(PolicyError::NotSignedByLog(ORIGIN.into())));
    // Signed by a listed log, but a checkpoint of another one.
    let foreign = Checkpoint::new("example.com/other", 7, Digest::of(b"root")).unwrap().to_note_text();
    let foreign = sign_note(&foreign, ORIGIN, &secret(ORIGIN)).unwrap();
    assert_eq!(policy.check(&foreign), Err(PolicyError::UnknownLog("example.com/other".into())));
    let text = sign_note("no checkpoint\n", ORIGIN, &secret(ORIGIN)).unwrap();
    assert_eq!(policy.check(&text), Err(PolicyError::Checkpoint(CheckpointError::Incomplete)));
}

#[test]
fn any_key_of_a_log_will_do_and_those_of_others_do_not() {
    let mut builder = PolicyBuilder::new();
    let second = VerifierKey::ed25519(ORIGIN, secret("second").public()).unwrap();
    let cosigning = VerifierKey::cosignature_v1(ORIGIN, secret("third").public()).unwrap();
    for key in [log_key(ORIGIN), second.clone(), cosigning.clone(), log_key("example.com/other")] {
        builder.log(key, None).unwrap();
    }
    builder.quorum(b"none").unwrap();
    let policy = builder.build().unwrap();
    let mut note = sign_note(&text(), ORIGIN, &secret("second")).unwrap();
    assert_eq!(policy.check(&note).unwrap().logs, std::slice::from_ref(&second));
    note.add(NoteSignature::cosign(&text(), ORIGIN, &secret("third"), 1).unwrap()).unwrap();
    note.sign("example.com/other", &secret("example.com/other")).unwrap();
    assert_eq!(policy.check(&note).unwrap().logs, [second, cosigning]);
    let other = sign_note(&text(), "example.com/other", &secret("example.com/other")).unwrap();
    assert_eq!(policy.check(&other), Err(PolicyError::NotSignedByLog(ORIGIN.into())));
}

#[test]
fn a_policy_without_logs_accepts_nothing() {
    let policy = Policy::parse(b"quorum none\n").unwrap();
    assert_eq!(policy.check(&note(&[])), Err(PolicyError::UnknownLog(ORIGIN.into())));
}

#[test]
fn a_bad_signature_by_a_listed_key_spoils_the_note() {
    let policy = with_quorum("X1");
    let elsewhere = Checkpoint::new(ORIGIN, 8, Digest::of(b"root")).unwrap().to_note_text();
    let bad = [
        NoteSignature::cosign(&elsewhere, "Y3.example/w", &secret("Y3"), 1).unwrap(),
        NoteSignature::sign(&elsewhere, ORIGIN, &secret(ORIGIN)).unwrap(),
    ];
    for bad in bad {
        let mut note = note(&["X1"]);
        assert!(policy.check(&note).is_ok());
        note.add(bad).unwrap();
        assert!(matches!(policy.check(&note), Err(PolicyError::BadSignature(NoteError::BadSignature { .. }))));
    }
    // The same lines by keys that are not listed do no harm.
    let mut note = note(&["X1"]);
    note.add(NoteSignature::cosign(&elsewhere, "Z.example/w", &secret("Z"), 1).unwrap()).unwrap();
    note.add(NoteSignature::sign(&elsewhere, "Y3.example/w", &secret("Y3")).unwrap()).unwrap();
    assert_eq!(witnessed(&policy.check(&note).unwrap()), [("X1".into(), 100)]);
}

#[test]
fn every_changed_bit_of_a_note_is_refused() {
    let mut builder = PolicyBuilder::new();
    builder.log(log_key(ORIGIN), None).unwrap();
    for name in ["X1", "X2"] {
        builder.witness(name.as_bytes(), witness_key(name), None).unwrap();
    }
    builder.group(b"both", Threshold::All, &["X1", "X2"]).unwrap().quorum(b"both").unwrap();
    let policy = builder.build().unwrap();
    let encoded = note(&["X1", "X2"]).to_string().into_bytes();
    let check = |bytes| policy.check(&SignedNote::parse(&String::from_utf8(bytes).ok()?).ok()?).ok();
    assert!(check(encoded.clone()).is_some());
    for bit in 0..encoded.len() * 8 {
        let mut changed = encoded.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(check(changed), None, "accepted with bit {bit} changed");
    }
}

#[test]
fn groups_may_be_nested_to_any_depth() {
    let mut builder = PolicyBuilder::new();
    builder.log(log_key(ORIGIN), None).unwrap().witness(b"X1", witness_key("X1"), None).unwrap();
    let mut inner = "X1".to_owned();
    for depth in 0..POLICY_LINES_MAX - 3 {
        let outer = format!("g{depth}");
        builder.group(outer.as_bytes(), Threshold::All, &[&inner]).unwrap();
        inner = outer;
    }
    builder.quorum(inner.as_bytes()).unwrap();
    let policy = builder.build().unwrap();
    assert_eq!(Policy::parse(&policy.to_bytes()).as_ref(), Ok(&policy));
    assert!(policy.check(&note(&["X1"])).is_ok());
    assert!(policy.check(&note(&["X2"])).is_err());
}

proptest! {
    #[test]
    fn the_median_lies_between_the_times_of_right_clocks(
        right in prop::collection::vec(1_000u64..2_000, 1..8), wrong in prop::collection::vec(any::<u64>(), 0..7)
    ) {
        let wrong = &wrong[..wrong.len().min(right.len() - 1)];
        let median = lower_median([&right, wrong].concat()).unwrap();
        prop_assert!(right.iter().min().unwrap() <= &median && &median <= right.iter().max().unwrap());
    }

    #[test]
    fn arbitrary_groups_are_witnessed_as_recursion_says(
        thresholds in prop::collection::vec(1..4usize, 1..6), cosigned in prop::collection::vec(any::<bool>(), 6)
    ) {
        // Every group takes the one before it and one more witness.
        let mut builder = PolicyBuilder::new();
        builder.log(log_key(ORIGIN), None).unwrap();
        for name in WITNESSES {
            builder.witness(name.as_bytes(), witness_key(name), None).unwrap();
        }
        let (mut last, mut expected) = (WITNESSES[0].to_owned(), cosigned[0]);
        for (index, threshold) in thresholds.iter().enumerate() {
            let name = format!("g{index}");
            let threshold = (*threshold).min(2);
            let members = [last.as_str(), WITNESSES[index + 1]];
            builder.group(name.as_bytes(), Threshold::AtLeast(threshold), &members).unwrap();
            expected = usize::from(expected) + usize::from(cosigned[index + 1]) >= threshold;
            last = name;
        }
        builder.quorum(last.as_bytes()).unwrap();
        let signers = WITNESSES.into_iter().zip(&cosigned).filter(|(_, signed)| **signed);
        let signers: Vec<&str> = signers.map(|(name, _)| name).collect();
        prop_assert_eq!(builder.build().unwrap().check(&note(&signers)).is_ok(), expected);
    }
}
