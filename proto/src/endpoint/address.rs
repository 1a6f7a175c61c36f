//! Addresses of nodes: a host and a port, and the way that leads there.
//!
//! As text, `host:port` stands for QUIC and TCP on the same port number; `quic://host:port` and `tcp://host:port` for
//! one of them; `wss://host:port` and `ws://host:port` for WebSocket (RFC 6455) with and without TLS, whose ports are 443
//! and 80 where none is given.

use std::{fmt, net::SocketAddr, str::FromStr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::Transports;

/// Characters of a malformed address that an error shows.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address.
    Socket(SocketAddr),
    /// A host name, looked up before every attempt to connect.
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Text that is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address, expected host:port, for example 192.0.2.7:7000 or replica.example.org:7000")]
pub struct ParseAddressError(pub String);

impl Address {
    /// The host, without brackets.
    pub fn host(&self) -> String {
        match self {
            Self::Socket(address) => address.ip().to_string(),
            Self::Name { host, .. } => host.clone(),
        }
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Socket(address));
        }
        let name = text.rsplit_once(':').and_then(|(host, port)| {
            let valid = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            Some(Self::Name { host: valid.then(|| host.to_owned())?, port: port.parse().ok()? })
        });
        name.ok_or_else(|| ParseAddressError(text.chars().take(SHOWN_CHARACTERS_MAX).collect()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// What carries a connection. Noise or the TLS of QUIC authenticates both sides in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// QUIC over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
    /// The same over WebSocket, for networks that let nothing but the web through.
    WebSocket,
}

impl Leg {
    /// Every leg, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Quic, Self::Tcp, Self::WebSocket];

    /// What a multiaddress leads over.
    pub(super) fn of(address: &Multiaddr) -> Self {
        let has = |wanted: fn(&Protocol<'_>) -> bool| address.iter().any(|protocol| wanted(&protocol));
        if has(|protocol| matches!(protocol, Protocol::Ws(_) | Protocol::Wss(_))) {
            Self::WebSocket
        } else if has(|protocol| matches!(protocol, Protocol::QuicV1)) {
            Self::Quic
        } else {
            Self::Tcp
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The way that an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// QUIC and TCP on the same port number.
    QuicAndTcp,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
    /// WebSocket over TLS.
    SecureWebSocket,
    /// WebSocket without TLS: within a machine, or behind a server that ends TLS.
    WebSocket,
}

impl Via {
    /// What stands in front of `host:port`, and the port where none is given.
    const SCHEMES: [(Self, &'static str, Option<u16>); 4] = [
        (Self::Quic, "quic://", None),
        (Self::Tcp, "tcp://", None),
        (Self::SecureWebSocket, "wss://", Some(443)),
        (Self::WebSocket, "ws://", Some(80)),
    ];

    const fn legs(self) -> &'static [Leg] {
        match self {
            Self::QuicAndTcp => &[Leg::Quic, Leg::Tcp],
            Self::Quic => &[Leg::Quic],
            Self::Tcp => &[Leg::Tcp],
            Self::SecureWebSocket | Self::WebSocket => &[Leg::WebSocket],
        }
    }
}

/// Where and how a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The way.
    pub via: Via,
    /// The host and the port.
    pub at: Address,
}

/// Text that is no address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the address of a node, expected host:port, quic://host:port, tcp://host:port or wss://host, for \
     example replica.example.org:7000 or wss://replica.example.org:443"
)]
pub struct ParseNodeAddressError(pub String);

impl NodeAddress {
    /// What leads there, in the order in which it is tried.
    pub fn legs(&self) -> impl Iterator<Item = Leg> + use<> {
        self.via.legs().iter().copied()
    }

    /// As libp2p writes it, once for each leg that `transports` allow and each of the IP addresses that `found` has for
    /// the host. The name of a WebSocket server is kept: its certificate is for that name, and a proxy looks it up itself.
    pub(super) fn multiaddrs(&self, found: &[SocketAddr], transports: Transports) -> Vec<Multiaddr> {
        if matches!(self.via, Via::WebSocket | Via::SecureWebSocket) {
            return vec![self.websocket()];
        }
        let legs: Vec<Leg> = self.legs().filter(|leg| transports.allow(*leg)).collect();
        found.iter().flat_map(|address| legs.iter().map(|leg| direct(*address, *leg))).collect()
    }

    fn websocket(&self) -> Multiaddr {
        let host = match &self.at {
            Address::Socket(address) => Multiaddr::from(address.ip()),
            Address::Name { host, .. } => Multiaddr::from(Protocol::Dns(host.as_str().into())),
        };
        let tcp = host.with(Protocol::Tcp(self.at.port()));
        websocket_over(tcp, self.via == Via::SecureWebSocket)
    }
}

impl From<Address> for NodeAddress {
    fn from(at: Address) -> Self {
        Self { via: Via::QuicAndTcp, at }
    }
}

impl From<SocketAddr> for NodeAddress {
    fn from(address: SocketAddr) -> Self {
        Address::from(address).into()
    }
}

impl FromStr for NodeAddress {
    type Err = ParseNodeAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseNodeAddressError(text.chars().take(SHOWN_CHARACTERS_MAX).collect());
        let scheme = Via::SCHEMES.iter().find_map(|(via, scheme, port)| Some((via, text.strip_prefix(scheme)?, port)));
        let Some((via, rest, port)) = scheme else {
            return text.parse::<Address>().map(Self::from).map_err(|_| malformed());
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let with_port = |port: &u16| format!("{rest}:{port}").parse();
        let at = rest.parse::<Address>().ok().or_else(|| with_port(port.as_ref()?).ok());
        Ok(Self { via: *via, at: at.ok_or_else(malformed)? })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = Via::SCHEMES.iter().find(|(via, ..)| *via == self.via).map_or("", |(_, scheme, _)| scheme);
        write!(f, "{scheme}{}", self.at)
    }
}

/// Where a node listens for WebSocket connections, as text `wss://IP:PORT` or `ws://IP:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocketListen {
    /// Where.
    pub at: SocketAddr,
    /// Whether it speaks TLS itself. Without, a server in front of it should.
    pub tls: bool,
}

impl WebSocketListen {
    /// As libp2p writes it.
    pub(super) fn multiaddr(&self) -> Multiaddr {
        websocket_over(direct(self.at, Leg::Tcp), self.tls)
    }
}

impl FromStr for WebSocketListen {
    type Err = ParseNodeAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<NodeAddress>()? {
            NodeAddress { via: Via::SecureWebSocket, at: Address::Socket(at) } => Ok(Self { at, tls: true }),
            NodeAddress { via: Via::WebSocket, at: Address::Socket(at) } => Ok(Self { at, tls: false }),
            _ => Err(ParseNodeAddressError(text.chars().take(SHOWN_CHARACTERS_MAX).collect())),
        }
    }
}

impl fmt::Display for WebSocketListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "wss" } else { "ws" }, self.at)
    }
}

/// An IP address and a port as libp2p writes them for QUIC or TCP.
pub(super) fn direct(address: SocketAddr, leg: Leg) -> Multiaddr {
    let ip = Multiaddr::from(address.ip());
    match leg {
        Leg::Quic => ip.with(Protocol::Udp(address.port())).with(Protocol::QuicV1),
        Leg::Tcp | Leg::WebSocket => ip.with(Protocol::Tcp(address.port())),
    }
}

fn websocket_over(tcp: Multiaddr, tls: bool) -> Multiaddr {
    let below = if tls { tcp.with(Protocol::Tls) } else { tcp };
    below.with(Protocol::Ws("/".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        for text in ["127.0.0.1:7000", "[::1]:7000", "replica-1.example.org:7000", "coordinator_2:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "7000", "127.0.0.1", "example.org:", ":7000", "example.org:70000", "a/b:1", "[::1:7000"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_of_a_node_may_name_the_way() {
        for text in ["a.org:7000", "quic://a.org:7000", "tcp://[::1]:7000", "wss://a.org:8443", "ws://127.0.0.1:80"] {
            assert_eq!(text.parse::<NodeAddress>().unwrap().to_string(), text);
        }
        assert_eq!("wss://a.org/".parse::<NodeAddress>().unwrap().to_string(), "wss://a.org:443");
        assert_eq!("wss://[::1]".parse::<NodeAddress>().unwrap().to_string(), "wss://[::1]:443");
        for text in ["a.org", "tcp://a.org", "http://a.org:80", "wss://", "wss://a.org/path", "wss://u@a.org"] {
            assert!(text.parse::<NodeAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_listens_for_websockets_on_an_ip_address() {
        for text in ["wss://0.0.0.0:443", "ws://127.0.0.1:8080"] {
            assert_eq!(text.parse::<WebSocketListen>().unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:443", "wss://a.org:443", "tcp://0.0.0.0:443"] {
            assert!(text.parse::<WebSocketListen>().is_err(), "{text}");
        }
    }

    #[test]
    fn quic_comes_before_tcp_on_the_same_port() {
        let address: NodeAddress = "[::1]:7000".parse().unwrap();
        let found: [SocketAddr; 1] = ["[::1]:7000".parse().unwrap()];
        let text =
            |transports| address.multiaddrs(&found, transports).iter().map(Multiaddr::to_string).collect::<Vec<_>>();
        assert_eq!(text(Transports::QuicAndTcp), ["/ip6/::1/udp/7000/quic-v1", "/ip6/::1/tcp/7000"]);
        assert_eq!(text(Transports::QuicOnly), ["/ip6/::1/udp/7000/quic-v1"]);
        assert_eq!(text(Transports::TcpOnly), ["/ip6/::1/tcp/7000"]);
    }

    #[test]
    fn a_websocket_keeps_the_name_of_its_server() {
        let text = |address: &str| {
            let address: NodeAddress = address.parse().unwrap();
            address.multiaddrs(&[], Transports::QuicAndTcp).iter().map(Multiaddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(text("wss://a.org"), ["/dns/a.org/tcp/443/tls/ws"]);
        assert_eq!(text("ws://127.0.0.1:8080"), ["/ip4/127.0.0.1/tcp/8080/ws"]);
        assert_eq!(Leg::of(&text("wss://a.org")[0].parse().unwrap()), Leg::WebSocket);
    }
}
