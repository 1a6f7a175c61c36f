//! Raft frames: in order, at most once, and nobody waits for a slow peer.

use fedledger_proto::{
    endpoint::{EndpointConfig, FrameSendError, FrameSender, PeerFrame, Transports},
    wire::{Protocol, SubmitRequest},
};
use tokio::sync::mpsc::Receiver;

use crate::{
    node::{EACH_TRANSPORT, Node, TIMEOUT, config, connected, dialer, key, listener, pair, start, wait_for, within},
    running::{Blobs, serve},
};

fn numbered(number: u32) -> Vec<u8> {
    let padding = vec![0; usize::try_from(number % 3000).unwrap()];
    [number.to_be_bytes().as_slice(), &padding].concat()
}

fn number(frame: &PeerFrame) -> u32 {
    let (number, _) = frame.bytes.split_first_chunk().unwrap();
    u32::from_be_bytes(*number)
}

/// Sends a frame as soon as there is room.
async fn send(sender: &FrameSender, frame: Vec<u8>) {
    while let Err(error) = sender.try_send(frame.clone()) {
        assert_eq!(error, FrameSendError::Full);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_in_order_exactly_once() {
    const FRAMES: u32 = 20_000;
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let sender = client.endpoint.raft_sender(key(1));
        let sending = tokio::spawn(async move {
            for number in 0..FRAMES {
                send(&sender, numbered(number)).await;
            }
            (sender, client)
        });
        for expected in 0..FRAMES {
            let frame = within(server.incoming.raft.recv()).await.unwrap();
            assert_eq!(frame, PeerFrame { peer: key(2), bytes: numbered(expected) });
        }
        let (sender, _client) = within(sending).await.unwrap();
        send(&sender, b"last".to_vec()).await;
        assert_eq!(within(server.incoming.raft.recv()).await.unwrap().bytes, b"last");
    }
}

/// Sends a frame as soon as there is room, and takes what has arrived meanwhile.
async fn send_and_take(sender: &FrameSender, next: u32, arriving: &mut Receiver<PeerFrame>, seen: &mut Vec<u32>) {
    while let Err(error) = sender.try_send(numbered(next)) {
        assert_eq!(error, FrameSendError::Full);
        seen.extend(arriving.try_recv().iter().map(number));
        tokio::task::yield_now().await;
    }
    seen.extend(arriving.try_recv().iter().map(number));
    tokio::task::yield_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_flow_again_after_the_peer_returns_and_none_comes_twice() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let address = server.endpoint.listen_addresses()[0];
        let sender = client.endpoint.raft_sender(key(1));
        let mut seen = Vec::new();
        let mut next = 0;
        for _ in 0..3 {
            // Until the first frame arrives: those before may get lost in the stream that broke.
            let arrived = seen.len();
            while seen.len() == arrived {
                send_and_take(&sender, next, &mut server.incoming.raft, &mut seen).await;
                next += 1;
            }
            for _ in 0..10 {
                send_and_take(&sender, next, &mut server.incoming.raft, &mut seen).await;
                next += 1;
            }
            // Frames are on their way while the peer goes.
            within(server.endpoint.shutdown()).await;
            while let Some(frame) = within(server.incoming.raft.recv()).await {
                seen.push(number(&frame));
            }
            within(wait_for(&client.endpoint, key(1), false)).await;
            assert_eq!(sender.try_send(numbered(next)), Err(FrameSendError::Disconnected));
            next += 1;

            server = start(EndpointConfig { listen: vec![address], ..config(1, &[2], transports) });
            connected(&server.endpoint, &client.endpoint).await;
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_fills_only_its_own_queue() {
    for transports in EACH_TRANSPORT {
        let server = listener(1, &[2, 3], transports);
        let flooding = dialer(2, &server.endpoint, transports);
        let other = dialer(3, &server.endpoint, transports);
        connected(&server.endpoint, &flooding.endpoint).await;
        connected(&server.endpoint, &other.endpoint).await;
        let Node { endpoint, incoming } = server;
        serve(incoming.requests, Blobs::default());

        // Nobody takes the frames at the server.
        let sender = flooding.endpoint.raft_sender(key(1));
        let frame = vec![0; 1024 * 1024];
        let mut accepted = 0;
        loop {
            match sender.try_send(frame.clone()) {
                Ok(()) => accepted += 1,
                Err(FrameSendError::Full) => break,
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
        assert!(accepted < 500, "{accepted} MiB were accepted for a peer that reads nothing");

        let request = SubmitRequest { envelope: vec![1] };
        assert!(other.endpoint.call(key(1), &request, TIMEOUT).await.is_ok());
        assert!(flooding.endpoint.call(key(1), &request, TIMEOUT).await.is_ok());
        within(endpoint.shutdown()).await;
        drop(incoming.raft);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_no_peer_would_accept_is_not_sent() {
    let (mut server, client) = pair(Transports::QuicAndTcp).await;
    let sender = client.endpoint.raft_sender(key(1));
    let limit = Protocol::Raft.request_size_bytes_max();
    let too_large = FrameSendError::TooLarge { size: limit + 1, limit };
    assert_eq!(sender.try_send(vec![0; limit + 1]), Err(too_large));
    send(&sender, vec![7; limit]).await;
    assert_eq!(within(server.incoming.raft.recv()).await.unwrap().bytes, vec![7; limit]);
    assert_eq!(client.endpoint.raft_sender(key(9)).try_send(vec![0]), Err(FrameSendError::Disconnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_pushed_beside_raft_and_neither_waits_for_the_other() {
    for transports in EACH_TRANSPORT {
        let (mut server, client) = pair(transports).await;
        let (raft, heads) = (client.endpoint.raft_sender(key(1)), client.endpoint.head_sender(key(1)));
        // Nobody takes Raft's frames here, so that its stream is held back.
        for number in 0..1000 {
            send(&raft, numbered(number)).await;
        }
        for number in 0..200 {
            send(&heads, numbered(number)).await;
            let frame = within(server.incoming.heads.recv()).await.unwrap();
            assert_eq!(frame, PeerFrame { peer: key(2), bytes: numbered(number) });
        }
        let too_large = vec![0; Protocol::Heads.request_size_bytes_max() + 1];
        assert!(matches!(heads.try_send(too_large), Err(FrameSendError::TooLarge { .. })));
        assert_eq!(number(&within(server.incoming.raft.recv()).await.unwrap()), 0);
    }
}
