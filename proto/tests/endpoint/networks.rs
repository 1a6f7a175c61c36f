//! Ways to a node through networks that do not let everything through.

use std::{io, net::SocketAddr, time::Duration};

use fedledger_ledger::SecretKey;
use fedledger_proto::{
    endpoint::{
        Address, Endpoint, EndpointConfig, EndpointError, Leg, NodeAddress, PeerAddress, ProbeError, Prober,
        Transports, Via, WebSocketConfig,
    },
    kit::{CertificateAuthority, TlsIdentity},
    wire::{SubmitRequest, SubmitResponse},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    node::{Node, TIMEOUT, config, connected, key, keys, loopback, secret, start, wait_for, within},
    running::{Blobs, serve},
};

/// The name in the certificate of [`web_server`], which no resolver knows.
const NAME: &str = "replica.fedledger.invalid";

/// Longer than what a server holds in memory of a peer that it does not know.
const TOO_LONG: u32 = 64 * 1024 * 1024;

fn authority() -> CertificateAuthority {
    CertificateAuthority::new("heart", SecretKey::from_seed([77; 32])).unwrap()
}

fn tls() -> TlsIdentity {
    let (authority, key) = (authority(), SecretKey::from_seed([78; 32]));
    let certificate = authority.issue_server("a/replica", &key.public(), &[NAME, "localhost", "127.0.0.1"]).unwrap();
    TlsIdentity::new(&key, certificate, authority.certificate_pem().to_owned()).unwrap()
}

/// A node with key 1 that listens on WebSocket only.
fn web_server(tls_too: bool, admitted: &[u8]) -> Node {
    let listen = format!("{}://127.0.0.1:0", if tls_too { "wss" } else { "ws" });
    let certificate = tls_too.then(|| tls().websocket_certificate().unwrap());
    let websocket = WebSocketConfig { listen: Some(listen.parse().unwrap()), certificate, ..Default::default() };
    start(EndpointConfig { websocket, ..config(1, admitted, Transports::QuicAndTcp) })
}

fn trusting() -> WebSocketConfig {
    WebSocketConfig { authorities: vec![tls().authority_der().unwrap()], ..WebSocketConfig::default() }
}

fn web_address(server: &Endpoint, host: &str) -> NodeAddress {
    let listen = server.websocket_address().unwrap();
    let via = if listen.tls { Via::SecureWebSocket } else { Via::WebSocket };
    NodeAddress { via, at: Address::Name { host: host.to_owned(), port: listen.at.port() } }
}

/// A node with key 2 that dials key 1 at these addresses.
fn client(addresses: Vec<NodeAddress>, websocket: WebSocketConfig) -> Node {
    let dial = vec![PeerAddress { key: key(1), addresses }];
    start(EndpointConfig { dial, websocket, ..config(2, &[1], Transports::QuicAndTcp) })
}

async fn is_served(client: &Endpoint) {
    for _ in 0..20 {
        let envelope = b"envelope".repeat(6_000);
        let outcome = client.call(key(1), &SubmitRequest { envelope: envelope.clone() }, TIMEOUT).await.unwrap();
        assert_eq!(outcome, SubmitResponse::Outcome { index: 7, leaf: envelope });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_talk_over_websockets_with_and_without_tls() {
    for (tls_too, host) in [(false, "127.0.0.1"), (true, "127.0.0.1"), (true, "localhost")] {
        let server = web_server(tls_too, &[2]);
        let client = client(vec![web_address(&server.endpoint, host)], trusting());
        connected(&server.endpoint, &client.endpoint).await;
        serve(server.incoming.requests, Blobs::default());
        is_served(&client.endpoint).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_swallows_packets_does_not_keep_the_other_ways_from_being_tried() {
    let server = web_server(true, &[2]);
    // It takes connections and datagrams, and says nothing.
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind(loopback()).await.unwrap();
        if let Ok(udp) = tokio::net::UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let silent: NodeAddress = tcp.local_addr().unwrap().into();
    let client = client(vec![silent, web_address(&server.endpoint, "localhost")], trusting());
    connected(&server.endpoint, &client.endpoint).await;
    let tried_before = udp.try_recv_from(&mut [0]);
    assert!(tried_before.is_ok(), "QUIC goes first: {tried_before:?}");
    within(tcp.accept()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_for_its_key_and_not_for_its_certificate() {
    let server = web_server(true, &[2]);
    let address = web_address(&server.endpoint, "localhost");
    let prober = Prober { key: secret(9), websocket: trusting(), timeout: TIMEOUT };
    prober.shake_hands(&key(1), &address, Leg::WebSocket).await.unwrap();
    let other = prober.shake_hands(&key(3), &address, Leg::WebSocket).await;
    assert!(matches!(other, Err(ProbeError::OtherNode(found)) if found == key(1)), "{other:?}");

    // A certificate by an authority that nobody knows is what a firewall shows that looks into TLS.
    let unknowing = Prober { websocket: WebSocketConfig::default(), ..prober };
    let refused = unknowing.shake_hands(&key(1), &address, Leg::WebSocket).await;
    assert!(matches!(&refused, Err(ProbeError::Handshake(why)) if why.contains("UnknownIssuer")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_a_node_can_be_tried_alone() {
    let server = start(EndpointConfig { listen: vec![loopback()], ..config(1, &[2], Transports::QuicAndTcp) });
    let known = client(vec![server.endpoint.listen_addresses()[0].into()], WebSocketConfig::default());
    connected(&server.endpoint, &known.endpoint).await;
    let address: NodeAddress = server.endpoint.listen_addresses()[0].into();
    let prober = Prober { key: secret(9), websocket: trusting(), timeout: TIMEOUT };
    for leg in [Leg::Quic, Leg::Tcp] {
        prober.shake_hands(&key(1), &address, leg).await.unwrap();
        let other = prober.shake_hands(&key(3), &address, leg).await;
        assert!(matches!(other, Err(ProbeError::OtherNode(found)) if found == key(1)), "{other:?}");
    }
    assert_eq!(*server.endpoint.connected().borrow(), keys(&[2]), "who tries is nobody, and disturbs nobody");

    let closed = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let refused = prober.shake_hands(&key(1), &closed.into(), Leg::Tcp).await;
    assert!(matches!(refused, Err(ProbeError::Connect(_))), "{refused:?}");
    let silent = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let impatient = Prober { timeout: Duration::from_millis(300), ..prober };
    let unanswered = impatient.shake_hands(&key(1), &silent.local_addr().unwrap().into(), Leg::Quic).await;
    assert!(matches!(unanswered, Err(ProbeError::Silent(_))), "{unanswered:?}");
    let unknown = impatient.look_up(&Address::Name { host: NAME.to_owned(), port: 1 }).await;
    assert!(matches!(unknown, Err(ProbeError::Name { .. })), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_forwards_what_it_alone_can_reach() {
    let server = web_server(true, &[2]);
    let behind = server.endpoint.websocket_address().unwrap().at;
    let (at, mut asked) = proxy(behind).await;
    let through =
        |user: &str| WebSocketConfig { proxy: Some(format!("http://{user}@{at}").parse().unwrap()), ..trusting() };
    let address = web_address(&server.endpoint, NAME);

    let stranger = Prober { key: secret(9), websocket: through("nobody:x"), timeout: TIMEOUT };
    let refused = stranger.shake_hands(&key(1), &address, Leg::WebSocket).await;
    assert!(matches!(&refused, Err(ProbeError::Handshake(why)) if why.contains("407")), "{refused:?}");
    let _ = within(asked.recv()).await;

    let client = client(vec![address], through("hospital:s%65cret"));
    connected(&server.endpoint, &client.endpoint).await;
    serve(server.incoming.requests, Blobs::default());
    is_served(&client.endpoint).await;
    assert_eq!(within(asked.recv()).await.unwrap(), format!("CONNECT {NAME}:{} HTTP/1.1", behind.port()));
}

/// A proxy that lets one user through, always to `target`; what it was asked for.
async fn proxy(target: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    /// `hospital:secret` in base64.
    const CREDENTIALS: &str = "Proxy-Authorization: Basic aG9zcGl0YWw6c2VjcmV0\r\n";
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (asking, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let asking = asking.clone();
            tokio::spawn(async move {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    head.push(char::from(inner.read_u8().await?));
                }
                asking.send(head.lines().next().unwrap().to_owned()).ok();
                if !head.contains(CREDENTIALS) {
                    return inner.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
                }
                let mut outer = TcpStream::connect(target).await?;
                inner.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                tokio::io::copy_bidirectional(&mut inner, &mut outer).await.map(|_| ())
            });
        }
        Ok::<_, io::Error>(())
    });
    (at, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_server_hold_a_long_message_before_it_is_known_who_asks() {
    let server = web_server(false, &[2]);
    let mut stranger = TcpStream::connect(server.endpoint.websocket_address().unwrap().at).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stranger.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stranger.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    // A masked binary frame (RFC 6455, section 5.2) with a length of 64 bits.
    let mut frame = vec![0x82, 0xff];
    frame.extend(u64::from(TOO_LONG).to_be_bytes());
    frame.extend([0; 4]);
    stranger.write_all(&frame).await.unwrap();
    // It hangs up without waiting for the rest.
    let mut rest = Vec::new();
    within(stranger.read_to_end(&mut rest)).await.ok();

    let client = client(vec![web_address(&server.endpoint, "127.0.0.1")], WebSocketConfig::default());
    within(wait_for(&client.endpoint, key(1), true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_not_promised_without_a_certificate() {
    let listen = Some("wss://127.0.0.1:0".parse().unwrap());
    let websocket = WebSocketConfig { listen, ..WebSocketConfig::default() };
    let refused = Endpoint::start(EndpointConfig { websocket, ..config(1, &[], Transports::QuicAndTcp) }).map(|_| ());
    assert!(matches!(refused, Err(EndpointError::NoCertificate(_))), "{refused:?}");

    let taken = TcpListener::bind(loopback()).await.unwrap();
    let listen = Some(format!("ws://{}", taken.local_addr().unwrap()).parse().unwrap());
    let websocket = WebSocketConfig { listen, ..WebSocketConfig::default() };
    let refused = Endpoint::start(EndpointConfig { websocket, ..config(1, &[], Transports::QuicAndTcp) }).map(|_| ());
    assert!(matches!(refused, Err(EndpointError::PortInUse(_))), "{refused:?}");
}
