//! A bundle of a thousand entries, whose bits are flipped: all of notes, chain of epochs and policy, and many others.

use std::{collections::BTreeMap, io::Read, ops::Range, sync::OnceLock};

use fedledger_federation::{
    Command,
    command::ApprovePlan,
    history::{EncodedNote, EncodedPart, Leaves, Source, SourceError, TrustParts},
    verify::{Options, Problem, Replayed, Report, verify},
};
use fedledger_ledger::{
    Digest,
    bundle::{BUNDLE_MAGIC, BundleIndex, BundleReader, Defect, Item},
};
use rayon::prelude::*;

use crate::{
    consortium::{Consortium, open_bundle},
    epochs::{exclude, seal_and_keep},
    rewriting::Parts,
};

/// Entries of the history.
const ENTRIES: u64 = 1000;

/// Bytes of the digest at the end of a bundle.
const CHECKSUM_BYTES: usize = 32;

/// Flips tried in entries and files, each of which takes a replay.
const SAMPLES: usize = 250;

/// Bytes of kind and length before an item.
const HEADER_BYTES: usize = 5;

/// Bytes of the structure before the first entry: the format, and the headers of genesis file, epochs and three notes.
const HEADERS_BEFORE_ENTRIES: usize = BUNDLE_MAGIC.len() + 5 * HEADER_BYTES;

/// Versions are computed again by other tests.
fn options() -> Options {
    Options { recompute: false, ..Options::default() }
}

/// A round, and then consents that are refused because they stand already, until there are a thousand entries.
fn bundle() -> &'static [u8] {
    static BUNDLE: OnceLock<Vec<u8>> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let (mut consortium, plan) = Consortium::ready(2);
        let version = consortium.run_round(&plan);
        consortium.evaluate(&version);
        exclude(&mut consortium, "turin");
        seal_and_keep(&mut consortium, "epoch/1", &["basel", "lyon", "porto"]);
        while consortium.log.size() < ENTRIES - 1 {
            let again = Command::ApprovePlan(ApprovePlan { plan: Digest::of(b"no such plan") });
            consortium.submit("basel/participant", &again).unwrap_err();
            if consortium.log.size() % 100 == 50 {
                consortium.seal();
            }
        }
        consortium.sign_checkpoints(3);
        let bundle = consortium.bundle();
        let report = verify(&open_bundle(&bundle), &options()).unwrap();
        assert_eq!((report.problems, report.entries, report.final_entries), (vec![], ENTRIES, ENTRIES));
        bundle
    })
}

fn names_a_place(report: &Report) -> bool {
    let place = |problem: &Problem| problem.index.is_some() || problem.offset.is_some();
    !report.ok && !report.problems.is_empty() && report.problems.iter().all(place)
}

fn flipped(bit: usize) -> Vec<u8> {
    let mut flipped = bundle().to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

/// Makes the digest at the end right again, as a forger would.
fn with_checksum(mut forged: Vec<u8>) -> Vec<u8> {
    let (body, checksum) = forged.split_at_mut(bundle().len() - CHECKSUM_BYTES);
    checksum.copy_from_slice(Digest::of(body).as_bytes());
    forged
}

fn is_noticed(forged: Vec<u8>) -> bool {
    // What is wrong with the form is in the report, see the other tests; it is found without a replay.
    match BundleIndex::scan(forged.as_slice()).unwrap().defect.expect("the checksum is wrong").defect {
        Defect::Checksum { .. } => names_a_place(&verify(&open_bundle(&with_checksum(forged)), &options()).unwrap()),
        _ => true,
    }
}

/// Where the bytes of genesis file, leaves and files stand.
fn contents() -> Vec<Range<usize>> {
    let mut reader = BundleReader::new(bundle()).unwrap();
    let mut contents = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        let offset = usize::try_from(reader.offset()).unwrap();
        match item {
            Item::Genesis(bytes) | Item::Leaf(bytes) => contents.push(offset - bytes.len()..offset),
            Item::Blob { size, .. } => contents.push(offset..offset + usize::try_from(size).unwrap()),
            Item::Epochs { .. } | Item::Note { .. } | Item::Policy { .. } => {}
        }
    }
    contents
}

/// Where the bytes of notes, chain of epochs and policy stand.
fn vouching() -> Vec<Range<usize>> {
    let index = BundleIndex::scan(bundle()).unwrap();
    let notes = index.notes.iter().map(|note| (note.offset, note.text.len()));
    let parts = [index.epochs, index.policy].map(|part| part.map(|part| (part.offset, part.bytes.len())).unwrap());
    let begin = |offset: u64| usize::try_from(offset).unwrap();
    notes.chain(parts).map(|(offset, length)| begin(offset)..begin(offset) + length).collect()
}

#[test]
fn flipped_bits_of_the_structure_are_noticed() {
    let mut is_structure = vec![true; bundle().len() - CHECKSUM_BYTES];
    for range in contents().into_iter().chain(vouching()) {
        is_structure[range].fill(false);
    }
    let bytes: Vec<usize> = (0..is_structure.len()).filter(|byte| is_structure[*byte]).collect();
    assert!(bytes.len() > usize::try_from(ENTRIES).unwrap() * HEADER_BYTES, "a header for each entry at least");
    // Every bit of what is there once and of every fourth entry's header, and one of each byte of the others.
    let is_whole = |position: usize| position < HEADERS_BEFORE_ENTRIES || position / HEADER_BYTES % 4 == 0;
    let bits: Vec<usize> = bytes
        .iter()
        .enumerate()
        .flat_map(|(position, byte)| {
            let bits = if is_whole(position) { 0..8 } else { position % 8..position % 8 + 1 };
            bits.map(move |bit| byte * 8 + bit)
        })
        .collect();
    let unnoticed: Vec<usize> = bits.into_par_iter().filter(|bit| !is_noticed(flipped(*bit))).collect();
    assert_eq!(unnoticed, [] as [usize; 0]);
}

/// Notes, chain and policy of a bundle, of which one was changed, beside entries that are known to be in order.
struct Vouching(Parts);

impl Source for Vouching {
    fn genesis(&self) -> Result<Vec<u8>, SourceError> {
        Ok(self.0.genesis.clone())
    }

    fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
        Ok(Box::new(self.0.leaves.iter().cloned().map(Ok)))
    }

    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
        Ok(self.0.notes.iter().map(|text| EncodedNote { offset: Some(1), text: text.clone() }).collect())
    }

    fn trust_parts(&self) -> Option<TrustParts> {
        let part = |bytes: &Vec<u8>| EncodedPart { offset: 1, bytes: bytes.clone() };
        Some(TrustParts { epochs: Some(part(&self.0.epochs)), policy: self.0.policy.as_ref().map(part) })
    }

    fn blob(&self, _digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
        Ok(None)
    }

    fn listed_blobs(&self) -> Option<BTreeMap<Digest, u64>> {
        Some(BTreeMap::new())
    }
}

#[test]
fn every_flipped_bit_of_notes_epochs_and_policy_is_noticed() {
    let mut parts = Parts::of(bundle());
    let source = Vouching(parts.clone());
    let replayed = Replayed::read(&source, &options()).unwrap();
    let report = replayed.check(&source, &options()).unwrap();
    assert_eq!((report.problems, report.final_entries), (vec![], ENTRIES));
    parts.leaves.clear();
    let is_noticed = |bit: usize| {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        let mut parts = parts.clone();
        let mut rest = byte;
        for note in &mut parts.notes {
            if rest < note.len() {
                let mut bytes = note.clone().into_bytes();
                bytes[rest] ^= mask;
                let Ok(text) = String::from_utf8(bytes) else { return true };
                *note = text;
                return names_a_place(&replayed.check(&Vouching(parts), &options()).unwrap());
            }
            rest -= note.len();
        }
        let policy = parts.policy.as_mut().unwrap();
        let part = if rest < policy.len() { &mut policy[rest] } else { &mut parts.epochs[rest - policy.len()] };
        *part ^= mask;
        names_a_place(&replayed.check(&Vouching(parts), &options()).unwrap())
    };
    let length: usize = vouching().iter().map(Range::len).sum();
    let unnoticed: Vec<usize> = (0..length * 8).into_par_iter().filter(|bit| !is_noticed(*bit)).collect();
    assert_eq!(unnoticed, [] as [usize; 0]);
    // A note that is no text is noticed by the form.
    let first = vouching()[0].start;
    let defect = BundleIndex::scan(flipped(first * 8 + 7).as_slice()).unwrap().defect.unwrap().defect;
    assert_eq!(defect, Defect::NotText);
}

#[test]
fn flipped_bits_of_entries_and_files_are_noticed() {
    let bits: Vec<usize> = contents().into_iter().flat_map(|range| range.start * 8..range.end * 8).collect();
    // A step that is prime to eight, so that every bit of a byte comes up.
    let step = (bits.len() / SAMPLES) | 1;
    let samples: Vec<usize> = bits.into_iter().step_by(step).collect();
    let unnoticed: Vec<usize> = samples.into_par_iter().filter(|bit| !is_noticed(flipped(*bit))).collect();
    assert_eq!(unnoticed, [] as [usize; 0]);
}

#[test]
fn a_flipped_bit_of_the_checksum_is_noticed() {
    let body = bundle().len() - CHECKSUM_BYTES;
    let unnoticed = (body * 8..bundle().len() * 8)
        .filter(|bit| BundleIndex::scan(flipped(*bit).as_slice()).unwrap().defect.is_none());
    assert_eq!(unnoticed.count(), 0);
}
