//! Listening: on the addresses that were asked for, and nowhere else.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use libp2p::{Multiaddr, Swarm, core::transport::ListenerId};
use tokio::time::sleep;

use super::Behaviour;
use crate::endpoint::{
    EndpointError, Transports,
    address::{Leg, WebSocketListen, direct},
};

/// How often a free port is looked for that both TCP and UDP can have.
const FREE_PORT_ATTEMPTS: u32 = 16;

/// How often it is looked whether a port is free again.
const RELEASE_INTERVAL: Duration = Duration::from_millis(10);

/// Listens on an address with the chosen transports; returns the address with its actual port.
pub(in crate::endpoint) fn listen(
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

/// Listens for WebSocket connections; returns the address with its actual port.
pub(in crate::endpoint) fn listen_websocket(
    swarm: &mut Swarm<Behaviour>,
    requested: WebSocketListen,
) -> Result<WebSocketListen, EndpointError> {
    // The port is free again as soon as the probe is dropped, and nobody else is given it soon after.
    let bound = TcpListener::bind(requested.at).and_then(|probe| probe.local_addr());
    let at = bound.map_err(|source| in_use(requested.at, source))?;
    let listen = WebSocketListen { at, ..requested };
    listen_on_all(swarm, at, vec![listen.multiaddr()])?;
    Ok(listen)
}

/// Fails if another process listens there. libp2p itself would not notice: it lets several processes share a TCP port.
fn reserve(address: SocketAddr, transports: Transports) -> io::Result<()> {
    if transports.allow(Leg::Tcp) {
        TcpListener::bind(address)?;
    }
    if transports.allow(Leg::Quic) {
        UdpSocket::bind(address)?;
    }
    Ok(())
}

/// Waits until addresses that were listened on are free again: QUIC holds its port until its connections are drained
/// (RFC 9000, section 10.2), which takes a few round trips, and nothing tells when that is over.
pub(in crate::endpoint) async fn released(addresses: &[SocketAddr], transports: Transports) {
    for address in addresses {
        while reserve(*address, transports).is_err() {
            sleep(RELEASE_INTERVAL).await;
        }
    }
}

/// A port that is free for every transport.
fn free_port(requested: SocketAddr, transports: Transports) -> io::Result<SocketAddr> {
    let address = if transports.allow(Leg::Tcp) {
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
    let legs = [Leg::Quic, Leg::Tcp].into_iter().filter(|leg| transports.allow(*leg));
    listen_on_all(swarm, address, legs.map(|leg| direct(address, leg)).collect())
}

fn listen_on_all(
    swarm: &mut Swarm<Behaviour>,
    address: SocketAddr,
    multiaddrs: Vec<Multiaddr>,
) -> Result<SocketAddr, EndpointError> {
    let mut listeners: Vec<ListenerId> = Vec::new();
    for multiaddr in multiaddrs {
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
