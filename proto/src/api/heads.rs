//! Heads of the log as a client remembers them: what one replica shows must go on from what any replica showed before.
//!
//! A client that asks with the last head that it has seen makes a fork known to whoever looks: the replica proves that its
//! log begins with that head, or one of the two has signed a history that it does not stand by. Every call does so
//! ([`check`]), with what was seen so far ([`watch`]). Where two heads contradict each other, both are kept, and the
//! evidence against whoever has signed both ([`evidence`]).

mod check;
mod epochs;
mod evidence;
mod watch;

use std::path::PathBuf;

use fedledger_ledger::{
    Digest, checkpoint::Checkpoint, evidence::Evidence, merkle::verify_consistency, note::SignedNote,
};

pub(super) use watch::HeadWatch;

/// What a replica showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenHead {
    /// It has no head yet.
    Nothing,
    /// Its newest head is consistent with what was known.
    Consistent {
        /// The replica's note, if it is remembered now: it is about more entries than the known one, and final.
        newer: Option<SignedNote>,
        /// Who vouches for the replica's head.
        vouched: Vouched,
    },
}

/// Who vouches for a head, as the genesis file and the chain of epochs tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// As many replicas of its epoch as make a head final.
    Final,
    /// No such number: no head is final yet on that replica, or it cannot show who has changed since.
    NotYet,
}

/// Two heads that no append-only log can have both, or that are not shown to be heads of one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url} shows the head {served} of a log whose head was {known} before: {reason}. One of the replicas that signed them \
     is not honest, or lost data"
)]
pub struct Conflict {
    /// URL of the replica.
    pub url: String,
    /// The head seen before, in words.
    pub known: String,
    /// The replica's, in words.
    pub served: String,
    /// Why they do not fit together.
    pub reason: String,
    /// The note seen before.
    pub known_note: Box<SignedNote>,
    /// The replica's note.
    pub served_note: Box<SignedNote>,
    /// Evidence against whoever has signed both, if somebody has and the replica's own proofs show that they contradict
    /// each other.
    pub evidence: Option<Box<Evidence>>,
    /// Files with both notes and the evidence, beside the head seen before; none if that is kept in memory only, or the
    /// files could not be written.
    pub kept: Vec<PathBuf>,
}

/// Checks that the served head extends the known one. A replica that knows fewer entries has compared the known head with
/// its own log as far as it can, and proves nothing.
fn check_extension(known: &Checkpoint, served: &Checkpoint, proof: Option<&[Digest]>) -> Result<(), String> {
    if served.size() < known.size() || served == known {
        return Ok(());
    }
    let proof = proof.ok_or("the replica does not prove that its log begins with it")?;
    let verified = verify_consistency(known.size(), known.root(), served.size(), served.root(), proof);
    verified.map_err(|error| format!("the proof that one follows from the other fails, {error}"))
}

#[cfg(test)]
mod tests;
