//! What a bundle holds so that others can tell whom to trust: it must be exactly what follows from entries and notes.

use std::collections::BTreeSet;

use fedledger_ledger::{
    epoch::{Epoch, EpochChain, EpochLink},
    heads::{EpochChange, Heads},
    policy::Policy,
};

use super::{Problem, ProblemKind, Report, checkpoints::Checked};
use crate::history::{EncodedPart, TrustParts};

/// Checks the chain of epochs and the policy. What is missing from a damaged bundle has been told already.
///
/// They are compared with the entries only if the whole history is known.
pub(super) fn check(report: &mut Report, heads: &Heads, checked: &Checked, parts: &TrustParts, complete: bool) {
    if let Some(part) = &parts.epochs {
        for problem in check_chain(heads, checked, part, complete) {
            report.add(problem.at_byte(Some(part.offset)));
        }
    }
    if complete && let Some(problem) = check_policy(heads, checked, parts.policy.as_ref()) {
        report.add(problem);
    }
}

fn check_chain(heads: &Heads, checked: &Checked, part: &EncodedPart, complete: bool) -> Vec<Problem> {
    let problem = |detail: String| Problem::new(ProblemKind::Epochs, detail);
    let chain = match EpochChain::from_bytes(&part.bytes) {
        Ok(chain) => chain,
        Err(error) => return vec![Problem::new(ProblemKind::Malformed, error.to_string())],
    };
    if let Err(error) = chain.verify(heads.origin(), heads.first_epoch()) {
        return vec![problem(error.to_string())];
    }
    if !complete {
        return Vec::new();
    }
    let mut problems = Vec::new();
    // A signature that nobody has checked could be changed unnoticed, so every note must be one of those.
    let notes: BTreeSet<String> = checked.notes.iter().map(ToString::to_string).collect();
    for (number, link) in (1..).zip(chain.links()) {
        let change = heads.changes().get(number - 1);
        if !change.is_some_and(|change| is_of(link, change)) {
            problems.push(problem(format!("link {number} of the chain of epochs is not what the entries say")));
        }
        if !notes.contains(&link.receipt.checkpoint().to_string()) {
            problems.push(problem(format!("the note of link {number} of the chain of epochs is none of the notes")));
        }
    }
    let expected = checked.conclusion.vouching.len();
    if let Some(missing) = heads.changes().get(..expected).unwrap_or_default().get(chain.links().len()) {
        let detail = format!("the chain of epochs lacks epoch {}, which is vouched for", missing.to.number);
        problems.push(problem(detail).at(missing.seal));
    }
    problems
}

/// Checks that a history comes to the last epoch of a chain that somebody has got elsewhere.
pub(super) fn check_known(report: &mut Report, heads: &Heads, chain: &EpochChain) {
    let problem = |detail: String| Problem::new(ProblemKind::Epochs, detail).at(report.entries.saturating_sub(1));
    let problem = match chain.verify(heads.origin(), heads.first_epoch()) {
        Err(error) => Some(problem(format!("the chain of epochs that was given is none of this ledger: {error}"))),
        Ok(epochs) => {
            let known = epochs.iter().skip(1).map(|(_, epoch)| epoch);
            let changes = heads.changes().iter().map(|change| Some(&*change.to)).chain(std::iter::repeat(None));
            let missing = known.zip(changes).find(|(known, found)| Some(*known) != *found);
            missing.map(|(known, _)| {
                let number = known.number;
                problem(format!(
                    "the chain that was given has come to epoch {number}, which is not that of these entries: \
                                 they are cut off, or of another history"
                ))
            })
        }
    };
    if let Some(problem) = problem {
        report.add(problem);
    }
}

fn is_of(link: &EpochLink, change: &EpochChange) -> bool {
    link.leaf == change.leaf && link.epoch == change.to.to_bytes()
}

fn check_policy(heads: &Heads, checked: &Checked, part: Option<&EncodedPart>) -> Option<Problem> {
    let found = part.map(|part| part.bytes.as_slice());
    if found == policy_of(heads, checked).map(|policy| policy.to_bytes()).as_deref() {
        return None;
    }
    let detail = "the policy is not that of the replicas and witnesses who vouch for the last final head".to_owned();
    let index = checked.final_head().map_or(0, |head| head.size.saturating_sub(1));
    Some(Problem::new(ProblemKind::Policy, detail).at(index).at_byte(part.map(|part| part.offset)))
}

/// The policy of the largest final head, or of the first epoch where there is none; none if it cannot be expressed.
fn policy_of(heads: &Heads, checked: &Checked) -> Option<Policy> {
    let epoch: &Epoch = checked.final_head().map_or(heads.first_epoch(), |head| &head.epoch);
    epoch.policy(heads.origin()).ok()
}
