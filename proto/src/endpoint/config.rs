//! What an endpoint is told when it starts, and why it may not start.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr, str::FromStr};

use fedledger_ledger::{PublicKey, SecretKey};

/// Settings of an [`Endpoint`](super::Endpoint).
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The node's transport key; its public half is the name by which peers know the node.
    pub transport_key: SecretKey,
    /// Addresses to listen on, with TCP and QUIC on the same port number; port 0 takes a free one. Empty for a node
    /// that only dials out.
    pub listen: Vec<SocketAddr>,
    /// Peers to stay connected with. They must be admitted too.
    pub dial: Vec<PeerAddress>,
    /// The transport keys that may connect. Everybody else is refused before any protocol is spoken.
    pub admitted: BTreeSet<PublicKey>,
    /// The transports to use.
    pub transports: Transports,
}

/// Which transports an endpoint listens on and dials with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transports {
    /// Both; dialing prefers QUIC and falls back to TCP.
    #[default]
    QuicAndTcp,
    /// QUIC (UDP) only.
    QuicOnly,
    /// TCP with Noise and Yamux only, for networks that drop UDP.
    TcpOnly,
}

impl Transports {
    pub(super) const fn quic(self) -> bool {
        !matches!(self, Self::TcpOnly)
    }

    pub(super) const fn tcp(self) -> bool {
        !matches!(self, Self::QuicOnly)
    }
}

/// Where a peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The peer's transport key.
    pub key: PublicKey,
    /// Its addresses, all of which are tried.
    pub addresses: Vec<Address>,
}

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
        name.ok_or_else(|| ParseAddressError(text.chars().take(80).collect()))
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

/// An endpoint that could not start, or no longer runs.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Another process listens there.
    #[error("address {0} is in use by another process; stop it or configure another port")]
    PortInUse(SocketAddr),
    /// Listening failed for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was configured.
        address: SocketAddr,
        /// What the operating system or the transport said.
        source: io::Error,
    },
    /// The transport key cannot be used.
    #[error("the transport key cannot be used: {0}")]
    Key(#[from] libp2p::identity::DecodingError),
    /// The Noise handshake could not be set up.
    #[error("cannot set up the noise handshake: {0}")]
    Noise(#[from] libp2p::noise::Error),
    /// The endpoint was shut down.
    #[error("the endpoint was shut down")]
    Stopped,
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
}
