//! Trying one way to a node, for whoever wants to know which of them a firewall lets through.
//!
//! The handshake is carried out with a key that nobody knows, so that nothing is proved about the own node and a running one
//! is not disturbed; it shows which key the other side holds, and that every packet on the way comes through.

use std::{
    io,
    time::{Duration, Instant},
};

use fedledger_ledger::{PublicKey, SecretKey};
use libp2p::{
    Multiaddr, Transport as _, TransportError,
    core::{
        Endpoint as Side,
        transport::{DialOpts, PortUse},
    },
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    Address, EndpointError, Leg, NodeAddress, Proxy, Transports, WebSocketConfig, identity, lookup, transport,
};

/// Tries ways to nodes.
#[derive(Debug, Clone)]
pub struct Prober {
    /// A key that is used for nothing else.
    pub key: SecretKey,
    /// What WebSocket needs.
    pub websocket: WebSocketConfig,
    /// How long each step may take.
    pub timeout: Duration,
}

/// Why a node is not reached on a way.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The host name leads nowhere.
    #[error("the name {host} is not found: {source}")]
    Name {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// Nothing came back.
    #[error("no answer within {0:?}: packets are dropped on the way, or nothing runs there")]
    Silent(Duration),
    /// There is no connection.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// There is a connection, but not as far as the other side's identity.
    #[error("there is a connection, but the handshake fails: {0}")]
    Handshake(String),
    /// Somebody else answers.
    #[error("a node with another key answers, {0}")]
    OtherNode(PublicKey),
    /// The probe itself cannot be set up.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Prober {
    /// How many IP addresses the host has.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Name`].
    pub async fn look_up(&self, address: &Address) -> Result<usize, ProbeError> {
        let found = lookup::look_up(address).await;
        found.map(|found| found.len()).map_err(|source| ProbeError::Name { host: address.host(), source })
    }

    /// The proxy through which a leg to this address goes.
    pub fn proxy(&self, address: &NodeAddress, leg: Leg) -> Option<&Proxy> {
        let is_served = |proxy: &&Proxy| proxy.serves(&address.at.host(), address.at.port());
        self.websocket.proxy.as_ref().filter(|_| leg == Leg::WebSocket).filter(is_served)
    }

    /// Connects over one leg and shakes hands with whoever is there; returns how long that took.
    ///
    /// # Errors
    ///
    /// [`ProbeError`].
    pub async fn shake_hands(
        &self,
        expected: &PublicKey,
        address: &NodeAddress,
        leg: Leg,
    ) -> Result<Duration, ProbeError> {
        if leg != Leg::Quic && self.proxy(address, leg).is_none() {
            // First without a handshake, so that a firewall and what breaks connections up are told apart.
            self.connect(&address.at).await?;
        }
        let begun = Instant::now();
        match timeout(self.timeout, self.identify(address, leg)).await {
            Ok(Ok(found)) if found == *expected => Ok(begun.elapsed()),
            Ok(Ok(found)) => Err(ProbeError::OtherNode(found)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ProbeError::Silent(self.timeout)),
        }
    }

    async fn connect(&self, address: &Address) -> Result<(), ProbeError> {
        match timeout(self.timeout, TcpStream::connect((address.host(), address.port()))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ProbeError::Connect(error)),
            Err(_) => Err(ProbeError::Silent(self.timeout)),
        }
    }

    /// The key of whoever answers.
    async fn identify(&self, address: &NodeAddress, leg: Leg) -> Result<PublicKey, ProbeError> {
        let found = match leg {
            Leg::WebSocket => Vec::new(),
            Leg::Quic | Leg::Tcp => {
                let found = lookup::look_up(&address.at).await;
                found.map_err(|source| ProbeError::Name { host: address.at.host(), source })?
            }
        };
        let multiaddrs = address.multiaddrs(&found, Transports::QuicAndTcp);
        let mut outcome = Err(ProbeError::Handshake("the address cannot be dialed".to_owned()));
        for multiaddr in multiaddrs.into_iter().filter(|multiaddr| Leg::of(multiaddr) == leg) {
            outcome = self.identify_at(multiaddr).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn identify_at(&self, address: Multiaddr) -> Result<PublicKey, ProbeError> {
        let mut stack = transport::stack(&identity::keypair(&self.key)?, &self.websocket)?;
        let options = DialOpts { role: Side::Dialer, port_use: PortUse::New };
        let dial = stack.dial(address, options).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(_) => {
                ProbeError::Handshake("the address cannot be dialed".to_owned())
            }
            TransportError::Other(error) => ProbeError::Handshake(error.to_string()),
        })?;
        let (peer, _connection) = dial.await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => ProbeError::Silent(self.timeout),
            _ => ProbeError::Handshake(error.to_string()),
        })?;
        identity::public_key(&peer).ok_or_else(|| ProbeError::Handshake("the key is not Ed25519".to_owned()))
    }
}
