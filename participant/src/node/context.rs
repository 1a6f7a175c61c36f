//! What the node's tasks share: connections, files, data and keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fedledger_federation::command::FileRef;
use fedledger_ledger::{Digest, PublicKey, SecretKey};
use fedledger_proto::{
    blobs::Fetch,
    endpoint::{Endpoint, Slot, Turn, WAIT_MAX, WantedBlob},
};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{
    core::Kept,
    data::DataStore,
    event::NodeEvent,
    external::{Program, Slots},
    files::NodeFiles,
    heads::Heads,
    peers::{self, Replica},
};

/// How long a replica may take to answer before another one is asked, the first time.
const PATIENCE_FIRST: Duration = Duration::from_millis(500);

/// How long a replica may have a transfer wait for others before another replica is asked, the first time: it may be busy, or
/// may want to keep this site out.
const TURN_PATIENCE_FIRST: Duration = Duration::from_secs(10);

/// What the node's tasks share.
#[derive(Debug)]
pub struct Context {
    /// Connections.
    pub endpoint: Endpoint,
    /// The directory.
    pub files: Arc<NodeFiles>,
    /// The site's records.
    pub data: Arc<DataStore>,
    /// Signs transactions.
    pub transaction_key: SecretKey,
    /// The chain that transactions are for.
    pub chain: Digest,
    /// Replicas in the order of preference.
    pub replicas: watch::Receiver<Vec<Replica>>,
    /// Entries in the log, as far as it was replayed.
    pub size: watch::Receiver<u64>,
    /// How long a replica may take to answer.
    pub replica_timeout: Duration,
    /// Most steps between two local checkpoints.
    pub checkpoint_steps_max: Option<NonZeroU64>,
    /// Heads of the log.
    pub heads: Arc<Heads>,
    /// One training or evaluation at a time.
    pub compute: Arc<Semaphore>,
    /// Programs that may train here, by name.
    pub trainers: BTreeMap<String, Arc<Program>>,
    /// The rights to run them.
    pub external: Slots,
    /// Fewest examples of which the site lets an update leave.
    pub examples_min: u64,
    /// Updates, and weights of versions, that replicas may fetch.
    pub served: Mutex<BTreeSet<Digest>>,
    /// Tells whoever listens what happens.
    pub events: broadcast::Sender<NodeEvent>,
    /// Rounds whose training begins later, and by how much.
    pub delays: Arc<Mutex<BTreeMap<u64, Duration>>>,
}

impl Context {
    /// The connected replicas, beginning with the one whose turn it is.
    pub fn available(&self, turn: usize) -> Vec<Replica> {
        let connected = self.endpoint.connected().borrow().clone();
        peers::available(&self.replicas.borrow(), &connected, turn).cloned().collect()
    }

    /// Whether a peer is a replica now.
    pub fn is_replica(&self, peer: &PublicKey) -> bool {
        self.replicas.borrow().iter().any(|replica| replica.key == *peer)
    }

    /// Remembers what replicas may fetch.
    pub fn serve(&self, kept: &Kept) {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) =
            kept.updates.union(&kept.weights).copied().collect();
    }

    /// Tells people and programs what happens.
    pub fn tell(&self, event: NodeEvent) {
        match &event {
            NodeEvent::Distrusted { replica, reason } => tracing::error!(replica, reason, "a replica is not trusted"),
            NodeEvent::Rejected { intent, code } => tracing::warn!(intent, code, "the ledger refused a transaction"),
            NodeEvent::Progress { key, percent, message } => {
                tracing::info!(round = key.round, percent, message, "a trainer goes on");
            }
            event => tracing::info!(?event),
        }
        // Nobody needs to listen.
        self.events.send(event).ok();
    }

    /// By how much the training of a round begins later than it could.
    pub fn delay(&self, round: u64) -> Option<Duration> {
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).get(&round).copied()
    }

    /// Whether replicas may fetch this file.
    pub fn serves(&self, digest: &Digest) -> bool {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Waits before the next attempt; `false` if the work is cancelled meanwhile. A new connection ends the wait early.
    pub async fn wait(&self, failures: u32, stop: &CancellationToken) -> bool {
        let mut connected = self.endpoint.connected();
        connected.mark_unchanged();
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(peers::backoff(failures, peers::randomness())) => true,
            // While the endpoint is there, its sender is.
            Ok(()) = connected.changed() => true,
        }
    }

    /// How long a replica may take to answer after so many failures in a row: not long at first, since the connection of one
    /// that was killed seems to be there for seconds, and another can be asked.
    pub fn patience(&self, failures: u32) -> Duration {
        peers::doubled(PATIENCE_FIRST, failures).min(self.replica_timeout)
    }

    /// A transfer's part after so many failures in a row: it waits long for its turn only where there is no other replica.
    pub fn turn(&self, failures: u32) -> Turn {
        let others = self.available(0).len() > 1;
        let patience = if others { peers::doubled(TURN_PATIENCE_FIRST, failures).min(WAIT_MAX) } else { WAIT_MAX };
        Turn { slot: Slot::default(), patience }
    }

    /// The signed head that a replica gives, unverified.
    pub async fn head_of(&self, replica: &Replica) -> Option<String> {
        self.heads.of(&self.endpoint, replica).await
    }

    /// Gets a file onto the disk from whichever replica has it, going on where another one stopped, and says where it lies;
    /// none once the work is cancelled. It was verified when it was received; whoever reads it verifies it again.
    pub async fn obtain(&self, file: FileRef, stop: &CancellationToken) -> Option<PathBuf> {
        let wanted = WantedBlob { digest: file.digest, size_max: file.size, doubted: false };
        let mut fetch = Fetch::new(self.endpoint.clone(), self.files.blobs().clone(), wanted);
        let mut failures = 0;
        loop {
            stop.run_until_cancelled(fetch.until_idle()).await?;
            if fetch.is_done() || stop.run_until_cancelled(self.search(&mut fetch, failures)).await? {
                return Some(self.files.blobs().path(&file.digest));
            }
            if !self.wait(failures, stop).await {
                return None;
            }
            failures = failures.saturating_add(1);
        }
    }

    async fn search(&self, fetch: &mut Fetch, failures: u32) -> bool {
        for replica in self.available(failures as usize) {
            if !self.endpoint.is_there(replica.key, self.patience(failures)).await {
                tracing::debug!(replica = replica.name, "it does not answer and is not asked for files");
                continue;
            }
            let fetching = fetch.from_in_turn(replica.key, self.turn(failures));
            match self.endpoint.while_there(replica.key, self.replica_timeout, fetching).await {
                Some(Ok(())) => return true,
                Some(Err(error)) => tracing::debug!(replica = replica.name, %error, "fetching failed"),
                None => tracing::debug!(replica = replica.name, "it fell silent while a file was fetched"),
            }
        }
        if let Err(error) = fetch.reconsider().await {
            tracing::warn!(%error, "what was received of a file cannot be removed");
        }
        false
    }
}
