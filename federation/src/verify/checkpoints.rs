//! Checkpoints: who signed which head of the log.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_ledger::{
    Digest, PublicKey,
    checkpoint::Checkpoint,
    log::Log,
    note::{KeyId, SignatureType, SignedNote},
};

use super::{Problem, ProblemKind, Report};
use crate::{
    Federation,
    history::{EncodedNote, origin},
    member::NodeKind,
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

/// Checks every note, and finds out how many entries are final. Returns how many entries some replica has signed for.
pub(super) fn check(report: &mut Report, state: &Federation, notes: &[EncodedNote], roots: &Roots) -> u64 {
    let keys = log_keys(state);
    // The largest head that each replica has signed.
    let mut signed = BTreeMap::<String, u64>::new();
    for note in notes {
        match check_note(report.entries, state, &keys, note, roots) {
            Ok((size, signers)) => {
                report.checkpoints += 1;
                for signer in signers {
                    let largest = signed.entry(signer).or_default();
                    *largest = size.max(*largest);
                }
            }
            Err(problem) => report.add(problem.at_byte(note.offset)),
        }
    }
    let covered = signed.values().copied().max().unwrap_or_default();
    let mut sizes: Vec<u64> = signed.into_values().collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    // Whoever signed a head has signed every shorter one, so the threshold's largest head is the final one.
    let threshold = usize::try_from(state.consortium().finality_threshold).unwrap_or(usize::MAX);
    report.final_entries = threshold.checked_sub(1).and_then(|last| sizes.get(last).copied()).unwrap_or(0);
    covered
}

/// The keys that sign checkpoints, by the names of their replicas.
fn log_keys(state: &Federation) -> BTreeMap<&str, PublicKey> {
    let keys = state.members().nodes().filter_map(|(_, node)| match node.kind {
        NodeKind::Replica { log_key, .. } => Some((node.name.as_str(), log_key)),
        NodeKind::Participant { .. } => None,
    });
    keys.collect()
}

/// The size that a note is about, and the replicas that signed it.
fn check_note(
    entries: u64,
    state: &Federation,
    keys: &BTreeMap<&str, PublicKey>,
    encoded: &EncodedNote,
    roots: &Roots,
) -> Result<(u64, Vec<String>), Problem> {
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
    let signers = check_signatures(keys, &note).map_err(|problem| problem.at(index))?;
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
fn check_signatures(keys: &BTreeMap<&str, PublicKey>, note: &SignedNote) -> Result<Vec<String>, Problem> {
    let problem = |detail: String| Problem::new(ProblemKind::Checkpoint, detail);
    let mut signers = BTreeSet::new();
    for line in note.signatures() {
        let name = line.name();
        let key = keys.get(name).filter(|key| KeyId::of(name, SignatureType::Ed25519, key) == line.key_id());
        if key.is_none() {
            let signer = name.chars().take(80).collect::<String>();
            return Err(problem(format!("a checkpoint is signed by {signer:?}, which is no replica's log key")));
        }
        if !signers.insert(name) {
            return Err(problem(format!("{name} has signed the same note twice")));
        }
    }
    for (name, key) in signers.iter().filter_map(|name| Some((name, keys.get(name)?))) {
        note.verify(name, key).map_err(|error| problem(error.to_string()))?;
    }
    Ok(signers.into_iter().map(str::to_owned).collect())
}
