//! The order of verification: the entries first, for everything else is held against what they lead to.

use fedledger_ledger::{
    Digest,
    heads::{Heads, noted_size},
    log::{Log, Refusal, ReplayError},
    transaction::EnvelopeError,
};

use super::{Options, Problem, ProblemKind, Report, blobs, checkpoints, exclusions, trust, versions};
use crate::{
    Federation,
    history::{EncodedNote, HistoryError, Source, SourceError, origin, replay},
};

/// A history whose entries have been replayed, which is most of the work.
///
/// What goes with the entries can be checked against them as often as it changes.
#[derive(Debug)]
pub struct Replayed {
    /// What was found so far.
    report: Report,
    /// Nothing where there is no valid genesis file.
    entries: Option<Entries>,
}

/// What the entries lead to.
#[derive(Debug)]
struct Entries {
    log: Log<Federation>,
    heads: Heads,
    /// Whether every entry of the source is in order.
    complete: bool,
    /// The notes as they were before the entries were read: those of a running replica grow meanwhile.
    notes: Vec<EncodedNote>,
}

impl Replayed {
    /// Replays the entries of a source, and takes note of the heads that its checkpoint notes are about.
    ///
    /// # Errors
    ///
    /// [`SourceError`] only where reading itself fails; damage is kept for the report.
    pub fn read<S: Source + ?Sized>(source: &S, options: &Options) -> Result<Self, SourceError> {
        let mut report = Report::new();
        if let Some(at) = source.defect() {
            report.add(Problem::new(ProblemKind::Malformed, at.defect.to_string()).at_byte(Some(at.offset)));
        }
        for problem in source.problems() {
            report.add(problem.clone());
        }
        let mut entries = None;
        let genesis = source.genesis();
        if let Some(genesis) = report.settle(genesis)? {
            check_genesis(&mut report, &genesis, options.trust.as_deref());
            match Log::genesis(&genesis) {
                Ok((log, _)) => entries = Some(replay_entries(&mut report, source, options, log)?),
                Err(error) => report.add(Problem::new(ProblemKind::Malformed, error).at(0)),
            }
        }
        Ok(Self { report, entries })
    }

    /// Checks what goes with the entries: checkpoint notes, chain of epochs, policy, records, files and versions of `source`.
    ///
    /// # Errors
    ///
    /// As those of [`Replayed::read`].
    pub fn check<S: Source + ?Sized>(&self, source: &S, options: &Options) -> Result<Report, SourceError> {
        let mut report = self.report.clone();
        if let Some(entries) = &self.entries {
            entries.check(&mut report, source, options)?;
        }
        report.ok = report.problems.is_empty();
        Ok(report)
    }
}

impl Entries {
    fn check<S: Source + ?Sized>(&self, report: &mut Report, source: &S, options: &Options) -> Result<(), SourceError> {
        let Self { log, heads, complete, notes } = self;
        let notes = if source.is_at_rest() {
            let notes = source.notes();
            report.settle(notes)?.unwrap_or_default()
        } else {
            notes.clone()
        };
        let checked = checkpoints::check(report, heads, &notes, source.notes_file());
        let covered = checked.conclusion.covered.max(1);
        if let Some(policy) = &options.policy {
            checkpoints::check_policy(report, policy, &checked);
        }
        if let Some(chain) = &options.epochs {
            trust::check_known(report, heads, chain);
        }
        if let Some(parts) = source.trust_parts() {
            trust::check(report, heads, &checked, &parts, *complete);
        }
        // Entries are signed one by one, but only a checkpoint says which there are: without one, entries could be left out.
        // The genesis file alone needs none.
        if *complete && source.is_at_rest() && covered < report.entries {
            let detail = format!("no replica has signed for the entries from {covered} on");
            report.add(Problem::new(ProblemKind::Missing, detail).at(covered));
        }
        if *complete {
            let problems = source.check_records(log);
            for problem in report.settle(problems)?.unwrap_or_default() {
                report.add(problem);
            }
        }
        blobs::check(report, source, log.machine(), *complete)?;
        if options.recompute {
            exclusions::check(report, source, log.machine())?;
            versions::check(report, source, log.machine(), options.threads)?;
        }
        Ok(())
    }
}

fn check_genesis(report: &mut Report, genesis: &[u8], trust: Option<&[u8]>) {
    let Some(trusted) = trust else { return };
    report.genesis_trusted = trusted == genesis;
    if !report.genesis_trusted {
        let (found, expected) = (Digest::of(genesis), Digest::of(trusted));
        let detail = format!("the ledger begins with the genesis file {found}, the trusted one is {expected}");
        report.add(Problem::new(ProblemKind::GenesisMismatch, detail).at(0));
    }
}

fn replay_entries<S: Source + ?Sized>(
    report: &mut Report,
    source: &S,
    options: &Options,
    mut log: Log<Federation>,
) -> Result<Entries, SourceError> {
    let notes = source.notes();
    let notes = report.settle(notes)?.unwrap_or_default();
    let sizes = notes.iter().filter_map(|note| noted_size(&note.text));
    let mut heads = Heads::new(origin(log.machine().consortium()), &log, sizes);
    let replayed = replay(&mut log, source, options.threads, |log, entry| heads.visit(log, &entry.leaf));
    report.chain = Some(*log.chain());
    report.entries = log.size();
    let complete = replayed.is_ok();
    match replayed {
        Ok(()) => {}
        Err(HistoryError::Replay { index, error }) => {
            report.entries = index;
            report.add(replay_problem(&error).at(index));
        }
        Err(HistoryError::Genesis(error)) => report.add(Problem::new(ProblemKind::Malformed, error).at(0)),
        Err(HistoryError::Source(error)) => {
            report.settle::<()>(Err(error))?;
        }
    }
    report.signatures = report.entries - 1;
    if report.entries == log.size() {
        report.root = Some(log.root());
    }
    Ok(Entries { log, heads, complete, notes })
}

/// The kind of problem that a leaf which cannot be replayed is.
fn replay_problem(error: &ReplayError) -> Problem {
    let kind = match error {
        ReplayError::Malformed(_) => ProblemKind::Malformed,
        ReplayError::Refused(Refusal::Envelope(error)) => match error {
            EnvelopeError::Envelope(_) | EnvelopeError::Body(_) => ProblemKind::Malformed,
            EnvelopeError::Signature(_) => ProblemKind::Signature,
            EnvelopeError::Chain { .. } => ProblemKind::Chain,
        },
        ReplayError::Index { .. }
        | ReplayError::RaftIndex { .. }
        | ReplayError::Duplicate(_)
        | ReplayError::Refused(Refusal::Expired { .. } | Refusal::ExpiryTooFar { .. }) => ProblemKind::Order,
        ReplayError::Outcome { .. } => ProblemKind::Outcome,
        ReplayError::WriteSet { .. } => ProblemKind::WriteSet,
        ReplayError::Seal { .. } => ProblemKind::Seal,
    };
    Problem::new(kind, error.to_string())
}
