//! The libp2p swarm: admission, signs of life, and the transports below.
//!
//! Both sides of every connection ask the other for a sign of life every few seconds ([`KEEP_ALIVE_INTERVAL`]), which also
//! keeps the state of address translators and firewalls alive; they forget idle UDP flows after 30 seconds and more
//! (RFC 4787, section 4.3 asks for two minutes, many are less patient), idle TCP connections later.

mod listen;
mod race;
mod stack;
mod tunnel;

use std::time::Duration;

use libp2p::{
    Swarm,
    allow_block_list::{self, AllowedPeers},
    connection_limits::{self, ConnectionLimits},
    ping,
    swarm::{self, NetworkBehaviour},
};

use self::race::Race;
pub(super) use self::{
    listen::{listen, listen_websocket, released},
    race::Memory,
    stack::stack,
};
use super::{EndpointConfig, EndpointError, identity, streams};

/// Connections of one peer. More than one happens when both sides dial at once, or when an old one is not yet known to
/// be dead.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;

/// Connections of all peers together.
const CONNECTIONS_MAX: u32 = 1024;

/// Connections that have not yet shown who they are.
const HANDSHAKES_MAX: u32 = 256;

/// Streams that are being negotiated on one connection.
const NEGOTIATIONS_PER_CONNECTION_MAX: usize = 64;

/// How often each side of a connection asks the other for a sign of life.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time after which a translator or a firewall forgets a flow in which nothing moves.
const IDLE_FLOW_FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
const _: () = assert!(KEEP_ALIVE_INTERVAL.as_secs() * 2 < IDLE_FLOW_FORGOTTEN_AFTER.as_secs());

/// How long the other side may take for it. Generous, since on a slow uplink the answer queues behind a blob.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Consecutive pings without answer after which a connection counts as dead.
pub(super) const PING_FAILURES_MAX: u32 = 2;

/// How long dialing a peer may take: its last way begins after the head starts of the others.
pub(super) const DIAL_TIMEOUT: Duration = stack::CONNECT_TIMEOUT.saturating_add(race::HEAD_STARTS_MAX);

/// A peer that has gone without a word is noticed within this time. QUIC notices sooner, after three seconds without a packet.
const DEAD_PEER_NOTICED_WITHIN: Duration =
    Duration::from_secs((KEEP_ALIVE_INTERVAL.as_secs() + PING_TIMEOUT.as_secs()) * PING_FAILURES_MAX as u64);
const _: () = assert!(DEAD_PEER_NOTICED_WITHIN.as_secs() <= 60);

/// What every endpoint does on its connections.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // First, so that no other behaviour ever sees a connection that is not admitted.
    pub admission: allow_block_list::Behaviour<AllowedPeers>,
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    pub streams: streams::Behaviour,
}

impl Behaviour {
    fn new() -> Self {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(HANDSHAKES_MAX))
            .with_max_established(Some(CONNECTIONS_MAX))
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
        let ping = ping::Config::new().with_interval(KEEP_ALIVE_INTERVAL).with_timeout(PING_TIMEOUT);
        Self {
            admission: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(limits),
            ping: ping::Behaviour::new(ping),
            streams: streams::Behaviour::default(),
        }
    }
}

/// A swarm that listens nowhere yet and admits nobody, and what it remembers of the ways to its peers.
pub(super) fn swarm(config: &EndpointConfig) -> Result<(Swarm<Behaviour>, Memory), EndpointError> {
    let keypair = identity::keypair(&config.transport_key)?;
    let memory = Memory::default();
    let transport = Race::new(stack(&keypair, &config.websocket)?, memory.clone());
    let settings =
        swarm::Config::with_tokio_executor().with_max_negotiating_inbound_streams(NEGOTIATIONS_PER_CONNECTION_MAX);
    let transport = libp2p::Transport::boxed(transport);
    Ok((Swarm::new(transport, Behaviour::new(), keypair.public().to_peer_id(), settings), memory))
}
