//! Which entries have reached a level, as far as a source tells.

use std::collections::BTreeMap;

use clap::ValueEnum;
use fedledger_federation::history::{self, History, SourceError, origin};
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    cosigners::Cosigners,
    epoch::Epoch,
    merkle::{Frontier, leaf_hash},
    note::SignedNote,
};
use fedledger_proto::api::Level;

use crate::{error::Failure, source::Source};

/// A level, as an argument.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// A replica has promised to bring it onto the ledger.
    Accepted,
    /// A majority of the replicas has it on disk.
    #[default]
    Committed,
    /// Enough replicas have co-signed a head over it: no dishonest minority can undo it.
    Final,
    /// Every replica has co-signed a head over it.
    Unanimous,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Accepted => Self::Accepted,
            LevelArg::Committed => Self::Committed,
            LevelArg::Final => Self::Final,
            LevelArg::Unanimous => Self::Unanimous,
        }
    }
}

/// Entries that have reached each level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Entries under a head that enough replicas have co-signed.
    pub final_size: u64,
    /// Entries under a head that all replicas have co-signed.
    pub unanimous_size: u64,
    /// Trusted time of the final head, in seconds since the Unix epoch.
    pub time_s: Option<u64>,
}

impl Sizes {
    /// What a running replica says, or the notes in a directory or bundle show.
    pub fn of(source: &Source, history: &History) -> Result<Self, Failure> {
        if let Source::Replica(replica) = source {
            let status = replica.status()?;
            let (final_size, unanimous_size) = (status.final_size, status.unanimous_size);
            return Ok(Self { final_size, unanimous_size, time_s: status.trusted_time_s });
        }
        let log = &history.log;
        let origin = origin(history.state().consortium());
        Ok(Self::shown_by_notes(source, &origin, log.sealed().head_epoch())?)
    }

    /// Entries that have reached a level, of `size` in the log.
    pub fn at(&self, level: Level, size: u64) -> u64 {
        match level {
            Level::Accepted | Level::Committed => size,
            Level::Final => self.final_size.min(size),
            Level::Unanimous => self.unanimous_size.min(size),
        }
    }

    /// What a source's notes show: heads with the root that its entries have, co-signed by replicas of `epoch`. Notes that
    /// show nothing are passed over; `fedledger verify` tells what is wrong with them.
    fn shown_by_notes<S: history::Source>(source: &S, origin: &str, epoch: &Epoch) -> Result<Self, SourceError> {
        let mut heads = BTreeMap::<u64, Vec<(Checkpoint, Cosigners)>>::new();
        for note in source.notes()? {
            let Some((head, cosigners)) = read(&note.text, origin, epoch) else { continue };
            if cosigners.suffice(epoch) {
                heads.entry(head.size()).or_default().push((head, cosigners));
            }
        }
        let mut sizes = Self::default();
        if heads.is_empty() {
            return Ok(sizes);
        }
        let mut frontier = Frontier::new();
        frontier.append(leaf_hash(&source.genesis()?));
        let mut leaves = source.leaves()?;
        // Sizes rise, so what holds last is the largest.
        for (size, heads) in heads {
            while frontier.size() < size {
                let Some(leaf) = leaves.next() else { return Ok(sizes) };
                frontier.append(leaf_hash(&leaf?));
            }
            let root: Digest = frontier.root();
            for (_, cosigners) in heads.iter().filter(|(head, _)| frontier.size() == size && *head.root() == root) {
                (sizes.final_size, sizes.time_s) = (size, cosigners.time_s());
                if cosigners.times_s.len() == epoch.replicas.len() {
                    sizes.unanimous_size = size;
                }
            }
        }
        Ok(sizes)
    }
}

fn read(note: &str, origin: &str, epoch: &Epoch) -> Option<(Checkpoint, Cosigners)> {
    let note = SignedNote::parse(note).ok()?;
    let head = Checkpoint::parse(note.text()).ok().filter(|head| head.origin() == origin)?;
    let cosigners = Cosigners::of(&note, origin, epoch).ok()?;
    Some((head, cosigners))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use fedledger_federation::history::{EncodedNote, Leaves};
    use fedledger_ledger::{
        SecretKey,
        epoch::{ReplicaKeys, cosigner_name},
        note::NoteSignature,
    };

    use super::*;

    const ORIGIN: &str = "fedledger/heart";
    const ENTRIES: [&[u8]; 4] = [b"genesis", b"1", b"2", b"3"];

    struct Files(Vec<EncodedNote>);

    impl history::Source for Files {
        fn genesis(&self) -> Result<Vec<u8>, SourceError> {
            Ok(ENTRIES[0].to_vec())
        }

        fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
            Ok(Box::new(ENTRIES[1..].iter().map(|leaf| Ok(leaf.to_vec()))))
        }

        fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
            Ok(self.0.clone())
        }

        fn blob(&self, _: &Digest) -> Result<Option<Box<dyn Read + '_>>, SourceError> {
            Ok(None)
        }
    }

    fn key(replica: u8) -> SecretKey {
        SecretKey::from_seed([replica; 32])
    }

    fn epoch() -> Epoch {
        let keys = |replica| ReplicaKeys {
            author: key(replica + 100).public(),
            log: key(replica + 200).public(),
            cosign: key(replica).public(),
        };
        let replicas = (1..=4).map(|replica| (format!("site-{replica}/replica"), keys(replica))).collect();
        Epoch { number: 0, index: 0, threshold: 3, replicas, witnesses: BTreeMap::new() }
    }

    /// A note about the first entries, co-signed by the first replicas.
    fn note(entries: &[&[u8]], cosigned: u8) -> EncodedNote {
        let mut frontier = Frontier::new();
        entries.iter().for_each(|entry| drop(frontier.append(leaf_hash(entry))));
        let text = Checkpoint::new(ORIGIN, entries.len() as u64, frontier.root()).unwrap().to_note_text();
        let mut note =
            SignedNote::from_parts(text.as_str(), vec![NoteSignature::sign(&text, ORIGIN, &key(201)).unwrap()])
                .unwrap();
        for replica in 1..=cosigned {
            let name = cosigner_name(ORIGIN, &format!("site-{replica}/replica"));
            note.add(NoteSignature::cosign(&text, &name, &key(replica), u64::from(replica)).unwrap()).unwrap();
        }
        EncodedNote { offset: None, text: note.to_string() }
    }

    fn sizes(notes: Vec<EncodedNote>) -> (u64, u64, Option<u64>) {
        let sizes = Sizes::shown_by_notes(&Files(notes), ORIGIN, &epoch()).unwrap();
        (sizes.final_size, sizes.unanimous_size, sizes.time_s)
    }

    #[test]
    fn the_largest_head_with_enough_cosignatures_is_final() {
        let notes = vec![note(&ENTRIES[..2], 4), note(&ENTRIES, 2), note(&ENTRIES[..3], 3)];
        assert_eq!(sizes(notes), (3, 2, Some(2)));
        assert_eq!(sizes(vec![note(&ENTRIES, 2)]), (0, 0, None));
        assert_eq!(sizes(Vec::new()), (0, 0, None));
    }

    #[test]
    fn a_head_of_another_history_makes_nothing_final() {
        let changed: [&[u8]; 2] = [b"genesis", b"another"];
        assert_eq!(sizes(vec![note(&changed, 4)]), (0, 0, None));
        // Nor does one of more entries than there are.
        let longer: [&[u8]; 5] = [b"genesis", b"1", b"2", b"3", b"4"];
        assert_eq!(sizes(vec![note(&longer, 4), note(&ENTRIES[..2], 3)]), (2, 0, Some(2)));
        let damaged = EncodedNote { offset: None, text: "no note".to_owned() };
        assert_eq!(sizes(vec![damaged]), (0, 0, None));
    }
}
