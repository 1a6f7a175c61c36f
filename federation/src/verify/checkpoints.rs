//! Checkpoints: who signed which head of the log, and which entries are final.

use fedledger_ledger::{
    heads::{Conclusion, HeadError, Heads, Judged},
    note::SignedNote,
    policy::Policy,
};

use super::{Problem, ProblemKind, Report};
use crate::history::{EncodedNote, FinalSizes};

/// The notes that hold, and what they amount to.
pub(super) struct Checked {
    pub notes: Vec<SignedNote>,
    pub judged: Vec<Judged>,
    /// By position among `notes`.
    pub conclusion: Conclusion,
}

impl Checked {
    /// The largest final head, if there is one.
    pub fn final_head(&self) -> Option<&Judged> {
        self.judged.get(self.conclusion.final_note?)
    }
}

/// Checks every note, and finds out how many entries are final. `file` is where they stand, in a history of several.
pub(super) fn check(report: &mut Report, heads: &Heads, encoded: &[EncodedNote], file: Option<&str>) -> Checked {
    let (mut notes, mut judged) = (Vec::new(), Vec::new());
    for note in encoded {
        match check_note(heads, &note.text) {
            Ok((note, verdict)) => {
                notes.push(note);
                judged.push(verdict);
            }
            Err(problem) => report.add(Problem { file: file.map(str::to_owned), ..problem.at_byte(note.offset) }),
        }
    }
    let conclusion = heads.conclude(&judged);
    let FinalSizes { final_size, unanimous_size, time_s } = FinalSizes::of(&judged, &conclusion);
    report.checkpoints = judged.len() as u64;
    report.seals = heads.seals();
    report.epochs = heads.changes().len() as u64 + 1;
    report.final_entries = final_size;
    report.unanimous_entries = unanimous_size;
    report.pending_entries = report.entries.saturating_sub(report.final_entries);
    report.final_time_s = time_s;
    Checked { notes, judged, conclusion }
}

/// Checks that the largest final head satisfies a policy that somebody trusts.
pub(super) fn check_policy(report: &mut Report, policy: &Policy, checked: &Checked) {
    let size = checked.final_head().map(|head| head.size);
    let satisfies = |note: &SignedNote| policy.check(note).map(drop);
    let notes = checked.notes.iter().zip(&checked.judged).filter(|(_, judged)| Some(judged.size) == size);
    // More than one note may be about the head; one that satisfies the policy is enough.
    let results: Vec<_> = notes.map(|(note, _)| satisfies(note)).collect();
    let satisfied = results.iter().any(Result::is_ok);
    report.policy_satisfied = Some(satisfied);
    if !satisfied {
        let why = match results.into_iter().find_map(Result::err) {
            Some(error) => error.to_string(),
            None => "no head is final".to_owned(),
        };
        let detail = format!("the last final head does not satisfy the policy: {why}");
        report.add(Problem::new(ProblemKind::Policy, detail).at(size.unwrap_or(1).saturating_sub(1)));
    }
}

fn check_note(heads: &Heads, encoded: &str) -> Result<(SignedNote, Judged), Problem> {
    let malformed = |detail: String| Problem::new(ProblemKind::Malformed, format!("checkpoint note: {detail}"));
    let note = SignedNote::parse(encoded).map_err(|error| malformed(error.to_string()))?;
    match heads.judge(&note) {
        Ok(judged) => Ok((note, judged)),
        Err(error) => Err(problem(&error)),
    }
}

fn problem(error: &HeadError) -> Problem {
    let (kind, detail) = match error {
        HeadError::Checkpoint(error) => (ProblemKind::Malformed, format!("checkpoint note: {error}")),
        HeadError::Root { is_final: true, .. } => {
            let detail =
                format!("{error}; they are enough to make it final, so these entries are not the consortium's");
            (ProblemKind::Root, detail)
        }
        HeadError::Root { .. } => (ProblemKind::Root, error.to_string()),
        HeadError::Origin { .. }
        | HeadError::Size { .. }
        | HeadError::Signature { .. }
        | HeadError::NotASeal { .. } => (ProblemKind::Checkpoint, error.to_string()),
    };
    let problem = Problem::new(kind, detail);
    // The last entry that the checkpoint covers.
    match error.size() {
        Some(size) => problem.at(size.saturating_sub(1)),
        None => problem,
    }
}
