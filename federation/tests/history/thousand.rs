//! A bundle of a thousand entries, whose bits are flipped: all of structure, genesis file, notes, chain of epochs, policy and
//! closing digest, and a sample of those of entries and files.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
    sync::OnceLock,
};

use fedledger_federation::{
    Command,
    command::ApprovePlan,
    history::{EncodedNote, EncodedPart, Leaves, Source, SourceError, TrustParts},
    verify::{Options, Problem, ProblemKind, Replayed, Report, verify},
};
use fedledger_ledger::{
    Digest,
    bundle::{BUNDLE_MAGIC, BundleError, BundleIndex, BundleReader, Defect, Item, Malformed},
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

/// Readers that go through the bundle at the same time, each of which flips bits in its share of the items.
const READERS: usize = 8;

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
            let again = Command::ApprovePlan(ApprovePlan { plan: Digest::of(b"no such plan"), examples: None });
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

/// The whole bundle, replayed once. What else a bundle of these entries holds is checked against it.
fn replayed() -> &'static Replayed {
    static REPLAYED: OnceLock<Replayed> = OnceLock::new();
    REPLAYED.get_or_init(|| Replayed::read(&open_bundle(bundle()), &options()).unwrap())
}

/// Where the bytes of leaves and files stand.
fn contents() -> Vec<Range<usize>> {
    let mut reader = BundleReader::new(bundle()).unwrap();
    let mut contents = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        let offset = usize::try_from(reader.offset()).unwrap();
        match item {
            Item::Leaf(bytes) => contents.push(offset - bytes.len()..offset),
            Item::Blob { size, .. } => contents.push(offset..offset + usize::try_from(size).unwrap()),
            Item::Genesis(_) | Item::Epochs { .. } | Item::Note { .. } | Item::Policy { .. } => {}
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

/// The bundle with one bit flipped, which may be another one each time.
#[derive(Clone)]
struct Flipping<'a> {
    /// Bytes read so far.
    position: usize,
    bit: &'a Cell<Option<usize>>,
}

impl Read for Flipping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = &bundle()[self.position..];
        let count = rest.read(buffer)?;
        if let Some(bit) = self.bit.get()
            && let Some(byte) = buffer[..count].get_mut((bit / 8).wrapping_sub(self.position))
        {
            *byte ^= 1 << (bit % 8);
        }
        self.position += count;
        Ok(count)
    }
}

/// What is wrong with the form of the rest of a bundle.
fn defect(mut reader: BundleReader<Flipping<'_>>) -> Malformed {
    loop {
        match reader.next_item() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a flipped bit was not noticed"),
            Err(BundleError::Malformed(malformed)) => return malformed,
            Err(BundleError::Io(error)) => panic!("memory can be read: {error}"),
        }
    }
}

/// Bits of the structure.
#[derive(Default)]
struct Flipped {
    /// Those that were flipped.
    tried: usize,
    /// Those that nothing but the digest at the end tells of, which a forger would make right.
    passed: Vec<usize>,
}

/// Flips every bit of what stands before the contents of every item, one of [`READERS`] in turn, and reads on from there.
fn flip_structure(share: usize) -> Flipped {
    let bit = Cell::new(None);
    let mut reader = BundleReader::new(Flipping { position: 0, bit: &bit }).unwrap();
    let (mut flipped, mut begin) = (Flipped::default(), BUNDLE_MAGIC.len());
    for number in 0.. {
        let mut ahead = reader.clone();
        let item = ahead.next_item().unwrap();
        let offset = usize::try_from(ahead.offset()).unwrap();
        let (contents, next) = match &item {
            Some(Item::Genesis(bytes) | Item::Leaf(bytes)) => (offset - bytes.len(), offset),
            Some(Item::Epochs { bytes, .. } | Item::Policy { bytes, .. }) => (offset - bytes.len(), offset),
            Some(Item::Note { text, .. }) => (offset - text.len(), offset),
            Some(Item::Blob { size, .. }) => (offset, offset + usize::try_from(*size).unwrap()),
            None => (begin + 1, offset),
        };
        if number % READERS == share {
            for place in begin * 8..contents * 8 {
                bit.set(Some(place));
                let Malformed { offset, defect } = defect(reader.clone());
                assert!(offset >= begin as u64, "bit {place}, in the item at {begin}, was noticed at byte {offset}");
                flipped.tried += 1;
                if matches!(defect, Defect::Checksum { .. }) && offset == (bundle().len() - CHECKSUM_BYTES) as u64 {
                    flipped.passed.push(place);
                }
            }
            bit.set(None);
        }
        if item.is_none() {
            break;
        }
        (reader, begin) = (ahead, next);
    }
    flipped
}

#[test]
fn every_flipped_bit_of_the_structure_is_noticed() {
    for bit in 0..BUNDLE_MAGIC.len() * 8 {
        let defect = BundleIndex::scan(flipped(bit).as_slice()).unwrap().defect.unwrap();
        assert_eq!(defect.offset, bit as u64 / 8, "{defect}");
    }
    let shares: Vec<Flipped> = (0..READERS).into_par_iter().map(flip_structure).collect();
    let tried: usize = shares.iter().map(|share| share.tried).sum();
    assert!(tried > usize::try_from(ENTRIES).unwrap() * HEADER_BYTES * 8, "a header for each entry at least");
    // The form lets digests of files pass as long as they rise. They stand behind the entries, which remain as they are.
    let entries_end = contents().into_iter().nth(usize::try_from(ENTRIES).unwrap() - 2).unwrap().end;
    let passed: Vec<usize> = shares.into_iter().flat_map(|share| share.passed).collect();
    let unnoticed: Vec<usize> = passed
        .into_par_iter()
        .filter(|bit| {
            let forged = open_bundle(&with_checksum(flipped(*bit)));
            // An entry of another length may end where something stands that looks like the next one.
            let is_behind = bit / 8 >= entries_end;
            let report = if is_behind { replayed().check(&forged, &options()) } else { verify(&forged, &options()) };
            !names_a_place(&report.unwrap())
        })
        .collect();
    assert_eq!(unnoticed, [] as [usize; 0]);
}

#[test]
fn every_flipped_bit_of_the_genesis_file_is_noticed() {
    let mut parts = Parts::of(bundle());
    // Whoever reads on from the genesis file comes to the first entry next, and no further.
    parts.leaves.truncate(1);
    parts.notes.clear();
    let begin = BUNDLE_MAGIC.len() + HEADER_BYTES;
    assert_eq!(bundle()[begin..begin + parts.genesis.len()], parts.genesis);
    let is_noticed = |bit: usize| {
        let mut parts = parts.clone();
        parts.genesis[bit / 8] ^= 1 << (bit % 8);
        let report = verify(&Vouching(parts), &options()).unwrap();
        let first = |problem: &Problem| match problem.kind {
            ProblemKind::Malformed => problem.index == Some(0),
            ProblemKind::Chain => problem.index == Some(1),
            _ => false,
        };
        names_a_place(&report) && first(&report.problems[0])
    };
    let bits = 0..parts.genesis.len() * 8;
    let unnoticed: Vec<usize> = bits.into_par_iter().filter(|bit| !is_noticed(*bit)).collect();
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

    fn blob(&self, _digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
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
    let is_noticed = |bit: &usize| {
        // The form knows nothing of what stands in entries and files.
        let forged = open_bundle(&with_checksum(flipped(*bit)));
        names_a_place(&verify(&forged, &options()).unwrap())
    };
    let unnoticed: Vec<usize> = samples.into_par_iter().filter(|bit| !is_noticed(bit)).collect();
    assert_eq!(unnoticed, [] as [usize; 0]);
}

#[test]
fn a_flipped_bit_of_the_checksum_is_noticed() {
    let body = bundle().len() - CHECKSUM_BYTES;
    let unnoticed = (body * 8..bundle().len() * 8)
        .filter(|bit| BundleIndex::scan(flipped(*bit).as_slice()).unwrap().defect.is_none());
    assert_eq!(unnoticed.count(), 0);
}
