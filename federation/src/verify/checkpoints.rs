//! Checkpoints: who signed which head of the log.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    epoch::Epoch,
    log::Log,
    note::{KeyId, SignatureType, SignedNote},
};

use super::{Problem, ProblemKind, Report};
use crate::{
    Federation,
    history::{EncodedNote, origin},
};

/// The roots of the log at the sizes that checkpoints are about.
pub(super) struct Roots(BTreeMap<u64, Option<Digest>>);

impl Roots {
    /// Room for the sizes in `notes`, as far as these can be read.
    pub(super) fn at_sizes_of(notes: &[EncodedNote]) -> Self {
        let sizes = notes.iter().filter_map(|note| {
            let note = SignedNote::parse(&note.text).ok()?;
            Some((Checkpoint::parse(note.text()).ok()?.size(), None))
        });
        Self(sizes.collect())
    }

    /// Takes the root of `log` if its size is wanted.
    pub(super) fn visit(&mut self, log: &Log<Federation>) {
        if let Some(root) = self.0.get_mut(&log.size()) {
            *root = Some(log.root());
        }
    }

    fn get(&self, size: u64) -> Option<Digest> {
        *self.0.get(&size)?
    }
}

/// Replicas that have signed a head, by the epochs to which their keys belong.
type Signers = BTreeSet<(u64, String)>;

/// Checks every note, and finds out how many entries are final. Returns how many entries some replica has signed for.
pub(super) fn check(report: &mut Report, state: &Federation, notes: &[EncodedNote], roots: &Roots) -> u64 {
    // The largest head that each replica has signed, by epoch.
    let mut signed = BTreeMap::<u64, BTreeMap<String, u64>>::new();
    for note in notes {
        match check_note(report.entries, state, note, roots) {
            Ok((size, signers)) => {
                report.checkpoints += 1;
                for (epoch, signer) in signers {
                    let largest = signed.entry(epoch).or_default().entry(signer).or_default();
                    *largest = size.max(*largest);
                }
            }
            Err(problem) => report.add(problem.at_byte(note.offset)),
        }
    }
    let covered = signed.values().flat_map(BTreeMap::values).copied().max().unwrap_or_default();
    let finals = signed.into_iter().filter_map(|(epoch, signed)| {
        let mut sizes: Vec<u64> = signed.into_values().collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        // Whoever signed a head has signed every shorter one, so the threshold's largest head is the final one.
        let last = usize::try_from(state.epochs().get(&epoch)?.threshold).ok()?.checked_sub(1)?;
        sizes.get(last).copied()
    });
    report.final_entries = finals.max().unwrap_or_default();
    covered
}

/// The epochs whose replicas may have signed the head of `size` entries: the newest one that its entries have made, and the
/// one before, whose replicas vouch for the entry that made it.
fn epochs_at(state: &Federation, size: u64) -> impl Iterator<Item = &Epoch> {
    state.epochs().iter().rev().map(|(_, epoch)| epoch).filter(move |epoch| epoch.index < size).take(2)
}

/// The size that a note is about, and the replicas that signed it.
fn check_note(
    entries: u64,
    state: &Federation,
    encoded: &EncodedNote,
    roots: &Roots,
) -> Result<(u64, Signers), Problem> {
    let problem = |kind, detail: String| Problem::new(kind, detail);
    let malformed = |detail: String| problem(ProblemKind::Malformed, format!("checkpoint note: {detail}"));
    let note = SignedNote::parse(&encoded.text).map_err(|error| malformed(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| malformed(error.to_string()))?;
    let size = checkpoint.size();
    // The last entry that the checkpoint covers.
    let index = size.saturating_sub(1);
    let expected = origin(state.consortium());
    if checkpoint.origin() != expected {
        let detail = format!("a checkpoint has the origin {:?}, this ledger's is {expected:?}", checkpoint.origin());
        return Err(problem(ProblemKind::Checkpoint, detail).at(index));
    }
    let signers = check_signatures(epochs_at(state, size), &note).map_err(|problem| problem.at(index))?;
    if size == 0 || size > entries {
        let detail = format!("a checkpoint is about {size} entries, there are {entries}: entries are missing");
        return Err(problem(ProblemKind::Checkpoint, detail).at(index));
    }
    match roots.get(size) {
        Some(root) if root == *checkpoint.root() => Ok((size, signers)),
        root => {
            let found = root.unwrap_or_default();
            let detail =
                format!("a checkpoint signs the root {} of {size} entries, which is {found}", checkpoint.root());
            Err(problem(ProblemKind::Root, detail).at(index))
        }
    }
}

/// The replicas that signed a note. Every line must be a replica's: a bundle has no room for what nobody can check.
fn check_signatures<'a>(epochs: impl Iterator<Item = &'a Epoch>, note: &SignedNote) -> Result<Signers, Problem> {
    let problem = |detail: String| Problem::new(ProblemKind::Checkpoint, detail);
    let epochs: Vec<&Epoch> = epochs.collect();
    let (mut names, mut signers) = (BTreeSet::new(), Signers::new());
    for line in note.signatures() {
        let name = line.name();
        let keyed = epochs.iter().filter_map(|epoch| Some((epoch.number, epoch.replicas.get(name)?.log)));
        let keyed: Vec<_> =
            keyed.filter(|(_, key)| KeyId::of(name, SignatureType::Ed25519, key) == line.key_id()).collect();
        let Some((_, key)) = keyed.first() else {
            let signer = name.chars().take(80).collect::<String>();
            let detail = format!("a checkpoint is signed by {signer:?}, which is no log key of a replica at that time");
            return Err(problem(detail));
        };
        if !names.insert(name) {
            return Err(problem(format!("{name} has signed the same note twice")));
        }
        note.verify(name, key).map_err(|error| problem(error.to_string()))?;
        signers.extend(keyed.iter().map(|(epoch, _)| (*epoch, name.to_owned())));
    }
    Ok(signers)
}
