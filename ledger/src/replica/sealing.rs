//! Sealing: when the leader proposes a seal, and what this replica co-signs.
//!
//! A replica co-signs the head of every seal that it applies while the seal's time agrees with its clock. It first makes
//! durable what it is about to sign, and with it everything under the head; only then does it sign. So it can never sign
//! another head of that size or a shorter one, whatever happens to it in between.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Fault, Identity, Replica, Step, proven::ProvenStates};
use crate::{
    checkpoint::Checkpoint,
    codec,
    consensus::{MessageRefused, ReplicaId},
    digest::Digest,
    epoch::{Epoch, cosigner_name},
    finality::{Cosignature, Finality, Finding, OfferError, Offered, SealedHead, Transition},
    leaf::Leaf,
    log::{EpochInForce, Log, read_epochs, read_root},
    machine::StateMachine,
    note::{NoteError, NoteSignature, SignedNote},
    storage::{
        Batch, Column, LogStorage, StorageError,
        notes::{epoch_note, put_note, read_note},
    },
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
pub(super) const RESEAL_MS: u64 = 1000;
pub(super) const RESEAL_MS_MAX: u64 = 60_000;

/// How long a leader's seals may stay without one that becomes final before it lets another replica lead, in
/// milliseconds: its clock may be wrong. It doubles up to the other, for replicas that make heads final may be missing,
/// too.
pub(super) const PATIENCE_MS: u64 = 5000;
pub(super) const PATIENCE_MS_MAX: u64 = 60_000;

/// Seals not final yet whose times are remembered.
const SEAL_TIMES_KEPT: usize = 256;

/// Heads that may wait for the disk; beyond it the oldest are not signed.
const UNSIGNED_MAX: usize = 256;

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

/// A head that is to be signed once everything under it is durable.
#[derive(Debug)]
struct Unsigned {
    text: String,
    /// Whether its seal ends an epoch.
    is_last_of_epoch: bool,
}

/// Where a replica stands with seals.
#[derive(Debug)]
pub(super) struct Sealing {
    pub finality: Finality,
    pub cosigned: Cosigned,
    /// Time of the newest seal whose head is final, as far as that is known since the start.
    pub final_time_ms: u64,
    /// Times of the seals after it, by the size of the head.
    pub times: BTreeMap<u64, u64>,
    pub pace: SealPace,
    /// Milliseconds since the Unix epoch, as last told.
    pub now_ms: u64,
    /// When this replica last proposed a seal.
    pub proposed_ms: u64,
    /// Whether that seal is still under way.
    pub under_way: bool,
    /// Wait before the last head is sealed again.
    pub reseal_ms: u64,
    /// Since when this leader has waited for a head to become final.
    pub waiting_since_ms: Option<u64>,
    /// How long it waits before it lets another replica lead.
    pub patience_ms: u64,
    /// The replica that was last asked to lead instead.
    pub handed_to: ReplicaId,
    /// Seals applied in this step, with their Raft indexes and times.
    pub heads: Vec<(SealedHead, u64, u64)>,
    /// Heads whose records are being written, by size.
    unsigned: BTreeMap<u64, Unsigned>,
    /// The epoch in force.
    pub epoch: Arc<Epoch>,
    /// The states that recent seals fix.
    pub proven: ProvenStates,
    /// Why this replica must stop.
    pub fault: Option<Fault>,
}

impl Sealing {
    /// Goes on from the storage; `id` is this replica.
    pub fn open<M: StateMachine, S: LogStorage + ?Sized>(
        id: ReplicaId,
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
        let root = read_root(storage, cosigned.size)?;
        if cosigned.size > 0 && root != cosigned.root {
            return Err(Fault::CosignedChanged { size: cosigned.size, cosigned: cosigned.root, found: root });
        }
        let size_of = |name: &str| -> Result<u64, Fault> {
            let note = read_note(storage, name)?.and_then(|note| SignedNote::parse(&note).ok());
            Ok(note.and_then(|note| Checkpoint::parse(note.text()).ok()).map_or(0, |checkpoint| checkpoint.size()))
        };
        let epoch = Arc::new(log.sealed().epoch.clone());
        let (final_size, unanimous_size) = (size_of(FINAL_NOTE)?, size_of(UNANIMOUS_NOTE)?);
        let unvouched = unvouched(storage)?;
        let mut finality = Finality::new(origin.to_owned(), Arc::clone(&epoch), unvouched, final_size, unanimous_size);
        let sealed = log.sealed();
        let mut times = BTreeMap::new();
        if sealed.number > 0 {
            let size = sealed.index.saturating_add(1);
            let root = read_root(storage, size)?;
            let resumed = finality.resume(size, root, Arc::new(sealed.head_epoch().clone()));
            resumed.map_err(|error| Fault::Order(error.to_string()))?;
            times.insert(size, sealed.time_ms);
            // What was known of the newest head, so that a quiet consortium does not wait for the next one.
            for name in [FINAL_NOTE, UNANIMOUS_NOTE] {
                if let Some(note) = read_note(storage, name)? {
                    // A note about another head says nothing of this one.
                    let _ = finality.offer(&note);
                }
            }
        }
        Ok(Self {
            finality,
            cosigned,
            final_time_ms: if final_size > sealed.index { sealed.time_ms } else { 0 },
            times,
            pace: SealPace::default(),
            now_ms: 0,
            proposed_ms: 0,
            under_way: false,
            reseal_ms: RESEAL_MS,
            waiting_since_ms: None,
            patience_ms: PATIENCE_MS,
            handed_to: id,
            heads: Vec::new(),
            unsigned: BTreeMap::new(),
            epoch,
            proven: ProvenStates::open(log, final_size),
            fault: None,
        })
    }

    /// Takes note of a seal that was applied just now; `log` ends with it.
    pub fn applied<M: StateMachine>(&mut self, leaf: &Leaf, log: &Log<M>) {
        let Some(seal) = &leaf.seal else { return };
        self.under_way = false;
        self.proven.sealed(log);
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

    /// Registers the heads of the seals applied in this step.
    pub fn register(&mut self, findings: &mut Vec<Finding>) -> Vec<(SealedHead, u64, u64)> {
        let heads = std::mem::take(&mut self.heads);
        for (head, _, time_ms) in &heads {
            self.times.insert(head.size, *time_ms);
            if self.times.len() > SEAL_TIMES_KEPT {
                self.times.pop_first();
            }
            match self.finality.sealed(head) {
                Ok(found) => findings.extend(found),
                Err(error) => tracing::error!(%error, "a head cannot be written as a checkpoint"),
            }
        }
        heads
    }

    /// The size of the newest of these heads that this replica is to co-sign, once `batch` is durable; older ones that it is
    /// to co-sign as well are remembered with it.
    pub fn prepare(
        &mut self,
        heads: Vec<(SealedHead, u64, u64)>,
        identity: &Identity,
        batch: &mut Batch,
    ) -> Option<u64> {
        let due: Vec<_> = heads.into_iter().filter(|(head, _, time)| self.may_cosign(identity, head, *time)).collect();
        // Of heads that come at once the newest stands for the others, but for one: by the head of the seal that ends an
        // epoch its replicas vouch for the next, and no later head does that in its place once keys have changed.
        for (head, ..) in &due {
            let is_last_of_epoch = head.epoch.number != head.next_epoch.number;
            let text = Checkpoint::new(identity.origin.clone(), head.size, head.root).ok()?.to_note_text();
            self.unsigned.insert(head.size, Unsigned { text, is_last_of_epoch });
        }
        let (head, raft_index, time_ms) = due.into_iter().next_back()?;
        self.cosigned = Cosigned { size: head.size, root: head.root, raft_index, time_ms };
        batch.put(Column::Meta, META_COSIGNED, codec::encode(&self.cosigned));
        while self.unsigned.len() > UNSIGNED_MAX {
            self.unsigned.pop_first();
        }
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
        // What is not final does not count: a leader that was years ahead has co-signed its own seals, and must be of
        // use again once its clock is right.
        if time_ms < self.final_time_ms {
            tracing::warn!(size = head.size, time_ms, "a seal is earlier than what is final: it is not co-signed");
            return false;
        }
        true
    }

    /// Signs the newest head of at most this size: everything under it is durable now.
    pub fn sign(&mut self, identity: &Identity, size: u64) -> Result<Vec<Finding>, NoteError> {
        if self.fault.is_some() {
            return Ok(Vec::new());
        }
        let later = self.unsigned.split_off(&size.saturating_add(1));
        let durable = std::mem::replace(&mut self.unsigned, later);
        let newest = durable.last_key_value().map(|(size, _)| *size);
        let mut findings = Vec::new();
        for (size, Unsigned { text, is_last_of_epoch }) in durable {
            if is_last_of_epoch || Some(size) == newest {
                findings.extend(self.sign_head(identity, size, &text)?);
            }
        }
        Ok(findings)
    }

    fn sign_head(&mut self, identity: &Identity, size: u64, text: &str) -> Result<Vec<Finding>, NoteError> {
        let time_s = self.now_ms / 1000;
        let name = cosigner_name(&identity.origin, &identity.name);
        let log = NoteSignature::sign(text, &identity.origin, &identity.log_key)?;
        let line = NoteSignature::cosign(text, &name, &identity.cosign_key, time_s)?;
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
                Finding::Final { size, note, .. } => {
                    self.proven.settled(*size);
                    put_note(batch, FINAL_NOTE, note);
                    self.final_time_ms = self.times.get(size).copied().unwrap_or(self.final_time_ms);
                    self.times = self.times.split_off(size);
                    self.waiting_since_ms = None;
                    (self.patience_ms, self.reseal_ms) = (PATIENCE_MS, RESEAL_MS);
                }
                Finding::Unanimous { size, note } => {
                    put_note(batch, UNANIMOUS_NOTE, note);
                    // The last co-signature may come when a later head is final already.
                    if *size >= self.finality.final_size() {
                        put_note(batch, FINAL_NOTE, note);
                    }
                }
                Finding::EpochVouchedFor { number, note } => put_note(batch, &epoch_note(*number), note),
                Finding::Disagreement { .. } | Finding::Uncounted(_) | Finding::Equivocation { .. } => {}
            }
        }
    }
}

impl<M: StateMachine> Replica<M> {
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

    /// Takes the note by which an epoch was vouched for while this replica was away, see [`Finality::vouched`].
    ///
    /// # Errors
    ///
    /// [`OfferError`]; nothing was taken from it.
    pub fn vouched(&mut self, note: &str, root: &Digest) -> Result<Step<M>, OfferError> {
        let findings = self.sealing.finality.vouched(note, root)?;
        Ok(self.found(findings))
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

/// The changes of epoch for which nobody has vouched yet, the oldest first.
fn unvouched<S: LogStorage + ?Sized>(storage: &S) -> Result<Vec<Transition>, StorageError> {
    let mut transitions = Vec::new();
    let mut before: Option<Arc<Epoch>> = None;
    for EpochInForce { epoch, size } in read_epochs(storage)? {
        let epoch = Arc::new(epoch);
        if let Some(from) = before.replace(Arc::clone(&epoch))
            && read_note(storage, &epoch_note(epoch.number))?.is_none()
        {
            transitions.push(Transition { from, to: epoch.number, size });
        }
    }
    Ok(transitions)
}
