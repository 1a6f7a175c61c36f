//! The hospital's own memory of the ledger's head.
//!
//! The node computes the Merkle root of the log itself, from the leaves that it replays. Replicas sign heads (checkpoints);
//! each is compared with the own root of that size, and the last one that agreed is kept on disk. So a history that is
//! rewritten, or shown differently to others, is noticed by the hospital itself: after a restart, the log that replicas
//! send must pass through the head that is on disk.

use std::collections::{BTreeMap, VecDeque};

use fedledger_ledger::{
    Digest, PublicKey,
    checkpoint::{Checkpoint, CheckpointNoteError},
    note::SignedNote,
};

/// Recent roots kept for comparison, in entries. A head older than that says nothing new.
const ROOTS_KEPT: usize = 4096;

/// Heads that lie ahead of the own log and wait for it; one for each replica, so this bounds the replicas remembered.
const WAITING_MAX: usize = 64;

/// Roots by size, and the heads to compare them with.
#[derive(Debug, Default)]
pub struct Witness {
    /// Own roots; the last is that of the present size, and sizes are consecutive.
    roots: VecDeque<Digest>,
    /// Size that belongs to the last of `roots`.
    size: u64,
    /// The head that was on disk at the start or was stored since.
    stored: Option<Checkpoint>,
    /// Heads ahead of the own log, by replica.
    waiting: BTreeMap<String, SignedHead>,
}

/// A head and the text of the note that a replica signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// Node name of the replica.
    pub replica: String,
    /// The head.
    pub checkpoint: Checkpoint,
    /// The note.
    pub note: String,
}

/// What came of comparing a signed head with the own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The replica signed the same history.
    Agrees(SignedHead),
    /// The replica signed another history.
    Contradicts {
        /// What it signed.
        head: SignedHead,
        /// The own root at that size.
        own_root: Digest,
    },
    /// The head on disk is not part of the history that was received.
    Rewritten {
        /// Entries under the head on disk.
        size: u64,
        /// Its root.
        witnessed: Digest,
        /// The root of what was received.
        found: Digest,
    },
}

impl Witness {
    /// A witness that has stored this head before.
    pub fn new(stored: Option<Checkpoint>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Forgets everything that was received; what is on disk stays.
    pub fn restart(&mut self) {
        *self = Self::new(self.stored.take());
    }

    /// Entries under the head on disk; 0 without one. Until the own log is that long, nothing may be done in its name.
    pub fn stored_size(&self) -> u64 {
        self.stored.as_ref().map_or(0, Checkpoint::size)
    }

    /// Takes note that the log has `size` entries and this root, one more than before.
    pub fn extend(&mut self, size: u64, root: Digest) -> Vec<Verdict> {
        self.size = size;
        self.roots.push_back(root);
        if self.roots.len() > ROOTS_KEPT {
            self.roots.pop_front();
        }
        if let Some(stored) = self.stored.as_ref().filter(|stored| stored.size() == size && *stored.root() != root) {
            return vec![Verdict::Rewritten { size, witnessed: *stored.root(), found: root }];
        }
        let due: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, head)| head.checkpoint.size() <= size)
            .map(|(replica, _)| replica.clone())
            .collect();
        let heads = due.iter().filter_map(|replica| self.waiting.remove(replica));
        heads.collect::<Vec<_>>().into_iter().filter_map(|head| self.compare(head)).collect()
    }

    /// Takes a note that `replica` is said to have signed with `key`. There is no verdict yet on a head that lies ahead, and
    /// none on one that is too old.
    ///
    /// # Errors
    ///
    /// [`CheckpointNoteError`]: the note is no head of the log `origin` signed by the replica.
    pub fn note(
        &mut self,
        origin: &str,
        replica: &str,
        key: &PublicKey,
        text: &str,
    ) -> Result<Option<Verdict>, CheckpointNoteError> {
        let note = SignedNote::parse(text)?;
        note.verify(origin, key)?;
        let checkpoint = Checkpoint::of_note(&note, origin)?;
        let head = SignedHead { replica: replica.to_owned(), checkpoint, note: text.to_owned() };
        if head.checkpoint.size() <= self.size {
            return Ok(self.compare(head));
        }
        if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(replica) {
            // An earlier head of the same replica must not be lost to a later one, or a replica could keep the comparison
            // from ever being made.
            self.waiting.entry(replica.to_owned()).or_insert(head);
        }
        Ok(None)
    }

    /// Remembers that this head is on disk now.
    pub fn store(&mut self, checkpoint: Checkpoint) {
        self.stored = Some(checkpoint);
    }

    fn compare(&self, head: SignedHead) -> Option<Verdict> {
        let behind = usize::try_from(self.size.checked_sub(head.checkpoint.size())?).ok()?;
        let own_root = *self.roots.get(self.roots.len().checked_sub(behind + 1)?)?;
        Some(if own_root == *head.checkpoint.root() {
            Verdict::Agrees(head)
        } else {
            Verdict::Contradicts { head, own_root }
        })
    }
}

/// What a note says that was verified before, or whose word need not be relied on.
///
/// # Errors
///
/// [`CheckpointNoteError`] if it is no checkpoint.
pub fn parse_unverified(text: &str) -> Result<Checkpoint, CheckpointNoteError> {
    Ok(Checkpoint::parse(SignedNote::parse(text)?.text())?)
}
