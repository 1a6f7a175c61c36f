//! Accepting connections: bounded in total and per host, and closed together.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::{
    limits::ACCEPT_PAUSE,
    quota::{Permit, Quota},
};

/// How many connections may be open at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// In total.
    pub total_max: usize,
    /// From one host.
    pub per_host_max: usize,
}

/// Accepts connections.
pub(crate) struct Connections {
    listener: TcpListener,
    quota: Arc<Quota<IpAddr>>,
    aborted: CancellationToken,
    open: TaskTracker,
}

/// A TCP connection that counts as open until it is dropped, and breaks when the server is aborted.
pub(crate) struct Connection {
    stream: TcpStream,
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: Permit<IpAddr>,
    _open: TaskTrackerToken,
}

impl Connections {
    /// Accepts from `listener`. Connections are tracked by `open` and break when `aborted` is cancelled.
    pub fn new(listener: TcpListener, limits: ConnectionLimits, aborted: CancellationToken, open: TaskTracker) -> Self {
        Self { listener, quota: Quota::new(limits.total_max, limits.per_host_max), aborted, open }
    }

    /// The connections, without an end.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> {
        stream::unfold(self, |connections| async {
            let connection = connections.accept().await;
            Some((Ok(connection), connections))
        })
    }

    async fn accept(&self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => match self.quota.take(peer.ip()) {
                    Some(permit) => return self.connection(stream, permit),
                    // Closed at once: waiting for a permit would let one host keep out all others.
                    None => tracing::debug!(%peer, "a connection beyond the limit was refused"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, permit: Permit<IpAddr>) -> Connection {
        // Fails only if the connection is broken, which shows when it is read.
        let _ = stream.set_nodelay(true);
        let aborted = Box::pin(self.aborted.clone().cancelled_owned());
        Connection { stream, aborted, _permit: permit, _open: self.open.token() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 always waits for the next frame, so this is polled even while all streams are stalled.
        if self.aborted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
