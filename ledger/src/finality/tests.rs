//! Unit tests: what single notes do, and what no order of them may.

mod agreement;

use std::collections::BTreeMap;

use super::*;
use crate::{
    epoch::{ReplicaKeys, cosigner_name},
    keys::SecretKey,
    note::{NOTE_SIGNATURES_MAX, VerifierKey},
};

const ORIGIN: &str = "test.example/log";

/// When co-signatures are made that nothing is said about.
const TIME_S: u64 = 1_700_000_000;

fn name(id: u64) -> String {
    format!("node-{id:03}")
}

/// A key of a node; the first byte of the seed tells what for.
fn key(purpose: u8, id: u64) -> SecretKey {
    let mut seed = [purpose; 32];
    seed[..8].copy_from_slice(&id.to_be_bytes());
    SecretKey::from_seed(seed)
}

fn cosign_key(id: u64) -> SecretKey {
    key(1, id)
}

fn log_key(id: u64) -> SecretKey {
    key(2, id)
}

fn keys(id: u64) -> ReplicaKeys {
    ReplicaKeys { author: key(3, id).public(), log: log_key(id).public(), cosign: cosign_key(id).public() }
}

fn epoch(number: u64, threshold: u64, replicas: impl IntoIterator<Item = u64>) -> Epoch {
    let replicas = replicas.into_iter().map(|id| (name(id), keys(id))).collect();
    Epoch { number, index: 0, threshold, replicas, witnesses: BTreeMap::new() }
}

/// Four replicas, three of which make a head final, and two witnesses, nodes 8 and 9.
fn consortium() -> Arc<Epoch> {
    let mut epoch = epoch(0, 3, 1..=4);
    epoch.witnesses = [8, 9].map(|id| (name(id), cosign_key(id).public())).into();
    Arc::new(epoch)
}

fn begin(epoch: &Arc<Epoch>) -> Finality {
    Finality::new(ORIGIN.to_owned(), Arc::clone(epoch), Vec::new(), 0, 0)
}

fn root(what: &str) -> Digest {
    Digest::of(what.as_bytes())
}

fn seal(finality: &mut Finality, epoch: &Arc<Epoch>, size: u64) -> Vec<Finding> {
    let (epoch, next_epoch) = (Arc::clone(epoch), Arc::clone(epoch));
    finality.sealed(&SealedHead { size, root: root("right"), epoch, next_epoch }).unwrap()
}

fn text(size: u64, root: Digest) -> String {
    Checkpoint::new(ORIGIN, size, root).unwrap().to_note_text()
}

fn line(text: &str, id: u64, time_s: u64) -> NoteSignature {
    NoteSignature::cosign(text, &cosigner_name(ORIGIN, &name(id)), &cosign_key(id), time_s).unwrap()
}

/// A note of these nodes, signed by the first one in the name of the log.
fn note(size: u64, root: Digest, ids: &[u64]) -> String {
    let text = text(size, root);
    let log = NoteSignature::sign(&text, ORIGIN, &log_key(ids[0])).unwrap();
    let lines = std::iter::once(log).chain(ids.iter().map(|id| line(&text, *id, TIME_S)));
    SignedNote::from_parts(text.clone(), lines.collect()).unwrap().to_string()
}

fn findings(finality: &mut Finality, note: &str) -> Vec<Finding> {
    match finality.offer(note) {
        Ok(Offered::Taken(findings)) => findings,
        other => panic!("{other:?}"),
    }
}

/// Sizes of the heads that become final.
fn finals(findings: &[Finding]) -> Vec<u64> {
    let size = |finding: &Finding| match finding {
        Finding::Final { size, .. } => Some(*size),
        _ => None,
    };
    findings.iter().filter_map(size).collect()
}

fn verifier_key(id: u64) -> VerifierKey {
    VerifierKey::cosignature_v1(&cosigner_name(ORIGIN, &name(id)), cosign_key(id).public()).unwrap()
}

#[test]
fn each_co_signature_counts_once() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    seal(&mut finality, &epoch, 5);
    let right = root("right");
    for _ in 0..3 {
        assert_eq!(findings(&mut finality, &note(5, right, &[1])), []);
        assert_eq!(findings(&mut finality, &note(5, right, &[2, 1])), []);
    }
    assert_eq!(finality.final_size(), 0);
    assert_eq!(finals(&findings(&mut finality, &note(5, right, &[3]))), [5]);
    assert_eq!(findings(&mut finality, &note(5, right, &[3, 2])), []);
    let last = findings(&mut finality, &note(5, right, &[4]));
    assert!(matches!(last.as_slice(), [Finding::Unanimous { size: 5, .. }]), "{last:?}");
    assert_eq!((finality.final_size(), finality.unanimous_size()), (5, 5));
    assert_eq!(finality.cosigners(), [1, 2, 3, 4].map(name));
    assert_eq!(finality.cosigned_size(&name(4)), Some(5));
    let by_two = finality.note_by(&name(2)).unwrap();
    assert_eq!(by_two.signatures().len(), 1);
    assert_eq!(by_two.verify_with(&verifier_key(2)), Ok(()));
}

#[test]
fn a_head_that_a_node_has_co_signed_is_found_from_a_size_on() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    for size in [5, 7, 9] {
        seal(&mut finality, &epoch, size);
    }
    findings(&mut finality, &note(5, root("right"), &[2, 8]));
    findings(&mut finality, &note(9, root("right"), &[2]));
    let size = |note: Option<SignedNote>| note.map(|note| Checkpoint::parse(note.text()).unwrap().size());
    assert_eq!(
        [1, 5, 6, 9, 10].map(|from| size(finality.note_from(&name(2), from))),
        [Some(5), Some(5), Some(9), Some(9), None]
    );
    assert_eq!(size(finality.note_from(&name(8), 6)), None);
    let note = finality.note_from(&name(2), 6).unwrap();
    assert_eq!((note.signatures().len(), note.verify_with(&verifier_key(2))), (1, Ok(())));
}

#[test]
fn one_node_counts_once_however_many_lines_it_writes() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    seal(&mut finality, &epoch, 5);
    let text = text(5, root("right"));
    let times = (0..NOTE_SIGNATURES_MAX as u64).map(|i| TIME_S + 500 - i);
    let many = SignedNote::from_parts(text.clone(), times.map(|time_s| line(&text, 1, time_s)).collect()).unwrap();
    assert_eq!(findings(&mut finality, &many.to_string()), []);
    // The earliest line is the one that is kept, and it says the time that counts.
    let earliest = TIME_S + 500 - 99;
    assert_eq!(
        finality
            .note_by(&name(1))
            .unwrap()
            .verify_cosignature(&cosigner_name(ORIGIN, &name(1)), &cosign_key(1).public()),
        Ok(earliest)
    );
}

#[test]
fn strangers_are_ignored_and_witnesses_never_count() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    seal(&mut finality, &epoch, 5);
    let right = root("right");
    assert_eq!(findings(&mut finality, &note(5, right, &[1, 2, 8, 9, 5, 6, 7])), []);
    assert_eq!(finality.final_size(), 0, "two replicas, two witnesses and three strangers");
    assert_eq!(finality.cosigned_size(&name(8)), Some(5));
    assert_eq!(finality.cosigned_size(&name(5)), None);
    assert_eq!(finality.offer(&note(6, right, &[5])), Err(OfferError::NoCosignature));
    assert_eq!(finals(&findings(&mut finality, &note(5, right, &[5, 3]))), [5]);
    let note = SignedNote::parse(&finality.final_note().unwrap()).unwrap();
    assert_eq!(note.signatures().len(), 1 + 3 + 2, "the log, three replicas, two witnesses");
}

#[test]
fn a_bad_signature_spoils_its_note_and_nothing_else() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    seal(&mut finality, &epoch, 5);
    let right = text(5, root("right"));
    let forged = line(&text(5, root("wrong")), 2, TIME_S);
    let spoiled = SignedNote::from_parts(right.clone(), vec![line(&right, 1, TIME_S), forged]).unwrap().to_string();
    assert!(matches!(
        finality.offer(&spoiled),
        Err(OfferError::Head(CheckpointNoteError::Note(NoteError::BadSignature { .. })))
    ));
    assert_eq!(finality.cosigned_size(&name(1)), None);
    // Also for a head to come, and one long past.
    for size in [4, 6] {
        let right = text(size, root("right"));
        let forged = line(&text(9, root("wrong")), 2, TIME_S);
        let spoiled = SignedNote::from_parts(right, vec![forged]).unwrap().to_string();
        assert!(matches!(finality.offer(&spoiled), Err(OfferError::Head(CheckpointNoteError::Note(_)))), "{size}");
    }
}

#[test]
fn what_is_no_head_of_this_log_is_refused() {
    let mut finality = begin(&consortium());
    assert!(matches!(finality.offer("no note"), Err(OfferError::Head(CheckpointNoteError::Note(_)))));
    let other = Checkpoint::new("other", 5, root("right")).unwrap().to_note_text();
    let other = SignedNote::from_parts(other.clone(), vec![line(&other, 1, TIME_S)]).unwrap().to_string();
    assert!(matches!(finality.offer(&other), Err(OfferError::Head(CheckpointNoteError::Origin { .. }))));
    let prose = "some text\n".to_owned();
    let prose = SignedNote::from_parts(prose.clone(), vec![line(&prose, 1, TIME_S)]).unwrap().to_string();
    assert!(matches!(finality.offer(&prose), Err(OfferError::Head(CheckpointNoteError::Checkpoint(_)))));
}

#[test]
fn early_notes_are_used_when_the_head_is_there() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    let right = root("right");
    assert_eq!(findings(&mut finality, &note(7, right, &[2, 3])), []);
    assert_eq!(findings(&mut finality, &note(7, right, &[4, 8])), []);
    assert_eq!(findings(&mut finality, &note(6, root("passed over"), &[2])), []);
    let found = seal(&mut finality, &epoch, 7);
    assert_eq!(finals(&found), [7], "without a signature of its own");
    let passed_over = found.iter().filter_map(|finding| match finding {
        Finding::Uncounted(note) => Some(Checkpoint::parse(note.text()).unwrap().size()),
        _ => None,
    });
    assert_eq!(passed_over.collect::<Vec<_>>(), [6]);
    assert_eq!(finality.cosigners(), [2, 3, 4].map(name));
    let note = SignedNote::parse(&finality.final_note().unwrap()).unwrap();
    assert_eq!(note.verify(ORIGIN, &log_key(2).public()), Ok(()), "in the name of the log by one that sent a note");
}

/// Whoever wants to make a replica forget what others said early can only do so for itself.
#[test]
fn early_notes_are_bounded_for_each_signer() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    let right = root("right");
    findings(&mut finality, &note(7, right, &[1, 2, 3]));
    for size in 0..1000 {
        findings(&mut finality, &note(u64::MAX - size, root("made up"), &[1]));
    }
    assert!(finality.early.values().all(|notes| notes.len() <= EARLY_NOTES_KEPT));
    seal(&mut finality, &epoch, 7);
    assert_eq!(finality.cosigners(), [2, 3].map(name));
    assert_eq!(finals(&findings(&mut finality, &note(7, right, &[1]))), [7]);
}

#[test]
fn a_note_of_a_past_head_is_for_the_caller_to_compare() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    for size in 1..=HEADS_KEPT as u64 + 1 {
        seal(&mut finality, &epoch, size * 2);
    }
    assert_eq!(finality.heads.len(), HEADS_KEPT);
    for size in [2, 9] {
        match finality.offer(&note(size, root("past"), &[2, 5])) {
            Ok(Offered::Elsewhere(checkpoint, cosignatures)) => {
                assert_eq!((checkpoint.size(), *checkpoint.root()), (size, root("past")));
                assert_eq!(cosignatures.iter().map(|by| by.node.as_str()).collect::<Vec<_>>(), [name(2)]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(finality.offer(&note(9, root("past"), &[5])), Err(OfferError::NoCosignature));
}

#[test]
fn one_that_signs_many_roots_does_not_hide_what_the_others_agree_on() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    seal(&mut finality, &epoch, 5);
    let mut found = Vec::new();
    for i in 0..100 {
        found.extend(findings(&mut finality, &note(5, root(&format!("made up {i}")), &[4])));
    }
    let convictions = found.iter().filter(|finding| matches!(finding, Finding::Equivocation { .. })).count();
    assert_eq!(convictions, 1, "evidence against a node is found once");
    let theirs = root("theirs");
    let two = findings(&mut finality, &note(5, theirs, &[2, 3]));
    assert_eq!(two, [Finding::Disagreement { size: 5, signers: [2, 3].map(name).into() }]);
    assert_eq!(findings(&mut finality, &note(5, theirs, &[2, 3])), [], "nothing new, nothing said");
    let three = findings(&mut finality, &note(5, theirs, &[4]));
    let signers = [2, 3, 4].map(name).into();
    assert_eq!(three, [Finding::Diverged { size: 5, own: root("right"), theirs, signers }]);
    assert_eq!(finality.final_size(), 0);
}

#[test]
fn witnesses_do_not_make_a_replica_doubt_itself() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    seal(&mut finality, &epoch, 5);
    assert_eq!(findings(&mut finality, &note(5, root("theirs"), &[8, 9])), []);
}

#[test]
fn two_heads_by_one_key_are_evidence_in_any_order() {
    let epoch = consortium();
    for notes in [["right", "wrong"], ["wrong", "right"], ["wrong", "also wrong"]] {
        for signer in [2, 8] {
            let mut finality = begin(&epoch);
            seal(&mut finality, &epoch, 5);
            let found: Vec<_> =
                notes.iter().flat_map(|what| findings(&mut finality, &note(5, root(what), &[signer]))).collect();
            let evidence = found.iter().filter_map(|finding| match finding {
                Finding::Equivocation { evidence, .. } => Some(evidence),
                _ => None,
            });
            let evidence: Vec<_> = evidence.collect();
            assert_eq!(evidence.len(), 1, "{notes:?}: {found:?}");
            assert_eq!(evidence[0].verify(&[verifier_key(signer)]).unwrap(), [&verifier_key(signer)]);
            assert!(evidence[0].verify(&[verifier_key(3)]).is_err());
            assert_eq!(Evidence::from_bytes(&evidence[0].to_bytes()).as_ref(), Ok(evidence[0].as_ref()));
        }
    }
}

#[test]
fn the_time_of_a_head_is_the_median_of_its_replicas() {
    let epoch = consortium();
    // The lower one of two; the witness's time does not count.
    for (times, median) in [([10, 30, 20], 20), ([30, 30, 1], 30), ([7, 7, 7], 7)] {
        let mut finality = begin(&epoch);
        seal(&mut finality, &epoch, 5);
        let text = text(5, root("right"));
        let log = NoteSignature::sign(&text, ORIGIN, &log_key(1)).unwrap();
        let replicas = (1..).zip(times).map(|(id, time_s)| line(&text, id, time_s));
        let lines = [log, line(&text, 8, 1_000)].into_iter().chain(replicas).collect();
        let note = SignedNote::from_parts(text.clone(), lines).unwrap().to_string();
        let found = findings(&mut finality, &note);
        assert!(matches!(found.as_slice(), [Finding::Final { time_s, .. }] if *time_s == median), "{found:?}");
    }
}

#[test]
fn more_nodes_than_a_note_has_room_for_are_left_out_replicas_last() {
    let mut many = epoch(0, 21, 1..=31);
    many.witnesses = (100..300).map(|id| (name(id), cosign_key(id).public())).collect();
    let many = Arc::new(many);
    let mut finality = begin(&many);
    seal(&mut finality, &many, 5);
    let nodes: Vec<u64> = (1..=31).chain(100..300).collect();
    for nodes in nodes.chunks(90) {
        findings(&mut finality, &note(5, root("right"), nodes));
    }
    assert_eq!((finality.final_size(), finality.unanimous_size()), (5, 5));
    let note = SignedNote::parse(&finality.final_note().unwrap()).unwrap();
    assert_eq!(note.signatures().len(), NOTE_SIGNATURES_MAX);
    for id in 1..=31 {
        assert_eq!(note.verify_with(&verifier_key(id)), Ok(()));
    }
}

#[test]
fn heads_of_a_new_epoch_wait_for_the_old_one_and_are_final_with_it() {
    let (old, new) = (Arc::new(epoch(0, 2, 1..=3)), Arc::new(epoch(1, 2, 4..=6)));
    let mut finality = begin(&old);
    let right = root("right");
    let change = SealedHead { size: 5, root: right, epoch: Arc::clone(&old), next_epoch: Arc::clone(&new) };
    assert_eq!(finality.sealed(&change).unwrap(), []);
    seal(&mut finality, &new, 7);
    assert_eq!(findings(&mut finality, &note(7, right, &[4, 5, 6])), [], "nobody has vouched for them");
    assert_eq!(findings(&mut finality, &note(5, right, &[4, 5, 6])), [], "they have no say in it");
    assert_eq!(findings(&mut finality, &note(5, right, &[1])), []);
    let found = findings(&mut finality, &note(5, right, &[2]));
    assert!(matches!(found.first(), Some(Finding::EpochVouchedFor { number: 1, .. })), "{found:?}");
    assert_eq!(finals(&found), [5, 7]);
    assert_eq!((finality.final_size(), finality.unanimous_size()), (7, 7));
}

#[test]
fn what_nobody_had_vouched_for_before_a_restart_is_still_not_vouched_for() {
    let (old, new) = (Arc::new(epoch(0, 3, 1..=4)), Arc::new(epoch(1, 2, 1..=4)));
    let unvouched = vec![Transition { from: Arc::clone(&old), to: 1, size: 5 }];
    let mut finality = Finality::new(ORIGIN.to_owned(), Arc::clone(&new), unvouched, 3, 0);
    seal(&mut finality, &new, 7);
    assert_eq!(findings(&mut finality, &note(7, root("right"), &[1, 2])), []);
    let found = findings(&mut finality, &note(7, root("right"), &[3]));
    assert!(matches!(found.as_slice(), [Finding::EpochVouchedFor { number: 1, .. }, Finding::Final { size: 7, .. }]));
}

/// A replica that was away does not get the co-signatures any more by which an epoch was vouched for, but others have them.
#[test]
fn what_was_vouched_for_meanwhile_is_taken_with_its_note() {
    let (old, new) = (Arc::new(epoch(0, 2, 1..=3)), Arc::new(epoch(1, 3, 1..=4)));
    let mut finality = begin(&old);
    let change = SealedHead { size: 5, root: root("right"), epoch: Arc::clone(&old), next_epoch: Arc::clone(&new) };
    finality.sealed(&change).unwrap();
    seal(&mut finality, &new, 7);
    assert_eq!(finals(&findings(&mut finality, &note(7, root("right"), &[4]))), []);
    assert_eq!(finality.unvouched_epoch(), Some(1));
    let right = root("right");
    for (bad, own) in [
        (note(5, right, &[1]), right),
        (note(5, right, &[1, 4]), right),
        (note(4, right, &[1, 2]), right),
        (note(5, right, &[1, 2]), root("another log")),
    ] {
        assert_eq!(finality.vouched(&bad, &own), Err(OfferError::NotVouched { epoch: 1 }));
    }
    // Seals between the change and the head by which it was vouched for need not be here any more.
    let vouching = note(6, right, &[1, 2]);
    let found = finality.vouched(&vouching, &right).unwrap();
    assert_eq!(found, [Finding::EpochVouchedFor { number: 1, note: vouching }]);
    assert_eq!(finality.unvouched_epoch(), None);
    assert_eq!(finals(&findings(&mut finality, &note(7, right, &[2, 3]))), [7]);
}

/// Also where this replica has not got there: what a node has signed first must not hide what it signs next.
#[test]
fn two_heads_of_one_size_to_come_are_evidence_at_once() {
    let epoch = consortium();
    let mut finality = begin(&epoch);
    assert_eq!(findings(&mut finality, &note(7, root("one"), &[2])), []);
    let found = findings(&mut finality, &note(7, root("other"), &[2, 3]));
    let [Finding::Equivocation { evidence, key }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(*key, cosign_key(2).public());
    assert_eq!(evidence.verify(&[verifier_key(2)]).unwrap(), [&verifier_key(2)]);
    assert_eq!(findings(&mut finality, &note(7, root("one"), &[2])), [], "the same once more");
}

/// An epoch is known by its keys, not by its names: nobody has vouched for keys by using them.
#[test]
fn exchanged_keys_do_not_vouch_for_themselves() {
    let old = Arc::new(epoch(0, 2, 1..=3));
    let mut exchanged = epoch(1, 2, 1..=3);
    for (id, replica) in (1..).zip(exchanged.replicas.values_mut()) {
        replica.cosign = key(4, id).public();
    }
    let new = Arc::new(exchanged);
    let mut finality = begin(&old);
    let change = SealedHead { size: 5, root: root("right"), epoch: Arc::clone(&old), next_epoch: Arc::clone(&new) };
    assert_eq!(finality.sealed(&change).unwrap(), []);
    seal(&mut finality, &new, 7);
    let text = text(7, root("right"));
    let log = NoteSignature::sign(&text, ORIGIN, &log_key(1)).unwrap();
    let with_new_key =
        |id| NoteSignature::cosign(&text, &cosigner_name(ORIGIN, &name(id)), &key(4, id), TIME_S).unwrap();
    let lines = std::iter::once(log).chain((1..=3).map(with_new_key)).collect();
    let note_of_new = SignedNote::from_parts(text.clone(), lines).unwrap().to_string();
    assert_eq!(findings(&mut finality, &note_of_new), []);
    assert_eq!(finality.cosigners().len(), 3);
    let found = findings(&mut finality, &note(5, root("right"), &[1, 2]));
    assert_eq!(finals(&found), [5, 7]);
}
