//! Heads that contradict the log, and convicting whoever has signed them.
//!
//! A contradicting head convicts its signer together with a head of this log signed with the same key, of at least its size.
//! Such a head is looked for among those that others have sent, and on the disk, so that a replica can convict after a
//! restart as well. Where there is none yet the contradicting head is kept, and tried again when a head signed with that key
//! comes. Every key that a node has had in any epoch counts: that of its co-signatures, and that with which it signs in the
//! name of the log.

mod known;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fedledger_federation::history::origin;
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    evidence::{Evidence, Prefix, Signer, Signers, signed_by},
    log::read_node,
    merkle::{self, root_at},
    note::{SignatureType, SignedNote, VerifierKey},
    storage::{StorageError, notes::read_notes},
};
use tokio::sync::{mpsc, watch};

use self::known::{Head, Known};
use crate::{findings::Findings, replica::Handle};

/// Roots that are kept: those of the heads which became final within the last half second or so.
const ROOTS_KEPT: usize = 16;

/// Entries after which another head that a key has signed in the name of the log is verified and remembered. In between the
/// newest is kept as it came. If that turns out to be signed by nobody, a lie waits for the next head, which is looked at in
/// any case.
const REMEMBERED_EVERY: u64 = 4096;

/// Convicts whoever signs heads that contradict the log; clones share everything.
#[derive(Debug, Clone)]
pub struct Contradictions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    handle: Handle,
    findings: Findings,
    known: Mutex<Known>,
    /// Roots that were asked for last: most callers know one of the newest heads.
    roots: Mutex<VecDeque<Head>>,
    /// Changes when what is waiting should be looked at again.
    again: watch::Sender<u64>,
}

/// How a head stands to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The log has the same root at that size.
    Agrees,
    /// The log has this root at that size.
    Contradicts(Digest),
    /// The log is not that long yet.
    Ahead,
}

impl Contradictions {
    /// Compares with the log of the replica behind `handle`, and has evidence kept.
    pub fn new(handle: Handle, findings: Findings) -> Self {
        let inner =
            Inner { handle, findings, known: Mutex::default(), roots: Mutex::default(), again: watch::Sender::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Compares a head with the log.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn compare(&self, size: u64, root: &Digest) -> Result<Compared, StorageError> {
        let handle = &self.inner.handle;
        if size > *handle.log_size().borrow() {
            return Ok(Compared::Ahead);
        }
        let ours = self.root_at(size)?;
        Ok(if ours == *root { Compared::Agrees } else { Compared::Contradicts(ours) })
    }

    /// Root of the log at a size that it has.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn root_at(&self, size: u64) -> Result<Digest, StorageError> {
        let roots = || self.inner.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = roots().iter().find(|known| known.size == size) {
            return Ok(known.root);
        }
        let storage = Arc::clone(self.inner.handle.storage());
        let root = root_at(size, |node| read_node(&*storage, node))?;
        let mut roots = roots();
        roots.push_front(Head { size, root });
        roots.truncate(ROOTS_KEPT);
        Ok(root)
    }

    /// Takes a head of this log that somebody has sent. `is_counted` says that its co-signatures by nodes of the epoch in
    /// force have been taken already.
    ///
    /// Returns how it stands to the log, and whether anybody known has signed it; once this returns, evidence that follows
    /// from it is on the disk.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub async fn take(
        &self,
        checkpoint: &Checkpoint,
        note: &SignedNote,
        is_counted: bool,
    ) -> Result<(Compared, bool), StorageError> {
        let head = Head { size: checkpoint.size(), root: *checkpoint.root() };
        let compared = self.compare(head.size, &head.root)?;
        let Some(signers) = self.signers().await else { return Ok((compared, false)) };
        let is_signed = match compared {
            Compared::Agrees => self.remember(&signers, head, note, is_counted),
            Compared::Ahead => self.put_off(&signers, head, note, is_counted),
            Compared::Contradicts(_) => {
                let signed = signers.signed(note, |_| true);
                let is_signed = !signed.is_empty();
                for (signer, note) in signed {
                    self.accuse(signer, head, note).await?;
                }
                is_signed
            }
        };
        Ok((compared, is_signed))
    }

    /// Takes heads that count for nothing and may convict, until the node stops.
    pub async fn take_uncounted(self, mut uncounted: mpsc::Receiver<SignedNote>) {
        while let Some(note) = uncounted.recv().await {
            let Ok(checkpoint) = Checkpoint::parse(note.text()) else { continue };
            if let Err(error) = self.take(&checkpoint, &note, false).await {
                tracing::error!(%error, "a co-signed head cannot be compared with the log");
            }
        }
    }

    /// Looks again at what is waiting whenever that may help, until the node stops. What an earlier process has kept comes
    /// first.
    pub async fn follow(self) {
        let mut again = self.inner.again.subscribe();
        let mut log_size = self.inner.handle.log_size();
        self.load().await;
        loop {
            again.mark_unchanged();
            if let Err(error) = self.review().await {
                tracing::error!(%error, "contradicting heads cannot be compared with the log");
                return;
            }
            let next = self.known().next_size();
            tokio::select! {
                changed = again.changed() => if changed.is_err() { return },
                reached = log_size.wait_for(|size| next.is_some_and(|next| *size >= next)) => {
                    if reached.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes up what is on the disk.
    async fn load(&self) {
        let Some(signers) = self.signers().await else { return };
        let evidence = self.inner.findings.stored_evidence().await;
        let notes = self.inner.findings.stored_contradictions().await;
        let mut known = self.known();
        for stored in evidence {
            let heads = [stored.evidence.first(), stored.evidence.second()].map(Head::of);
            for signer in signers.convicted_by(&stored.evidence) {
                heads.into_iter().flatten().for_each(|head| known.convict(*signer.key.public_key(), head));
            }
        }
        for stored in notes {
            let Some(head) = Head::of(&stored.note) else { continue };
            for (signer, note) in signers.signed(&stored.note, |_| true) {
                known.wait(signer, head, note);
            }
        }
    }

    /// Tries what is waiting.
    async fn review(&self) -> Result<(), StorageError> {
        let log_size = *self.inner.handle.log_size().borrow();
        let due = self.known().take_due(log_size);
        for (signer, head, note) in due {
            match self.compare(head.size, &head.root)? {
                Compared::Agrees => self.known().remember(*signer.key.public_key(), head.size, note),
                Compared::Contradicts(_) => self.accuse(&signer, head, note).await?,
                Compared::Ahead => self.known().put_off(&signer, head, note),
            }
        }
        Ok(())
    }

    /// Remembers a head of this log by the keys of which nobody else does.
    fn remember(&self, signers: &Signers, head: Head, note: &SignedNote, is_counted: bool) -> bool {
        let wanted = |signer: &Signer| {
            let known = self.known();
            let key = signer.key.public_key();
            let is_due = |size: u64| size.saturating_add(REMEMBERED_EVERY) <= head.size;
            let is_awaited = known.is_awaited(key, head.size);
            !is_counted || is_awaited || is_log_key(signer) && known.remembered(key).is_none_or(is_due)
        };
        for signer in signers.named(note).filter(|signer| is_log_key(signer)) {
            self.known().keep_recent(*signer.key.public_key(), head.size, || line_of(note, &signer.key));
        }
        let signed = signers.signed(note, wanted);
        let is_signed = !signed.is_empty();
        let mut is_awaited = false;
        for (signer, note) in signed {
            let mut known = self.known();
            is_awaited |= known.is_awaited(signer.key.public_key(), head.size);
            known.remember(*signer.key.public_key(), head.size, note);
        }
        if is_awaited {
            self.look_again();
        }
        is_signed
    }

    /// Keeps a head in mind that the log has not reached, unless its co-signatures are being kept by those who count them:
    /// then it matters only who has signed it in the name of the log and not in their own.
    fn put_off(&self, signers: &Signers, head: Head, note: &SignedNote, is_counted: bool) -> bool {
        let cosigned = signers.named(note).filter(|signer| !is_log_key(signer)).map(|signer| signer.node.as_str());
        let cosigned: BTreeSet<&str> = if is_counted { cosigned.collect() } else { BTreeSet::new() };
        let signed = signers
            .signed(note, |signer| !is_counted || is_log_key(signer) && !cosigned.contains(signer.node.as_str()));
        for (signer, note) in &signed {
            self.known().put_off(signer, head, note.clone());
        }
        if !signed.is_empty() {
            self.look_again();
        }
        !signed.is_empty()
    }

    /// Convicts a signer of a head that contradicts the log, or keeps the head until that is possible.
    async fn accuse(&self, signer: &Signer, head: Head, note: SignedNote) -> Result<(), StorageError> {
        let key = *signer.key.public_key();
        let is_done = {
            let known = self.known();
            known.is_settled(&key, head) || known.is_full(&key, head)
        };
        if is_done {
            return Ok(());
        }
        let findings = &self.inner.findings;
        let Some(evidence) = self.evidence(signer, head, &note).await? else {
            if self.known().wait(signer, head, note.clone()) {
                findings.contradiction(&note, key).await;
            }
            return Ok(());
        };
        // Evidence that cannot be kept now is made anew when the head comes again.
        if !findings.evidence(&evidence, key).await {
            return Ok(());
        }
        for note in [evidence.first(), evidence.second()] {
            if let Some(head) = Head::of(note) {
                self.known().convict(key, head);
            }
            findings.settle_contradiction(note, &key).await;
        }
        Ok(())
    }

    /// What convicts a signer of a head that contradicts the log, if anything does.
    async fn evidence(&self, signer: &Signer, head: Head, note: &SignedNote) -> Result<Option<Evidence>, StorageError> {
        let other = self.known().contradicting(signer.key.public_key(), head);
        if let Some(evidence) = other.and_then(|other| Evidence::new(other, note.clone(), None).ok()) {
            return Ok(Some(evidence));
        }
        let Some((own_size, own)) = self.head_of_log(signer, head.size).await? else { return Ok(None) };
        let Compared::Contradicts(ours) = self.compare(head.size, &head.root)? else { return Ok(None) };
        let storage = Arc::clone(self.inner.handle.storage());
        let proof = merkle::consistency_proof(head.size, own_size, |node| read_node(&*storage, node));
        let prefix = (head.size < own_size).then(|| Prefix { root: ours, proof: proof.unwrap_or_default() });
        let made = Evidence::new(note.clone(), own, prefix);
        if let Err(error) = &made {
            tracing::warn!(%error, node = signer.node, "a contradicting head is no evidence by itself");
        }
        Ok(made.ok())
    }

    /// The smallest head of this log from `size` entries on that is known to be signed by a signer, with its line only.
    async fn head_of_log(&self, signer: &Signer, size: u64) -> Result<Option<(u64, SignedNote)>, StorageError> {
        let node = signer.node.clone();
        let recent = self.inner.handle.query(move |replica| replica.finality().note_from(&node, size)).await.flatten();
        let key = signer.key.public_key();
        let remembered = self.known().remembered_note(key);
        let recent_by_key = self.known().recent_note(key);
        let mut found = None;
        let stored = read_notes(&**self.inner.handle.storage())?;
        let stored = stored.iter().filter_map(|note| SignedNote::parse(note).ok());
        for note in recent.into_iter().chain(remembered).chain(recent_by_key).chain(stored) {
            let Some(head) = Head::of(&note).filter(|head| head.size >= size) else { continue };
            if found.as_ref().is_some_and(|(smallest, _)| *smallest <= head.size) {
                continue;
            }
            let Some(signed) = signed_by(&note, &signer.key) else { continue };
            if self.compare(head.size, &head.root)? == Compared::Agrees {
                found = Some((head.size, signed));
            }
        }
        Ok(found)
    }

    /// Every key that a node has had so far; none when the node stops.
    async fn signers(&self) -> Option<Arc<Signers>> {
        let count = self.known().epochs();
        let made = self.inner.handle.query(move |replica| {
            let epochs = replica.log().machine().epochs();
            let origin = || origin(replica.log().machine().consortium());
            let made = || Arc::new(Signers::of(&origin(), epochs.iter().map(|(_, epoch)| epoch)));
            (epochs.len() != count).then(|| (epochs.len(), made()))
        });
        let made = made.await?;
        let mut known = self.known();
        if let Some((count, signers)) = made {
            known.know_signers(count, signers);
        }
        Some(known.signers())
    }

    fn look_again(&self) {
        self.inner.again.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is made by one call that cannot panic in between.
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A note with the first line that names a key, which is not verified.
fn line_of(note: &SignedNote, key: &VerifierKey) -> Option<SignedNote> {
    let line = note.signatures().iter().find(|line| line.name() == key.name() && line.key_id() == key.key_id())?;
    SignedNote::from_parts(note.text(), vec![line.clone()]).ok()
}

/// Whether a key signs in the name of the log: who does so is counted by nobody else.
fn is_log_key(signer: &Signer) -> bool {
    signer.key.kind() == SignatureType::Ed25519
}
