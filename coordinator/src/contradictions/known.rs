//! What is known of those who sign heads: their keys, their newest heads of this log, and what speaks against them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fedledger_ledger::{
    Digest, PublicKey,
    checkpoint::Checkpoint,
    evidence::{Signer, Signers},
    note::SignedNote,
};

use crate::findings::EVIDENCE_PER_KEY_MAX;

/// Heads that are kept in mind for each key, apart for those that the log has not reached and those that contradict it.
const WAITING_PER_KEY_MAX: usize = EVIDENCE_PER_KEY_MAX;

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    /// Entries under it.
    pub size: u64,
    /// Root of the Merkle tree over them.
    pub root: Digest,
}

impl Head {
    pub fn of(note: &SignedNote) -> Option<Self> {
        let checkpoint = Checkpoint::parse(note.text()).ok()?;
        Some(Self { size: checkpoint.size(), root: *checkpoint.root() })
    }
}

/// Something signed by one key, with its line only.
#[derive(Debug, Clone)]
struct Waiting {
    signer: Signer,
    note: SignedNote,
}

/// Heads by one key.
type Heads = BTreeMap<Head, Waiting>;

/// See the module's documentation. Everything is bounded for each key, and there are as many keys as the epochs say.
#[derive(Debug, Default)]
pub(super) struct Known {
    epochs: usize,
    signers: Arc<Signers>,
    /// The newest head of this log by each key, and its size.
    remembered: BTreeMap<PublicKey, (u64, SignedNote)>,
    /// The newest head of this log with a line of each key in the name of the log. Whether the line verifies is not known.
    recent: BTreeMap<PublicKey, (u64, SignedNote)>,
    /// Heads beyond the end of the log.
    ahead: BTreeMap<PublicKey, Heads>,
    /// Heads that contradict the log and convict nobody yet.
    waiting: BTreeMap<PublicKey, Heads>,
    /// Heads of which evidence was kept.
    convicted: BTreeMap<PublicKey, BTreeSet<Head>>,
    /// Keys whose waiting heads should be tried again.
    due: BTreeSet<PublicKey>,
}

impl Known {
    /// Epochs whose signers are known.
    pub const fn epochs(&self) -> usize {
        self.epochs
    }

    pub fn signers(&self) -> Arc<Signers> {
        Arc::clone(&self.signers)
    }

    pub fn know_signers(&mut self, epochs: usize, signers: Arc<Signers>) {
        (self.epochs, self.signers) = (epochs, signers);
    }

    /// Size of the newest head of this log that is known to be signed with a key.
    pub fn remembered(&self, key: &PublicKey) -> Option<u64> {
        self.remembered.get(key).map(|(size, _)| *size)
    }

    pub fn remembered_note(&self, key: &PublicKey) -> Option<SignedNote> {
        self.remembered.get(key).map(|(_, note)| note.clone())
    }

    /// The newest head that is said to be signed with a key.
    pub fn recent_note(&self, key: &PublicKey) -> Option<SignedNote> {
        self.recent.get(key).map(|(_, note)| note.clone())
    }

    /// Keeps the newest head that is said to be signed with a key: to verify each would cost more than all else that is done
    /// with a head.
    pub fn keep_recent(&mut self, key: PublicKey, size: u64, note: impl FnOnce() -> Option<SignedNote>) {
        if self.recent.get(&key).is_none_or(|(known, _)| *known < size)
            && let Some(note) = note()
        {
            self.recent.insert(key, (size, note));
        }
    }

    /// Remembers a head of this log signed with a key, if it is the newest.
    pub fn remember(&mut self, key: PublicKey, size: u64, note: SignedNote) {
        if self.is_awaited(&key, size) {
            self.due.insert(key);
        }
        if self.remembered(&key).is_none_or(|known| known < size) {
            self.remembered.insert(key, (size, note));
        }
    }

    /// Whether a head of this log of that size, signed with a key, would convict its owner.
    pub fn is_awaited(&self, key: &PublicKey, size: u64) -> bool {
        self.waiting.get(key).and_then(|heads| heads.first_key_value()).is_some_and(|(head, _)| head.size <= size)
    }

    /// Keeps a head that the log has not reached in mind. Of too many those nearest to the log stay.
    pub fn put_off(&mut self, signer: &Signer, head: Head, note: SignedNote) {
        let heads = self.ahead.entry(*signer.key.public_key()).or_default();
        heads.entry(head).or_insert_with(|| Waiting { signer: signer.clone(), note });
        if heads.len() > WAITING_PER_KEY_MAX {
            heads.pop_last();
        }
    }

    /// Whether enough heads by a key wait for one that convicts their signer: another one would add nothing.
    pub fn is_full(&self, key: &PublicKey, head: Head) -> bool {
        let heads = self.waiting.get(key);
        heads.is_some_and(|heads| heads.len() >= WAITING_PER_KEY_MAX && !heads.contains_key(&head))
    }

    /// Keeps a head in mind that contradicts the log. Whether it is new, and there was room for it.
    pub fn wait(&mut self, signer: &Signer, head: Head, note: SignedNote) -> bool {
        let heads = self.waiting.entry(*signer.key.public_key()).or_default();
        if heads.contains_key(&head) || heads.len() >= WAITING_PER_KEY_MAX {
            return false;
        }
        heads.insert(head, Waiting { signer: signer.clone(), note });
        self.due.insert(*signer.key.public_key());
        true
    }

    /// Another head of the same size signed with a key, that waits as well.
    pub fn contradicting(&self, key: &PublicKey, head: Head) -> Option<SignedNote> {
        let others = self.waiting.get(key)?.iter();
        let mut others = others.filter(|(other, _)| other.size == head.size && other.root != head.root);
        others.next().map(|(_, waiting)| waiting.note.clone())
    }

    /// Whether nothing more is to be done about a head: evidence of it, or enough against its signer, is kept.
    pub fn is_settled(&self, key: &PublicKey, head: Head) -> bool {
        let convicted = self.convicted.get(key);
        convicted.is_some_and(|heads| heads.contains(&head) || heads.len() >= EVIDENCE_PER_KEY_MAX)
    }

    /// Takes note that evidence of a head is kept.
    pub fn convict(&mut self, key: PublicKey, head: Head) {
        self.convicted.entry(key).or_default().insert(head);
        if let Some(heads) = self.waiting.get_mut(&key) {
            heads.remove(&head);
        }
        self.waiting.retain(|_, heads| !heads.is_empty());
    }

    /// The size of the log from which on another head can be compared with it.
    pub fn next_size(&self) -> Option<u64> {
        self.ahead.values().filter_map(|heads| heads.first_key_value()).map(|(head, _)| head.size).min()
    }

    /// What can be tried in a log of `log_size` entries: heads that were ahead of it, which are forgotten here, and those
    /// whose signers have signed something new.
    pub fn take_due(&mut self, log_size: u64) -> Vec<(Signer, Head, SignedNote)> {
        let mut due = Vec::new();
        for heads in self.ahead.values_mut() {
            while let Some(first) = heads.first_entry()
                && first.key().size <= log_size
            {
                let (head, waiting) = first.remove_entry();
                due.push((waiting.signer, head, waiting.note));
            }
        }
        self.ahead.retain(|_, heads| !heads.is_empty());
        for key in std::mem::take(&mut self.due) {
            let heads = self.waiting.get(&key).into_iter().flatten();
            due.extend(heads.map(|(head, waiting)| (waiting.signer.clone(), *head, waiting.note.clone())));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::{
        SecretKey,
        note::{VerifierKey, sign_note},
    };

    use super::*;

    const ORIGIN: &str = "test.example/log";

    fn signer(seed: u8) -> (Signer, SecretKey) {
        let key = SecretKey::from_seed([seed; 32]);
        let signer = Signer { node: "north".into(), key: VerifierKey::ed25519(ORIGIN, key.public()).unwrap() };
        (signer, key)
    }

    fn head(size: u64, what: &str) -> Head {
        Head { size, root: Digest::of(what.as_bytes()) }
    }

    fn note(head: Head, key: &SecretKey) -> SignedNote {
        sign_note(&Checkpoint::new(ORIGIN, head.size, head.root).unwrap().to_note_text(), ORIGIN, key).unwrap()
    }

    #[test]
    fn of_many_heads_ahead_the_nearest_stay_whatever_else_the_signer_makes_up() {
        let (liar, key) = signer(1);
        let mut known = Known::default();
        for far in 0..100 {
            let head = head(u64::MAX - far, "far");
            known.put_off(&liar, head, note(head, &key));
        }
        let near = head(7, "near");
        known.put_off(&liar, near, note(near, &key));
        assert_eq!(known.ahead.values().map(BTreeMap::len).sum::<usize>(), WAITING_PER_KEY_MAX);
        assert_eq!(known.next_size(), Some(7));
        assert!(known.take_due(6).is_empty());
        assert_eq!(known.take_due(7).into_iter().map(|(_, head, _)| head).collect::<Vec<_>>(), [near]);
        assert!(known.take_due(7).is_empty());
    }

    #[test]
    fn a_contradiction_is_tried_again_when_its_signer_has_signed_a_head_of_the_log_that_is_as_large() {
        let (liar, key) = signer(1);
        let by = key.public();
        let mut known = Known::default();
        let wrong = head(5, "wrong");
        assert!(known.wait(&liar, wrong, note(wrong, &key)));
        assert!(!known.wait(&liar, wrong, note(wrong, &key)), "it is known");
        assert_eq!(known.take_due(9).len(), 1, "once at first");
        known.remember(by, 4, note(head(4, "right"), &key));
        assert!(known.take_due(9).is_empty(), "the smaller head convicts nobody");
        known.remember(by, 6, note(head(6, "right"), &key));
        assert_eq!(known.take_due(9).len(), 1);
        let third = head(5, "also wrong");
        assert_eq!(known.contradicting(&by, third), Some(note(wrong, &key)));
        assert_eq!(known.contradicting(&by, wrong), None);
        known.convict(by, wrong);
        assert!(known.is_settled(&by, wrong) && !known.is_settled(&by, third));
        assert!(!known.is_awaited(&by, 9));
    }

    #[test]
    fn what_a_liar_signs_is_bounded() {
        let (liar, key) = signer(1);
        let mut known = Known::default();
        let heads: Vec<Head> = (0..100).map(|what: u64| head(5, &what.to_string())).collect();
        let kept = heads.iter().filter(|head| known.wait(&liar, **head, note(**head, &key))).count();
        assert_eq!(kept, WAITING_PER_KEY_MAX);
        heads.iter().take(EVIDENCE_PER_KEY_MAX).for_each(|head| known.convict(key.public(), *head));
        assert!(heads.iter().all(|head| known.is_settled(&key.public(), *head)));
        let (other, others) = signer(2);
        assert!(known.wait(&other, heads[0], note(heads[0], &others)), "another one is not settled with it");
    }
}
