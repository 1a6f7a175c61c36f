//! A replica that keeps the fixture's ledger in memory and speaks the real protocols over real connections.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use fedledger_federation::{Federation, VersionId, command::RoundKey};
use fedledger_ledger::{Digest, SecretKey, transaction::Envelope};
use fedledger_proto::{
    blobs::{BlobSource, Marks, MemoryBlob, MemorySink},
    endpoint::{
        Endpoint, EndpointConfig, EventsResponder, InboundRequest, Incoming, RequestKind, Transports, WantedBlob,
        WebSocketConfig,
    },
    wire::{CheckpointRequest, CheckpointResponse, EventFrame, SubmitResponse},
};
use tokio::sync::watch;

use crate::fixture::{Ledger, MEMBERS, Purpose, key};

/// Kind of the transactions that contribute.
const CONTRIBUTION: &str = "Contribute";

/// What every handle and task of the replica shares.
struct Shared {
    name: &'static str,
    ledger: Mutex<Ledger>,
    size: watch::Sender<u64>,
    /// How often the next files are cut off after their first chunk.
    cuts: AtomicUsize,
    /// Bytes of files that were read to be sent.
    read: Arc<AtomicU64>,
    /// Whether requests are not answered any more.
    is_silent: AtomicBool,
    /// What happens while the next contribution is on its way.
    overtaking: Mutex<Option<Change>>,
}

/// A change of the ledger.
type Change = Box<dyn FnOnce(&mut Ledger) + Send>;

/// A file that may be cut off.
struct Cut {
    blob: MemoryBlob,
    is_cut: bool,
    read: Arc<AtomicU64>,
}

impl BlobSource for Cut {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn marks(&self) -> &Marks {
        self.blob.marks()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.is_cut && offset > 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.read.fetch_add(buffer.len() as u64, Ordering::SeqCst);
        self.blob.read_at(offset, buffer)
    }
}

/// A running replica.
pub struct Replica {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    address: SocketAddr,
}

impl Replica {
    /// Starts the replica of a member with a ledger.
    pub fn start(name: &'static str, ledger: Ledger) -> Self {
        Self::start_at(name, ledger, key(name, Purpose::Transport), "127.0.0.1:0".parse().unwrap())
    }

    /// The same with a transport key of its own, at an address.
    pub fn start_at(name: &'static str, ledger: Ledger, transport_key: SecretKey, listen: SocketAddr) -> Self {
        let admitted: BTreeSet<_> =
            MEMBERS.iter().map(|member| key(member, Purpose::ParticipantTransport).public()).collect();
        let (endpoint, incoming) = Endpoint::start(EndpointConfig {
            transport_key,
            listen: vec![listen],
            dial: Vec::new(),
            admitted,
            transports: Transports::TcpOnly,
            websocket: WebSocketConfig::default(),
        })
        .unwrap();
        let size = watch::Sender::new(ledger.log.size());
        let (cuts, read, is_silent, overtaking) = Default::default();
        let shared = Arc::new(Shared { name, ledger: Mutex::new(ledger), size, cuts, read, is_silent, overtaking });
        tokio::spawn(serve(Arc::clone(&shared), incoming));
        let address = endpoint.listen_addresses()[0];
        Self { shared, endpoint, address }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the ledger as its other members do.
    pub fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        self.shared.change(change)
    }

    /// Waits until the ledger's state is as wanted.
    pub async fn until(&self, mut wanted: impl FnMut(&Federation) -> bool) {
        let mut size = self.shared.size.subscribe();
        while !wanted(self.shared.ledger.lock().unwrap().state()) {
            size.changed().await.unwrap();
        }
    }

    /// Fetches a file from a participant.
    pub async fn fetch(&self, participant: &str, digest: Digest) -> Option<Vec<u8>> {
        let peer = key(participant, Purpose::ParticipantTransport).public();
        let wanted = WantedBlob { digest, size_max: 1 << 20, doubted: false };
        let fetched = self.endpoint.get_blob(peer, wanted, MemorySink::default()).await.ok()?;
        Some(fetched.into_bytes())
    }

    /// Cuts the next files off after their first chunk, as a lost connection does.
    pub fn cut(&self, times: usize) {
        self.shared.cuts.store(times, Ordering::SeqCst);
    }

    /// Answers nothing any more, while its connections stay, as one that was suspended.
    pub fn fall_silent(&self) {
        self.shared.is_silent.store(true, Ordering::SeqCst);
    }

    /// Changes the ledger after the next contribution was sent and before it is applied.
    pub fn overtake(&self, change: impl FnOnce(&mut Ledger) + Send + 'static) {
        *self.shared.overtaking.lock().unwrap() = Some(Box::new(change));
    }

    /// Bytes of files that were read to be sent.
    pub fn read_bytes(&self) -> u64 {
        self.shared.read.load(Ordering::SeqCst)
    }

    /// Waits until a participant is connected.
    pub async fn until_joined(&self) {
        self.endpoint.connected().wait_for(|peers| !peers.is_empty()).await.unwrap();
    }

    /// Waits until no participant is connected.
    pub async fn until_alone(&self) {
        self.endpoint.connected().wait_for(BTreeSet::is_empty).await.unwrap();
    }

    /// Stops, and gives the ledger back.
    pub async fn stop(self) -> Ledger {
        self.endpoint.shutdown().await;
        std::mem::replace(&mut *self.shared.ledger.lock().unwrap(), Ledger::new())
    }

    /// Closes a round and makes its version from what participants have stored here.
    pub fn complete_round(&self, key: RoundKey) -> VersionId {
        self.change(|ledger| ledger.complete_round(key))
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock().unwrap();
        let result = change(&mut ledger);
        let size = ledger.log.size();
        drop(ledger);
        self.size.send_if_modified(|published| std::mem::replace(published, size.max(*published)) < size);
        result
    }
}

async fn serve(shared: Arc<Shared>, mut incoming: Incoming) {
    let mut unanswered = Vec::new();
    while let Some(InboundRequest { kind, .. }) = incoming.requests.recv().await {
        if shared.is_silent.load(Ordering::SeqCst) {
            unanswered.push(kind);
            continue;
        }
        // A peer may go away while it is answered.
        tokio::spawn(answer(Arc::clone(&shared), kind));
    }
}

async fn answer(shared: Arc<Shared>, kind: RequestKind) {
    match kind {
        RequestKind::Submit(request, responder) => {
            let is_contribution = Envelope::open_unverified(&request.envelope).unwrap().kind == CONTRIBUTION;
            let overtaking = is_contribution.then(|| shared.overtaking.lock().unwrap().take()).flatten();
            let (index, leaf) = shared.change(|ledger| {
                if let Some(change) = overtaking {
                    change(ledger);
                }
                ledger.take_envelope(&request.envelope)
            });
            responder.send(SubmitResponse::Outcome { index, leaf }).await.ok();
        }
        RequestKind::Checkpoint(CheckpointRequest::Latest { .. }, responder) => {
            let note = shared.change(|ledger| ledger.head(shared.name, ledger.log.size()));
            responder.send(CheckpointResponse::Latest { note: Some(note), consistency: None }).await.ok();
        }
        RequestKind::Checkpoint(CheckpointRequest::Vouched { .. }, responder) => {
            responder.send(CheckpointResponse::Latest { note: None, consistency: None }).await.ok();
        }
        RequestKind::Checkpoint(CheckpointRequest::Offer { note }, responder) => {
            shared.change(|ledger| ledger.cosigned.push(note));
            responder.send(CheckpointResponse::Taken { note: None, consistency: None }).await.ok();
        }
        RequestKind::Events(request, responder) => follow(shared, request.from, responder).await,
        RequestKind::BlobGet(responder) => {
            let found = shared.ledger.lock().unwrap().blobs.get(&responder.digest()).cloned();
            match found {
                Some(bytes) => {
                    let fewer = |cuts: usize| cuts.checked_sub(1);
                    let is_cut = shared.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok();
                    let cut = Cut { blob: MemoryBlob::new(bytes), is_cut, read: Arc::clone(&shared.read) };
                    assert_eq!(responder.send(cut).await.is_err(), is_cut);
                }
                None => responder.not_found().await.unwrap(),
            }
        }
        RequestKind::BlobPut(responder) => {
            let digest = responder.digest();
            let (receipt, sink) = responder.receive(MemorySink::default()).await.unwrap();
            shared.change(|ledger| ledger.blobs.insert(digest, sink.into_bytes()));
            receipt.stored().await.unwrap();
        }
    }
}

async fn follow(shared: Arc<Shared>, mut from: u64, responder: EventsResponder) {
    let mut size = shared.size.subscribe();
    size.mark_unchanged();
    // It announces less than it has; only its signed head says how much that is.
    let Ok(mut sender) = responder.accept(from).await else { return };
    loop {
        while let Some(leaf) = leaf(&shared, from) {
            if sender.send(&EventFrame { index: from, leaf }).await.is_err() {
                return;
            }
            from += 1;
        }
        tokio::select! {
            // A peer may have only so many subscriptions, and one that is gone has none.
            () = sender.closed() => return,
            changed = size.changed() => if changed.is_err() { return },
        }
    }
}

fn leaf(shared: &Shared, index: u64) -> Option<Vec<u8>> {
    shared.ledger.lock().unwrap().leaves.get(index as usize - 1).cloned()
}
