//! Connections through a translator of addresses that forgets flows in which nothing moves.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fedledger_proto::{
    endpoint::{EndpointConfig, PeerAddress, Transports},
    wire::SubmitRequest,
};
use tokio::{
    net::UdpSocket,
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    node::{Node, config, connected, key, listener, loopback, start, within},
    running::{Blobs, serve},
};

/// Patience of an impatient translator. Usual ones forget UDP flows after 30 seconds or more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(12);

/// How long a connection is left alone.
const IDLE: Duration = Duration::from_secs(16);

/// What a translator has done so far.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Flows that it has opened, each with a port of its own.
    flows: usize,
    /// When the last packet came from inside.
    last: Instant,
}

/// Translates for one node inside.
struct Translator {
    at: SocketAddr,
    seen: watch::Receiver<Seen>,
    forget: Arc<Notify>,
}

impl Translator {
    async fn start(server: SocketAddr) -> Self {
        let inside = UdpSocket::bind(loopback()).await.unwrap();
        let at = inside.local_addr().unwrap();
        let (report, seen) = watch::channel(Seen { flows: 0, last: Instant::now() });
        let forget = Arc::new(Notify::new());
        tokio::spawn(translate(inside, server, report, Arc::clone(&forget)));
        Self { at, seen, forget }
    }
}

async fn translate(inside: UdpSocket, server: SocketAddr, report: watch::Sender<Seen>, forget: Arc<Notify>) {
    let mut outside: Option<UdpSocket> = None;
    let (mut client, mut last, mut flows) = (None, Instant::now(), 0);
    let (mut out, mut back) = ([0; 65_535], [0; 65_535]);
    loop {
        let flow = outside.as_ref();
        let answered = async {
            match flow {
                Some(socket) => socket.recv(&mut back).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = forget.notified() => outside = None,
            Ok((length, from)) = inside.recv_from(&mut out) => {
                if outside.is_none() || last.elapsed() > FORGOTTEN_AFTER {
                    let socket = UdpSocket::bind(loopback()).await.unwrap();
                    socket.connect(server).await.unwrap();
                    (outside, flows) = (Some(socket), flows + 1);
                }
                (client, last) = (Some(from), Instant::now());
                if let Some(socket) = &outside {
                    socket.send(&out[..length]).await.ok();
                }
                report.send_replace(Seen { flows, last });
            }
            Ok(length) = answered => {
                if let Some(client) = client.filter(|_| last.elapsed() <= FORGOTTEN_AFTER) {
                    inside.send_to(&back[..length], client).await.ok();
                }
            }
        }
    }
}

/// A node in the world, and one that dials it through a translator.
async fn pair() -> (Node, Node, Translator) {
    let server = listener(1, &[2], Transports::QuicOnly);
    let translator = Translator::start(server.endpoint.listen_addresses()[0]).await;
    let dial = vec![PeerAddress { key: key(1), addresses: vec![translator.at.into()] }];
    let client = start(EndpointConfig { dial, ..config(2, &[1], Transports::QuicOnly) });
    connected(&server.endpoint, &client.endpoint).await;
    (server, client, translator)
}

fn request() -> SubmitRequest {
    SubmitRequest { envelope: vec![1] }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_alive() {
    let (server, client, mut translator) = pair().await;
    serve(server.incoming.requests, Blobs::default());
    let mut published = server.endpoint.connected();
    published.mark_unchanged();
    let begun = Instant::now();
    within(translator.seen.wait_for(|seen| seen.last.duration_since(begun) > IDLE)).await.unwrap();
    assert_eq!(translator.seen.borrow().flows, 1, "the flow was forgotten");
    assert!(client.endpoint.call(key(1), &request(), Duration::from_secs(5)).await.is_ok());
    assert!(!published.has_changed().unwrap(), "the connection was replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_flow_is_replaced() {
    let (server, client, translator) = pair().await;
    serve(server.incoming.requests, Blobs::default());
    assert!(client.endpoint.call(key(1), &request(), Duration::from_secs(5)).await.is_ok());
    translator.forget.notify_one();
    let answered = async {
        while translator.seen.borrow().flows < 2
            || client.endpoint.call(key(1), &request(), Duration::from_secs(2)).await.is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    within(answered).await;
}
