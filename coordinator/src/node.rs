//! A replica as a node: storage, network, the replica's task, the API, and the order in which they start and stop.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use fedledger_federation::{Federation, conductor::Conductor};
use fedledger_ledger::{
    Digest, PublicKey,
    consensus::{Config, ReplicaId},
    log::read_root,
    replica::{Fault, Identity, Replica, SealPace, SnapshotManifest},
    storage::{LogStorage, StorageError, rocks::RocksStorage},
};
use fedledger_proto::{
    endpoint::{Endpoint, EndpointConfig, EndpointError, Incoming, Proxy, ProxyVariableError, Transports},
    kit::{CertificateError, KitError, ReplicaKit},
    wire::{EventsRequest, SubmitRequest, SubmitResponse},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    api::{ApiConfig, ApiServer, ApiServerError},
    backend::ReplicaBackend,
    blobs::BlobStore,
    checkpoints::Checkpoints,
    contradictions::Contradictions,
    disk,
    duties::{Means, Workers},
    findings::Findings,
    gossip,
    http::{HttpConfig, HttpServer, HttpServerError, RunningHttp},
    intake::Intake,
    membership,
    peers::Peers,
    recording,
    replica::{self, EVENTS_WAITING_MAX, Event, Finalized, Forward, Handle, Parts},
    requests::Requests,
    shared::SharedView,
    sweeping::Sweeper,
    tasks::Tasks,
};

/// How long the leader may take to answer a forwarded transaction.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the next entry may take while catching up.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of leaves that are handed to the replica's task at once while catching up.
const LEAVES_AT_ONCE_BYTES: usize = 1024 * 1024;

/// A node that cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its directory is not complete.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// Its ledger cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its ledger cannot be used, or it must stop.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Its files cannot be kept.
    #[error("the blob store in {path} cannot be used: {source}")]
    Blobs {
        /// The folder.
        path: String,
        /// What the file system says.
        source: std::io::Error,
    },
    /// It cannot talk to its peers.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Its certificates cannot be used for WebSocket.
    #[error("the certificates for WebSocket cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// The environment names a proxy in a way that is not understood.
    #[error(transparent)]
    Proxy(#[from] ProxyVariableError),
    /// It cannot serve its API.
    #[error(transparent)]
    Api(#[from] ApiServerError),
    /// It cannot serve its log over HTTP.
    #[error(transparent)]
    Http(#[from] HttpServerError),
    /// The system refuses a thread or randomness.
    #[error("the system refuses {what}: {reason}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it says.
        reason: String,
    },
    /// A part of the node ended unexpectedly; a defect.
    #[error("a part of the node ended unexpectedly: {0}")]
    Ended(String),
}

/// A running replica.
#[derive(Debug)]
pub struct ReplicaNode {
    name: String,
    handle: Handle,
    blobs: BlobStore,
    endpoint: Endpoint,
    stop_api: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), Fault>>>,
    api: Option<JoinHandle<Result<(), ApiServerError>>>,
    http: Option<RunningHttp>,
    disk: Option<std::thread::JoinHandle<()>>,
    tasks: Tasks,
    ended: watch::Receiver<Option<String>>,
}

impl ReplicaNode {
    /// Starts the replica whose kit is in `directory`.
    ///
    /// # Errors
    ///
    /// [`NodeError`], which says what is wrong and where.
    pub async fn start(directory: &Path) -> Result<Self, NodeError> {
        Self::start_kit(ReplicaKit::load(directory)?).await
    }

    /// Starts the replica of a kit.
    ///
    /// # Errors
    ///
    /// [`NodeError`].
    pub async fn start_kit(kit: ReplicaKit) -> Result<Self, NodeError> {
        Self::start_paced(kit, SealPace::default()).await
    }

    /// Starts the replica of a kit that seals at its own pace while it leads, as measurements do.
    ///
    /// # Errors
    ///
    /// [`NodeError`].
    pub async fn start_paced(kit: ReplicaKit, pace: SealPace) -> Result<Self, NodeError> {
        let name = kit.config.name.clone();
        let storage = Arc::new(RocksStorage::open(&kit.directory.join("ledger"))?);
        let mut replica = open_replica(&kit, &storage)?;
        let (kit, changed) = membership::current(kit, replica.log().machine())?;
        if changed {
            replica = open_replica(&kit, &storage)?;
        }
        let view = SharedView::new(replica.log().machine());
        replica.pace_seals(pace);
        let blobs_path = kit.directory.join("blobs");
        let blobs_failed = |source| NodeError::Blobs { path: blobs_path.display().to_string(), source };
        let blobs = BlobStore::open(&blobs_path).map_err(blobs_failed)?;
        let api_config =
            ApiConfig { listen: kit.config.api, tls: kit.tls.clone(), reflection: kit.config.settings.reflection };
        let api = ApiServer::bind(api_config).await?;
        let http = match kit.config.http {
            Some(listen) => Some(HttpServer::bind(HttpConfig::new(listen)).await?),
            None => None,
        };
        let (endpoint, incoming) = Endpoint::start(endpoint_config(&kit, &view)?)?;
        endpoint.limit_bandwidth(kit.config.transfers.limits());
        let assembly = Assembly { kit, name, view, storage, replica, blobs, api, http, endpoint, incoming };
        assembly.start()
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To the replica's task.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The files that the node keeps.
    pub const fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Waits until the node has ended by itself, and says why. It never does unless it must.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "its task was dropped".to_owned(),
        }
    }

    /// Ends the node as a crash does: nothing is finished, nobody is told. What was acknowledged is on the disk.
    ///
    /// Returns the node's endpoint, which is closed; its [`Endpoint::shutdown`] waits until the ports are free again.
    pub async fn kill(mut self) -> Endpoint {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        if let Some(api) = self.api.take() {
            api.abort();
            let _ = api.await;
        }
        if let Some(http) = self.http.take() {
            http.abort().await;
        }
        self.tasks.stop().await;
        self.endpoint.close().await;
        if let Some(disk) = self.disk.take() {
            let _ = tokio::task::spawn_blocking(move || disk.join()).await;
        }
        self.endpoint.clone()
    }

    /// Stops the node: no new requests, then the replica's task, then the disk.
    ///
    /// # Errors
    ///
    /// The [`Fault`] for which it had stopped before.
    pub async fn shutdown(mut self) -> Result<(), NodeError> {
        if let Some(stop) = self.stop_api.take() {
            let _ = stop.send(());
        }
        if let Some(http) = self.http.take() {
            http.stop().await;
        }
        self.tasks.stop().await;
        let _ = self.handle.events().send(Event::Stop).await;
        let outcome = match self.task.take() {
            Some(task) => task.await.map_err(|error| NodeError::Ended(error.to_string()))?,
            None => Ok(()),
        };
        if let Some(api) = self.api.take() {
            api.await.map_err(|error| NodeError::Ended(error.to_string()))??;
        }
        self.endpoint.close().await;
        if let Some(disk) = self.disk.take() {
            let joined = tokio::task::spawn_blocking(move || disk.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                return Err(NodeError::Ended("the disk thread".to_owned()));
            }
        }
        Ok(outcome?)
    }
}

/// Everything opened and bound, but nothing running.
struct Assembly {
    kit: ReplicaKit,
    name: String,
    view: SharedView,
    storage: Arc<RocksStorage>,
    replica: Replica<Federation>,
    blobs: BlobStore,
    api: ApiServer,
    http: Option<HttpServer>,
    endpoint: Endpoint,
    incoming: Incoming,
}

impl Assembly {
    fn start(self) -> Result<ReplicaNode, NodeError> {
        let Self { kit, name, view, storage, replica, blobs, api, http, endpoint, incoming } = self;
        let storage: Arc<dyn LogStorage> = storage;
        let thread_failed = |error: std::io::Error| NodeError::System { what: "a thread", reason: error.to_string() };
        let (disk, disk_reports, disk_thread) = disk::start(Arc::clone(&storage)).map_err(thread_failed)?;
        let (events, event_queue) = mpsc::channel(EVENTS_WAITING_MAX);
        let (log_size, log_size_seen) = watch::channel(replica.log().size());
        let (status, status_seen) = watch::channel(replica.status());
        let peers = Peers::new(membership::replicas(&kit, view.read().transport_keys()));
        let forwarder = Arc::new(Forwarder { endpoint: endpoint.clone(), peers: peers.clone() });
        let finality = replica.finality();
        let (finalized, finalized_seen) = watch::channel(Finalized {
            final_size: finality.final_size(),
            unanimous_size: finality.unanimous_size(),
            time_s: None,
        });
        let (notes, notes_seen) = watch::channel(None);
        let handle = Handle::new(events, storage, log_size_seen, status_seen, finalized_seen, forwarder);
        let (findings, uncounted) = Findings::start(kit.directory.join("evidence")).map_err(thread_failed)?;
        let contradictions = Contradictions::new(handle.clone(), findings.clone());
        let checkpoints = Checkpoints::new(handle.clone(), contradictions.clone());
        let tasks = Tasks::default();
        let workers = Workers::new(Means {
            chain: kit.genesis.chain,
            key: kit.transaction_key.clone(),
            handle: handle.clone(),
            endpoint: endpoint.clone(),
            blobs: blobs.clone(),
            view: view.clone(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            tasks: tasks.clone(),
        });
        let Incoming { requests, raft, heads } = incoming;
        let answering = Requests::new(handle.clone(), checkpoints.clone(), blobs.clone(), view.clone(), tasks.clone());
        let swept = (blobs.clone(), view.clone(), answering.uploads());
        tasks.spawn(Sweeper::new(handle.clone(), swept, tasks.clone()).run());
        tasks.spawn(answering.serve(requests));
        gossip::start(&tasks, &peers, ReplicaId(kit.number), &endpoint, &notes_seen, &checkpoints);
        tasks.spawn(gossip::listen(heads, peers.clone(), checkpoints.clone()));
        tasks.spawn(contradictions.clone().take_uncounted(uncounted));
        tasks.spawn(contradictions.follow());
        tasks.spawn(recording::record(workers.clone(), handle.clone(), findings.clone()));
        tasks.spawn(membership::follow(kit.clone(), endpoint.clone(), view.clone(), peers.clone()));
        let fetch = fetcher(handle.clone(), endpoint.clone(), peers.clone(), tasks.clone());
        let kept = blobs.clone();
        let backend = Arc::new(ReplicaBackend {
            node: name.clone(),
            genesis: kit.genesis.bytes.clone().into(),
            handle: handle.clone(),
            checkpoints,
            intake: Intake::open(kit.transaction_key.clone(), handle.clone(), tasks.clone())?,
            blobs,
            view: view.clone(),
            peers: peers.clone(),
            endpoint: endpoint.clone(),
        });
        let kept_endpoint = endpoint.clone();
        let http = http.map(|server| server.start(Arc::clone(&backend)));
        let parts = Parts {
            conductor: Conductor::new(name.clone()),
            tick: Duration::from_millis(kit.config.settings.tick_ms),
            replica,
            workers,
            peers,
            endpoint,
            events: event_queue,
            frames: raft,
            disk,
            disk_reports,
            log_size,
            status,
            finalized,
            notes,
            findings,
            view,
            fetch,
        };
        let (stop_api, api_stopped) = oneshot::channel::<()>();
        let api = tokio::spawn(api.serve(backend, async move {
            let _ = api_stopped.await;
        }));
        let (end, ended) = watch::channel(None);
        let task = tokio::spawn(async move {
            let outcome = replica::run(parts).await;
            end.send_replace(Some(match &outcome {
                Ok(()) => "it was stopped".to_owned(),
                Err(fault) => {
                    tracing::error!(%fault, "the replica stops");
                    fault.to_string()
                }
            }));
            outcome
        });
        Ok(ReplicaNode {
            name,
            handle,
            blobs: kept,
            endpoint: kept_endpoint,
            stop_api: Some(stop_api),
            task: Some(task),
            api: Some(api),
            http,
            disk: Some(disk_thread),
            tasks,
            ended,
        })
    }
}

fn open_replica(kit: &ReplicaKit, storage: &RocksStorage) -> Result<Replica<Federation>, NodeError> {
    let mut boot = [0; 8];
    let randomness_failed =
        |error: getrandom::Error| NodeError::System { what: "randomness", reason: error.to_string() };
    getrandom::fill(&mut boot).map_err(randomness_failed)?;
    let boot_id = u64::from_be_bytes(boot);
    let settings = &kit.config.settings;
    let mut config = Config::new(ReplicaId(kit.number), boot_id, boot_id);
    config.heartbeat_ticks = settings.heartbeat_ticks;
    config.election_ticks = settings.election_ticks..=settings.election_ticks.saturating_mul(2);
    let identity = Identity {
        name: kit.config.name.clone(),
        origin: format!("fedledger/{}", kit.genesis.genesis.consortium),
        log_key: kit.log_key.clone(),
        cosign_key: kit.cosign_key.clone(),
        transaction_key: kit.transaction_key.clone(),
    };
    let mut replica = Replica::open(identity, config, membership::voters(kit), &kit.genesis.bytes, storage)?;
    // Nobody has led yet: the first replica stands at once instead of waiting for a timeout.
    if kit.number == 1 && replica.status().term <= 1 {
        replica.campaign();
    }
    Ok(replica)
}

fn endpoint_config(kit: &ReplicaKit, view: &SharedView) -> Result<EndpointConfig, NodeError> {
    let view = view.read();
    let keys = view.transport_keys();
    let dial = membership::dialed(kit, keys);
    let proxy = Proxy::for_addresses(dial.iter().flat_map(|peer| &peer.addresses))?;
    Ok(EndpointConfig {
        transport_key: kit.transport_key.clone(),
        listen: vec![kit.config.listen],
        dial,
        admitted: keys.values().copied().collect(),
        transports: Transports::default(),
        websocket: kit.websocket(proxy)?,
    })
}

struct Forwarder {
    endpoint: Endpoint,
    peers: Peers,
}

impl Forward for Forwarder {
    fn forward(
        &self,
        to: ReplicaId,
        envelope: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move {
            let key = self.peers.key(to).ok_or("the leader is not known")?;
            let request = SubmitRequest { envelope };
            match self.endpoint.call(key, &request, FORWARD_TIMEOUT).await {
                Ok(SubmitResponse::Outcome { .. }) => Ok(()),
                Ok(SubmitResponse::Refused { message, .. }) => Err(message),
                Ok(SubmitResponse::Redirect { .. }) => Err("it does not lead any more".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// Fetches the leaves that a snapshot needs from the replica that sent it, or reads the root that it is to be compared with,
/// then hands the snapshot's message in again.
fn fetcher(
    handle: Handle,
    endpoint: Endpoint,
    peers: Peers,
    tasks: Tasks,
) -> Box<dyn Fn(ReplicaId, SnapshotManifest, u64, Vec<u8>) + Send> {
    Box::new(move |from, manifest, size, message| {
        let (handle, endpoint, peer) = (handle.clone(), endpoint.clone(), peers.key(from));
        tasks.spawn(async move {
            let fetched = match peer {
                _ if manifest.size < size => root_of(&handle, manifest.size).await.map(Some),
                Some(peer) => fetch_leaves(&handle, &endpoint, peer, size, manifest.size).await.map(|()| None),
                None => Err("the replica is not known".to_owned()),
            };
            let (message, root) = match fetched {
                Ok(root) => (Some(message), root),
                Err(reason) => {
                    tracing::warn!(%from, reason, "a snapshot could not be taken");
                    (None, None)
                }
            };
            let _ = handle.events().send(Event::CaughtUp { from, message, root }).await;
        });
    })
}

/// The root of the first `size` entries, once they are on the disk.
async fn root_of(handle: &Handle, size: u64) -> Result<(u64, Digest), String> {
    let mut stored = handle.log_size();
    stored.wait_for(|stored| *stored >= size).await.map_err(|_| "the replica is stopping")?;
    let root = read_root(&**handle.storage(), size).map_err(|error| error.to_string())?;
    Ok((size, root))
}

async fn fetch_leaves(
    handle: &Handle,
    endpoint: &Endpoint,
    peer: PublicKey,
    from: u64,
    until: u64,
) -> Result<(), String> {
    let request = EventsRequest { from };
    let (_, mut frames) = endpoint.subscribe(peer, &request).await.map_err(|error| error.to_string())?;
    let (mut next, mut leaves, mut bytes) = (from, Vec::new(), 0);
    while next < until {
        let frame = timeout(FRAME_TIMEOUT, frames.next()).await.map_err(|_| "no entry came in time")?;
        let frame = frame.map_err(|error| error.to_string())?;
        let frame = frame.filter(|frame| frame.index == next).ok_or("the stream of entries broke off")?;
        next += 1;
        bytes += frame.leaf.len();
        leaves.push(frame.leaf);
        if bytes >= LEAVES_AT_ONCE_BYTES || next == until {
            let (reply, taken) = oneshot::channel();
            let event = Event::Leaves { leaves: std::mem::take(&mut leaves), reply };
            handle.events().send(event).await.map_err(|_| "the replica is stopping")?;
            if !taken.await.unwrap_or(false) {
                return Err("they do not follow from this replica's entries".to_owned());
            }
            bytes = 0;
        }
    }
    Ok(())
}
