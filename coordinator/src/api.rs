//! The gRPC API of a replica, for people and programs.
//!
//! [`ApiServer`] speaks mutually authenticated TLS and asks a [`Backend`] for everything it answers. Who calls is
//! decided at every call: the Ed25519 key in the client's certificate is looked up in the ledger's current state.
//! Connections, calls and streams are bounded in total and for each host or member, so that nobody can take the share
//! of others.

mod access;
mod backend;
mod blobs;
mod connections;
mod ledger;
mod limits;
pub(crate) mod quota;
mod refusal;

use std::{io, net::SocketAddr, sync::Arc};

use fedledger_proto::{
    api::{limits::REQUEST_SIZE_BYTES_MAX, v1},
    kit::TlsIdentity,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Request,
    service::interceptor::InterceptedService,
    transport::{Server, server::Router},
};
use v1::{blobs_server::BlobsServer, ledger_server::LedgerServer};

pub use self::backend::{Backend, Blob, Caller, ReadError, Recorded, StateAnswer, SubmitError, SubmitOutcome};
pub(crate) use self::connections::{Connection, ConnectionLimits, Connections};
use self::{access::Access, blobs::BlobsService, ledger::LedgerService};

/// What an [`ApiServer`] is told when it starts.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Key and certificate of the server, and the authority whose clients it admits.
    pub tls: TlsIdentity,
    /// Whether the services describe themselves to tools such as grpcurl.
    pub reflection: bool,
}

/// An API that listens but does not answer yet.
pub struct ApiServer {
    listener: TcpListener,
    local_address: SocketAddr,
    server: Server,
    reflection: bool,
}

/// An API that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// Another process listens there.
    #[error("address {0} is in use by another process: stop it, or set another `api` address in node.toml")]
    PortInUse(SocketAddr),
    /// Listening failed for another reason.
    #[error("cannot serve the API on {address}: {source}")]
    Listen {
        /// The address that was configured.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Key or certificates cannot be used.
    #[error("the API's key or certificates cannot be used: {source}")]
    Tls {
        /// Why.
        source: tonic::transport::Error,
    },
    /// The services cannot be described.
    #[error("the API cannot describe itself: {source}")]
    Reflection {
        /// Why.
        source: tonic_reflection::server::Error,
    },
    /// Serving failed.
    #[error("serving the API failed: {source}")]
    Serve {
        /// Why.
        source: tonic::transport::Error,
    },
}

impl ApiServer {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// [`ApiServerError`], among others [`ApiServerError::PortInUse`].
    pub async fn bind(config: ApiConfig) -> Result<Self, ApiServerError> {
        let address = config.listen;
        let server = Server::builder()
            .tls_config(config.tls.server_config())
            .map_err(|source| ApiServerError::Tls { source })?
            .timeout(limits::CALL_TIMEOUT)
            .max_concurrent_streams(limits::CALLS_PER_CONNECTION_MAX)
            .initial_stream_window_size(limits::STREAM_WINDOW_SIZE_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_SIZE_BYTES)
            .http2_max_header_list_size(limits::HEADERS_SIZE_BYTES_MAX)
            .http2_keepalive_interval(Some(limits::KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(limits::KEEP_ALIVE_TIMEOUT));
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ApiServerError::PortInUse(address),
            _ => ApiServerError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_address, server, reflection: config.reflection })
    }

    /// Where the API listens.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Answers until `shutdown` is ready, then refuses new calls, ends the streams, and gives the calls in progress a
    /// few seconds. When it returns every connection is closed. If the future is dropped, all connections are closed at
    /// once.
    ///
    /// # Errors
    ///
    /// [`ApiServerError`].
    pub async fn serve<B: Backend>(
        self,
        backend: Arc<B>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ApiServerError> {
        let (stopping, aborted) = (CancellationToken::new(), CancellationToken::new());
        let abort_on_drop = aborted.clone().drop_guard();
        let open = TaskTracker::new();
        let access = Arc::new(Access::new(backend, stopping.clone()));
        let router = router(self.server, access, self.reflection)?;
        let bounds =
            ConnectionLimits { total_max: limits::CONNECTIONS_MAX, per_host_max: limits::CONNECTIONS_PER_HOST_MAX };
        let incoming = Connections::new(self.listener, bounds, aborted, open.clone()).incoming();
        let signal = async {
            shutdown.await;
            stopping.cancel();
        };
        let grace_is_over = async {
            stopping.cancelled().await;
            sleep(limits::SHUTDOWN_GRACE).await;
        };
        let served = tokio::select! {
            served = router.serve_with_incoming_shutdown(incoming, signal) => served,
            () = grace_is_over => Ok(()),
        };
        drop(abort_on_drop);
        open.close();
        open.wait().await;
        served.map_err(|source| ApiServerError::Serve { source })
    }
}

/// The services that the API offers.
fn router<B: Backend>(mut server: Server, access: Arc<Access<B>>, reflection: bool) -> Result<Router, ApiServerError> {
    let ledger =
        LedgerServer::new(LedgerService::new(access.clone())).max_decoding_message_size(REQUEST_SIZE_BYTES_MAX);
    let blobs = BlobsServer::new(BlobsService::new(access.clone())).max_decoding_message_size(REQUEST_SIZE_BYTES_MAX);
    let router = server.add_service(ledger).add_service(blobs);
    if !reflection {
        return Ok(router);
    }
    let service = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|source| ApiServerError::Reflection { source })?
        .max_decoding_message_size(REQUEST_SIZE_BYTES_MAX);
    let members_only = move |request: Request<()>| {
        access.caller(&request)?;
        Ok(request)
    };
    Ok(router.add_service(InterceptedService::new(service, members_only)))
}
