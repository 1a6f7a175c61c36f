//! The loop that owns the replica's core (invariant: exactly one task mutates a replica).

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fedledger_federation::{
    Federation,
    conductor::{Conductor, Duty},
};
use fedledger_ledger::{
    consensus::{Outgoing, ReplicaId, Status},
    finality::{Finding, OfferError, Offered},
    replica::{Answer, DiskWrite, Fault, Replica, SnapshotManifest, Step, Submission, Ticket},
    storage::Batch,
};
use fedledger_proto::endpoint::{Endpoint, FrameSender, PeerFrame};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{Event, Finalized, SubmitStage};
use crate::{
    disk::{DiskReport, QueuedWrite},
    duties::Workers,
    findings::Findings,
    peers::Peers,
    shared::SharedView,
};

/// Events and frames taken together before the core is asked what to do: the unit of group commit.
const EVENTS_AT_ONCE: usize = 256;

/// Distance of wake-ups when the conductor asks for none.
const IDLE: Duration = Duration::from_secs(3600);

/// What the task is made of.
pub struct Parts {
    /// The core.
    pub replica: Replica<Federation>,
    /// Decides what is to be done for the rounds.
    pub conductor: Conductor,
    /// Do it.
    pub workers: Workers,
    /// The replicas.
    pub peers: Peers,
    /// To them.
    pub endpoint: Endpoint,
    /// Events from handles and workers.
    pub events: mpsc::Receiver<Event>,
    /// Raft frames from peers.
    pub frames: mpsc::Receiver<PeerFrame>,
    /// To the disk thread.
    pub disk: mpsc::Sender<QueuedWrite>,
    /// From the disk thread.
    pub disk_reports: mpsc::Receiver<DiskReport>,
    /// Length of a Raft tick.
    pub tick: Duration,
    /// Entries that readers may see.
    pub log_size: watch::Sender<u64>,
    /// Where the replica stands.
    pub status: watch::Sender<Status>,
    /// Entries that are final.
    pub finalized: watch::Sender<Finalized>,
    /// The newest head that this replica has signed, for the others.
    pub notes: watch::Sender<Option<String>>,
    /// Keeps what co-signatures bring to light.
    pub findings: Findings,
    /// What the API and the peers' requests are answered from.
    pub view: SharedView,
    /// Fetches leaves for snapshots, or compares them with the log; [`Event::CaughtUp`] is the answer.
    pub fetch: Box<dyn Fn(ReplicaId, SnapshotManifest, u64, Vec<u8>) + Send>,
}

/// Runs until [`Event::Stop`], until every handle is gone, or until the replica must stop.
///
/// # Errors
///
/// The [`Fault`] for which the replica must stop.
pub async fn run(parts: Parts) -> Result<(), Fault> {
    let findings = parts.findings.clone();
    let outcome = Task::new(parts).run().await;
    findings.written().await;
    outcome
}

struct Task {
    parts: Parts,
    started: Instant,
    next_ticket: Ticket,
    callers: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    /// Queues of Raft frames to the other replicas.
    senders: BTreeMap<ReplicaId, FrameSender>,
    /// Whether leaves for a snapshot are being fetched.
    catching_up: bool,
    /// Whether the conductor should look again.
    look: bool,
    stopping: bool,
    /// What nobody waits for: it goes to the disk with the next write, or with the next tick.
    deferred: Batch,
}

impl Task {
    fn new(parts: Parts) -> Self {
        Self {
            parts,
            started: Instant::now(),
            next_ticket: 0,
            callers: BTreeMap::new(),
            senders: BTreeMap::new(),
            catching_up: false,
            look: true,
            stopping: false,
            deferred: Batch::default(),
        }
    }

    async fn run(mut self) -> Result<(), Fault> {
        let outcome = self.serve().await;
        self.write_deferred().await;
        // Dropping the queue lets the disk thread finish what is waiting.
        outcome
    }

    async fn serve(&mut self) -> Result<(), Fault> {
        let mut ticks = interval(self.parts.tick);
        // After a pause, time goes on from here: a burst of ticks would look like an absent leader.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stopping {
            self.parts.replica.clock(unix_ms());
            self.carry_out().await?;
            let wake = self.wake_at();
            tokio::select! {
                biased;
                Some(report) = self.parts.disk_reports.recv() => self.written(report).await?,
                _ = ticks.tick() => {
                    self.parts.replica.tick();
                    self.forget_callers();
                    self.write_deferred().await;
                }
                Some(frame) = self.parts.frames.recv() => self.frame(frame),
                event = self.parts.events.recv() => match event {
                    Some(event) => self.event(event).await?,
                    None => break,
                },
                () = sleep_until(wake) => self.look = true,
            }
            self.take_more().await?;
        }
        Ok(())
    }

    /// Takes what else is waiting, so that it shares one write.
    async fn take_more(&mut self) -> Result<(), Fault> {
        for _ in 0..EVENTS_AT_ONCE {
            if let Ok(report) = self.parts.disk_reports.try_recv() {
                self.written(report).await?;
            } else if let Ok(frame) = self.parts.frames.try_recv() {
                self.frame(frame);
            } else if let Ok(event) = self.parts.events.try_recv() {
                self.event(event).await?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Forgets callers that have gone away without a word.
    fn forget_callers(&mut self) {
        let gone: Vec<Ticket> =
            self.callers.iter().filter(|(_, caller)| caller.is_closed()).map(|(ticket, _)| *ticket).collect();
        for ticket in gone {
            self.callers.remove(&ticket);
            self.parts.replica.forget(ticket);
        }
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let conductor = match self.parts.conductor.wake_at() {
            Some(at_ms) => (self.started + Duration::from_millis(at_ms)).max(now + Duration::from_millis(1)),
            None => now + IDLE,
        };
        match self.parts.replica.seal_due_ms() {
            Some(due_ms) => conductor.min(now + Duration::from_millis(due_ms.saturating_sub(unix_ms()).max(1))),
            None => conductor,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn frame(&mut self, frame: PeerFrame) {
        let Some(from) = self.parts.peers.id(&frame.peer) else { return };
        match self.parts.replica.wanted(from, &frame.bytes) {
            Ok(None) => self.message(from, &frame.bytes),
            Ok(Some(_)) if self.catching_up => {}
            Ok(Some(manifest)) => {
                tracing::info!(%from, size = manifest.size, "going on from a snapshot of the Raft log");
                self.catching_up = true;
                (self.parts.fetch)(from, manifest, self.parts.replica.log().size(), frame.bytes);
            }
            Err(refused) => refuse(from, &refused),
        }
    }

    fn message(&mut self, from: ReplicaId, bytes: &[u8]) {
        if let Err(refused) = self.parts.replica.receive(from, bytes) {
            refuse(from, &refused);
        }
    }

    async fn event(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::Submit { envelope, reply } => self.submit(&envelope, reply),
            Event::Forget(ticket) => {
                self.callers.remove(&ticket);
                self.parts.replica.forget(ticket);
            }
            Event::Read(reply) => self.read(reply),
            Event::Query(question) => question(&self.parts.replica),
            Event::Progress(reply) => {
                let state = self.parts.replica.log().machine();
                let _ = reply.send(self.parts.conductor.progress(state, self.now_ms()));
            }
            Event::Leaves { leaves, reply } => {
                let (step, outcome) = self.parts.replica.catch_up(&leaves);
                self.perform(step).await;
                if let Err(fault) = &outcome {
                    tracing::error!(%fault, "a peer sent entries that do not follow from this replica's");
                }
                let _ = reply.send(outcome.is_ok());
                if let Err(Fault::Diverged { error, index }) = outcome
                    && error.is_divergence()
                {
                    return Err(Fault::Diverged { index, error });
                }
            }
            Event::CaughtUp { from, message, root } => {
                self.catching_up = false;
                if let Some((size, root)) = root {
                    self.parts.replica.compare(size, root);
                }
                if let Some(message) = message {
                    self.message(from, &message);
                }
            }
            Event::Report(report) => {
                let now_ms = self.now_ms();
                self.parts.conductor.report(report, now_ms);
                self.look = true;
            }
            Event::Offer { note, reply } => self.offer(&note, reply).await,
            Event::Vouched { note, root, reply } => {
                let taken = match self.parts.replica.vouched(&note, &root) {
                    Ok(step) => {
                        self.perform(step).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                let _ = reply.send(taken);
            }
            Event::Stop => self.stopping = true,
        }
        Ok(())
    }

    /// Takes a note that a peer, a participant or a client sent.
    async fn offer(&mut self, note: &str, reply: oneshot::Sender<Result<Option<Offered>, OfferError>>) {
        let offered = match self.parts.replica.offer(note) {
            Ok((step, elsewhere)) => {
                self.perform(step).await;
                Ok(elsewhere)
            }
            Err(error) => Err(error),
        };
        let _ = reply.send(offered);
    }

    fn submit(
        &mut self,
        envelope: &[u8],
        reply: oneshot::Sender<Result<SubmitStage, fedledger_ledger::replica::SubmitError>>,
    ) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let stage = self.parts.replica.submit(ticket, envelope).map(|submission| {
            let forward = match submission {
                Submission::Known(index) => return SubmitStage::Known(index),
                Submission::Proposed => None,
                Submission::Forward(leader) => Some(leader),
            };
            let (sender, answer) = oneshot::channel();
            self.callers.insert(ticket, sender);
            SubmitStage::Waiting { ticket, answer, forward }
        });
        let _ = reply.send(stage);
    }

    fn read(&mut self, reply: oneshot::Sender<Option<oneshot::Receiver<Answer>>>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiting = self.parts.replica.read(ticket).ok().map(|()| {
            let (sender, answer) = oneshot::channel();
            self.callers.insert(ticket, sender);
            answer
        });
        let _ = reply.send(waiting);
    }

    async fn written(&mut self, report: DiskReport) -> Result<(), Fault> {
        match report {
            DiskReport::Done { number, cosign, log_size } => {
                if let Some(number) = number {
                    let released = self.parts.replica.persisted(number)?;
                    self.send(released);
                }
                self.parts.log_size.send_if_modified(|size| {
                    let grown = log_size > *size;
                    *size = log_size.max(*size);
                    grown
                });
                if let Some(size) = cosign {
                    let step = self.parts.replica.cosign(size);
                    self.parts.notes.send_replace(self.parts.replica.finality().newest_note());
                    self.perform(step).await;
                }
                Ok(())
            }
            DiskReport::Failed(error) => Err(error.into()),
        }
    }

    /// Asks the core what to do until there is nothing more.
    async fn carry_out(&mut self) -> Result<(), Fault> {
        loop {
            match self.parts.replica.step() {
                Ok(Some(step)) => self.perform(step).await,
                Ok(None) => break,
                Err(fault) => {
                    self.parts.findings.fault(&fault);
                    return Err(fault);
                }
            }
        }
        let status = self.parts.replica.status();
        let leads = self.parts.replica.leads();
        let changed = self.parts.status.send_if_modified(|known| {
            let changed = known.role != status.role || known.leader != status.leader;
            let different = *known != status;
            if different {
                *known = status;
            }
            changed
        });
        if changed || self.look {
            self.look = false;
            let now_ms = self.now_ms();
            let state = self.parts.replica.log().machine();
            let duties: Vec<Duty> = self.parts.conductor.step(state, leads, now_ms);
            for duty in duties {
                self.parts.workers.begin(duty, state);
            }
            self.parts.workers.settle(state);
        }
        Ok(())
    }

    async fn perform(&mut self, step: Step<Federation>) {
        self.send(step.send);
        if let Some(role) = step.role {
            tracing::info!(role = ?role.role, leader = ?role.leader, "the replica's role changed");
            self.look = true;
        }
        if !step.entries.is_empty() {
            self.parts.view.update(self.parts.replica.log().machine(), &step.entries);
            self.look = true;
        }
        if let Some(write) = step.write {
            self.deferred.extend(write.batch);
            if write.number.is_some() || write.cosign.is_some() || !step.entries.is_empty() {
                self.write(write.number, write.cosign).await;
            }
        }
        if !step.findings.is_empty() {
            let finality = self.parts.replica.finality();
            let (final_size, unanimous_size) = (finality.final_size(), finality.unanimous_size());
            let newest = step.findings.iter().rev().find_map(|finding| match finding {
                Finding::Final { time_s, .. } => Some(*time_s),
                _ => None,
            });
            self.parts.finalized.send_modify(|finalized| {
                let time_s = newest.or(finalized.time_s);
                *finalized = Finalized { final_size, unanimous_size, time_s };
            });
            self.parts.findings.keep(step.findings);
        }
        for (ticket, answer) in step.answers {
            if let Some(caller) = self.callers.remove(&ticket) {
                let _ = caller.send(answer);
            }
        }
    }

    /// Hands everything that is to be written to the disk thread.
    async fn write(&mut self, number: Option<u64>, cosign: Option<u64>) {
        let write = DiskWrite { batch: std::mem::take(&mut self.deferred), number, cosign };
        let queued = QueuedWrite { write, log_size: self.parts.replica.log().size() };
        if self.parts.disk.send(queued).await.is_err() {
            tracing::error!("the disk thread has ended");
        }
    }

    async fn write_deferred(&mut self) {
        if !self.deferred.is_empty() {
            self.write(None, None).await;
        }
    }

    /// The queue to a replica under the transport key that it has now.
    fn sender(&mut self, to: ReplicaId) -> Option<&FrameSender> {
        let key = self.parts.peers.key(to)?;
        if self.senders.get(&to).is_none_or(|sender| sender.peer() != key) {
            self.senders.insert(to, self.parts.endpoint.raft_sender(key));
        }
        self.senders.get(&to)
    }

    fn send(&mut self, messages: Vec<Outgoing>) {
        for message in messages {
            let sent = self.sender(message.to).map(|sender| sender.try_send(message.bytes));
            if !matches!(sent, Some(Ok(()))) {
                self.parts.replica.unreachable(message.to);
                if message.is_snapshot {
                    self.parts.replica.snapshot_failed(message.to);
                }
            }
        }
    }
}

/// Milliseconds since the Unix epoch; 0 for a clock that was never set, with which nobody agrees.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn refuse(from: ReplicaId, refused: &fedledger_ledger::consensus::MessageRefused) {
    if refused.is_suspicious() {
        tracing::warn!(%from, %refused, "a replica sent a message that no honest replica sends");
    } else {
        tracing::debug!(%from, %refused, "a message was not taken");
    }
}
