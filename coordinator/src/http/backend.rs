//! What the HTTP server asks of the replica that it stands for.

use std::sync::Arc;

use fedledger_ledger::storage::LogStorage;

use crate::api::ReadError;

/// The replica, as the HTTP server sees it.
pub trait TileBackend: Send + Sync + 'static {
    /// The latest signed head of the log, if there is one; every entry that it covers can be read from the storage.
    ///
    /// It is asked for a few times a second at most. Its size never falls.
    fn head(&self) -> impl Future<Output = Result<Option<String>, ReadError>> + Send;

    /// Where leaves and tree nodes are read from.
    fn storage(&self) -> Arc<dyn LogStorage>;

    /// How the replica is.
    fn condition(&self) -> Condition;
}

/// How a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It knows a leader, so transactions can be brought onto the ledger through it.
    Ready,
    /// It runs, but knows no leader: it has just started, or a majority of the replicas is out of reach.
    Leaderless,
    /// It has stopped.
    Stopped,
}
