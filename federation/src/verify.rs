//! Offline verification: everything that can be checked of a history, with nothing but its bytes and the genesis file.
//!
//! The entries are replayed, so that encodings, signatures, order, outcomes and changes of state are checked by doing
//! everything again. Checkpoints must be signed by replicas and match the tree at their size. Files must match their
//! digests, and versions must be what [`Recipe`](crate::recipe::Recipe) makes of the recorded updates.

mod blobs;
mod checkpoints;
mod exclusions;
mod pruned;
mod replayed;
mod trust;
mod versions;

use fedledger_ledger::{Digest, epoch::EpochChain, policy::Policy};
use serde::Serialize;

pub use self::{
    replayed::Replayed,
    versions::{Recomputation, recompute},
};
use crate::{
    VersionId,
    history::{Source, SourceError},
};

/// The form of a [`Report`] as JSON.
pub const VERIFY_SCHEMA: &str = "fedledger.verify/1";

/// Most problems that a report lists: a history may be broken in every place.
pub const PROBLEMS_MAX: usize = 1000;

/// What is checked, and against what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The genesis file that the reader trusts. Without it, the source vouches for its own beginning.
    pub trust: Option<Vec<u8>>,
    /// The policy that the largest final head must satisfy, beside the threshold of its epoch.
    pub policy: Option<Policy>,
    /// A chain of epochs that the reader has got elsewhere: a history that does not come to its last epoch is cut off.
    pub epochs: Option<EpochChain>,
    /// Whether versions and exclusions are computed again where their files are there.
    pub recompute: bool,
    /// Most threads of the current rayon pool to use.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { trust: None, policy: None, epochs: None, recompute: true, threads: 1 }
    }
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`VERIFY_SCHEMA`].
    pub schema: &'static str,
    /// Whether there is no problem.
    pub ok: bool,
    /// Whether the genesis file is the one that the reader trusts; `false` if none was given.
    pub genesis_trusted: bool,
    /// The chain id, if there is a valid genesis file.
    pub chain: Option<Digest>,
    /// Entries that are in order, the genesis file included.
    pub entries: u64,
    /// Root of the Merkle tree over these entries.
    pub root: Option<Digest>,
    /// Transaction signatures that verify.
    pub signatures: u64,
    /// Checkpoint notes that verify.
    pub checkpoints: u64,
    /// Entries that are final: under a head that enough replicas of its epoch have co-signed, each epoch vouched for by the
    /// one before.
    pub final_entries: u64,
    /// Entries under a head that every replica of its epoch has co-signed.
    pub unanimous_entries: u64,
    /// Entries after the last final head. They may still be undone, which is no problem by itself.
    pub pending_entries: u64,
    /// The trusted time of the last final head: the median of its replicas' times, in seconds since the Unix epoch.
    pub final_time_s: Option<u64>,
    /// Epochs that have been in force.
    pub epochs: u64,
    /// Seals that took effect.
    pub seals: u64,
    /// Whether the last final head satisfies the policy that was given; `None` if none was.
    pub policy_satisfied: Option<bool>,
    /// Files whose bytes match their digests.
    pub blobs: u64,
    /// Versions that were computed again, bit for bit.
    pub versions_recomputed: u64,
    /// Versions that were not computed again.
    pub versions_skipped: Vec<SkippedVersion>,
    /// What is wrong, each with its place.
    pub problems: Vec<Problem>,
}

/// A version that was not computed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedVersion {
    /// The version.
    pub version: VersionId,
    /// Why.
    pub reason: String,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of thing.
    pub kind: ProblemKind,
    /// The entry at fault, or the one that speaks of what is at fault.
    pub index: Option<u64>,
    /// The place in a bundle, or in `file`, in bytes from the beginning.
    pub offset: Option<u64>,
    /// The file at fault, where the history lies in several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What was found, in words.
    pub detail: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Bytes that are not what should stand there.
    Malformed,
    /// A transaction's signature does not verify.
    Signature,
    /// A transaction of another chain.
    Chain,
    /// An entry out of order, twice, or one that could never have become an entry.
    Order,
    /// An entry records another outcome than its transaction has.
    Outcome,
    /// An entry records other changes of state than its transaction makes.
    WriteSet,
    /// A seal records another state, epoch or number than the entries before it lead to.
    Seal,
    /// A checkpoint is about another tree.
    Root,
    /// A checkpoint is not one of this ledger's, or not signed by its replicas.
    Checkpoint,
    /// The chain of epochs is broken, incomplete, or not the one of the entries.
    Epochs,
    /// The last final head does not satisfy the policy that was given, or a bundle holds another policy than its own.
    Policy,
    /// A file does not match its digest.
    Blob,
    /// A version is not what its recipe makes.
    VersionMismatch,
    /// A contribution was left out for a reason that does not hold.
    Exclusion,
    /// The genesis file is not the one that the reader trusts.
    GenesisMismatch,
    /// Something that must be there is not.
    Missing,
    /// What a node has recorded beside the entries does not follow from them.
    State,
}

impl Problem {
    /// A problem whose place is not known yet.
    pub(crate) const fn new(kind: ProblemKind, detail: String) -> Self {
        Self { kind, index: None, offset: None, file: None, detail }
    }

    /// The same at an entry.
    pub(crate) fn at(self, index: u64) -> Self {
        Self { index: Some(index), ..self }
    }

    /// The same at a byte of a bundle.
    pub(crate) fn at_byte(self, offset: Option<u64>) -> Self {
        Self { offset, ..self }
    }

    /// The same in a file.
    pub(crate) fn in_file(self, file: &str) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }
}

impl Report {
    fn new() -> Self {
        Self {
            schema: VERIFY_SCHEMA,
            ok: false,
            genesis_trusted: false,
            chain: None,
            entries: 0,
            root: None,
            signatures: 0,
            checkpoints: 0,
            final_entries: 0,
            unanimous_entries: 0,
            pending_entries: 0,
            final_time_s: None,
            epochs: 0,
            seals: 0,
            policy_satisfied: None,
            blobs: 0,
            versions_recomputed: 0,
            versions_skipped: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The report on a place where nothing could be read because what is there is damaged.
    pub fn unreadable(detail: String) -> Self {
        let mut report = Self::new();
        report.add(Problem::new(ProblemKind::Malformed, detail).at_byte(Some(0)));
        report
    }

    fn add(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    /// Takes the damage of a source as a problem, and everything else as a failure.
    fn settle<T>(&mut self, result: Result<T, SourceError>) -> Result<Option<T>, SourceError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_damage() => {
                let problem = match &error {
                    SourceError::Malformed(at) => {
                        Problem::new(ProblemKind::Malformed, at.defect.to_string()).at_byte(Some(at.offset))
                    }
                    SourceError::File { file, index, detail } => {
                        let problem = Problem::new(ProblemKind::Malformed, detail.clone()).in_file(file);
                        Problem { index: *index, ..problem }
                    }
                    SourceError::NoGenesis => Problem::new(ProblemKind::Missing, error.to_string()).at(0),
                    SourceError::Io(_) | SourceError::Storage(_) => {
                        Problem::new(ProblemKind::Malformed, error.to_string()).at(self.entries)
                    }
                };
                // A bundle's damage is told once, however often it is met.
                if !self.problems.contains(&problem) {
                    self.add(problem);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Checks a history. It goes on after a problem wherever what follows can still be judged.
///
/// # Errors
///
/// [`SourceError`] only where reading itself fails; damage is in the report.
pub fn verify<S: Source + ?Sized>(source: &S, options: &Options) -> Result<Report, SourceError> {
    Replayed::read(source, options)?.check(source, options)
}
