//! What the node's tasks share: connections, files, data and keys.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fedledger_federation::command::FileRef;
use fedledger_ledger::{Digest, PublicKey, SecretKey};
use fedledger_proto::endpoint::{BlobError, Endpoint};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    core::Kept,
    files::NodeFiles,
    heads::Heads,
    peers::{self, Replica},
};
use crate::table::Table;

/// What the node's tasks share.
#[derive(Debug)]
pub struct Context {
    /// Connections.
    pub endpoint: Endpoint,
    /// The directory.
    pub files: Arc<NodeFiles>,
    /// The site's records.
    pub table: Arc<Table>,
    /// Digest of their description.
    pub data_manifest: Digest,
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
    /// Heads of the log.
    pub heads: Arc<Heads>,
    /// One training or evaluation at a time.
    pub compute: Semaphore,
    /// Updates that replicas may fetch.
    pub served: Mutex<BTreeSet<Digest>>,
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
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = kept.updates.clone();
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
            () = tokio::time::sleep(peers::backoff(failures)) => true,
            // While the endpoint is there, its sender is.
            Ok(()) = connected.changed() => true,
        }
    }

    /// The signed head that a replica gives, unverified.
    pub async fn head_of(&self, replica: &Replica) -> Option<String> {
        self.heads.of(&self.endpoint, replica).await
    }

    /// The bytes of a file, from the disk or from whichever replica has it; none once the work is cancelled.
    pub async fn fetch(self: &Arc<Self>, file: FileRef, stop: &CancellationToken) -> Option<Vec<u8>> {
        let mut failures = 0;
        loop {
            let files = Arc::clone(&self.files);
            let local = tokio::task::spawn_blocking(move || files.read_blob(&file)).await;
            if let Ok(Ok(Some(bytes))) = local {
                return Some(bytes);
            }
            for replica in self.available(failures as usize) {
                let download = self.download(&replica, file);
                let result = tokio::select! {
                    () = stop.cancelled() => return None,
                    result = download => result,
                };
                match result {
                    Ok(bytes) => return Some(self.keep(bytes).await),
                    Err(error) => {
                        tracing::debug!(replica = replica.name, file = %file.digest, %error, "fetching failed")
                    }
                }
            }
            if !self.wait(failures, stop).await {
                return None;
            }
            failures = failures.saturating_add(1);
        }
    }

    async fn download(&self, replica: &Replica, file: FileRef) -> Result<Vec<u8>, BlobError> {
        // Grows with what arrives: the size is what the ledger says, not what a peer can make us allocate.
        let mut bytes = Vec::new();
        self.endpoint.get_blob(replica.key, file.digest, file.size, &mut bytes).await?;
        Ok(bytes)
    }

    /// Caches fetched bytes on disk. A failure costs another download later, not this one.
    async fn keep(&self, bytes: Vec<u8>) -> Vec<u8> {
        let bytes = Arc::new(bytes);
        let (files, written) = (Arc::clone(&self.files), Arc::clone(&bytes));
        match tokio::task::spawn_blocking(move || files.write_blob(&written)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a fetched file cannot be kept"),
            Err(error) => tracing::error!(%error, "keeping a fetched file failed"),
        }
        Arc::unwrap_or_clone(bytes)
    }
}
