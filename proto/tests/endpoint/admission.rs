//! Who gets in.

use fedledger_proto::{
    endpoint::{CallError, EndpointConfig, PeerAddress, RequestKind, Transports},
    wire::{EventsRequest, Protocol, SubmitRequest},
};

use crate::{
    node::{
        EACH_TRANSPORT, TIMEOUT, address, config, connected, dialer, key, keys, listener, loopback, pair, start,
        wait_for, within,
    },
    raw_peer::RawPeer,
    running::{Blobs, serve},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_peer_gets_no_answer_and_disturbs_nobody() {
    for transports in EACH_TRANSPORT {
        let (server, client) = pair(transports).await;
        serve(server.incoming.requests, Blobs::default());

        let stranger = dialer(3, &server.endpoint, transports);
        let mut raw = RawPeer::dial(4, &server.endpoint, transports);
        within(raw.refused()).await;
        assert!(within(raw.open(Protocol::Transaction)).await.is_none(), "a stranger opened a stream");

        let request = SubmitRequest { envelope: vec![1] };
        for _ in 0..20 {
            assert!(client.endpoint.call(key(1), &request, TIMEOUT).await.is_ok());
        }
        let refused = stranger.endpoint.call(key(1), &request, TIMEOUT).await;
        assert!(matches!(refused, Err(CallError::NotConnected(_))), "{refused:?}");
        assert_eq!(*server.endpoint.connected().borrow(), keys(&[2]));
        assert!(!stranger.endpoint.connected().has_changed().unwrap(), "a stranger was connected for a while");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_who_was_dialed_is_not_talked_to() {
    let impostor = listener(1, &[2], Transports::TcpOnly);
    let real_address = impostor.endpoint.listen_addresses()[0];
    let proxy = tokio::net::TcpListener::bind(loopback()).await.unwrap();
    let addresses = vec![proxy.local_addr().unwrap().into()];
    // Both keys are admitted, but at this address the one is expected and the other answers.
    let dial = vec![PeerAddress { key: key(9), addresses }];
    let client = start(EndpointConfig { dial, ..config(2, &[1, 9], Transports::TcpOnly) });
    for _ in 0..2 {
        let (mut inbound, _) = within(proxy.accept()).await.unwrap();
        let mut outbound = tokio::net::TcpStream::connect(real_address).await.unwrap();
        assert_eq!(within(inbound.peek(&mut [0])).await.unwrap(), 1, "there was no handshake");
        // The client may break off in the middle of anything.
        within(tokio::io::copy_bidirectional(&mut inbound, &mut outbound)).await.ok();
    }
    assert!(!client.endpoint.connected().has_changed().unwrap(), "the impostor was connected for a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dials_again_whom_it_admits_again_even_if_the_peer_had_dialed() {
    let server = listener(1, &[2], Transports::QuicAndTcp);
    let client = start(EndpointConfig {
        listen: vec![loopback()],
        dial: vec![address(&server.endpoint)],
        ..config(2, &[1], Transports::QuicAndTcp)
    });
    connected(&server.endpoint, &client.endpoint).await;
    server.endpoint.set_dial(vec![address(&client.endpoint)]).await.unwrap();
    client.endpoint.set_dial(Vec::new()).await.unwrap();
    server.endpoint.set_admitted(keys(&[])).await.unwrap();
    within(wait_for(&client.endpoint, key(1), false)).await;
    server.endpoint.set_admitted(keys(&[2])).await.unwrap();
    connected(&server.endpoint, &client.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_peer_is_disconnected_and_can_be_admitted_again() {
    for transports in EACH_TRANSPORT {
        let server = listener(1, &[2, 3], transports);
        let revoked = dialer(2, &server.endpoint, transports);
        let other = dialer(3, &server.endpoint, transports);
        connected(&server.endpoint, &revoked.endpoint).await;
        connected(&server.endpoint, &other.endpoint).await;
        let mut requests = server.incoming.requests;

        let endpoint = revoked.endpoint.clone();
        let following = tokio::spawn(async move { endpoint.subscribe(key(1), &EventsRequest { from: 0 }).await });
        let request = within(requests.recv()).await.unwrap();
        let RequestKind::Events(_, responder) = request.kind else { panic!("{request:?}") };
        let mut sender = responder.accept(0).await.unwrap();
        let (_, mut frames) = within(following).await.unwrap().unwrap();

        server.endpoint.set_admitted(keys(&[3])).await.unwrap();
        assert_eq!(*server.endpoint.connected().borrow(), keys(&[3]));
        within(wait_for(&revoked.endpoint, key(1), false)).await;
        within(sender.closed()).await;
        assert!(!matches!(within(frames.next()).await, Ok(Some(_))));
        drop((sender, frames));

        serve(requests, Blobs::default());
        let request = SubmitRequest { envelope: vec![1] };
        assert!(matches!(revoked.endpoint.call(key(1), &request, TIMEOUT).await, Err(CallError::NotConnected(_))));
        assert!(other.endpoint.call(key(1), &request, TIMEOUT).await.is_ok());

        server.endpoint.set_admitted(keys(&[2, 3])).await.unwrap();
        within(wait_for(&revoked.endpoint, key(1), true)).await;
        assert!(revoked.endpoint.call(key(1), &request, TIMEOUT).await.is_ok());
    }
}
