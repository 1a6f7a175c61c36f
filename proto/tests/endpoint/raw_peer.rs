//! A peer that writes whatever it likes, on another implementation of streams than the endpoint's own.

use fedledger_ledger::PublicKey;
use fedledger_proto::{
    endpoint::{Endpoint, Transports},
    wire::Protocol,
};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identity, multiaddr, noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use libp2p_stream::Control;
use tokio::{sync::watch, task::AbortHandle};

use crate::node::secret;

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// What became of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Refused,
}

pub struct RawPeer {
    server: PeerId,
    control: Control,
    state: watch::Receiver<State>,
    driver: AbortHandle,
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn peer_id(key: PublicKey) -> PeerId {
    identity::PublicKey::from(identity::ed25519::PublicKey::try_from_bytes(key.as_bytes()).unwrap()).to_peer_id()
}

impl RawPeer {
    /// Dials an endpoint.
    pub fn dial(seed: u8, server: &Endpoint, transports: Transports) -> Self {
        let mut swarm = swarm(seed);
        let address = server.listen_addresses()[0];
        let ip = Multiaddr::from(address.ip());
        let address = match transports {
            Transports::QuicOnly | Transports::QuicAndTcp => {
                ip.with(multiaddr::Protocol::Udp(address.port())).with(multiaddr::Protocol::QuicV1)
            }
            Transports::TcpOnly => ip.with(multiaddr::Protocol::Tcp(address.port())),
        };
        let server = peer_id(server.key());
        swarm.dial(DialOpts::peer_id(server).addresses(vec![address]).build()).unwrap();
        let control = swarm.behaviour().streams.new_control();
        let (publisher, state) = watch::channel(State::Connecting);
        let driver = tokio::spawn(drive(swarm, publisher)).abort_handle();
        Self { server, control, state, driver }
    }

    /// Waits until the endpoint has answered a ping.
    pub async fn connected(&mut self) {
        self.state.wait_for(|state| *state == State::Connected).await.unwrap();
    }

    /// Waits until the endpoint has closed or refused the connection.
    pub async fn refused(&mut self) {
        self.state.wait_for(|state| *state == State::Refused).await.unwrap();
    }

    /// A stream, if the endpoint agrees to one.
    pub async fn open(&mut self, protocol: Protocol) -> Option<Stream> {
        self.control.open_stream(self.server, StreamProtocol::new(protocol.name())).await.ok()
    }
}

fn swarm(seed: u8) -> Swarm<Behaviour> {
    let keypair = identity::Keypair::ed25519_from_bytes(secret(seed).seed()).unwrap();
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        .with_behaviour(|_| Behaviour { ping: ping::Behaviour::default(), streams: libp2p_stream::Behaviour::new() })
        .unwrap()
        .build()
}

async fn drive(mut swarm: Swarm<Behaviour>, state: watch::Sender<State>) {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result: Ok(_), .. })) => {
                state.send_replace(State::Connected);
            }
            SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => {
                state.send_replace(State::Refused);
            }
            _ => {}
        }
    }
}
