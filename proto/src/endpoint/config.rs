//! What an endpoint is told when it starts, and why it may not start.

use std::{collections::BTreeSet, fmt, io, net::SocketAddr};

use fedledger_ledger::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{
    address::{Leg, NodeAddress, WebSocketListen},
    proxy::Proxy,
};

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
    /// What WebSocket needs beside.
    pub websocket: WebSocketConfig,
}

/// What WebSocket needs: where to listen, whom TLS trusts, and the way out. The default listens nowhere and trusts public
/// authorities only.
#[derive(Debug, Clone, Default)]
pub struct WebSocketConfig {
    /// Where to listen; nowhere if it is absent. Port 0 takes a free one.
    pub listen: Option<WebSocketListen>,
    /// What a server shows. Needed to listen with TLS.
    pub certificate: Option<WebSocketCertificate>,
    /// Certificates of authorities that are trusted beside the public ones, in DER. TLS is here for firewalls and proxies:
    /// who the peer is, Noise proves within.
    pub authorities: Vec<Vec<u8>>,
    /// The proxy through which WebSocket servers are dialed.
    pub proxy: Option<Proxy>,
}

/// The certificate of a server and its key.
#[derive(Clone)]
pub struct WebSocketCertificate {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// The key, in DER (PKCS#8).
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for WebSocketCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocketCertificate({} bytes)", self.certificate.len())
    }
}

/// Which of QUIC and TCP an endpoint listens on and dials with. WebSocket is used where an address names it.
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
    pub(super) const fn allow(self, leg: Leg) -> bool {
        match leg {
            Leg::Quic => !matches!(self, Self::TcpOnly),
            Leg::Tcp => !matches!(self, Self::QuicOnly),
            Leg::WebSocket => true,
        }
    }
}

/// Where a peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The peer's transport key.
    pub key: PublicKey,
    /// Its addresses, all of which are tried.
    pub addresses: Vec<NodeAddress>,
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
    /// A certificate cannot be used.
    #[error("the certificates for WebSocket cannot be used: {0}")]
    Certificate(String),
    /// TLS was asked for without a certificate to show.
    #[error("listening on {0} with TLS needs a certificate: give one, or listen on ws:// behind a server that has one")]
    NoCertificate(SocketAddr),
    /// The endpoint was shut down.
    #[error("the endpoint was shut down")]
    Stopped,
}
