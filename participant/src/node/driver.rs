//! Carrying out what the core decides: the one task that owns it, and the tasks that it starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fail::fail_point;
use fedledger_federation::command::RoundKey;
use fedledger_ledger::PublicKey;
use fedledger_proto::{endpoint::InboundRequest, kit::PeerConfig};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    context::Context,
    core::{Core, Input, Output},
    error::{HistoryError, ParticipantError},
    event::NodeStatus,
    follower::{self, Fed, Followed},
    intent::Intent,
    jobs,
    peers::{self, KnownReplicas, Replica},
    serve, submitter,
};

/// Results of tasks that wait for the core.
pub(super) const INPUTS_WAITING_MAX: usize = 64;

/// Leaves that wait for the core; while they do, the replica is held back.
pub(super) const LEAVES_WAITING_MAX: usize = 64;

/// How often signed heads are asked for, and how long a tick of the core is.
const TICK: Duration = Duration::from_secs(1);

/// Failures after which the wait for another replica to follow does not grow any more.
const RETRY_EXPONENT_MAX: u32 = 5;

/// Replicas that are asked for their head at a time.
const HEADS_ASKED: usize = 2;

/// The task that owns the core.
pub(super) struct Driver {
    core: Core,
    context: Arc<Context>,
    follow: Follow,
    size: watch::Sender<u64>,
    status: watch::Sender<NodeStatus>,
    online: watch::Receiver<bool>,
    stop: CancellationToken,
    tasks: TaskTracker,
    inputs: mpsc::Sender<Input>,
    feed: mpsc::Sender<Fed>,
    /// Submissions in progress.
    submissions: BTreeMap<Intent, CancellationToken>,
    /// Rounds that are trained or uploaded.
    work: BTreeMap<RoundKey, CancellationToken>,
    /// Ends the evaluation in progress.
    evaluation: CancellationToken,
    /// Ends the subscription to the replica that is followed.
    following: Option<CancellationToken>,
    /// Its transport key.
    followed_key: Option<PublicKey>,
    /// The key of the replica that was followed before.
    left: Option<PublicKey>,
    /// Counts the replicas that were followed, so that what comes late from an earlier one is told apart.
    turn: u64,
    failures: u32,
    /// When another replica is followed.
    retry_at: Instant,
    /// Held by the task that asks for heads.
    asking: Arc<Semaphore>,
    heads_turn: usize,
}

/// Where the driver's inputs come from.
pub(super) struct Sources {
    pub inputs: mpsc::Receiver<Input>,
    pub feed: mpsc::Receiver<Fed>,
    pub requests: mpsc::Receiver<InboundRequest>,
}

/// Which replicas the node connects with.
pub(super) struct Follow {
    /// The replicas that are admitted and dialed now.
    pub replicas: watch::Sender<Vec<Replica>>,
    /// Entries in the log when they were known. What an earlier entry says of them is out of date.
    pub known_size: u64,
    /// Their addresses.
    pub configured: Vec<PeerConfig>,
}

/// What the driver and its handle share.
pub(super) struct Channels {
    pub follow: Follow,
    pub size: watch::Sender<u64>,
    pub status: watch::Sender<NodeStatus>,
    /// Whether replicas may be connected.
    pub online: watch::Receiver<bool>,
    pub stop: CancellationToken,
}

impl Driver {
    /// A driver and its queues.
    pub fn new(
        core: Core,
        context: Arc<Context>,
        channels: Channels,
        requests: mpsc::Receiver<InboundRequest>,
    ) -> (Self, Sources) {
        let (inputs, inputs_out) = mpsc::channel(INPUTS_WAITING_MAX);
        let (feed, feed_out) = mpsc::channel(LEAVES_WAITING_MAX);
        let Channels { follow, size, status, online, stop } = channels;
        let driver = Self {
            core,
            context,
            follow,
            size,
            status,
            online,
            stop,
            tasks: TaskTracker::new(),
            inputs,
            feed,
            submissions: BTreeMap::new(),
            work: BTreeMap::new(),
            evaluation: CancellationToken::new(),
            following: None,
            followed_key: None,
            left: None,
            turn: 0,
            failures: 0,
            retry_at: Instant::now(),
            asking: Arc::new(Semaphore::new(1)),
            heads_turn: 0,
        };
        (driver, Sources { inputs: inputs_out, feed: feed_out, requests })
    }

    /// Runs until it is stopped, or must not go on; then every task has ended and the connections are closed.
    pub async fn run(mut self, sources: Sources) -> Result<(), ParticipantError> {
        let result = self.drive(sources).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.context.endpoint.shutdown().await;
        Ok(result?)
    }

    async fn drive(&mut self, mut sources: Sources) -> Result<(), HistoryError> {
        let mut connected = self.context.endpoint.connected();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut online = self.online.clone();
        let stop = self.stop.clone();
        loop {
            self.follow_someone();
            let idle = self.following.is_none();
            let input = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(fed) = sources.feed.recv() => self.of_this_turn(fed),
                Some(input) = sources.inputs.recv() => Some(input),
                Some(request) = sources.requests.recv() => {
                    self.serve(request);
                    None
                }
                _ = ticks.tick() => {
                    let is_left = self.refresh_replicas().await;
                    self.ask_for_heads();
                    let replaced = "it is no replica any more, or has another transport key";
                    Some(if is_left { self.leave(replaced) } else { Input::Tick })
                }
                Ok(()) = online.changed() => self.follow_network().await,
                Ok(()) = connected.changed(), if idle => None,
                () = sleep_until(self.retry_at), if idle && self.retry_at > Instant::now() => None,
            };
            if let Some(input) = input {
                for output in self.core.step(input) {
                    self.carry_out(output).await?;
                }
                self.publish();
            }
        }
    }

    fn publish(&self) {
        self.size.send_replace(self.core.size());
        let status = self.core.status();
        self.status.send_if_modified(|published| {
            let changed = *published != status;
            *published = status;
            changed
        });
    }

    async fn carry_out(&mut self, output: Output) -> Result<(), HistoryError> {
        match output {
            Output::Submit(intent, command) => {
                let stop = self.stop.child_token();
                self.submissions.insert(intent, stop.clone());
                self.spawn(submitter::submit(Arc::clone(&self.context), intent, command, stop));
            }
            Output::Withdraw(intent) => {
                // What is on its way cannot be called back.
                fail_point!("withdrawing", |_| Ok(()));
                if let Some(stop) = self.submissions.remove(&intent) {
                    stop.cancel();
                }
            }
            Output::ReadData(description) => {
                self.spawn(jobs::read_data(Arc::clone(&self.context), *description, self.stop.child_token()));
            }
            Output::Train(task) => {
                let stop = self.work_token(task.key);
                self.spawn(jobs::train(Arc::clone(&self.context), *task, stop));
            }
            Output::Upload(key, file) => {
                let stop = self.work_token(key);
                self.spawn(jobs::upload(Arc::clone(&self.context), key, file, stop));
            }
            Output::Stop(key) => {
                if let Some(stop) = self.work.remove(&key) {
                    stop.cancel();
                }
            }
            Output::Evaluate(task) => {
                self.evaluation = self.stop.child_token();
                let stop = self.evaluation.clone();
                self.spawn(jobs::evaluate_version(Arc::clone(&self.context), *task, stop));
            }
            Output::StopEvaluating => self.evaluation.cancel(),
            Output::Keep(kept) => {
                self.context.serve(&kept);
                let files = Arc::clone(&self.context.files);
                self.blocking("deleting files of no further use", move || files.keep_only(&kept)).await;
            }
            Output::Witness(head) => {
                let files = Arc::clone(&self.context.files);
                let note = head.note.clone();
                let stored = self.blocking("storing the witnessed head", move || files.store_witnessed(&head.note));
                // Only what the disk holds is vouched for: this node will never witness another history.
                if !stored.await {
                    return Ok(());
                }
                self.context.heads.store(note.clone());
                let (heads, endpoint) = (Arc::clone(&self.context.heads), self.context.endpoint.clone());
                let replicas = self.context.available(self.heads_turn);
                let stop = self.stop.clone();
                self.tasks.spawn(async move { stop.run_until_cancelled(heads.cosign(endpoint, replicas, note)).await });
            }
            Output::Refollow => self.unfollow(),
            Output::Report(event) => self.context.tell(event),
            Output::Fail(error) => return Err(error),
        }
        Ok(())
    }

    /// One token for all the work on a round.
    fn work_token(&mut self, key: RoundKey) -> CancellationToken {
        self.work.entry(key).or_insert_with(|| self.stop.child_token()).clone()
    }

    /// Runs a job and gives its result to the core.
    fn spawn(&self, job: impl Future<Output = Option<Input>> + Send + 'static) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            if let Some(input) = job.await {
                // The core is gone only when the node stops.
                inputs.send(input).await.ok();
            }
        });
    }

    /// Small writes whose order matters. A failure is reported and tried again with the next change; false tells of it.
    async fn blocking(&self, what: &'static str, work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> bool {
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::warn!(%error, what, "the disk refuses"),
            Err(error) => tracing::error!(%error, what, "a task failed"),
        }
        false
    }

    fn serve(&self, request: InboundRequest) {
        let context = Arc::clone(&self.context);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve::answer(context, request) => {}
            }
        });
    }

    /// Members and keys may come and go; connections follow the ledger. A log that is being read anew says what was, not
    /// what is. True if the replica that is followed is none any more, or has another key.
    async fn refresh_replicas(&mut self) -> bool {
        let size = self.core.size();
        if !self.core.is_current() || size < self.follow.known_size {
            return false;
        }
        let replicas = peers::replicas(self.core.federation().members(), self.core.member());
        if *self.follow.replicas.borrow() == replicas {
            return false;
        }
        let known = KnownReplicas { size, replicas: replicas.clone() };
        let files = Arc::clone(&self.context.files);
        self.blocking("remembering the replicas", move || files.store_replicas(&known)).await;
        self.follow.known_size = size;
        let is_left = self.followed_key.is_some_and(|key| !replicas.iter().any(|replica| replica.key == key));
        self.follow.replicas.send_replace(replicas);
        self.connect().await;
        is_left
    }

    /// Connects with the replicas as they are known now, or with nobody while the node is cut off.
    async fn connect(&self) {
        let replicas = if *self.online.borrow() { self.follow.replicas.borrow().clone() } else { Vec::new() };
        let admitted: BTreeSet<PublicKey> = replicas.iter().map(|replica| replica.key).collect();
        let dialed = peers::addresses(&replicas, &self.follow.configured);
        let endpoint = &self.context.endpoint;
        let followed = match endpoint.set_dial(dialed).await {
            Ok(()) => endpoint.set_admitted(admitted).await,
            stopped => stopped,
        };
        if let Err(error) = followed {
            tracing::debug!(%error, "the endpoint has stopped");
        }
    }

    /// Cuts the node off, or connects it again.
    async fn follow_network(&mut self) -> Option<Input> {
        self.connect().await;
        let is_left = !*self.online.borrow() && self.following.is_some();
        is_left.then(|| self.leave("the node was cut off"))
    }

    /// Leaves the replica that is followed. Its stream need not end by itself when the connection is closed here.
    fn leave(&mut self, reason: &str) -> Input {
        self.unfollow();
        Input::Lost { reason: reason.to_owned() }
    }
}

/// Following the ledger, and asking for signed heads.
impl Driver {
    fn follow_someone(&mut self) {
        if self.following.is_some() || Instant::now() < self.retry_at {
            return;
        }
        let excluded = self.core.excluded();
        let available = self.context.available(self.failures as usize);
        let mut allowed = available.into_iter().filter(|replica| !excluded.contains(&replica.name));
        let Some(first) = allowed.next() else { return };
        // Any other one before the one that was left.
        let replica = if Some(first.key) == self.left { allowed.next().unwrap_or(first) } else { first };
        self.turn += 1;
        let stop = self.stop.child_token();
        self.followed_key = Some(replica.key);
        let (context, feed, from) = (Arc::clone(&self.context), self.feed.clone(), self.core.size());
        let followed = Followed { replica, patience: context.patience(self.failures), turn: self.turn };
        self.tasks.spawn(follower::follow(context, followed, from, feed, stop.clone()));
        self.following = Some(stop);
    }

    fn unfollow(&mut self) {
        if let Some(stop) = self.following.take() {
            stop.cancel();
        }
        self.left = self.followed_key.take();
        self.failures = self.failures.saturating_add(1);
        let wait = peers::backoff(self.failures.min(RETRY_EXPONENT_MAX), peers::randomness());
        self.retry_at = Instant::now() + wait;
    }

    /// What came from the replica that is followed now.
    fn of_this_turn(&mut self, Fed { turn, input }: Fed) -> Option<Input> {
        if turn != self.turn || self.following.is_none() {
            return None;
        }
        match input {
            Input::Lost { .. } => self.unfollow(),
            Input::Leaf(_) => self.failures = 0,
            _ => {}
        }
        Some(input)
    }

    /// Asks some replicas for their signed heads, another pair each time, unless the last ones have not answered yet.
    fn ask_for_heads(&mut self) {
        let Ok(permit) = Arc::clone(&self.asking).try_acquire_owned() else { return };
        let replicas: Vec<Replica> = self.context.available(self.heads_turn).into_iter().take(HEADS_ASKED).collect();
        self.heads_turn = self.heads_turn.wrapping_add(HEADS_ASKED);
        let (context, inputs, stop) = (Arc::clone(&self.context), self.inputs.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            for replica in replicas {
                let head = tokio::select! {
                    () = stop.cancelled() => return,
                    head = context.head_of(&replica) => head,
                };
                if let Some(text) = head {
                    inputs.send(Input::Note { replica: replica.name, text }).await.ok();
                }
            }
            drop(permit);
        });
    }
}
