//! The log of a replica over plain HTTP, to be read by anybody who reaches the port: C2SP tlog-tiles
//! (<https://c2sp.org/tlog-tiles>), and whether the replica is well.
//!
//! ```text
//! /checkpoint               signed head of the log
//! /tile/<L>/<N>[.p/<W>]     hashes of the Merkle tree, up to that head
//! /tile/entries/<N>[.p/<W>] entries, up to that head
//! /healthz                  200 unless the replica has stopped
//! /readyz                   200 if it knows a leader
//! ```
//!
//! Nothing can be changed here, and nobody is asked who they are: everything on the ledger is shown, but no file. The
//! server reads the storage beside the replica's task and asks the task itself for the head only, a few times a second at
//! most, whatever is asked of the server. Connections, their age, requests and reads are bounded.

mod answer;
mod backend;
mod body;
mod head;
mod limits;
mod reader;
mod route;
mod serve;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use self::backend::{Condition, TileBackend};
use self::{answer::Site, limits::HEADERS_TIMEOUT};

/// What an [`HttpServer`] is told when it starts.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long a client may take for the headers of a request, from the end of the one before.
    pub headers_timeout: Duration,
}

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    local_address: SocketAddr,
    headers_timeout: Duration,
}

/// A server that answers, until it is stopped or this is dropped.
#[derive(Debug)]
pub struct RunningHttp {
    local_address: SocketAddr,
    stopping: CancellationToken,
    aborted: DropGuard,
    open: TaskTracker,
}

/// A server that cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum HttpServerError {
    /// Another process listens there.
    #[error("address {0} is in use by another process: stop it, or set another `http` address in node.toml")]
    PortInUse(SocketAddr),
    /// Listening failed for another reason.
    #[error("cannot serve HTTP on {address}: {source}")]
    Listen {
        /// The address that was configured.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl HttpConfig {
    /// The usual bounds.
    pub const fn new(listen: SocketAddr) -> Self {
        Self { listen, headers_timeout: HEADERS_TIMEOUT }
    }
}

impl HttpServer {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// [`HttpServerError`].
    pub async fn bind(config: HttpConfig) -> Result<Self, HttpServerError> {
        let HttpConfig { listen: address, headers_timeout } = config;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => HttpServerError::PortInUse(address),
            _ => HttpServerError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_address, headers_timeout })
    }

    /// Begins to answer.
    pub fn start<B: TileBackend>(self, backend: Arc<B>) -> RunningHttp {
        let Self { listener, local_address, headers_timeout } = self;
        let (stopping, aborted, open) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let site = Arc::new(Site::new(backend, open.clone()));
        let acceptor = serve::Acceptor {
            site,
            headers_timeout,
            stopping: stopping.clone(),
            aborted: aborted.clone(),
            open: open.clone(),
        };
        open.spawn(acceptor.run(listener));
        tracing::info!(address = %local_address, "the log is served over HTTP");
        RunningHttp { local_address, stopping, aborted: aborted.drop_guard(), open }
    }
}

impl RunningHttp {
    /// Where it listens.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Takes no more requests, gives those in progress a few seconds, and closes every connection.
    pub async fn stop(self) {
        let Self { stopping, aborted, open, .. } = self;
        stopping.cancel();
        open.close();
        let _ = timeout(limits::SHUTDOWN_GRACE, open.wait()).await;
        drop(aborted);
        open.wait().await;
    }

    /// Closes every connection at once, and waits until nothing of the server is left.
    pub async fn abort(self) {
        let Self { aborted, open, .. } = self;
        drop(aborted);
        open.close();
        open.wait().await;
    }
}
