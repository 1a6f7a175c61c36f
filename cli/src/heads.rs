//! What to tell people when a replica shows another history than was seen before.

use fedledger_proto::{
    api::{Conflict, HeadError},
    kit::SeenHeads,
};

use crate::error::{Exit, Failure};

/// The failure of a check of heads. Two heads that contradict each other are kept as a file.
pub(crate) fn failure(error: HeadError, seen: &SeenHeads) -> Failure {
    match error {
        HeadError::Api(error) => error.into(),
        HeadError::Conflict(conflict) => conflicting(&conflict, seen),
        error @ HeadError::Invalid { .. } => {
            Failure::because(Exit::Mismatch, "the replica's newest head is not in order", error)
        }
    }
}

fn conflicting(conflict: &Conflict, seen: &SeenHeads) -> Failure {
    let failure = Failure::because(Exit::Mismatch, "the ledger has two histories", conflict);
    match seen.keep_conflict(&conflict.known_note, &conflict.served_note) {
        Ok(file) => failure.next(format!(
            "both signed heads are kept in {}: show them to the other members, and ask another replica (--connect) which \
             history it has",
            file.display()
        )),
        Err(error) => failure.next(format!(
            "keep what this says and show it to the other members: the two heads could not be kept in a file ({error})"
        )),
    }
}
