//! What admitted peers can do with each other.

use std::net::SocketAddr;

use fedledger_proto::{
    endpoint::{Address, CallError, Endpoint, EndpointConfig, EndpointError, PeerAddress, RequestKind, Transports},
    wire::{CheckpointRequest, CheckpointResponse, EventFrame, EventsRequest, SubmitRequest, SubmitResponse},
};
use tokio::task::JoinSet;

use crate::{
    node::{
        EACH_TRANSPORT, TIMEOUT, address, config, connected, dialer, key, listener, loopback, pair, start, wait_for,
        within,
    },
    running::{Blobs, LEAVES, serve},
};

async fn submit(endpoint: &Endpoint, peer: &Endpoint, envelope: &[u8]) -> Result<SubmitResponse, CallError> {
    endpoint.call(peer.key(), &SubmitRequest { envelope: envelope.to_vec() }, TIMEOUT).await
}

async fn every_request_is_answered(asking: &Endpoint, serving: &Endpoint) {
    let outcome = submit(asking, serving, b"envelope").await.unwrap();
    assert_eq!(outcome, SubmitResponse::Outcome { index: 7, leaf: b"envelope".to_vec() });

    let latest = asking.call(serving.key(), &CheckpointRequest::Latest { known: None }, TIMEOUT).await.unwrap();
    assert_eq!(latest, CheckpointResponse::Latest { note: Some("note".into()), consistency: None });
    let offer = CheckpointRequest::Offer { note: "note".into() };
    assert_eq!(
        asking.call(serving.key(), &offer, TIMEOUT).await.unwrap(),
        CheckpointResponse::Taken { note: None, consistency: None }
    );

    let (accepted, mut events) = asking.subscribe(serving.key(), &EventsRequest { from: 5 }).await.unwrap();
    assert_eq!(accepted.next, 5 + LEAVES);
    for index in 5..5 + LEAVES {
        let expected = EventFrame { index, leaf: index.to_be_bytes().to_vec() };
        assert_eq!(within(events.next()).await.unwrap(), Some(expected));
    }
    assert_eq!(within(events.next()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_connection_serve_every_protocol_on_each_transport() {
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        serve(server.incoming.requests, Blobs::default());
        serve(client.incoming.requests, Blobs::default());
        every_request_is_answered(&client.endpoint, &server.endpoint).await;
        every_request_is_answered(&server.endpoint, &client.endpoint).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_dial_each_other_by_either_transport_find_one_another() {
    let all = [1, 2, 3];
    let nodes = all.map(|seed| listener(seed, &all, Transports::QuicAndTcp));
    let addresses: Vec<_> = nodes.iter().map(|node| address(&node.endpoint)).collect();
    for node in &nodes {
        node.endpoint.set_dial(addresses.clone()).await.unwrap();
    }
    let [a, b, c] = nodes;
    for (x, y) in [(&a, &b), (&b, &c), (&c, &a)] {
        connected(&x.endpoint, &y.endpoint).await;
    }
    serve(a.incoming.requests, Blobs::default());
    every_request_is_answered(&b.endpoint, &a.endpoint).await;
    every_request_is_answered(&c.endpoint, &a.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dialing_falls_back_to_tcp_where_nobody_answers_on_udp() {
    let server = listener(1, &[2], Transports::TcpOnly);
    let client = dialer(2, &server.endpoint, Transports::QuicAndTcp);
    connected(&server.endpoint, &client.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_can_be_named_by_host() {
    let server = listener(1, &[2], Transports::TcpOnly);
    let port = server.endpoint.listen_addresses()[0].port();
    let addresses = vec![Address::Name { host: "localhost".into(), port }.into()];
    let dial = vec![PeerAddress { key: key(1), addresses }];
    let client = start(EndpointConfig { dial, ..config(2, &[1], Transports::TcpOnly) });
    connected(&server.endpoint, &client.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_calls_are_all_answered() {
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        serve(server.incoming.requests, Blobs::default());
        let mut calls = JoinSet::new();
        for number in 0..500u32 {
            let (client, server) = (client.endpoint.clone(), server.endpoint.clone());
            calls.spawn(async move {
                let envelope = number.to_be_bytes().repeat(2000);
                let outcome = submit(&client, &server, &envelope).await.unwrap();
                assert_eq!(outcome, SubmitResponse::Outcome { index: 7, leaf: envelope });
            });
        }
        within(calls.join_all()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_a_subscription_notices_when_the_follower_leaves() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let following = tokio::spawn(async move {
            let subscription = client.endpoint.subscribe(key(1), &EventsRequest { from: 0 }).await.unwrap();
            (client, subscription)
        });
        let request = within(server.incoming.requests.recv()).await.unwrap();
        let RequestKind::Events(EventsRequest { from: 0 }, responder) = request.kind else { panic!("{request:?}") };
        let mut sender = responder.accept(0).await.unwrap();
        let (client, subscription) = within(following).await.unwrap();
        drop(subscription);
        within(sender.closed()).await;
        drop(client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_nobody_and_a_call_without_answer_fail_in_time() {
    let (mut server, client) = pair(Transports::QuicAndTcp).await;
    let request = SubmitRequest { envelope: vec![1] };
    let nobody = client.endpoint.call(key(9), &request, TIMEOUT).await;
    assert!(matches!(nobody, Err(CallError::NotConnected(peer)) if peer == key(9)), "{nobody:?}");

    let unanswered = client.endpoint.call(key(1), &request, std::time::Duration::from_millis(300)).await;
    assert!(matches!(unanswered, Err(CallError::TimedOut)), "{unanswered:?}");
    drop(within(server.incoming.requests.recv()).await);

    let endpoint = client.endpoint.clone();
    let dropped = tokio::spawn(async move { endpoint.call(key(1), &request, TIMEOUT).await });
    drop(within(server.incoming.requests.recv()).await);
    let dropped = within(dropped).await.unwrap();
    assert!(matches!(dropped, Err(CallError::NoAnswer | CallError::Frame(_))), "{dropped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let listen_on = |address: SocketAddr, transports| {
        Endpoint::start(EndpointConfig { listen: vec![address], ..config(5, &[], transports) }).map(|_| ())
    };
    let tcp = std::net::TcpListener::bind(loopback()).unwrap();
    let udp = std::net::UdpSocket::bind(loopback()).unwrap();
    let other = listener(1, &[], Transports::QuicAndTcp);
    let taken = [
        (tcp.local_addr().unwrap(), Transports::TcpOnly),
        (udp.local_addr().unwrap(), Transports::QuicOnly),
        (other.endpoint.listen_addresses()[0], Transports::QuicAndTcp),
        (other.endpoint.listen_addresses()[0], Transports::TcpOnly),
    ];
    for (address, transports) in taken {
        let result = listen_on(address, transports);
        assert!(
            matches!(result, Err(EndpointError::PortInUse(named)) if named == address),
            "{transports:?} {result:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_tells_the_peers_and_frees_the_port() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let address = server.endpoint.listen_addresses()[0];
        within(server.endpoint.shutdown()).await;
        within(wait_for(&client.endpoint, key(1), false)).await;
        assert!(within(server.incoming.requests.recv()).await.is_none());
        assert!(matches!(server.endpoint.set_dial(Vec::new()).await, Err(EndpointError::Stopped)));
        assert!(matches!(submit(&server.endpoint, &client.endpoint, b"").await, Err(CallError::NotConnected(_))));
        within(server.endpoint.shutdown()).await;

        let again = start(EndpointConfig { listen: vec![address], ..config(1, &[2], transports) });
        connected(&again.endpoint, &client.endpoint).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_stops_the_node() {
    let (server, client) = pair(Transports::QuicAndTcp).await;
    drop(server);
    within(wait_for(&client.endpoint, key(1), false)).await;
}
