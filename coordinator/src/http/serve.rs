//! Connections, each in a task of its own that ends in bounded time.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::Site,
    backend::TileBackend,
    limits::{
        BUFFER_SIZE_BYTES, CONNECTION_AGE_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_HOST_MAX, HEADERS_MAX,
        LAST_ANSWER_TIMEOUT,
    },
};
use crate::api::{Connection, ConnectionLimits, Connections};

/// Accepts connections and serves them.
pub(super) struct Acceptor<B> {
    pub site: Arc<Site<B>>,
    pub headers_timeout: Duration,
    /// No more requests are to be taken.
    pub stopping: CancellationToken,
    /// Everything is to end at once.
    pub aborted: CancellationToken,
    pub open: TaskTracker,
}

impl<B: TileBackend> Acceptor<B> {
    /// Accepts until the server is stopped.
    pub async fn run(self, listener: TcpListener) {
        let limits = ConnectionLimits { total_max: CONNECTIONS_MAX, per_host_max: CONNECTIONS_PER_HOST_MAX };
        let connections = Connections::new(listener, limits, self.aborted.clone(), self.open.clone());
        let mut incoming = pin!(connections.incoming());
        let ended = async {
            tokio::select! {
                () = self.stopping.cancelled() => {}
                () = self.aborted.cancelled() => {}
            }
        };
        let mut ended = pin!(ended);
        loop {
            let connection = tokio::select! {
                () = &mut ended => return,
                connection = incoming.next() => connection,
            };
            let Some(Ok(connection)) = connection else { continue };
            let served = serve(connection, self.site.clone(), self.headers_timeout, self.stopping.clone());
            let aborted = self.aborted.clone();
            self.open.spawn(async move {
                if let Some(Err(error)) = aborted.run_until_cancelled(served).await {
                    tracing::debug!(%error, "a connection ended");
                }
            });
        }
    }
}

/// Serves a connection until its client, its age or the server ends it.
async fn serve<B: TileBackend>(
    connection: Connection,
    site: Arc<Site<B>>,
    headers_timeout: Duration,
    stopping: CancellationToken,
) -> io::Result<()> {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(&request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(headers_timeout);
    builder.max_buf_size(BUFFER_SIZE_BYTES).max_headers(HEADERS_MAX);
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
    tokio::select! {
        ended = &mut served => return ended.map_err(io::Error::other),
        () = sleep(CONNECTION_AGE_MAX) => {}
        () = stopping.cancelled() => {}
    }
    served.as_mut().graceful_shutdown();
    match timeout(LAST_ANSWER_TIMEOUT, served).await {
        Ok(ended) => ended.map_err(io::Error::other),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
