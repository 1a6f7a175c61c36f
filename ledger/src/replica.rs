//! One replica as a pure core: consensus on the order, the applied log, and the callers that wait for their transactions.
//!
//! The shell hands in what happened (a tick, a message, a submission, a finished write) and carries out the [`Step`]s that come
//! out. The same core runs in production and in simulations.

mod answer;
mod disk;
mod intake;
mod proposing;
mod proven;
mod sealing;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};

pub use answer::{Answer, Fault, Submission, SubmitError};
pub use disk::SnapshotManifest;
pub use sealing::{Cosigned, SEAL_ENTRIES, SEAL_INTERVAL_MS, SEAL_TIME_TOLERANCE_MS, SealPace};

use self::{
    disk::{META_APPLIED, META_COMPACTED, META_HARD_STATE, position_bytes, recover, write_log},
    sealing::Sealing,
};
use crate::{
    checkpoint::Checkpoint,
    consensus::{
        Config, Consensus, MessageRefused, Outgoing, ReadId, Ready, Recovered, ReplicaId, Role, RoleChange, Status,
    },
    digest::Digest,
    finality::Finding,
    keys::SecretKey,
    log::{Applied, Entry, Log},
    machine::StateMachine,
    note::sign_note,
    storage::{Batch, Column, LogStorage, notes::put_note},
};

/// Submissions that may wait for their outcome at the same time.
pub const WAITING_MAX: usize = 10_000;

/// Applied Raft entries after which the Raft log is compacted.
const COMPACT_EVERY: u64 = 4096;

/// Under which name the signed head of everything that is applied is kept.
const HEAD_NOTE: &str = "head";

/// Names a waiting caller; chosen by the shell, never used twice.
pub type Ticket = u64;

/// Who this replica is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name of the node.
    pub name: String,
    /// Origin line of the log's checkpoints, and the key name of those that replicas sign in the name of the log.
    pub origin: String,
    /// Signs checkpoints in the name of the log.
    pub log_key: SecretKey,
    /// Co-signs checkpoints in the node's own name.
    pub cosign_key: SecretKey,
    /// Signs the node's transactions, seals among them.
    pub transaction_key: SecretKey,
}

/// A replica's core. See the module's documentation.
pub struct Replica<M: StateMachine> {
    identity: Identity,
    consensus: Consensus,
    log: Log<M>,
    /// Raft index up to which `log` is applied.
    applied: u64,
    /// Raft index at which the log was last compacted.
    compacted_at: u64,
    /// Raft index of the last entry on the disk.
    last_written: u64,
    /// Tickets by the envelope that they wait for.
    waiting: BTreeMap<Digest, BTreeSet<Ticket>>,
    /// The inverse of `waiting`.
    tickets: BTreeMap<Ticket, Digest>,
    /// Envelopes proposed by this replica as the leader of the term beside them, not applied yet.
    proposed: BTreeMap<Digest, u64>,
    reads: BTreeMap<ReadId, Ticket>,
    /// Reads that wait until the log is applied up to an index.
    reads_at: BTreeMap<u64, Vec<Ticket>>,
    checkpoint: String,
    sealing: Sealing,
    /// A size below that of the log, and the root there, for the snapshot that comes next.
    compared: Option<(u64, Digest)>,
}

/// What the shell is to do, in the order of the fields.
#[derive(Debug)]
pub struct Step<M: StateMachine> {
    /// Send these at once.
    pub send: Vec<Outgoing>,
    /// Write this.
    pub write: Option<DiskWrite>,
    /// What was applied, in order.
    pub entries: Vec<Entry<M>>,
    /// What callers were waiting for.
    pub answers: Vec<(Ticket, Answer)>,
    /// What this replica has become, if that changed.
    pub role: Option<RoleChange>,
    /// What co-signatures have brought to light.
    pub findings: Vec<Finding>,
}

/// One atomic write.
#[derive(Debug)]
pub struct DiskWrite {
    /// The changes.
    pub batch: Batch,
    /// When present, the write must be durable, and then be reported with this number to [`Replica::persisted`].
    pub number: Option<u64>,
    /// When present, the write must be durable, and then be reported with this size to [`Replica::cosign`].
    pub cosign: Option<u64>,
}

impl<M: StateMachine> Replica<M> {
    /// The replica as `storage` has it, or a new one that begins with the genesis file, which is then written at once.
    ///
    /// # Errors
    ///
    /// [`Fault`]; the node must not start.
    pub fn open<S: LogStorage + ?Sized>(
        identity: Identity,
        config: Config,
        voters: Vec<ReplicaId>,
        genesis: &[u8],
        storage: &S,
    ) -> Result<Self, Fault> {
        let fresh = Recovered::empty(voters.iter().copied());
        let (log, recovered) = match Log::<M>::load(storage)? {
            Some(log) => {
                let expected = Digest::of(genesis);
                if *log.chain() != expected {
                    return Err(Fault::OtherChain { expected, found: *log.chain() });
                }
                (log, recover(storage, fresh)?)
            }
            None => {
                let (log, mut batch) = Log::genesis(genesis).map_err(Fault::Genesis)?;
                batch.put(Column::Meta, META_HARD_STATE, fresh.hard_state.to_bytes());
                batch.put(Column::Meta, META_APPLIED, fresh.applied.to_be_bytes());
                batch.put(Column::Meta, META_COMPACTED, position_bytes(fresh.compacted));
                storage.write(&batch, true)?;
                (log, fresh)
            }
        };
        let (applied, compacted_at) = (recovered.applied, recovered.compacted.index);
        let sealing = Sealing::open(config.id, &identity.origin, &log, storage)?;
        let last_written = recovered.entries.last().map_or(compacted_at, |entry| entry.index);
        let mut replica = Self {
            consensus: Consensus::new(config, recovered)?,
            identity,
            log,
            applied,
            compacted_at,
            last_written,
            waiting: BTreeMap::new(),
            tickets: BTreeMap::new(),
            proposed: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_at: BTreeMap::new(),
            checkpoint: String::new(),
            sealing,
            compared: None,
        };
        replica.sign_checkpoint(&mut Batch::default());
        replica.offer_snapshot();
        Ok(replica)
    }

    /// Lets a tick of time pass.
    pub fn tick(&mut self) {
        self.consensus.tick();
    }

    /// Stands for election at once, as the first replica of a new cluster does.
    pub fn campaign(&mut self) {
        self.consensus.campaign();
    }

    /// Takes a peer's message. A snapshot is taken only once the log holds what it describes; see [`Self::wanted`].
    ///
    /// # Errors
    ///
    /// [`MessageRefused`]; nothing was changed.
    pub fn receive(&mut self, from: ReplicaId, message: &[u8]) -> Result<(), MessageRefused> {
        let received = self.consensus.receive(from, message);
        if let Err(refused) = &received {
            self.guard_cosigned(from, message, refused);
        }
        received
    }

    /// Applies leaves fetched from a peer, in order, from the log's size on.
    ///
    /// # Errors
    ///
    /// [`Fault::Diverged`]: what the peer sent is not this chain's history. The leaves before it are kept. After a
    /// [divergence](crate::log::ReplayError::is_divergence) the replica must stop and start again from its disk.
    pub fn catch_up(&mut self, leaves: &[Vec<u8>]) -> (Step<M>, Result<(), Fault>) {
        let mut step = Step::empty();
        let mut batch = Batch::default();
        let mut outcome = Ok(());
        for leaf in leaves {
            let index = self.log.size();
            match self.log.replay(leaf) {
                Ok(mut entry) => {
                    batch.extend(std::mem::take(&mut entry.batch));
                    self.answer(&Digest::of(&entry.leaf.envelope), &committed(&entry), &mut step);
                    self.sealing.applied(&entry.leaf, &self.log);
                    step.entries.push(entry);
                }
                Err(error) => {
                    outcome = Err(Fault::Diverged { index, error });
                    break;
                }
            }
        }
        // Nothing of this is signed: one peer says that this is the history, not yet the replicas.
        self.sealing.register(&mut step.findings);
        self.sealing.record(&step.findings, &mut batch);
        if !step.entries.is_empty() {
            step.write = Some(DiskWrite { batch, number: None, cosign: None });
        }
        (step, outcome)
    }

    /// Takes note that the write of this number, and all before it, are durable. Returns what may be sent now.
    ///
    /// # Errors
    ///
    /// [`Fault::Order`] for a number that was never handed out.
    pub fn persisted(&mut self, number: u64) -> Result<Vec<Outgoing>, Fault> {
        self.consensus.persisted(number).map_err(|error| Fault::Order(error.to_string()))
    }

    /// What is to be done next, if anything.
    ///
    /// # Errors
    ///
    /// [`Fault`]; the node must stop.
    pub fn step(&mut self) -> Result<Option<Step<M>>, Fault> {
        if let Some(fault) = self.sealing.fault.take() {
            return Err(fault);
        }
        let Some(ready) = self.consensus.ready() else { return Ok(None) };
        let Ready { number, messages, snapshot, log, committed, reads, lost_reads, role } = ready;
        let mut step = Step::empty();
        step.send = messages;
        step.role = role;
        if role.is_some_and(|change| change.role != Role::Leader) {
            // What this replica proposed may have been replaced; it may be proposed again.
            self.proposed.clear();
        }
        let mut batch = Batch::default();
        let must_sync = log.as_ref().is_some_and(|log| log.must_sync);
        if let Some(snapshot) = snapshot {
            self.install(&snapshot, &mut batch)?;
        }
        if let Some(log) = log {
            write_log(&log, &mut self.last_written, &mut batch);
        }
        for entry in committed {
            self.apply(entry.index, &entry.payload, &mut batch, &mut step);
        }
        let cosign = self.finish_applying(&mut batch, &mut step)?;
        for (read, index) in reads {
            if let Some(ticket) = self.reads.remove(&read) {
                self.reads_at.entry(index).or_default().push(ticket);
            }
        }
        while let Some(entry) = self.reads_at.first_entry().filter(|entry| *entry.key() <= self.applied) {
            step.answers.extend(entry.remove().into_iter().map(|ticket| (ticket, Answer::Read)));
        }
        let lost = lost_reads.iter().filter_map(|read| self.reads.remove(read));
        step.answers.extend(lost.map(|ticket| (ticket, Answer::ReadLost)));
        if must_sync || !batch.is_empty() {
            step.write = Some(DiskWrite { batch, number: must_sync.then_some(number), cosign });
        }
        Ok(Some(step))
    }

    /// Takes note that messages to `peer` may be lost.
    pub fn unreachable(&mut self, peer: ReplicaId) {
        self.consensus.unreachable(peer);
    }

    /// Takes note that a snapshot for `peer` was not delivered.
    pub fn snapshot_failed(&mut self, peer: ReplicaId) {
        self.consensus.snapshot_failed(peer);
    }

    /// Where the replica stands in the consensus.
    pub fn status(&self) -> Status {
        self.consensus.status()
    }

    /// The applied log.
    pub const fn log(&self) -> &Log<M> {
        &self.log
    }

    /// The replica's signed checkpoint of the applied log (C2SP signed note).
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.consensus.status().role == Role::Leader
    }

    fn apply(&mut self, raft_index: u64, payload: &[u8], batch: &mut Batch, step: &mut Step<M>) {
        self.applied = raft_index;
        if payload.is_empty() {
            return;
        }
        let digest = Digest::of(payload);
        // What was proposed or waited for here was checked first: the signature need not be verified twice.
        let is_checked = self.proposed.remove(&digest).is_some() || self.waiting.contains_key(&digest);
        let apply = if is_checked { Log::apply_known_valid } else { Log::apply };
        let answer = match apply(&mut self.log, raft_index, payload) {
            Applied::Entry(mut entry) => {
                batch.extend(std::mem::take(&mut entry.batch));
                let answer = committed(&entry);
                self.sealing.applied(&entry.leaf, &self.log);
                step.entries.push(*entry);
                answer
            }
            Applied::Duplicate(index) => Answer::Committed { index, reason: None },
            Applied::Refused(refusal) => {
                tracing::warn!(raft_index, %refusal, "a committed transaction became no leaf");
                Answer::Refused(refusal)
            }
            Applied::Known => return,
        };
        self.answer(&digest, &answer, step);
    }

    /// Closes a batch of applied entries: position, checkpoint, compaction, and the size of a head to be co-signed.
    fn finish_applying(&mut self, batch: &mut Batch, step: &mut Step<M>) -> Result<Option<u64>, Fault> {
        if self.applied == self.consensus.status().applied {
            return Ok(None);
        }
        batch.put(Column::Meta, META_APPLIED, self.applied.to_be_bytes());
        self.consensus.applied(self.applied).map_err(|error| Fault::Order(error.to_string()))?;
        if !step.entries.is_empty() {
            self.sign_checkpoint(batch);
        }
        if self.applied >= self.compacted_at + COMPACT_EVERY {
            self.compact(batch);
        }
        let heads = self.sealing.register(&mut step.findings);
        let cosign = self.sealing.prepare(heads, &self.identity, batch);
        self.sealing.record(&step.findings, batch);
        Ok(cosign)
    }

    /// Signs the head of the log as it is applied now and keeps the note with it.
    fn sign_checkpoint(&mut self, batch: &mut Batch) {
        let Identity { origin, log_key, .. } = &self.identity;
        let checkpoint = Checkpoint::new(origin.clone(), self.log.size(), self.log.root());
        let note = checkpoint.map(|checkpoint| sign_note(&checkpoint.to_note_text(), origin, log_key));
        match note {
            Ok(Ok(note)) => {
                self.checkpoint = note.to_string();
                put_note(batch, HEAD_NOTE, &self.checkpoint);
            }
            Ok(Err(error)) => tracing::error!(%error, "the checkpoint could not be signed"),
            Err(error) => tracing::error!(%error, "the checkpoint could not be written"),
        }
    }
}

impl<M: StateMachine> Step<M> {
    const fn empty() -> Self {
        Self {
            send: Vec::new(),
            write: None,
            entries: Vec::new(),
            answers: Vec::new(),
            role: None,
            findings: Vec::new(),
        }
    }
}

fn committed<M: StateMachine>(entry: &Entry<M>) -> Answer {
    let rejection = entry.result.as_ref().and_then(|result| result.as_ref().err());
    let reason = rejection.map(ToString::to_string);
    Answer::Committed { index: entry.leaf.index, reason }
}
