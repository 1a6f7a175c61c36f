//! Carrying out the conductor's duties: submitting, fetching and checking updates, computing versions.

use std::{io::BufReader, sync::Arc};

use fedledger_federation::{
    Command, Federation,
    command::{FileRef, OutputFiles, RoundKey},
    conductor::{Duty, Report},
    plan::Plan,
    recipe::{Recipe, RecipeError, Update, WRONG_DIGEST, check_update},
};
use fedledger_ledger::{
    Digest, SecretKey,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::endpoint::Endpoint;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    blobs::BlobStore,
    fetching::{self, Fetching},
    replica::{Event, Handle, SubmitFailure},
    shared::SharedView,
    tasks::Tasks,
};

/// How long a transaction of this replica may wait, in log entries.
const VALIDITY_ENTRIES: u64 = 10_000;

/// Does what the conductor asks for; cheap to clone.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
    tasks: Tasks,
}

struct Inner {
    chain: Digest,
    key: SecretKey,
    handle: Handle,
    endpoint: Endpoint,
    blobs: BlobStore,
    view: SharedView,
    fetching: Fetching,
    /// One at a time: a computation uses memory for several models.
    computations: Semaphore,
    threads: usize,
}

/// What workers need.
pub struct Means {
    /// The chain that transactions are for.
    pub chain: Digest,
    /// Signs the replica's transactions.
    pub key: SecretKey,
    /// To the replica's task.
    pub handle: Handle,
    /// To the peers.
    pub endpoint: Endpoint,
    /// Where files are kept.
    pub blobs: BlobStore,
    /// Who is who.
    pub view: SharedView,
    /// Threads for aggregation.
    pub threads: usize,
    /// The node's background tasks.
    pub tasks: Tasks,
}

impl Workers {
    /// Workers with these means.
    pub fn new(means: Means) -> Self {
        let Means { chain, key, handle, endpoint, blobs, view, threads, tasks } = means;
        let fetching = Fetching::new(endpoint.clone(), blobs.clone());
        let computations = Semaphore::new(1);
        let inner = Inner { chain, key, handle, endpoint, blobs, view, fetching, computations, threads };
        Self { inner: Arc::new(inner), tasks }
    }

    /// Submits a transaction of this replica: the reason for which it was rejected, if it was.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`], or no randomness.
    pub(crate) async fn submit(&self, command: &Command) -> Result<Option<String>, SubmitFailure> {
        self.inner.submit_command(command).await
    }

    /// Begins a duty; its report comes as an event.
    pub fn begin(&self, duty: Duty, state: &Federation) {
        let inner = Arc::clone(&self.inner);
        match duty {
            Duty::Submit(command) => {
                self.tasks.spawn(async move { inner.submit(command).await });
            }
            Duty::Check { key, update } => {
                let Some(record) = state.plans().get(&key.plan) else { return };
                let cohort = state.rounds().get(&key).map_or(1, |round| round.cohort.len());
                let plan = record.plan.clone();
                self.tasks.spawn(async move { inner.check(key, plan, cohort, update).await });
            }
            Duty::Obtain { number, files } => {
                self.tasks.spawn(async move { inner.obtain(number, files).await });
            }
            Duty::Compute(recipe) => {
                self.tasks.spawn(async move { inner.compute(*recipe).await });
            }
        }
    }
}

impl Inner {
    async fn report(&self, report: Report) {
        let events: &mpsc::Sender<Event> = self.handle.events();
        // The node is stopping when nobody takes it.
        let _ = events.send(Event::Report(report)).await;
    }

    async fn submit(&self, command: Command) {
        let accepted = match self.submit_command(&command).await {
            Ok(None) => true,
            Ok(Some(reason)) => {
                // Two leaders may ask for the same thing in turn; the second is told so.
                tracing::info!(kind = command.kind(), reason, "a transaction of this replica was rejected");
                false
            }
            Err(failure) => {
                tracing::warn!(kind = command.kind(), %failure, "a transaction of this replica was not committed");
                false
            }
        };
        self.report(Report::Submitted { command, accepted }).await;
    }

    /// The reason for which it was rejected, if it was.
    async fn submit_command(&self, command: &Command) -> Result<Option<String>, SubmitFailure> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| SubmitFailure::Randomness(error.to_string()))?;
        let size = *self.handle.log_size().borrow();
        let transaction = Transaction {
            chain: self.chain,
            author: self.key.public(),
            nonce: Nonce(nonce),
            not_after_index: size + VALIDITY_ENTRIES,
            kind: command.kind().to_owned(),
            payload: command.payload(),
        };
        let envelope = transaction.sign(&self.key).to_bytes();
        Ok(self.handle.submit(envelope).await?.reason)
    }

    async fn check(&self, key: RoundKey, plan: Plan, cohort: usize, update: Update) {
        let member = update.member.clone();
        let verdict = self.checked(plan, cohort, update).await;
        self.report(match verdict {
            Ok(verdict) => Report::Checked { key, member, verdict },
            Err(reason) => {
                // The conductor excludes what is not checked at the deadline, and asks again before that.
                tracing::warn!(member, reason, "an update could not be checked");
                Report::CheckFailed { key, member }
            }
        })
        .await;
    }

    async fn checked(&self, plan: Plan, cohort: usize, update: Update) -> Result<Result<(), String>, String> {
        let (member, digest) = (update.member.clone(), update.file.digest);
        if !self.fetch(&update.file, Some(&member)).await {
            return Err(format!("no live node has file {digest}"));
        }
        let path = self.blobs.path(&digest);
        let checked = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(path)?;
            check_update(&plan, cohort, &update, file)
        });
        let verdict = checked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if let Err((WRONG_DIGEST, reason)) = &verdict {
            // What was fetched was verified, so the disk has changed it since. That is not the contributor's fault.
            self.discard(&digest);
            return Err(reason.clone());
        }
        Ok(verdict.map_err(|(code, reason)| {
            tracing::warn!(member, code, reason, "an update cannot be aggregated");
            code.to_owned()
        }))
    }

    fn discard(&self, digest: &Digest) {
        tracing::error!(%digest, "a file was damaged on this disk: it is removed and fetched anew");
        if let Err(error) = self.blobs.discard(digest) {
            tracing::error!(%digest, %error, "a damaged file cannot be removed");
        }
    }

    async fn obtain(&self, number: u64, files: Vec<(FileRef, Option<String>)>) {
        let mut complete = true;
        for (file, member) in files {
            complete &= self.fetch(&file, member.as_ref()).await;
        }
        if !complete {
            tracing::warn!(version = number, "no live node has all files of this version");
        }
        self.report(Report::Obtained { number, complete }).await;
    }

    async fn compute(&self, recipe: Recipe) {
        let key = recipe.key;
        let report = match self.computed(recipe).await {
            Ok(outputs) => Report::Computed { key, outputs },
            Err(failure) => {
                tracing::error!(round = key.round, reason = failure.reason, "a version could not be computed");
                Report::ComputeFailed { key, permanent: failure.permanent }
            }
        };
        self.report(report).await;
    }

    async fn computed(&self, recipe: Recipe) -> Result<OutputFiles, Failure> {
        for file in recipe.files() {
            let member = recipe.updates.iter().find(|update| update.file == file).map(|update| update.member.clone());
            if !self.fetch(&file, member.as_ref()).await {
                return Err(Failure::passing(format!("no live node has file {}", file.digest)));
            }
        }
        let permit = self.computations.acquire().await;
        let _permit = permit.map_err(|_| Failure::passing("the replica is stopping".to_owned()))?;
        let (blobs, threads) = (self.blobs.clone(), self.threads);
        let computed = tokio::task::spawn_blocking(move || {
            let open = |file: &FileRef| std::fs::File::open(blobs.path(&file.digest)).map(BufReader::new);
            let outputs = recipe.compute(open, threads)?;
            keep(&blobs, &outputs.weights)?;
            if let Some(state) = &outputs.optimizer_state {
                keep(&blobs, state)?;
            }
            Ok::<_, RecipeError>(OutputFiles::of(&outputs))
        });
        match computed.await {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(error)) => {
                if let RecipeError::Digest { expected, .. } = &error {
                    self.discard(expected);
                }
                Err(Failure::of(&error))
            }
            Err(error) => Err(Failure::passing(error.to_string())),
        }
    }

    /// Has the file here when this returns true.
    async fn fetch(&self, file: &FileRef, member: Option<&String>) -> bool {
        self.fetching.fetch(file, |turn| fetching::sources(&self.endpoint, &self.view, member, turn)).await
    }
}

fn keep(blobs: &BlobStore, bytes: &[u8]) -> Result<(), RecipeError> {
    blobs.put(bytes).map(drop).map_err(|source| RecipeError::Io { digest: Digest::of(bytes), source })
}

/// Why a version could not be computed.
struct Failure {
    reason: String,
    /// The code of a reason that will not go away.
    permanent: Option<String>,
}

impl Failure {
    fn passing(reason: String) -> Self {
        Self { reason, permanent: None }
    }

    fn of(error: &RecipeError) -> Self {
        let permanent = match error {
            RecipeError::Io { .. } | RecipeError::Digest { .. } | RecipeError::Ledger(_) => None,
            RecipeError::Aggregation(_)
            | RecipeError::Architecture(_)
            | RecipeError::Update { .. }
            | RecipeError::Write(_) => Some("aggregation_failed".to_owned()),
        };
        Self { reason: error.to_string(), permanent }
    }
}
