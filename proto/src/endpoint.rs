//! The libp2p node that replicas and participants both run.
//!
//! An [`Endpoint`] listens and dials over QUIC, TCP and WebSocket (Noise, Yamux), admits only peers whose Ed25519 transport key it
//! was told, keeps connections to the peers it was told to dial, and carries the protocols of [`crate::wire`]. What
//! peers ask for comes out of [`Incoming`]; deciding and answering is the caller's part. One task owns the connections;
//! every stream is served in a task of its own, every queue is bounded, and whatever makes no progress is given up, so
//! no peer can hold up another.
//!
//! ```text
//!   Endpoint (handle) --commands--> driver (owns the swarm) --inbound streams--> serve (a task each) --> Incoming
//!        |                             |                                                                  |
//!        +------- streams (opened by the driver, used by the caller's task) <------- answers -------------+
//! ```

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fedledger_ledger::{Digest, PublicKey};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

mod address;
mod bandwidth;
mod blob;
mod call;
mod config;
mod dialer;
mod driver;
mod identity;
mod inbound;
mod lanes;
mod limits;
mod lookup;
mod open;
mod presence;
mod probe;
mod proxy;
mod pushed;
mod serve;
mod slots;
mod streams;
mod transport;

pub use address::{Address, Leg, NodeAddress, ParseAddressError, ParseNodeAddressError, Via, WebSocketListen};
pub use bandwidth::{BandwidthLimits, Traffic};
pub use blob::{BlobError, BlobGetResponder, BlobPutResponder, BlobReceipt, PutOutcome, Turn, WAIT_MAX, WantedBlob};
pub use call::{CallError, FrameStream};
pub use config::{EndpointConfig, EndpointError, PeerAddress, Transports, WebSocketCertificate, WebSocketConfig};
pub use inbound::{EventSender, EventsResponder, InboundRequest, Incoming, PeerFrame, RequestKind, Responder};
pub use probe::{ProbeError, Prober};
pub use proxy::{ParseProxyError, Proxy, ProxyVariableError};
pub use pushed::{FrameSendError, FrameSender};
pub use slots::{Slot, Slots};

use crate::{
    blobs::{BlobSink, BlobSource},
    wire::{Call, Protocol, Subscription},
};
use bandwidth::Bandwidth;
use dialer::Dialer;
use driver::{Command, Driver};
use limits::Limits;
use open::Opener;
use serve::Inbox;

/// Requests that wait for the caller; while it is full, further ones are answered "busy".
const REQUESTS_WAITING_MAX: usize = 256;

/// Raft frames that wait for the caller; while it is full, the peers are held back.
const RAFT_FRAMES_WAITING_MAX: usize = 32;

/// Heads that wait for the caller; while it is full, the peers are held back.
const HEADS_WAITING_MAX: usize = 64;

/// How long the ports of a node that has stopped may stay taken. QUIC holds a connection for three times its probe timeout
/// (RFC 9000, section 10.2), which is a second each where no round trip was measured.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(15);

/// Commands that wait for the driver.
const COMMANDS_WAITING_MAX: usize = 64;

/// A running node. Clones are handles to the same node; it stops when it is shut down or the last handle is gone.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

struct Shared {
    local: PublicKey,
    listen: Vec<SocketAddr>,
    websocket: Option<WebSocketListen>,
    transports: Transports,
    opener: Opener,
    bandwidth: Arc<Bandwidth>,
    stop: CancellationToken,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("key", &self.shared.local).field("listen", &self.shared.listen).finish()
    }
}

impl Endpoint {
    /// Starts a node. To be called within a Tokio runtime with time and IO.
    ///
    /// # Errors
    ///
    /// [`EndpointError::PortInUse`] if another process listens on one of the addresses, and others of
    /// [`EndpointError`].
    pub fn start(config: EndpointConfig) -> Result<(Self, Incoming), EndpointError> {
        let local = config.transport_key.public();
        let (mut swarm, ways) = transport::swarm(&config)?;
        let bound = config.listen.iter().map(|address| transport::listen(&mut swarm, *address, config.transports));
        let listen = bound.collect::<Result<Vec<_>, _>>()?;
        let websocket = config.websocket.listen.map(|listen| transport::listen_websocket(&mut swarm, listen));
        let websocket = websocket.transpose()?;

        let (commands, command_queue) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (connected_publisher, connected) = watch::channel(BTreeSet::new());
        let (requests_in, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
        let (raft_in, raft) = mpsc::channel(RAFT_FRAMES_WAITING_MAX);
        let (heads_in, heads) = mpsc::channel(HEADS_WAITING_MAX);

        // The standard library's hashers are keyed by the operating system.
        let seed = RandomState::new().build_hasher().finish();
        let mut dialer = Dialer::new(local, !listen.is_empty(), seed);
        dialer.set_targets(config.dial, |_| false, Instant::now());
        let bandwidth = Arc::new(Bandwidth::default());
        let inbox = Inbox { requests: requests_in, raft: raft_in, heads: heads_in, bandwidth: Arc::clone(&bandwidth) };
        let mut driver =
            Driver::new((swarm, ways), config.transports, dialer, connected_publisher, command_queue, inbox);
        driver.set_admitted(&config.admitted);

        let opener = Opener { commands, connected, renewed: driver.renewed(), limits: Arc::new(Limits::outbound()) };
        let stop = CancellationToken::new();
        let driver = Mutex::new(Some(tokio::spawn(driver.run(stop.clone()))));
        let transports = config.transports;
        let shared = Shared { local, listen, websocket, transports, opener, bandwidth, stop, driver };
        Ok((Self { shared: Arc::new(shared) }, Incoming { requests, raft, heads }))
    }

    /// The node's own transport key.
    pub fn key(&self) -> PublicKey {
        self.shared.local
    }

    /// The addresses that the node listens on, with the ports that it got.
    pub fn listen_addresses(&self) -> &[SocketAddr] {
        &self.shared.listen
    }

    /// Where the node listens for WebSocket connections, with the port that it got.
    pub fn websocket_address(&self) -> Option<WebSocketListen> {
        self.shared.websocket
    }

    /// The peers that are connected now: those that answered on an admitted connection.
    pub fn connected(&self) -> watch::Receiver<BTreeSet<PublicKey>> {
        self.shared.opener.connected.clone()
    }

    /// Admits exactly these peers from now on; connections of others are closed.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Stopped`].
    pub async fn set_admitted(&self, admitted: BTreeSet<PublicKey>) -> Result<(), EndpointError> {
        self.command(|done| Command::SetAdmitted { admitted, done }).await
    }

    /// Dials exactly these peers from now on. Connections that are there already stay.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Stopped`].
    pub async fn set_dial(&self, peers: Vec<PeerAddress>) -> Result<(), EndpointError> {
        self.command(|done| Command::SetDial { peers, done }).await
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<(), EndpointError> {
        let (done, is_done) = oneshot::channel();
        self.shared.opener.commands.send(command(done)).await.map_err(|_| EndpointError::Stopped)?;
        is_done.await.map_err(|_| EndpointError::Stopped)
    }

    /// Sends a request to a connected peer and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`CallError`]; after [`CallError::TimedOut`], [`CallError::NoAnswer`] and [`CallError::Frame`] the request may
    /// have been served all the same.
    pub async fn call<C: Call>(
        &self,
        peer: PublicKey,
        request: &C,
        timeout: Duration,
    ) -> Result<C::Response, CallError> {
        call::call(&self.shared.opener, peer, request, timeout).await
    }

    /// Subscribes to frames that a connected peer pushes.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn subscribe<S: Subscription>(
        &self,
        peer: PublicKey,
        request: &S,
    ) -> Result<(S::Accepted, FrameStream<S::Frame>), CallError> {
        call::subscribe(&self.shared.opener, peer, request).await
    }

    /// Caps what blobs may take of the node's connection, also for transfers that are under way.
    pub fn limit_bandwidth(&self, limits: BandwidthLimits) {
        self.shared.bandwidth.limit(limits);
    }

    /// How much has travelled in blobs.
    pub fn traffic(&self) -> Traffic {
        self.shared.bandwidth.traffic()
    }

    /// Fetches what `sink` does not hold of a blob, verifying it chunk by chunk, and gives the sink back with the whole
    /// blob. When this is dropped, the chunk that is being written still is, and the sink is dropped after that.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub async fn get_blob<S: BlobSink>(&self, peer: PublicKey, wanted: WantedBlob, sink: S) -> Result<S, BlobError> {
        self.get_blob_in_turn(peer, wanted, sink, Turn::default()).await
    }

    /// Like [`Self::get_blob`], as one of several transfers, or with less patience for a peer that has this one wait.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub async fn get_blob_in_turn<S: BlobSink>(
        &self,
        peer: PublicKey,
        wanted: WantedBlob,
        sink: S,
        turn: Turn,
    ) -> Result<S, BlobError> {
        blob::get(&self.shared.opener, &self.shared.bandwidth, (peer, turn), wanted, sink).await
    }

    /// Stores a blob at a peer, which has verified it and made it durable when this returns. Only what the peer does not
    /// hold of it is sent.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub async fn put_blob<S: BlobSource>(
        &self,
        peer: PublicKey,
        digest: Digest,
        source: S,
    ) -> Result<PutOutcome, BlobError> {
        self.put_blob_in_turn(peer, digest, source, Turn::default()).await
    }

    /// Like [`Self::put_blob`], as one of several transfers, or with less patience for a peer that has this one wait.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub async fn put_blob_in_turn<S: BlobSource>(
        &self,
        peer: PublicKey,
        digest: Digest,
        source: S,
        turn: Turn,
    ) -> Result<PutOutcome, BlobError> {
        blob::put(&self.shared.opener, &self.shared.bandwidth, (peer, turn), digest, source).await
    }

    /// A queue of Raft frames to one peer. Keep one per peer: the peer reads only the newest stream.
    ///
    /// To be called within a Tokio runtime.
    pub fn raft_sender(&self, peer: PublicKey) -> FrameSender {
        FrameSender::start(self.shared.opener.clone(), Protocol::Raft, peer, self.shared.stop.child_token())
    }

    /// A queue of heads to one peer, each the text of a note. As for Raft, keep one per peer.
    ///
    /// To be called within a Tokio runtime.
    pub fn head_sender(&self, peer: PublicKey) -> FrameSender {
        FrameSender::start(self.shared.opener.clone(), Protocol::Heads, peer, self.shared.stop.child_token())
    }

    /// Closes every connection and waits until the node has stopped. Safe to call more than once.
    ///
    /// Its ports may stay taken for some seconds, until QUIC has drained its connections; see [`Self::shutdown`].
    pub async fn close(&self) {
        self.shared.stop.cancel();
        let driver = self.shared.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver
            && let Err(error) = driver.await
        {
            tracing::error!(%error, "the endpoint's task did not end as it should");
        }
    }

    /// Like [`Self::close`], and waits until another node may listen on the same addresses.
    pub async fn shutdown(&self) {
        self.close().await;
        let released = transport::released(&self.shared.listen, self.shared.transports);
        if timeout(RELEASE_TIMEOUT, released).await.is_err() {
            tracing::warn!(listen = ?self.shared.listen, "a port was not released in time");
        }
    }
}
