//! Starting nodes and waiting for conditions.

use std::{collections::BTreeSet, future::Future, net::SocketAddr, time::Duration};

use fedledger_ledger::{PublicKey, SecretKey};
use fedledger_proto::endpoint::{Endpoint, EndpointConfig, Incoming, PeerAddress, Transports, WebSocketConfig};

/// Longest time that any condition may take; only a failing test ever waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Every transport alone.
pub const EACH_TRANSPORT: [Transports; 2] = [Transports::QuicOnly, Transports::TcpOnly];

pub struct Node {
    pub endpoint: Endpoint,
    pub incoming: Incoming,
}

pub fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

pub fn key(seed: u8) -> PublicKey {
    secret(seed).public()
}

pub fn keys(seeds: &[u8]) -> BTreeSet<PublicKey> {
    seeds.iter().map(|seed| key(*seed)).collect()
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn config(seed: u8, admitted: &[u8], transports: Transports) -> EndpointConfig {
    EndpointConfig {
        transport_key: secret(seed),
        listen: Vec::new(),
        dial: Vec::new(),
        admitted: keys(admitted),
        transports,
        websocket: WebSocketConfig::default(),
    }
}

pub fn start(config: EndpointConfig) -> Node {
    let (endpoint, incoming) = Endpoint::start(config).unwrap();
    Node { endpoint, incoming }
}

/// A node that listens.
pub fn listener(seed: u8, admitted: &[u8], transports: Transports) -> Node {
    start(EndpointConfig { listen: vec![loopback()], ..config(seed, admitted, transports) })
}

/// A node that only dials.
pub fn dialer(seed: u8, to: &Endpoint, transports: Transports) -> Node {
    let dial = vec![address(to)];
    start(EndpointConfig { dial, admitted: [to.key()].into(), ..config(seed, &[], transports) })
}

pub fn address(endpoint: &Endpoint) -> PeerAddress {
    let addresses = endpoint.listen_addresses().iter().map(|address| (*address).into()).collect();
    PeerAddress { key: endpoint.key(), addresses }
}

/// A listener and a dialer that are connected with each other.
pub async fn pair(transports: Transports) -> (Node, Node) {
    let server = listener(1, &[2], transports);
    let client = dialer(2, &server.endpoint, transports);
    connected(&server.endpoint, &client.endpoint).await;
    (server, client)
}

/// Waits until both nodes know of their connection.
pub async fn connected(a: &Endpoint, b: &Endpoint) {
    within(wait_for(a, b.key(), true)).await;
    within(wait_for(b, a.key(), true)).await;
}

pub async fn wait_for(endpoint: &Endpoint, peer: PublicKey, present: bool) {
    endpoint.connected().wait_for(|peers| peers.contains(&peer) == present).await.unwrap();
}

/// Fails the test instead of hanging.
pub async fn within<T>(condition: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, condition).await.expect("the condition was not met")
}
