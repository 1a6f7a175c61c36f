//! The libp2p swarm: transports, admission, and listening.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    allow_block_list::{self, AllowedPeers},
    connection_limits::{self, ConnectionLimits},
    core::transport::ListenerId,
    multiaddr, noise, ping,
    swarm::NetworkBehaviour,
    tcp, yamux,
};

use tokio::time::sleep;

use super::{EndpointConfig, EndpointError, Transports, identity, streams};

/// Connections of one peer. More than one happens when both sides dial at once, or when an old one is not yet known to
/// be dead.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;

/// Connections of all peers together.
const CONNECTIONS_MAX: u32 = 1024;

/// Connections that have not yet shown who they are.
const HANDSHAKES_MAX: u32 = 256;

/// Streams that are being negotiated on one connection.
const NEGOTIATIONS_PER_CONNECTION_MAX: usize = 64;

/// Streams that are open on one TCP connection; more than both sides' limits together.
const YAMUX_STREAMS_MAX: usize = 256;

/// Receive window of one QUIC stream, in bytes.
const QUIC_STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Receive window of a QUIC connection, in bytes: room for the windows of every stream that a peer may fill (see
/// [`super::limits`]), so that bodies that wait for a slow disk never stop its other streams.
const QUIC_CONNECTION_WINDOW_BYTES: u32 = 48 * 1024 * 1024;

/// How often each side of a connection asks the other for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long the other side may take for it. Generous, since on a slow uplink the answer queues behind a blob.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a free port is looked for that both TCP and UDP can have.
const FREE_PORT_ATTEMPTS: u32 = 16;

/// How often it is looked whether a port is free again.
const RELEASE_INTERVAL: Duration = Duration::from_millis(10);

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
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        Self {
            admission: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(limits),
            ping: ping::Behaviour::new(ping),
            streams: streams::Behaviour::default(),
        }
    }
}

/// A swarm that listens nowhere yet and admits nobody.
pub(super) fn swarm(config: &EndpointConfig) -> Result<Swarm<Behaviour>, EndpointError> {
    let multiplexing = || {
        let mut yamux = yamux::Config::default();
        yamux.set_max_num_streams(YAMUX_STREAMS_MAX);
        yamux
    };
    let swarm = SwarmBuilder::with_existing_identity(identity::keypair(&config.transport_key)?)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, multiplexing)?
        .with_quic_config(|mut quic| {
            quic.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
            quic.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
            quic
        })
        .with_behaviour(|_| Behaviour::new())
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|swarm| {
            // QUIC gets a head start, TCP follows if it does not answer (RFC 8305).
            swarm.with_smart_dial().with_max_negotiating_inbound_streams(NEGOTIATIONS_PER_CONNECTION_MAX)
        })
        .build();
    Ok(swarm)
}

/// Listens on an address with the chosen transports; returns the address with its actual port.
pub(super) fn listen(
    swarm: &mut Swarm<Behaviour>,
    requested: SocketAddr,
    transports: Transports,
) -> Result<SocketAddr, EndpointError> {
    if requested.port() != 0 {
        reserve(requested, transports).map_err(|source| in_use(requested, source))?;
        return listen_on_port(swarm, requested, transports);
    }
    let mut attempt = 1;
    loop {
        let result = free_port(requested, transports)
            .map_err(|source| EndpointError::Listen { address: requested, source })
            .and_then(|address| listen_on_port(swarm, address, transports));
        if result.is_ok() || attempt == FREE_PORT_ATTEMPTS {
            return result;
        }
        attempt += 1;
    }
}

/// Fails if another process listens there. libp2p itself would not notice: it lets several processes share a TCP port.
fn reserve(address: SocketAddr, transports: Transports) -> io::Result<()> {
    if transports.tcp() {
        TcpListener::bind(address)?;
    }
    if transports.quic() {
        UdpSocket::bind(address)?;
    }
    Ok(())
}

/// Waits until addresses that were listened on are free again: QUIC holds its port until its connections are drained
/// (RFC 9000, section 10.2), which takes a few round trips, and nothing tells when that is over.
pub(super) async fn released(addresses: &[SocketAddr], transports: Transports) {
    for address in addresses {
        while reserve(*address, transports).is_err() {
            sleep(RELEASE_INTERVAL).await;
        }
    }
}

/// A port that is free for every transport.
fn free_port(requested: SocketAddr, transports: Transports) -> io::Result<SocketAddr> {
    let address = if transports.tcp() {
        TcpListener::bind(requested)?.local_addr()?
    } else {
        UdpSocket::bind(requested)?.local_addr()?
    };
    reserve(address, transports).map(|()| address)
}

fn listen_on_port(
    swarm: &mut Swarm<Behaviour>,
    address: SocketAddr,
    transports: Transports,
) -> Result<SocketAddr, EndpointError> {
    let mut listeners: Vec<ListenerId> = Vec::new();
    for multiaddr in multiaddrs(address, transports) {
        match swarm.listen_on(multiaddr) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                for listener in listeners {
                    swarm.remove_listener(listener);
                }
                return Err(in_use(address, io::Error::other(error)));
            }
        }
    }
    Ok(address)
}

fn in_use(address: SocketAddr, source: io::Error) -> EndpointError {
    if source.kind() == io::ErrorKind::AddrInUse {
        EndpointError::PortInUse(address)
    } else {
        EndpointError::Listen { address, source }
    }
}

/// An address as libp2p writes it, once for each transport.
pub(super) fn multiaddrs(address: SocketAddr, transports: Transports) -> Vec<Multiaddr> {
    let ip = Multiaddr::from(address.ip());
    let quic = ip.clone().with(multiaddr::Protocol::Udp(address.port())).with(multiaddr::Protocol::QuicV1);
    let tcp = ip.with(multiaddr::Protocol::Tcp(address.port()));
    [transports.quic().then_some(quic), transports.tcp().then_some(tcp)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quic_comes_before_tcp_on_the_same_port() {
        let address: SocketAddr = "[::1]:7000".parse().unwrap();
        let text = |transports| multiaddrs(address, transports).iter().map(Multiaddr::to_string).collect::<Vec<_>>();
        assert_eq!(text(Transports::QuicAndTcp), ["/ip6/::1/udp/7000/quic-v1", "/ip6/::1/tcp/7000"]);
        assert_eq!(text(Transports::QuicOnly), ["/ip6/::1/udp/7000/quic-v1"]);
        assert_eq!(text(Transports::TcpOnly), ["/ip6/::1/tcp/7000"]);
    }
}
