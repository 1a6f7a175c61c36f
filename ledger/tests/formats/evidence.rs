//! Evidence of two histories: every pair of forked heads convicts whoever signed both, and no honest pair does.

use fedledger_ledger::{
    Digest,
    checkpoint::{Checkpoint, CheckpointError},
    codec::{self, CodecError},
    evidence::{EVIDENCE_HASHES_MAX, EVIDENCE_SIZE_BYTES_MAX, Evidence, EvidenceError, Prefix},
    merkle::{ProofMismatch, empty_root},
    note::{NoteError, NoteSignature, SignedNote, VerifierKey, sign_note},
};
use proptest::prelude::*;

use crate::sample_log::{ORIGIN, SampleLog, TIME_S, WITNESSES, log_key, secret, witness_key};

/// Largest size that is checked exhaustively.
const EXHAUSTIVE_SIZE: u64 = 17;

/// Where the other history begins, in most tests.
const FORK: u64 = 3;

fn histories() -> (SampleLog, SampleLog) {
    (SampleLog::of_size(EXHAUSTIVE_SIZE), SampleLog::forked(EXHAUSTIVE_SIZE, FORK))
}

/// What `log` begins with at `old`, proven at `new`.
fn prefix(log: &SampleLog, old: u64, new: u64) -> Prefix {
    Prefix { root: log.root(old), proof: log.consistency(old, new) }
}

/// The prefix that evidence needs for heads of these sizes, the larger one of `log`.
fn needed(log: &SampleLog, old: u64, new: u64) -> Option<Prefix> {
    (old != new).then(|| prefix(log, old, new))
}

fn names(convicted: Result<Vec<&VerifierKey>, EvidenceError>) -> Vec<String> {
    convicted.unwrap().iter().map(|key| key.name().to_owned()).collect()
}

/// Evidence of both kinds, with every signature of both notes by a key of [`keys`].
fn samples() -> [Evidence; 2] {
    let (log, other) = histories();
    let head = |log: &SampleLog, size| log.checkpoint(size, &WITNESSES[..2]);
    [
        Evidence::new(head(&log, 6), head(&other, 6), None).unwrap(),
        Evidence::new(head(&log, 6), head(&other, 13), Some(prefix(&other, 6, 13))).unwrap(),
    ]
}

fn keys() -> Vec<VerifierKey> {
    WITNESSES.iter().map(|name| witness_key(name)).chain([log_key()]).collect()
}

#[test]
fn every_fork_convicts_and_every_honest_pair_is_refused() {
    let (log, other) = histories();
    for old in 1..=EXHAUSTIVE_SIZE {
        for new in old..=EXHAUSTIVE_SIZE {
            let first = log.checkpoint(old, &WITNESSES[..1]);
            let forked = Evidence::new(first.clone(), other.checkpoint(new, &WITNESSES), needed(&other, old, new));
            if old > FORK {
                assert_eq!(names(forked.unwrap().verify(&keys())), ["w1.example", ORIGIN], "{old} and {new}");
            } else {
                // Both histories begin alike.
                assert_eq!(forked, Err(EvidenceError::Consistent { first: old, second: new }));
            }
            let honest = Evidence::new(first, log.checkpoint(new, &WITNESSES), needed(&log, old, new));
            assert_eq!(honest, Err(EvidenceError::Consistent { first: old, second: new }));
        }
    }
}

#[test]
fn a_beginning_that_the_larger_tree_does_not_have_convicts_nobody() {
    let (log, other) = histories();
    for old in 1..EXHAUSTIVE_SIZE {
        for new in old + 1..=EXHAUSTIVE_SIZE {
            let honest = |prefix| Evidence::new(log.checkpoint(old, &[]), log.checkpoint(new, &[]), Some(prefix));
            // Another root with the right proof, and the whole of another history's.
            let forged = Prefix { root: Digest::of(b"forged"), proof: log.consistency(old, new) };
            assert!(matches!(honest(forged), Err(EvidenceError::Proof(_))), "{old} and {new}");
            let foreign = honest(prefix(&other, old, new));
            assert!(matches!(foreign, Err(EvidenceError::Proof(_))) || new <= FORK, "{old} and {new}");
            assert!(foreign.is_err());
        }
    }
}

#[test]
fn a_smaller_head_signed_later_is_no_evidence() {
    let log = SampleLog::of_size(9);
    let cosigned = |size, time_s| {
        let text = log.text(size);
        let line = NoteSignature::cosign(&text, WITNESSES[0], &secret(WITNESSES[0]), time_s).unwrap();
        SignedNote::from_parts(text, vec![line]).unwrap()
    };
    let (later, earlier) = (cosigned(5, TIME_S + 100), cosigned(9, TIME_S));
    let consistent = Err(EvidenceError::Consistent { first: 5, second: 9 });
    assert_eq!(Evidence::new(later.clone(), earlier.clone(), Some(prefix(&log, 5, 9))), consistent);
    assert_eq!(Evidence::new(later, earlier, None), Err(EvidenceError::Prefix));
    // Nor is one head that was signed twice.
    let again = Evidence::new(cosigned(5, TIME_S), cosigned(5, TIME_S + 1), None);
    assert_eq!(again, Err(EvidenceError::Consistent { first: 5, second: 5 }));
}

#[test]
fn only_keys_that_signed_both_heads_are_convicted() {
    let (log, other) = histories();
    let evidence = |one: &[&str], two: &[&str]| {
        let (one, two) = (log.checkpoint(6, one), other.checkpoint(6, two));
        Evidence::new(one, two, None).unwrap()
    };
    let witnesses: Vec<VerifierKey> = WITNESSES.iter().map(|name| witness_key(name)).collect();
    let both = evidence(&["w1.example", "w2.example"], &["w2.example", "w3.example"]);
    assert_eq!(names(both.verify(&witnesses)), ["w2.example"]);
    assert_eq!(names(both.verify(&keys())), ["w2.example", ORIGIN]);
    // A key that is asked for twice is convicted once.
    assert_eq!(names(both.verify(&[log_key(), log_key()])), [ORIGIN]);
    let nobody = evidence(&["w1.example"], &["w3.example"]);
    assert_eq!(nobody.verify(&witnesses), Err(EvidenceError::NobodySignedBoth));
    assert_eq!(nobody.verify(&[]), Err(EvidenceError::NobodySignedBoth));
    // The same name with the log's type of key signed one head, with the witness's type the other.
    let name = WITNESSES[0];
    let signed = sign_note(&log.text(6), name, &secret(name)).unwrap();
    let line = NoteSignature::cosign(&other.text(6), name, &secret(name), TIME_S).unwrap();
    let cosigned = SignedNote::from_parts(other.text(6), vec![line]).unwrap();
    let split = Evidence::new(signed, cosigned, None).unwrap();
    let both_types = [witness_key(name), VerifierKey::ed25519(name, secret(name).public()).unwrap()];
    assert_eq!(split.verify(&both_types), Err(EvidenceError::NobodySignedBoth));
}

#[test]
fn a_bad_signature_by_a_known_key_spoils_the_evidence() {
    let (log, other) = histories();
    let mut second = other.checkpoint(6, &["w1.example"]);
    second.add(NoteSignature::cosign(&other.text(7), "w2.example", &secret("w2.example"), TIME_S).unwrap()).unwrap();
    let evidence = Evidence::new(log.checkpoint(6, &["w1.example"]), second, None).unwrap();
    assert!(matches!(evidence.verify(&keys()), Err(EvidenceError::Note(NoteError::BadSignature { .. }))));
    // Not if nobody asks for that key.
    assert_eq!(names(evidence.verify(&[witness_key("w1.example")])), ["w1.example"]);
}

#[test]
fn heads_that_cannot_contradict_each_other_are_refused() {
    let (log, other) = histories();
    let sign = |origin: &str, size, root| {
        let text = Checkpoint::new(origin, size, root).unwrap().to_note_text();
        sign_note(&text, ORIGIN, &secret(ORIGIN)).unwrap()
    };
    let foreign = sign("example.com/other", 6, other.root(6));
    let refused = Evidence::new(log.checkpoint(6, &[]), foreign, None);
    assert!(matches!(refused, Err(EvidenceError::Origins { .. })), "{refused:?}");
    // Nothing contradicts an empty log, not even if its root is wrong.
    for root in [empty_root(), Digest::of(b"wrong")] {
        let empty = || sign(ORIGIN, 0, root);
        let prefix = Some(Prefix { root: empty_root(), proof: Vec::new() });
        assert_eq!(Evidence::new(empty(), log.checkpoint(6, &[]), prefix), Err(EvidenceError::Empty));
        assert_eq!(Evidence::new(empty(), sign(ORIGIN, 0, empty_root()), None), Err(EvidenceError::Empty));
    }
    let (six, seven) = (|| log.checkpoint(6, &[]), || other.checkpoint(7, &[]));
    assert_eq!(Evidence::new(six(), seven(), None), Err(EvidenceError::Prefix));
    let needless = Some(prefix(&other, 6, 7));
    assert_eq!(Evidence::new(six(), other.checkpoint(6, &[]), needless), Err(EvidenceError::Prefix));
    let mut long = prefix(&other, 6, 7);
    long.proof.resize(EVIDENCE_HASHES_MAX + 1, Digest::default());
    assert_eq!(Evidence::new(six(), seven(), Some(long.clone())), Err(EvidenceError::TooManyHashes));
    long.proof.truncate(EVIDENCE_HASHES_MAX);
    let refused = Evidence::new(six(), seven(), Some(long));
    assert!(matches!(refused, Err(EvidenceError::Proof(ProofMismatch::Length { .. }))));
    let text = sign_note("text\n", ORIGIN, &secret(ORIGIN)).unwrap();
    let incomplete = Err(EvidenceError::Checkpoint(CheckpointError::Incomplete));
    assert_eq!(Evidence::new(text, six(), None), incomplete);
}

#[test]
fn evidence_is_the_same_in_either_order_and_has_one_encoding() {
    let (log, other) = histories();
    for (old, new) in [(6, 6), (6, 13)] {
        let heads = || (log.checkpoint(old, &WITNESSES), other.checkpoint(new, &WITNESSES));
        let evidence = Evidence::new(heads().0, heads().1, needed(&other, old, new)).unwrap();
        assert_eq!(Evidence::new(heads().1, heads().0, needed(&other, old, new)).as_ref(), Ok(&evidence));
        assert_eq!(evidence.origin(), ORIGIN);
        assert_eq!(evidence.prefix().is_some(), old != new);
        assert_eq!(Evidence::from_bytes(&evidence.to_bytes()).as_ref(), Ok(&evidence));
        let notes = [evidence.second(), evidence.first()].map(ToString::to_string);
        let swapped = encode("fedledger/v1/evidence", 1, &notes, evidence.prefix());
        assert_eq!(Evidence::from_bytes(&swapped), Err(EvidenceError::Order));
    }
}

#[test]
fn other_formats_and_versions_are_refused() {
    let [evidence, _] = samples();
    let notes = [evidence.first(), evidence.second()].map(ToString::to_string);
    let read = |domain: &str, version| Evidence::from_bytes(&encode(domain, version, &notes, None));
    assert_eq!(read("fedledger/v1/evidence", 1).as_ref(), Ok(&evidence));
    for (domain, version) in
        [("fedledger/v1/evidence", 2), ("fedledger/v1/evidence", 0), ("fedledger/v1/tx", 1), ("", 1)]
    {
        assert_eq!(read(domain, version), Err(EvidenceError::Format { domain: domain.into(), version }));
    }
}

#[test]
fn every_changed_bit_is_refused() {
    for evidence in samples() {
        let convicted = evidence.verify(&keys()).unwrap().len();
        assert_eq!(convicted, 3);
        let bytes = evidence.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A line whose name or key has changed is one by an unknown key; whoever signed the others remains.
            let convicted = Evidence::from_bytes(&changed).and_then(|read| Ok(read.verify(&keys())?.len()));
            assert!(convicted.unwrap_or(0) < 3, "accepted with bit {bit} changed");
        }
        for length in 0..bytes.len() {
            assert!(Evidence::from_bytes(&bytes[..length]).is_err(), "accepted when cut at {length}");
        }
        assert!(matches!(Evidence::from_bytes(&[bytes.as_slice(), &[0]].concat()), Err(EvidenceError::Codec(_))));
    }
}

#[test]
fn size_is_bounded() {
    let (log, other) = histories();
    let full = |log: &SampleLog, name: &str| {
        let text = log.text(6);
        let lines = (0..100).map(|_| NoteSignature::cosign(&text, name, &secret(name), TIME_S).unwrap()).collect();
        SignedNote::from_parts(text, lines).unwrap()
    };
    let evidence = Evidence::new(full(&log, WITNESSES[0]), full(&other, WITNESSES[0]), None).unwrap();
    assert!(evidence.to_bytes().len() < EVIDENCE_SIZE_BYTES_MAX / 2);
    let long = "n".repeat(400);
    let refused = Evidence::new(full(&log, &long), full(&other, &long), None);
    assert!(matches!(refused, Err(EvidenceError::TooLarge { .. })));
    let size = EVIDENCE_SIZE_BYTES_MAX + 1;
    let limit = EVIDENCE_SIZE_BYTES_MAX;
    assert_eq!(
        Evidence::from_bytes(&vec![0x80; size]),
        Err(EvidenceError::Codec(CodecError::TooLarge { size, limit }))
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_evidence(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Evidence::from_bytes(&bytes).is_err());
    }

    #[test]
    fn arbitrary_forks_convict(
        (fork, old, new) in (0u64..60).prop_flat_map(|fork| (Just(fork), fork + 1..62)).prop_flat_map(
            |(fork, old)| (Just(fork), Just(old), old..64)
        )
    ) {
        let (log, other) = (SampleLog::of_size(new), SampleLog::forked(new, fork));
        let heads = (log.checkpoint(old, &WITNESSES), other.checkpoint(new, &WITNESSES));
        let evidence = Evidence::new(heads.0, heads.1, needed(&other, old, new));
        let evidence = Evidence::from_bytes(&evidence.unwrap().to_bytes()).unwrap();
        prop_assert_eq!(evidence.verify(&keys()).map(|keys| keys.len()), Ok(4));
    }
}

/// The encoding as it is documented, made by hand.
fn encode(domain: &str, version: u64, notes: &[String; 2], prefix: Option<&Prefix>) -> Vec<u8> {
    let prefix = prefix.map(|prefix| (prefix.root, &prefix.proof));
    codec::encode(&(domain, version, &notes[0], &notes[1], prefix))
}
