//! Carrying out the conductor's duties: submitting, fetching and checking updates, computing versions.

mod computing;

use std::{io, sync::Arc};

use fedledger_federation::{
    Command, Federation,
    command::FileRef,
    conductor::{Duty, Report},
    recipe::RunningSums,
};
use fedledger_ledger::{
    Digest, PublicKey, SecretKey,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::{endpoint::Endpoint, fault_point::fault_point};
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
    /// One at a time: a computation uses every processor.
    computations: Semaphore,
    /// Of the rounds in progress.
    sums: RunningSums,
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
        let sums = RunningSums::new(computing::SUMS_SIZE_BYTES_MAX);
        let inner = Inner { chain, key, handle, endpoint, blobs, view, fetching, computations, sums, threads };
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

    /// Gives back what is kept of rounds that have ended.
    pub fn settle(&self, state: &Federation) {
        self.inner.drop_finished_sums(state);
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
                let plan =
                    state.numbers().get(&number).and_then(|version| Some(state.versions().get(version)?.key.plan));
                self.tasks.spawn(async move { inner.obtain(plan.unwrap_or_default(), number, files).await });
            }
            Duty::Discard { last_index, files } => {
                self.tasks.spawn(async move { inner.discard_all(last_index, files).await });
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
            Err(failure @ SubmitFailure::NotLeader) => {
                tracing::info!(kind = command.kind(), %failure, "a decision of this replica was dropped");
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
        let kind = command.kind();
        fault_point(&format!("before-{kind}"));
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| SubmitFailure::Randomness(error.to_string()))?;
        let size = *self.handle.log_size().borrow();
        let transaction = Transaction {
            chain: self.chain,
            author: self.key.public(),
            nonce: Nonce(nonce),
            not_after_index: size + VALIDITY_ENTRIES,
            kind: kind.to_owned(),
            payload: command.payload(),
        };
        let envelope = transaction.sign(&self.key).to_bytes();
        let submitted = match command {
            // Another leader has its own mind about these.
            Command::OpenRound(_)
            | Command::CloseRound(_)
            | Command::AbandonRound(_)
            | Command::CommitVersion(_)
            | Command::StopEarly(_)
            | Command::PruneVersion(_)
            | Command::PruneRound(_) => self.handle.submit_as_leader(envelope).await?,
            _ => self.handle.submit(envelope).await?,
        };
        let reason = submitted.reason;
        fault_point(&format!("after-{kind}"));
        Ok(reason)
    }

    async fn obtain(&self, plan: Digest, number: u64, files: Vec<(FileRef, Option<String>)>) {
        let mut complete = true;
        for (file, member) in &files {
            // The others delete a file as soon as it is pruned; looking for each in turn would take hours.
            if !self.blobs.has(&file.digest) && self.pruned(vec![file.digest]).await.is_empty() {
                complete &= self.fetch(&plan, file, member.as_ref()).await;
            }
        }
        // One that was pruned while it was on its way is deleted already as far as the conductor knows.
        for file in self.pruned(files.iter().map(|(file, _)| file.digest).collect()).await {
            let _ = discard_if_there(&self.blobs, &file);
        }
        if !complete {
            tracing::warn!(version = number, "no live node has all files of this version");
        }
        self.report(Report::Obtained { number, complete }).await;
    }

    /// Those of the files that nothing keeps any more.
    async fn pruned(&self, mut files: Vec<Digest>) -> Vec<Digest> {
        let asked = self.handle.query(move |replica| {
            let state = replica.log().machine();
            files.retain(|file| !state.retains(file));
            files
        });
        asked.await.unwrap_or_default()
    }

    /// Deletes what the ledger has let go.
    async fn discard_all(&self, last_index: u64, files: Vec<Digest>) {
        // A version may have been made again since, and needs its files.
        let files = self.pruned(files).await;
        let blobs = self.blobs.clone();
        let discarded = tokio::task::spawn_blocking(move || {
            let failed = files.iter().filter(|file| discard_if_there(&blobs, file).is_err()).count();
            tracing::info!(last_index, files = files.len(), failed, "deleted files that were pruned");
            failed == 0
        });
        let complete = discarded.await.unwrap_or(false);
        self.report(Report::Discarded { last_index, complete }).await;
    }

    /// Has the file here when this returns true.
    async fn fetch(&self, plan: &Digest, file: &FileRef, member: Option<&String>) -> bool {
        self.fetching.fetch(plan, file, |turn| self.sources(member, turn)).await
    }

    /// Who may have a file, made by this member if by anybody.
    fn sources(&self, member: Option<&String>, turn: usize) -> Vec<PublicKey> {
        fetching::sources(&self.endpoint, &self.view, member, turn)
    }
}

fn discard_if_there(blobs: &BlobStore, file: &Digest) -> io::Result<()> {
    match blobs.discard(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%file, %error, "a file that was pruned cannot be deleted: it is tried again");
            Err(error)
        }
        _ => Ok(()),
    }
}
