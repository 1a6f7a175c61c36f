//! Sealing: when the leader proposes a seal, and what this replica co-signs.
//!
//! A replica co-signs the head of every seal that it applies while the seal's time agrees with its clock. It first makes
//! durable what it is about to sign, and with it everything under the head; only then does it sign. So it can never sign
//! another head of that size or a shorter one, whatever happens to it in between.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Fault, Identity, Replica, Step};
use crate::{
    checkpoint::Checkpoint,
    codec,
    consensus::{MessageRefused, ReplicaId},
    digest::Digest,
    epoch::{Epoch, cosigner_name},
    finality::{Cosignature, Finality, Finding, OfferError, Offered, SealedHead},
    leaf::Leaf,
    log::{Log, read_node},
    machine::StateMachine,
    merkle::root_at,
    note::{NoteError, NoteSignature, SignedNote},
    seal::{SEAL_KIND, SealProposal},
    storage::{
        Batch, Column, LogStorage, StorageError,
        notes::{put_note, read_note},
    },
    transaction::{Nonce, Transaction},
};

/// Shortest time between two seals, in milliseconds.
pub const SEAL_INTERVAL_MS: u64 = 50;

/// Entries after which a seal does not wait for the time.
pub const SEAL_ENTRIES: u64 = 1000;

/// How often a leader seals. The default is what every replica of a consortium goes by; a measurement of what seals and
/// co-signatures cost needs another one beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealPace {
    /// Shortest time between two seals, in milliseconds.
    pub interval_ms: u64,
    /// Entries after which a seal does not wait for the time.
    pub entries: u64,
}

impl Default for SealPace {
    fn default() -> Self {
        Self { interval_ms: SEAL_INTERVAL_MS, entries: SEAL_ENTRIES }
    }
}

/// How far a seal's time may be from the clock of a replica that co-signs it, in milliseconds.
pub const SEAL_TIME_TOLERANCE_MS: u64 = 2000;

/// Wait before a head that did not become final is sealed again, in milliseconds; it doubles up to the other.
const RESEAL_MS: u64 = 1000;
const RESEAL_MS_MAX: u64 = 60_000;

/// How long a proposed seal may be under way before it is taken for lost, in milliseconds.
const SEAL_LOST_MS: u64 = 2000;

/// Seals of one leader in a row that did not become final before it lets another replica lead: its clock may be wrong.
const UNFINISHED_SEALS_MAX: u32 = 3;

/// Entries within which a proposed seal must be applied.
const SEAL_VALIDITY_ENTRIES: u64 = 10_000;

/// Under which names notes are kept: the newest head that is final, and the newest that every replica has co-signed.
const FINAL_NOTE: &str = "final";
const UNANIMOUS_NOTE: &str = "unanimous";

const META_COSIGNED: &[u8] = b"cosigned";

/// The last head that this replica has co-signed, or was about to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cosigned {
    /// Entries under it.
    pub size: u64,
    /// Its root.
    pub root: Digest,
    /// Raft index of the last of these entries: nothing up to here may ever be replaced.
    pub raft_index: u64,
    /// Time of its seal, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// Where a replica stands with seals.
#[derive(Debug)]
pub(super) struct Sealing {
    pub finality: Finality,
    pub cosigned: Cosigned,
    pace: SealPace,
    /// Milliseconds since the Unix epoch, as last told.
    now_ms: u64,
    /// When this replica last proposed a seal.
    proposed_ms: u64,
    /// Whether that seal is still under way.
    under_way: bool,
    /// Wait before the last head is sealed again.
    reseal_ms: u64,
    /// Seals that this leader has proposed in a row without any becoming final.
    unfinished: u32,
    /// Seals applied in this step, with their Raft indexes and times.
    heads: Vec<(SealedHead, u64, u64)>,
    /// The head whose record is being written, and its text.
    unsigned: Option<(u64, String)>,
    /// The epoch in force.
    epoch: Arc<Epoch>,
    /// Why this replica must stop.
    pub fault: Option<Fault>,
}

impl Sealing {
    /// Goes on from the storage.
    pub fn open<M: StateMachine, S: LogStorage + ?Sized>(
        origin: &str,
        log: &Log<M>,
        storage: &S,
    ) -> Result<Self, Fault> {
        let cosigned = match storage.get(Column::Meta, META_COSIGNED)? {
            Some(bytes) => codec::decode(&bytes, 256)
                .map_err(|error| StorageError::Corrupt(format!("the record of the last co-signature: {error}")))?,
            None => Cosigned::default(),
        };
        if cosigned.size > log.size() {
            return Err(Fault::CosignedLost { cosigned: cosigned.size, size: log.size() });
        }
        let root = root_at(cosigned.size, |node| read_node(storage, node))?;
        if cosigned.size > 0 && root != cosigned.root {
            return Err(Fault::CosignedChanged { size: cosigned.size, cosigned: cosigned.root, found: root });
        }
        let size_of = |name: &str| -> Result<u64, Fault> {
            let note = read_note(storage, name)?.and_then(|note| SignedNote::parse(&note).ok());
            Ok(note.and_then(|note| Checkpoint::parse(note.text()).ok()).map_or(0, |checkpoint| checkpoint.size()))
        };
        let epoch = Arc::new(log.sealed().epoch.clone());
        let (final_size, unanimous_size) = (size_of(FINAL_NOTE)?, size_of(UNANIMOUS_NOTE)?);
        Ok(Self {
            finality: Finality::new(origin.to_owned(), Arc::clone(&epoch), final_size, unanimous_size),
            cosigned,
            pace: SealPace::default(),
            now_ms: 0,
            proposed_ms: 0,
            under_way: false,
            reseal_ms: RESEAL_MS,
            unfinished: 0,
            heads: Vec::new(),
            unsigned: None,
            epoch,
            fault: None,
        })
    }

    /// Takes note of a seal that was applied just now; `log` ends with it.
    pub fn applied<M: StateMachine>(&mut self, leaf: &Leaf, log: &Log<M>) {
        let Some(seal) = &leaf.seal else { return };
        self.under_way = false;
        let sealed = log.sealed();
        if self.epoch.number != sealed.head_epoch().number {
            self.epoch = Arc::new(sealed.head_epoch().clone());
        }
        let epoch = Arc::clone(&self.epoch);
        if self.epoch.number != sealed.epoch.number {
            self.epoch = Arc::new(sealed.epoch.clone());
        }
        let head = SealedHead { size: log.size(), root: log.root(), epoch, next_epoch: Arc::clone(&self.epoch) };
        self.heads.push((head, leaf.raft_index, seal.time_ms));
    }

    /// Registers the heads of the seals applied in this step. The newest one's size, if it is to be co-signed once `batch`
    /// is durable.
    pub fn register(&mut self, identity: &Identity, batch: &mut Batch, findings: &mut Vec<Finding>) -> Option<u64> {
        let heads = std::mem::take(&mut self.heads);
        for (head, ..) in &heads {
            match self.finality.sealed(head) {
                Ok(found) => findings.extend(found),
                Err(error) => tracing::error!(%error, "a head cannot be written as a checkpoint"),
            }
        }
        let (head, raft_index, time_ms) = heads.into_iter().last()?;
        if !self.may_cosign(identity, &head, time_ms) {
            return None;
        }
        let text = Checkpoint::new(identity.origin.clone(), head.size, head.root).ok()?.to_note_text();
        self.cosigned = Cosigned { size: head.size, root: head.root, raft_index, time_ms };
        batch.put(Column::Meta, META_COSIGNED, codec::encode(&self.cosigned));
        self.unsigned = Some((head.size, text));
        Some(head.size)
    }

    fn may_cosign(&self, identity: &Identity, head: &SealedHead, time_ms: u64) -> bool {
        let keys = head.epoch.replicas.get(&identity.name);
        if keys.is_none_or(|keys| keys.cosign != identity.cosign_key.public()) || head.size <= self.cosigned.size {
            return false;
        }
        let (off, now_ms) = (time_ms.abs_diff(self.now_ms), self.now_ms);
        if off > SEAL_TIME_TOLERANCE_MS {
            tracing::warn!(
                size = head.size,
                off_ms = off,
                time_ms,
                now_ms,
                "a seal's time is off: it is not co-signed"
            );
            return false;
        }
        if time_ms < self.cosigned.time_ms {
            tracing::warn!(size = head.size, time_ms, "a seal is earlier than the one before it: it is not co-signed");
            return false;
        }
        true
    }

    /// Signs the head of this size, whose record is durable now.
    pub fn sign(&mut self, identity: &Identity, size: u64) -> Result<Vec<Finding>, NoteError> {
        // A later head may be on its way already; then this one is superseded.
        let Some((_, text)) = self.unsigned.take_if(|(unsigned, _)| *unsigned <= size) else { return Ok(Vec::new()) };
        let time_s = self.now_ms / 1000;
        let name = cosigner_name(&identity.origin, &identity.name);
        let log = NoteSignature::sign(&text, &identity.origin, &identity.log_key)?;
        let line = NoteSignature::cosign(&text, &name, &identity.cosign_key, time_s)?;
        let key = identity.cosign_key.public();
        let cosignature = Cosignature { node: identity.name.clone(), is_replica: true, key, time_s, line };
        Ok(self.finality.signed(size, log, cosignature))
    }

    /// Keeps what findings say in the storage, and takes note of why the replica must stop.
    pub fn record(&mut self, findings: &[Finding], batch: &mut Batch) {
        for finding in findings {
            match finding {
                Finding::Diverged { size, own, theirs, signers } => {
                    let (size, own, theirs, signers) = (*size, *own, *theirs, signers.clone());
                    self.fault = Some(Fault::RootDiverged { size, own, theirs, signers });
                }
                Finding::Final { note, .. } => put_note(batch, FINAL_NOTE, note),
                Finding::Unanimous { note, .. } => {
                    put_note(batch, UNANIMOUS_NOTE, note);
                    put_note(batch, FINAL_NOTE, note);
                }
                Finding::EpochVouchedFor { number, note } => put_note(batch, &format!("epoch/{number:020}"), note),
                Finding::Disagreement { .. } | Finding::Equivocation(_) => {}
            }
        }
    }
}

impl<M: StateMachine> Replica<M> {
    /// Seals at another pace from now on, as long as this replica leads.
    pub const fn pace_seals(&mut self, pace: SealPace) {
        self.sealing.pace = pace;
    }

    /// Tells the time, in milliseconds since the Unix epoch, and lets a leader seal what is due. Nothing but the time of
    /// seals and co-signatures depends on it.
    pub fn clock(&mut self, now_ms: u64) {
        self.sealing.now_ms = now_ms;
        if !self.leads() {
            self.sealing.under_way = false;
            self.sealing.unfinished = 0;
            return;
        }
        if self.sealing.under_way && now_ms.saturating_sub(self.sealing.proposed_ms) > SEAL_LOST_MS {
            self.sealing.under_way = false;
        }
        if self.seal_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.propose_seal();
        }
    }

    /// When [`Self::clock`] must be called again at the latest, in milliseconds since the Unix epoch.
    pub fn seal_due_ms(&self) -> Option<u64> {
        let sealing = &self.sealing;
        if !self.leads() {
            return None;
        }
        if sealing.under_way {
            return Some(sealing.proposed_ms.saturating_add(SEAL_LOST_MS + 1));
        }
        let sealed = self.log.sealed();
        if !self.log.is_dirty() {
            let unfinished = sealing.finality.final_size() <= sealed.index;
            return unfinished.then(|| sealing.proposed_ms.saturating_add(sealing.reseal_ms));
        }
        if self.log.size() - sealed.index > sealing.pace.entries {
            return Some(sealing.now_ms);
        }
        // A clock that was set back must not stop the sealing.
        Some(sealing.proposed_ms.min(sealing.now_ms).saturating_add(sealing.pace.interval_ms))
    }

    fn propose_seal(&mut self) {
        let clean = !self.log.is_dirty();
        let sealing = &mut self.sealing;
        sealing.reseal_ms = if clean { (sealing.reseal_ms * 2).min(RESEAL_MS_MAX) } else { RESEAL_MS };
        if clean {
            sealing.unfinished += 1;
        }
        if sealing.unfinished >= UNFINISHED_SEALS_MAX {
            sealing.unfinished = 0;
            self.hand_over();
        }
        let payload = SealProposal {
            time_ms: self.sealing.now_ms,
            term: self.consensus.status().term,
            cosigned: self.sealing.finality.cosigners(),
        }
        .to_bytes();
        // Unique as long as a leader does not seal twice in a millisecond at one size.
        let (size, key) = (self.log.size(), &self.identity.transaction_key);
        let digest = Digest::of_parts(&[b"fedledger/v1/seal-nonce\n", &size.to_be_bytes(), &payload]);
        let mut nonce = [0; 16];
        nonce.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
        let transaction = Transaction {
            chain: *self.log.chain(),
            author: key.public(),
            nonce: Nonce(nonce),
            not_after_index: size.saturating_add(SEAL_VALIDITY_ENTRIES),
            kind: SEAL_KIND.to_owned(),
            payload,
        };
        let envelope = transaction.sign(key).to_bytes();
        self.sealing.proposed_ms = self.sealing.now_ms;
        self.sealing.under_way = self.consensus.propose(envelope).is_ok();
    }

    /// Lets the replica that follows best lead: this one's seals do not become final although others are there.
    fn hand_over(&mut self) {
        let peers = self.consensus.status().peers;
        let best = peers.iter().filter(|peer| peer.active).max_by_key(|peer| peer.matched);
        if let Some(to) = best.map(|peer| peer.id) {
            tracing::warn!(%to, "seals do not become final: check this machine's clock; another replica is to lead");
            if let Err(error) = self.consensus.transfer_leadership(to) {
                tracing::debug!(%error, "leadership was not transferred");
            }
        }
    }

    /// Signs the head of this size: the write that said so ([`DiskWrite::cosign`](super::DiskWrite::cosign)) is durable.
    pub fn cosign(&mut self, size: u64) -> Step<M> {
        let findings = self.sealing.sign(&self.identity, size).unwrap_or_else(|error| {
            tracing::error!(%error, "a head cannot be signed");
            Vec::new()
        });
        self.found(findings)
    }

    /// Takes a co-signed note that somebody sent, and what follows from it.
    ///
    /// # Errors
    ///
    /// [`OfferError`]; nothing was taken from it.
    pub fn offer(&mut self, note: &str) -> Result<(Step<M>, Option<Offered>), OfferError> {
        match self.sealing.finality.offer(note)? {
            Offered::Taken(findings) => Ok((self.found(findings), None)),
            elsewhere @ Offered::Elsewhere(..) => Ok((Step::empty(), Some(elsewhere))),
        }
    }

    /// Which heads are final, and who has co-signed them.
    pub const fn finality(&self) -> &Finality {
        &self.sealing.finality
    }

    /// The last head that this replica has co-signed or was about to.
    pub const fn cosigned(&self) -> &Cosigned {
        &self.sealing.cosigned
    }

    fn found(&mut self, findings: Vec<Finding>) -> Step<M> {
        let mut step = Step::empty();
        if findings.iter().any(|finding| matches!(finding, Finding::Final { .. })) {
            self.sealing.unfinished = 0;
            self.sealing.reseal_ms = RESEAL_MS;
        }
        let mut batch = Batch::default();
        self.sealing.record(&findings, &mut batch);
        if !batch.is_empty() {
            step.write = Some(super::DiskWrite { batch, number: None, cosign: None });
        }
        step.findings = findings;
        step
    }

    /// A refused message that asks to replace what this replica has co-signed: it must stop.
    pub(super) fn guard_cosigned(&mut self, from: ReplicaId, message: &[u8], refused: &MessageRefused) {
        if let MessageRefused::ConflictsWithCommitted { index, ours, theirs } = *refused
            && index <= self.sealing.cosigned.raft_index
        {
            let message = message.to_vec();
            self.sealing.fault = Some(Fault::Fork { from, index, ours, theirs, message });
        }
    }
}
