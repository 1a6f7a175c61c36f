//! A ledger in memory with an HTTP server in front.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fedledger_coordinator::{
    api::ReadError,
    http::{Condition, HttpConfig, HttpServer, RunningHttp, TileBackend},
};
use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    merkle::{Frontier, leaf_hash},
    note::sign_note,
    storage::{Batch, Column, LogStorage, memory::MemoryStorage},
};

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A log that the test writes, and heads that it chooses.
pub struct MemoryLog {
    pub storage: Arc<MemoryStorage>,
    frontier: Mutex<Frontier>,
    head: Mutex<Option<String>>,
    condition: Mutex<Condition>,
    /// How often the head was asked for.
    pub asked: AtomicU64,
}

/// The entry at an index. A bundle of them takes more than one read.
pub fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}; ").repeat(usize::try_from(index % 64).unwrap()).into_bytes()
}

impl MemoryLog {
    /// A log of this many entries, without a head.
    pub fn new(size: u64) -> Arc<Self> {
        let log = Self {
            storage: Arc::default(),
            frontier: Mutex::default(),
            head: Mutex::default(),
            condition: Mutex::new(Condition::Ready),
            asked: AtomicU64::default(),
        };
        log.grow(size);
        Arc::new(log)
    }

    /// A log with a head over all of it.
    pub fn signed(size: u64) -> Arc<Self> {
        let log = Self::new(size);
        log.sign();
        log
    }

    pub fn grow(&self, size: u64) {
        let mut frontier = self.frontier.lock().unwrap();
        let mut batch = Batch::default();
        while frontier.size() < size {
            let leaf = entry(frontier.size());
            batch.put(Column::Leaf, frontier.size().to_be_bytes(), leaf.clone());
            for (node, hash) in frontier.append(leaf_hash(&leaf)) {
                batch.put(Column::Node, node.to_key(), *hash.as_bytes());
            }
        }
        self.storage.write(&batch, true).unwrap();
    }

    /// Makes the log as it is now the head.
    pub fn sign(&self) {
        let frontier = self.frontier.lock().unwrap();
        let checkpoint = Checkpoint::new("fedledger/test", frontier.size(), frontier.root()).unwrap();
        let note = sign_note(&checkpoint.to_note_text(), "a/replica", &SecretKey::from_seed([1; 32])).unwrap();
        *self.head.lock().unwrap() = Some(note.to_string());
    }

    pub fn set_condition(&self, condition: Condition) {
        *self.condition.lock().unwrap() = condition;
    }

    pub fn root(&self) -> Digest {
        self.frontier.lock().unwrap().root()
    }

    /// Loses an entry, as a damaged disk does.
    pub fn lose(&self, index: u64) {
        let mut batch = Batch::default();
        batch.delete(Column::Leaf, index.to_be_bytes());
        self.storage.write(&batch, true).unwrap();
    }
}

impl TileBackend for MemoryLog {
    async fn head(&self) -> Result<Option<String>, ReadError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.head.lock().unwrap().clone())
    }

    fn storage(&self) -> Arc<dyn LogStorage> {
        self.storage.clone()
    }

    fn condition(&self) -> Condition {
        *self.condition.lock().unwrap()
    }
}

pub async fn serve(log: &Arc<MemoryLog>) -> RunningHttp {
    HttpServer::bind(HttpConfig::new(loopback())).await.unwrap().start(log.clone())
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}
