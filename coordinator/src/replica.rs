//! The one task that owns the replica's core, and the handle by which everybody else talks to it.
//!
//! Whatever happens comes in as an [`Event`]; the task lets the core digest it and carries out what the core says, in the
//! core's order: messages out, writes to the disk thread, answers to callers, duties to the workers.

mod task;

use std::{sync::Arc, time::Duration};

use fedledger_federation::{Federation, progress::PlanProgress};
use fedledger_ledger::{
    Digest,
    consensus::{ReplicaId, Status},
    finality::{OfferError, Offered},
    log::read_leaf,
    replica::{Answer, Replica, SubmitError, Ticket},
    storage::{LogStorage, StorageError},
};
use fedledger_proto::api::Level;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

pub use task::{Parts, run};

/// Events that may wait for the task.
pub const EVENTS_WAITING_MAX: usize = 4096;

/// How long a submission is tried before its caller is told that its fate is unknown.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long one attempt is waited for before it is made again; the same transaction has one outcome, so this is safe.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the co-signatures of an entry are waited for.
pub const LEVEL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a change of leadership is waited for before looking again.
const LEADER_WAIT: Duration = Duration::from_millis(50);

/// Attempts at a linearizable read.
const READ_ATTEMPTS: usize = 20;

/// A question about the replica, answered in its task between two events.
pub type Query = Box<dyn FnOnce(&Replica<Federation>) + Send>;

/// What can happen to a replica from outside.
#[expect(clippy::large_enum_variant, reason = "the queue is bounded, and a box would cost every message an allocation")]
pub enum Event {
    /// Somebody submits a transaction.
    Submit {
        /// The signed envelope.
        envelope: Vec<u8>,
        /// How the submission goes on.
        reply: oneshot::Sender<Result<SubmitStage, SubmitError>>,
    },
    /// A caller no longer waits.
    Forget(Ticket),
    /// Somebody wants to read everything that is committed by now.
    Read(oneshot::Sender<Option<oneshot::Receiver<Answer>>>),
    /// Somebody asks about the state.
    Query(Query),
    /// Leaves fetched from a peer for a snapshot.
    Leaves {
        /// The leaves in order.
        leaves: Vec<Vec<u8>>,
        /// Whether they were taken.
        reply: oneshot::Sender<bool>,
    },
    /// The leaves that a snapshot needs are here, or could not be had.
    CaughtUp {
        /// Who sent the snapshot.
        from: ReplicaId,
        /// The snapshot's message; none if the leaves could not be had.
        message: Option<Vec<u8>>,
        /// Where the log was longer than the snapshot: the snapshot's size, and the log's root there.
        root: Option<(u64, Digest)>,
    },
    /// Somebody hands over a co-signed note.
    Offer {
        /// The note, encoded.
        note: String,
        /// What is to be compared with the log itself.
        reply: oneshot::Sender<Result<Option<Offered>, OfferError>>,
    },
    /// Somebody hands over the note by which an epoch was vouched for.
    Vouched {
        /// The note, encoded.
        note: String,
        /// Root of the log at the size of its head.
        root: Digest,
        /// Whether it is taken.
        reply: oneshot::Sender<Result<(), OfferError>>,
    },
    /// Somebody asks where the plans stand.
    Progress(oneshot::Sender<Vec<PlanProgress>>),
    /// What became of a duty.
    Report(fedledger_federation::conductor::Report),
    /// The node stops.
    Stop,
}

/// How many entries are final.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Finalized {
    /// Entries under a head that enough replicas have co-signed.
    pub final_size: u64,
    /// Entries under a head that all replicas have co-signed.
    pub unanimous_size: u64,
    /// Trusted time of the final head, in seconds since the Unix epoch; none until a head becomes final in this process.
    pub time_s: Option<u64>,
}

impl Finalized {
    /// Entries that have reached a level; of `size` in the log.
    pub fn size_at(&self, level: Level, size: u64) -> u64 {
        // Co-signatures of others may be here before the own disk has the entries.
        match level {
            Level::Accepted | Level::Committed => size,
            Level::Final => size.min(self.final_size),
            Level::Unanimous => size.min(self.unanimous_size),
        }
    }

    /// The highest level that an entry of the log has reached.
    pub const fn level_of(&self, index: u64) -> Level {
        if self.unanimous_size > index {
            Level::Unanimous
        } else if self.final_size > index {
            Level::Final
        } else {
            Level::Committed
        }
    }
}

/// How a submission goes on.
#[derive(Debug)]
pub enum SubmitStage {
    /// It is at this index already.
    Known(u64),
    /// The answer will come.
    Waiting {
        /// Names the caller, for [`Event::Forget`].
        ticket: Ticket,
        /// The answer.
        answer: oneshot::Receiver<Answer>,
        /// Send it to this replica, where it is not this one that leads.
        forward: Option<Option<ReplicaId>>,
    },
}

/// A transaction that is on the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Index of its leaf.
    pub index: u64,
    /// The leaf.
    pub leaf: Vec<u8>,
    /// Why it was rejected, in words, where that is known.
    pub reason: Option<String>,
}

/// Why a transaction is not on the ledger, or its fate is unknown.
#[derive(Debug, thiserror::Error)]
pub enum SubmitFailure {
    /// It is no valid transaction now, or too much is under way.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// No leader took it in time.
    #[error("no leader could be reached within {} s: a majority of replicas is down; submitting the same transaction again is safe", SUBMIT_TIMEOUT.as_secs())]
    NoLeader,
    /// It is for a leader to decide, and this replica does not lead.
    #[error("this replica does not lead: whichever does decides anew")]
    NotLeader,
    /// It was proposed but not committed in time.
    #[error("not committed within {} s: its fate is unknown; submitting the same transaction again is safe", SUBMIT_TIMEOUT.as_secs())]
    TimedOut,
    /// It may expire before it must be on the ledger by promise.
    #[error(
        "the transaction may expire at log index {not_after_index}, before index {by_index} by which it would be promised to \
         be on the log: sign it anew with a later expiry, or wait until it is committed"
    )]
    ExpiresTooSoon {
        /// Its expiry.
        not_after_index: u64,
        /// Index of the promise.
        by_index: u64,
    },
    /// Reading the leaf failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system gives no randomness for a transaction of the replica's own.
    #[error("the system gives no randomness: {0}")]
    Randomness(String),
    /// The node stops.
    #[error("the replica is stopping")]
    Stopping,
}

impl SubmitFailure {
    /// Whether submitting the same transaction again may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Refused(error) => !matches!(error, SubmitError::Refused(_) | SubmitError::Seal),
            Self::NoLeader | Self::TimedOut => true,
            Self::NotLeader | Self::ExpiresTooSoon { .. } | Self::Storage(_) | Self::Randomness(_) | Self::Stopping => {
                false
            }
        }
    }
}

/// Talks to the replica's task. Clones talk to the same one.
#[derive(Clone)]
pub struct Handle {
    events: mpsc::Sender<Event>,
    storage: Arc<dyn LogStorage>,
    log_size: watch::Receiver<u64>,
    status: watch::Receiver<Status>,
    finalized: watch::Receiver<Finalized>,
    forwarder: Arc<dyn Forward>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("log_size", &*self.log_size.borrow()).finish_non_exhaustive()
    }
}

/// The way to the leader for transactions that were submitted to another replica.
pub trait Forward: Send + Sync + 'static {
    /// Sends an envelope to a replica; returns when it has an outcome there, or failed.
    fn forward(
        &self,
        to: ReplicaId,
        envelope: Vec<u8>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}

/// Which leader may bring a transaction onto the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    AnyLeader,
    OwnLeadership,
}

impl Handle {
    /// A handle to the task that takes these events.
    pub fn new(
        events: mpsc::Sender<Event>,
        storage: Arc<dyn LogStorage>,
        log_size: watch::Receiver<u64>,
        status: watch::Receiver<Status>,
        finalized: watch::Receiver<Finalized>,
        forwarder: Arc<dyn Forward>,
    ) -> Self {
        Self { events, storage, log_size, status, finalized, forwarder }
    }

    /// Brings a transaction onto the ledger, through whichever replica leads, and waits for its outcome here.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`].
    pub async fn submit(&self, envelope: Vec<u8>) -> Result<Submitted, SubmitFailure> {
        self.submit_through(envelope, Through::AnyLeader).await
    }

    /// The same for what only a leader decides: if this replica leads no more, another one has decided anew, and what this one
    /// had in mind is dropped.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`]; of a replica that does not lead it is [`SubmitFailure::NotLeader`].
    pub async fn submit_as_leader(&self, envelope: Vec<u8>) -> Result<Submitted, SubmitFailure> {
        self.submit_through(envelope, Through::OwnLeadership).await
    }

    async fn submit_through(&self, envelope: Vec<u8>, through: Through) -> Result<Submitted, SubmitFailure> {
        let deadline = Instant::now() + SUBMIT_TIMEOUT;
        let mut proposed = false;
        while Instant::now() < deadline {
            let (reply, stage) = oneshot::channel();
            self.send(Event::Submit { envelope: envelope.clone(), reply }).await?;
            let (ticket, mut answer, forward) = match stage.await.map_err(|_| SubmitFailure::Stopping)?? {
                SubmitStage::Known(index) => return self.submitted(index, None).await,
                SubmitStage::Waiting { ticket, answer, forward } => (ticket, answer, forward),
            };
            let answered = match forward {
                None => {
                    proposed = true;
                    timeout(ATTEMPT_TIMEOUT, &mut answer).await.ok()
                }
                Some(_) if through == Through::OwnLeadership => {
                    self.send(Event::Forget(ticket)).await?;
                    return Err(SubmitFailure::NotLeader);
                }
                Some(None) => self.leader_or(&mut answer).await,
                Some(Some(leader)) => {
                    proposed = true;
                    self.through(leader, &envelope, &mut answer).await
                }
            };
            match answered {
                Some(Ok(Answer::Committed { index, reason })) => return self.submitted(index, reason).await,
                Some(Ok(Answer::Refused(refusal))) => return Err(SubmitError::Refused(refusal).into()),
                Some(Ok(Answer::Read | Answer::ReadLost)) | None => self.send(Event::Forget(ticket)).await?,
                Some(Err(_)) => return Err(SubmitFailure::Stopping),
            }
        }
        Err(if proposed { SubmitFailure::TimedOut } else { SubmitFailure::NoLeader })
    }

    /// Waits until everything that was committed when this was called is applied here (linearizable read). False when no
    /// leader could confirm it.
    pub async fn read_barrier(&self) -> bool {
        for _ in 0..READ_ATTEMPTS {
            let (reply, waiting) = oneshot::channel();
            if self.send(Event::Read(reply)).await.is_err() {
                return false;
            }
            match waiting.await {
                Ok(Some(answer)) => match answer.await {
                    Ok(Answer::Read) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                },
                Ok(None) => {
                    let mut status = self.status.clone();
                    status.mark_unchanged();
                    let _ = timeout(LEADER_WAIT, status.changed()).await;
                }
                Err(_) => return false,
            }
        }
        false
    }

    /// Asks about the state between two events; `None` when the node stops.
    pub async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Replica<Federation>) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let query: Query = Box::new(move |replica| {
            let _ = reply.send(question(replica));
        });
        self.send(Event::Query(query)).await.ok()?;
        answer.await.ok()
    }

    /// Where the plans stand that are carried out, as this replica sees it; `None` when the node stops.
    pub async fn progress(&self) -> Option<Vec<PlanProgress>> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Progress(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Entries that can be read from the storage now, the genesis file included.
    pub fn log_size(&self) -> watch::Receiver<u64> {
        self.log_size.clone()
    }

    /// Where the replica stands in the consensus.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// How many entries are final.
    pub fn finalized(&self) -> watch::Receiver<Finalized> {
        self.finalized.clone()
    }

    /// Waits until the entry at `index` has reached a level; false if it did not in time, or the node stops.
    pub async fn reach(&self, index: u64, level: Level) -> bool {
        let reached = |finalized: &Finalized| finalized.level_of(index) >= level;
        let mut finalized = self.finalized.clone();
        matches!(timeout(LEVEL_TIMEOUT, finalized.wait_for(reached)).await, Ok(Ok(_)))
    }

    /// Hands over a co-signed note. Returns what is to be compared with the log itself; `None` when the node stops.
    pub async fn offer(&self, note: String) -> Option<Result<Option<Offered>, OfferError>> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Offer { note, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Hands over the note by which an epoch was vouched for, with the log's root at its size; `None` when the node stops.
    pub async fn vouched(&self, note: String, root: Digest) -> Option<Result<(), OfferError>> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Vouched { note, root, reply }).await.ok()?;
        answer.await.ok()
    }

    /// The storage, for reading what [`Self::log_size`] covers.
    pub fn storage(&self) -> &Arc<dyn LogStorage> {
        &self.storage
    }

    /// The sender of events, for the node's own workers.
    pub const fn events(&self) -> &mpsc::Sender<Event> {
        &self.events
    }

    async fn send(&self, event: Event) -> Result<(), SubmitFailure> {
        self.events.send(event).await.map_err(|_| SubmitFailure::Stopping)
    }

    async fn submitted(&self, index: u64, reason: Option<String>) -> Result<Submitted, SubmitFailure> {
        // It is applied; the disk thread may still be writing it.
        let mut size = self.log_size.clone();
        size.wait_for(|size| *size > index).await.map_err(|_| SubmitFailure::Stopping)?;
        let leaf = read_leaf(&*self.storage, index)?;
        Ok(Submitted { index, leaf, reason })
    }

    /// Waits for a leader, or for the answer if it comes all the same.
    async fn leader_or(
        &self,
        answer: &mut oneshot::Receiver<Answer>,
    ) -> Option<Result<Answer, oneshot::error::RecvError>> {
        let mut status = self.status.clone();
        status.mark_unchanged();
        tokio::select! {
            answered = answer => Some(answered),
            _ = timeout(LEADER_WAIT, status.changed()) => None,
        }
    }

    /// Waits until this replica knows of no leader, or of another one.
    async fn leads_no_more(&self, leader: ReplicaId) {
        // When the sender is gone, the node stops.
        let _ = self.status.clone().wait_for(|status| status.leader != Some(leader)).await;
    }

    /// Sends the transaction to the leader and waits until it is applied here.
    async fn through(
        &self,
        leader: ReplicaId,
        envelope: &[u8],
        answer: &mut oneshot::Receiver<Answer>,
    ) -> Option<Result<Answer, oneshot::error::RecvError>> {
        let until = Instant::now() + ATTEMPT_TIMEOUT;
        tokio::select! {
            answered = &mut *answer => return Some(answered),
            // It may be dead, of which its connection tells only later.
            () = self.leads_no_more(leader) => return None,
            forwarded = timeout_at(until, self.forwarder.forward(leader, envelope.to_vec())) => match forwarded {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    tracing::debug!(%leader, reason, "the leader did not take a transaction");
                    return self.leader_or(answer).await;
                }
                Err(_) => return None,
            },
        }
        timeout_at(until, answer).await.ok()
    }
}
