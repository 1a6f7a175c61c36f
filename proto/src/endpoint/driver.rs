//! The one task that owns the swarm.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU8,
    sync::Arc,
    time::{Duration, Instant},
};

use fedledger_ledger::PublicKey;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, Swarm,
    core::ConnectedPoint,
    ping,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::AbortHandle,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    PeerAddress, Transports,
    dialer::Dialer,
    identity,
    limits::Limits,
    lookup,
    serve::{self, Inbox},
    streams::{InboundStream, OpenError, OpenStream},
    transport::{Behaviour, BehaviourEvent, DIAL_TIMEOUT, Memory, PING_FAILURES_MAX},
};
use crate::wire::Protocol;

/// How long closing may take before connections are dropped as they are.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses of one peer that are dialed at the same time, each after its head start.
const ADDRESSES_AT_ONCE_MAX: NonZeroU8 = NonZeroU8::MAX;

/// Streams that are being told at the same time that the node is busy; more are closed without a word.
const BUSY_ANSWERS_MAX: usize = 64;

/// What the handle asks of the task.
pub(super) enum Command {
    Open { peer: PublicKey, request: OpenStream },
    SetAdmitted { admitted: BTreeSet<PublicKey>, done: oneshot::Sender<()> },
    SetDial { peers: Vec<PeerAddress>, done: oneshot::Sender<()> },
}

/// A connection to an admitted peer.
struct Connection {
    peer: PublicKey,
    confirmed: bool,
    established: Instant,
    ping_failures: u32,
    /// Where it was dialed, if this side did.
    dialed: Option<Multiaddr>,
}

type Lookup = BoxFuture<'static, (PublicKey, Vec<Multiaddr>)>;

/// How often each peer has connected, though there was a connection that it may not know of any more.
pub(super) type Renewals = BTreeMap<PublicKey, u64>;

/// A dial that a peer began before this side's came through ends within this time after that, and what comes of it is a second
/// connection that says nothing about the first: the time that a dial may take, and some for the two sides to see either
/// connection.
const DIALS_OVERLAP: Duration = DIAL_TIMEOUT.saturating_add(Duration::from_secs(2));

/// See the module's documentation.
pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    ways: Memory,
    transports: Transports,
    dialer: Dialer,
    lookups: FuturesUnordered<Lookup>,
    connections: HashMap<ConnectionId, Connection>,
    connected: watch::Sender<BTreeSet<PublicKey>>,
    renewed: watch::Sender<Renewals>,
    commands: mpsc::Receiver<Command>,
    inbox: Inbox,
    inbound: Limits,
    busy_answers: Arc<Semaphore>,
    /// Who reads the frames that a peer pushes.
    readers: BTreeMap<(PublicKey, Protocol), AbortHandle>,
}

impl Driver {
    pub fn new(
        (swarm, ways): (Swarm<Behaviour>, Memory),
        transports: Transports,
        dialer: Dialer,
        connected: watch::Sender<BTreeSet<PublicKey>>,
        commands: mpsc::Receiver<Command>,
        inbox: Inbox,
    ) -> Self {
        Self {
            swarm,
            ways,
            transports,
            dialer,
            lookups: FuturesUnordered::new(),
            connections: HashMap::new(),
            connected,
            renewed: watch::Sender::default(),
            commands,
            inbox,
            inbound: Limits::inbound(),
            busy_answers: Arc::new(Semaphore::new(BUSY_ANSWERS_MAX)),
            readers: BTreeMap::new(),
        }
    }

    /// Who pushes frames to a peer does so on another connection when this changes for the peer.
    pub fn renewed(&self) -> watch::Receiver<Renewals> {
        self.renewed.subscribe()
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let attempt = self.dialer.next_attempt();
            let attempt_due = sleep_until(attempt.unwrap_or_else(Instant::now).into());
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                Some((peer, addresses)) = self.lookups.next() => self.dial(peer, addresses),
                () = attempt_due, if attempt.is_some() => self.look_up_due(),
            }
        }
        self.close().await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { peer, request } => match identity::peer_id(&peer) {
                Some(peer) => self.swarm.behaviour_mut().streams.open(peer, request),
                None => drop(request.reply.send(Err(OpenError::NotConnected))),
            },
            Command::SetAdmitted { admitted, done } => {
                self.set_admitted(&admitted);
                done.send(()).ok();
            }
            Command::SetDial { peers, done } => {
                let connected = self.connected.borrow().clone();
                self.dialer.set_targets(peers, |peer| connected.contains(peer), Instant::now());
                done.send(()).ok();
            }
        }
    }

    /// Admits exactly these peers; connections of others are closed.
    pub fn set_admitted(&mut self, admitted: &BTreeSet<PublicKey>) {
        let admission = &mut self.swarm.behaviour_mut().admission;
        let now = Instant::now();
        for key in admitted {
            match identity::peer_id(key) {
                Some(peer) if admission.allow_peer(peer) => self.dialer.retry(key, now),
                Some(_) => {}
                None => warn!(%key, "an admitted transport key is no point of the curve, nobody can hold it"),
            }
        }
        let revoked = |peer: &&libp2p::PeerId| identity::public_key(peer).is_none_or(|key| !admitted.contains(&key));
        for peer in admission.allowed_peers().iter().filter(revoked).copied().collect::<Vec<_>>() {
            admission.disallow_peer(peer);
        }
        for connection in self.connections.values_mut() {
            connection.confirmed &= admitted.contains(&connection.peer);
        }
        self.readers.retain(|(peer, _), reader| {
            let keep = admitted.contains(peer);
            if !keep {
                reader.abort();
            }
            keep
        });
        self.publish_connected();
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(inbound)) => self.on_inbound(inbound),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                if let Some(peer) = identity::public_key(&peer_id) {
                    let address = endpoint.get_remote_address();
                    debug!(%peer, %address, dialed = endpoint.is_dialer(), "connection");
                    let dialed = endpoint.is_dialer().then(|| address.clone());
                    let established = Instant::now();
                    let connection = Connection { peer, confirmed: false, established, ping_failures: 0, dialed };
                    self.connections.insert(connection_id, connection);
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, endpoint, cause, .. } => {
                self.on_closed(connection_id, &endpoint, cause.map(|cause| cause.to_string()));
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer_id), error, .. } => {
                if let Some(peer) = identity::public_key(&peer_id) {
                    debug!(%peer, %error, "dialing failed");
                    self.on_dial_failed(&peer);
                }
            }
            SwarmEvent::IncomingConnectionError { peer_id, send_back_addr, error, .. } => {
                let peer = peer_id.as_ref().and_then(identity::public_key);
                debug!(?peer, address = %send_back_addr, %error, "incoming connection refused");
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "listener"),
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                warn!(?addresses, %error, "no longer listening");
            }
            _ => {}
        }
    }

    /// Only an answered ping shows that the other side admits us too: a dialer that is refused sees a connection first.
    fn on_ping(&mut self, event: ping::Event) {
        let admitted = self.swarm.behaviour().admission.allowed_peers().contains(&event.peer);
        let Some(connection) = self.connections.get_mut(&event.connection) else { return };
        match event.result {
            Ok(_) => {
                connection.ping_failures = 0;
                if !connection.confirmed && admitted {
                    connection.confirmed = true;
                    let peer = connection.peer;
                    match &connection.dialed {
                        Some(address) => self.ways.remember(event.peer, address),
                        None => self.close_forgotten(event.connection),
                    }
                    self.swarm.behaviour_mut().streams.confirm(event.peer, event.connection);
                    self.dialer.connected(&peer);
                    self.publish_connected();
                }
            }
            Err(error) => {
                connection.ping_failures = connection.ping_failures.saturating_add(1);
                debug!(peer = %connection.peer, %error, "no answer to a ping");
            }
        }
        self.close_dead(event.connection);
    }

    /// Closes what the peer has no knowledge of any more, as one that was started again. Streams would stay there until it is
    /// found dead. Where the peer may know the connection or not, only the frames that are pushed to it move to the new one:
    /// they may get lost, and everything else is asked for again.
    fn close_forgotten(&mut self, id: ConnectionId) {
        let Some(new) = self.connections.get(&id) else { return };
        let (peer, established) = (new.peer, new.established);
        let is_older = |old: &Connection| old.peer == peer && old.established < established;
        let older = self.connections.iter().filter(|(_, old)| is_older(old));
        let older: Vec<_> = older.map(|(id, old)| (*id, old.dialed.is_none(), old.established)).collect();
        if older.is_empty() {
            return;
        }
        for (old, is_peers_dial, begun) in older {
            if is_forgotten(is_peers_dial, begun, established) {
                self.swarm.close_connection(old);
            }
        }
        self.renewed.send_modify(|renewals| {
            let count = renewals.entry(peer).or_default();
            *count = count.wrapping_add(1);
        });
    }

    /// Closes the connections of the same peer that give no sign of life. One failure is enough for those that never
    /// answered or that have a successor: streams stay on the old connection until it is closed.
    fn close_dead(&mut self, id: ConnectionId) {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer) else { return };
        let of_peer = || self.connections.iter().filter(|(_, connection)| connection.peer == peer);
        let healthy = of_peer().any(|(_, connection)| connection.confirmed && connection.ping_failures == 0);
        let is_dead = |connection: &Connection| {
            connection.ping_failures >= PING_FAILURES_MAX
                || connection.ping_failures > 0 && (healthy || !connection.confirmed)
        };
        for dead in of_peer().filter(|(_, connection)| is_dead(connection)).map(|(id, _)| *id).collect::<Vec<_>>() {
            debug!(%peer, "closing a connection that gives no sign of life");
            self.swarm.close_connection(dead);
        }
    }

    fn on_closed(&mut self, id: ConnectionId, endpoint: &ConnectedPoint, cause: Option<String>) {
        let Some(Connection { peer, confirmed, .. }) = self.connections.remove(&id) else { return };
        debug!(%peer, address = %endpoint.get_remote_address(), confirmed, ?cause, "connection closed");
        self.publish_connected();
        if endpoint.is_dialer() {
            self.on_dial_failed(&peer);
        }
        if !self.connected.borrow().contains(&peer) {
            self.dialer.lost(&peer, Instant::now());
        }
    }

    /// Dials again later, unless there is a connection by other means.
    fn on_dial_failed(&mut self, peer: &PublicKey) {
        if self.connected.borrow().contains(peer) {
            self.dialer.connected(peer);
        } else {
            self.dialer.failed(peer, Instant::now());
        }
    }

    fn publish_connected(&self) {
        let connected: BTreeSet<_> = self
            .connections
            .values()
            .filter(|connection| connection.confirmed)
            .map(|connection| connection.peer)
            .collect();
        self.connected.send_if_modified(|published| {
            for peer in connected.difference(published) {
                info!(%peer, "connected");
            }
            for peer in published.difference(&connected) {
                info!(%peer, "disconnected");
            }
            let modified = *published != connected;
            *published = connected;
            modified
        });
    }

    /// Serves a stream, or says that the node is busy; each in a task of its own, so that no peer waits for another.
    fn on_inbound(&mut self, InboundStream { peer, protocol, stream }: InboundStream) {
        if !self.swarm.behaviour().admission.allowed_peers().contains(&peer) {
            return;
        }
        let Some(peer) = identity::public_key(&peer) else { return };
        let Some(permit) = self.inbound.try_acquire(peer, protocol) else {
            debug!(%peer, %protocol, "too many streams");
            if !protocol.is_pushed()
                && let Ok(busy) = Arc::clone(&self.busy_answers).try_acquire_owned()
            {
                tokio::spawn(async move {
                    serve::answer_busy(stream, protocol).await;
                    drop(busy);
                });
            }
            return;
        };
        let task = tokio::spawn(serve::serve(self.inbox.clone(), peer, protocol, stream, permit));
        if protocol.is_pushed()
            // The newest stream is the one that the peer writes to.
            && let Some(previous) = self.readers.insert((peer, protocol), task.abort_handle())
        {
            previous.abort();
        }
    }

    fn look_up_due(&mut self) {
        for (peer, addresses) in self.dialer.take_due(Instant::now()) {
            let lookup = lookup::dialable(addresses, self.transports);
            self.lookups.push(Box::pin(async move { (peer, lookup.await) }));
        }
    }

    fn dial(&mut self, peer: PublicKey, addresses: Vec<Multiaddr>) {
        let Some(peer_id) = identity::peer_id(&peer) else { return };
        let options = DialOpts::peer_id(peer_id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .override_dial_concurrency_factor(ADDRESSES_AT_ONCE_MAX)
            // A listening port that is reused for dialing could not be dialed from twice to the same peer.
            .allocate_new_port()
            .build();
        if let Err(error) = self.swarm.dial(options) {
            debug!(%peer, %error, "not dialing");
            self.on_dial_failed(&peer);
        }
    }

    /// Closes every connection, so that peers notice at once.
    async fn close(mut self) {
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            self.swarm.disconnect_peer_id(peer).ok();
        }
        for reader in self.readers.values() {
            reader.abort();
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.next().await;
            }
        };
        if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            debug!("some connections did not close in time");
        }
        self.connected.send_replace(BTreeSet::new());
    }
}

/// Whether a peer that dialed a connection established at `new` cannot know one established at `old` any more. It dials only
/// while it has no connection, and one dial at a time: so it has lost every one that it had dialed before. What this side
/// had dialed may have come through while the peer's dial was under way.
fn is_forgotten(is_peers_dial: bool, old: Instant, new: Instant) -> bool {
    new.saturating_duration_since(old) > if is_peers_dial { Duration::ZERO } else { DIALS_OVERLAP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_that_began_before_this_sides_came_through_does_not_end_that() {
        let established = Instant::now();
        assert!(!is_forgotten(false, established, established + DIAL_TIMEOUT));
        assert!(!is_forgotten(false, established + DIAL_TIMEOUT, established), "it is the newer one");
        assert!(is_forgotten(false, established, established + 2 * DIAL_TIMEOUT));
    }

    #[test]
    fn a_peer_that_dials_has_lost_what_it_had_dialed_before() {
        let established = Instant::now();
        assert!(is_forgotten(true, established, established + Duration::from_millis(1)));
        assert!(!is_forgotten(true, established, established), "it is the same one");
    }
}
