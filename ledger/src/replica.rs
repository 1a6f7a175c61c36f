//! One replica as a pure core: consensus on the order, the applied log, and the callers that wait for their transactions.
//!
//! The shell hands in what happened (a tick, a message, a submission, a finished write) and carries out the [`Step`]s that come
//! out. The same core runs in production and in simulations.

mod answer;
mod disk;

use std::collections::{BTreeMap, BTreeSet};

pub use answer::{Answer, Fault, Submission, SubmitError};
pub use disk::SnapshotManifest;

use self::disk::{META_APPLIED, META_COMPACTED, META_HARD_STATE, position_bytes, recover, write_log};
use crate::{
    checkpoint::Checkpoint,
    codec,
    consensus::{
        Config, Consensus, MessageRefused, Outgoing, ProposeError, ReadError, ReadId, Ready, Recovered, ReplicaId,
        Role, RoleChange, SnapshotMeta, Status,
    },
    digest::Digest,
    keys::SecretKey,
    log::{Applied, Entry, Log, Refusal},
    machine::StateMachine,
    note::sign_note,
    storage::{Batch, Column, LogStorage, Write, notes::put_note},
};

/// Submissions that may wait for their outcome at the same time.
pub const WAITING_MAX: usize = 10_000;

/// Applied Raft entries after which the Raft log is compacted.
const COMPACT_EVERY: u64 = 4096;

/// Names a waiting caller; chosen by the shell, never used twice.
pub type Ticket = u64;

/// Who this replica is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name of the node; the key name of its checkpoints.
    pub name: String,
    /// Origin line of its checkpoints.
    pub origin: String,
    /// Signs its checkpoints.
    pub log_key: SecretKey,
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
}

/// One atomic write.
#[derive(Debug)]
pub struct DiskWrite {
    /// The changes.
    pub batch: Batch,
    /// When present, the write must be durable, and then be reported with this number to [`Replica::persisted`].
    pub number: Option<u64>,
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
        self.consensus.receive(from, message)
    }

    /// The snapshot in a message for which leaves must be fetched and given to [`Self::catch_up`] before the message is
    /// handed to [`Self::receive`].
    ///
    /// # Errors
    ///
    /// [`MessageRefused`]: throw the message away.
    pub fn wanted(&self, from: ReplicaId, message: &[u8]) -> Result<Option<SnapshotManifest>, MessageRefused> {
        let Some(meta) = self.consensus.peek_snapshot(from, message)? else { return Ok(None) };
        let manifest = SnapshotManifest::decode(&meta.manifest).map_err(|_| MessageRefused::Manifest)?;
        Ok((manifest.size > self.log.size()).then_some(manifest))
    }

    /// Applies leaves fetched from a peer, in order, from the log's size on.
    ///
    /// # Errors
    ///
    /// [`Fault::Diverged`]: what the peer sent is not this chain's history. The leaves before it are kept. After
    /// [`ReplayError::Outcome`](crate::log::ReplayError::Outcome) or
    /// [`ReplayError::WriteSet`](crate::log::ReplayError::WriteSet) the replica must stop and start again from its disk.
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
                    step.entries.push(entry);
                }
                Err(error) => {
                    outcome = Err(Fault::Diverged { index, error });
                    break;
                }
            }
        }
        // After a leaf that contradicts what was computed, the log in memory is no longer that on the disk.
        if !step.entries.is_empty() && outcome.is_ok() {
            self.sign_checkpoint(&mut batch);
        }
        if !step.entries.is_empty() {
            step.write = Some(DiskWrite { batch, number: None });
        }
        (step, outcome)
    }

    /// Brings a transaction onto the ledger. The caller is answered in a later [`Step`], unless the answer is known.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; nothing is waited for.
    pub fn submit(&mut self, ticket: Ticket, envelope: &[u8]) -> Result<Submission, SubmitError> {
        let transaction = match self.log.check(envelope) {
            Ok(transaction) => transaction,
            Err(refusal) => return self.known_although(refusal, envelope),
        };
        if let Some(index) = self.log.find(&transaction, envelope) {
            return Ok(Submission::Known(index));
        }
        if self.tickets.len() >= WAITING_MAX {
            return Err(SubmitError::Busy);
        }
        let digest = Digest::of(envelope);
        let submission = self.propose(digest, envelope)?;
        self.waiting.entry(digest).or_default().insert(ticket);
        self.tickets.insert(ticket, digest);
        Ok(submission)
    }

    /// Proposes a transaction that another replica waits for. This replica must lead.
    ///
    /// # Errors
    ///
    /// [`SubmitError`].
    pub fn propose_for_peer(&mut self, envelope: &[u8]) -> Result<Submission, SubmitError> {
        let transaction = match self.log.check(envelope) {
            Ok(transaction) => transaction,
            Err(refusal) => return self.known_although(refusal, envelope),
        };
        match self.log.find(&transaction, envelope) {
            Some(index) => Ok(Submission::Known(index)),
            None => self.propose(Digest::of(envelope), envelope),
        }
    }

    /// Forgets a caller that no longer waits.
    pub fn forget(&mut self, ticket: Ticket) {
        if let Some(digest) = self.tickets.remove(&ticket)
            && let Some(tickets) = self.waiting.get_mut(&digest)
        {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.waiting.remove(&digest);
            }
        }
        self.reads.retain(|_, waiting| *waiting != ticket);
    }

    /// Begins a linearizable read: the ticket is answered once everything committed by now is applied here.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(&mut self, ticket: Ticket) -> Result<(), ReadError> {
        let read = self.consensus.read_index()?;
        self.reads.insert(read, ticket);
        Ok(())
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
        self.finish_applying(&mut batch, &mut step)?;
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
            step.write = Some(DiskWrite { batch, number: must_sync.then_some(number) });
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

    /// An expired transaction may still be one that is on the ledger; then that is the answer.
    fn known_although(&self, refusal: Refusal, envelope: &[u8]) -> Result<Submission, SubmitError> {
        if let Refusal::Expired { .. } = refusal
            && let Ok(transaction) = crate::transaction::Envelope::open_unverified(envelope)
            && let Some(index) = self.log.find(&transaction, envelope)
        {
            return Ok(Submission::Known(index));
        }
        Err(refusal.into())
    }

    fn propose(&mut self, digest: Digest, envelope: &[u8]) -> Result<Submission, SubmitError> {
        let term = self.consensus.status().term;
        if self.leads() && self.proposed.get(&digest) == Some(&term) {
            return Ok(Submission::Proposed);
        }
        match self.consensus.propose(envelope.to_vec()) {
            Ok(()) => {
                self.proposed.insert(digest, term);
                Ok(Submission::Proposed)
            }
            Err(ProposeError::NotLeader { leader }) => Ok(Submission::Forward(leader)),
            Err(ProposeError::Busy) => Err(SubmitError::Busy),
            Err(error) => Err(SubmitError::Propose(error)),
        }
    }

    fn apply(&mut self, raft_index: u64, payload: &[u8], batch: &mut Batch, step: &mut Step<M>) {
        self.applied = raft_index;
        if payload.is_empty() {
            return;
        }
        let digest = Digest::of(payload);
        self.proposed.remove(&digest);
        let answer = match self.log.apply(raft_index, payload) {
            Applied::Entry(mut entry) => {
                batch.extend(std::mem::take(&mut entry.batch));
                let answer = committed(&entry);
                step.entries.push(entry);
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

    /// Closes a batch of applied entries: position, checkpoint, compaction.
    fn finish_applying(&mut self, batch: &mut Batch, step: &mut Step<M>) -> Result<(), Fault> {
        if self.applied == self.consensus.status().applied {
            return Ok(());
        }
        batch.put(Column::Meta, META_APPLIED, self.applied.to_be_bytes());
        self.consensus.applied(self.applied).map_err(|error| Fault::Order(error.to_string()))?;
        if !step.entries.is_empty() {
            self.sign_checkpoint(batch);
        }
        if self.applied >= self.compacted_at + COMPACT_EVERY {
            self.compact(batch);
        }
        Ok(())
    }

    fn compact(&mut self, batch: &mut Batch) {
        self.compacted_at = self.applied;
        self.offer_snapshot();
        let position = self.consensus.compact(self.applied);
        let end = (position.index + 1).to_be_bytes();
        batch.push(Write::DeleteRange(Column::Raft, 0u64.to_be_bytes().to_vec(), end.to_vec()));
        batch.put(Column::Meta, META_COMPACTED, position_bytes(position));
    }

    /// Lets replicas that lag too far begin at the log as it is applied now.
    fn offer_snapshot(&mut self) {
        let manifest = SnapshotManifest { size: self.log.size(), root: self.log.root() };
        if let Err(error) = self.consensus.set_snapshot(self.applied, codec::encode(&manifest)) {
            tracing::warn!(%error, "no snapshot can be offered to replicas that lag");
        }
    }

    /// Goes on from a snapshot whose leaves are here already.
    fn install(&mut self, snapshot: &SnapshotMeta, batch: &mut Batch) -> Result<(), Fault> {
        let manifest = SnapshotManifest::decode(&snapshot.manifest).map_err(|error| Fault::Order(error.to_string()))?;
        let (size, found) = (self.log.size(), self.log.root());
        if size < manifest.size {
            return Err(Fault::Order(format!("a snapshot of {} entries, the log has {size}", manifest.size)));
        }
        if size == manifest.size && found != manifest.root {
            return Err(Fault::SnapshotRoot { size, expected: manifest.root, found });
        }
        self.applied = snapshot.position.index;
        self.compacted_at = snapshot.position.index;
        self.last_written = snapshot.position.index;
        batch.push(Write::DeleteRange(Column::Raft, 0u64.to_be_bytes().to_vec(), u64::MAX.to_be_bytes().to_vec()));
        batch.put(Column::Meta, META_COMPACTED, position_bytes(snapshot.position));
        batch.put(Column::Meta, META_APPLIED, self.applied.to_be_bytes());
        self.consensus.applied(self.applied).map_err(|error| Fault::Order(error.to_string()))?;
        self.offer_snapshot();
        Ok(())
    }

    fn answer(&mut self, digest: &Digest, answer: &Answer, step: &mut Step<M>) {
        for ticket in self.waiting.remove(digest).unwrap_or_default() {
            self.tickets.remove(&ticket);
            step.answers.push((ticket, answer.clone()));
        }
    }

    /// Signs the head of the log as it is applied now and keeps the note with it.
    fn sign_checkpoint(&mut self, batch: &mut Batch) {
        let Identity { name, origin, log_key } = &self.identity;
        let checkpoint = Checkpoint::new(origin.clone(), self.log.size(), self.log.root());
        let note = checkpoint.map(|checkpoint| sign_note(&checkpoint.to_note_text(), name, log_key));
        match note {
            Ok(Ok(note)) => {
                put_note(batch, name, &note);
                self.checkpoint = note.to_string();
            }
            Ok(Err(error)) => tracing::error!(%error, "the checkpoint could not be signed"),
            Err(error) => tracing::error!(%error, "the checkpoint could not be written"),
        }
    }
}

impl<M: StateMachine> Step<M> {
    const fn empty() -> Self {
        Self { send: Vec::new(), write: None, entries: Vec::new(), answers: Vec::new(), role: None }
    }
}

fn committed<M: StateMachine>(entry: &Entry<M>) -> Answer {
    let rejection = entry.result.as_ref().and_then(|result| result.as_ref().err());
    let reason = rejection.map(ToString::to_string);
    Answer::Committed { index: entry.leaf.index, reason }
}
