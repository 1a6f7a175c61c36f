//! Admitted peers that break the protocol or ask for too much.

use fedledger_ledger::{Digest, codec};
use fedledger_proto::{
    endpoint::RequestKind,
    wire::{
        Answer, BlobGet, BlobHeader, BlobPrefix, BlobRequest, CHUNK_BYTES, EventsAccepted, Protocol, RefusalCode,
        SubmitRequest, SubmitResponse,
        frame::{read_message, write_message},
    },
};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::Stream;

use crate::{
    node::{EACH_TRANSPORT, TIMEOUT, connected, dialer, key, listener, within},
    raw_peer::RawPeer,
    running::{Blobs, serve},
};

const ANSWER_SIZE_MAX: usize = 80 * 1024;

async fn answer_to(raw: &mut RawPeer, protocol: Protocol, bytes: &[u8]) -> Answer<SubmitResponse> {
    let mut stream = within(raw.open(protocol)).await.expect("the connection is gone");
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    answer_on(&mut stream).await
}

async fn answer_on(stream: &mut Stream) -> Answer<SubmitResponse> {
    within(read_message(stream, ANSWER_SIZE_MAX)).await.unwrap().expect("an answer")
}

fn refused_with<T: std::fmt::Debug>(answer: Answer<T>) -> RefusalCode {
    match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

/// A frame around some bytes.
fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_oversized_frames_are_refused_and_the_connection_goes_on() {
    for transports in EACH_TRANSPORT {
        let server = listener(1, &[2, 3], transports);
        serve(server.incoming.requests, Blobs::default());
        let mut raw = RawPeer::dial(2, &server.endpoint, transports);
        within(raw.connected()).await;

        let good = codec::encode(&SubmitRequest { envelope: vec![7] });
        let mut not_canonical = good.clone();
        not_canonical.push(0);
        let malformed = [b"".to_vec(), b"\xff".to_vec(), b"not cbor".to_vec(), not_canonical, codec::encode(&5u64)];
        for protocol in [Protocol::Transaction, Protocol::Checkpoint, Protocol::Events, Protocol::Blob] {
            for body in &malformed {
                let answer = answer_to(&mut raw, protocol, &framed(body)).await;
                assert_eq!(refused_with(answer), RefusalCode::Malformed, "{protocol} {body:?}");
            }
            let huge = answer_to(&mut raw, protocol, &u32::MAX.to_be_bytes()).await;
            assert_eq!(refused_with(huge), RefusalCode::TooLarge, "{protocol}");
        }
        for size in [0, 1, CHUNK_BYTES as u64 + 1] {
            let held = Some(BlobPrefix { size, digest: Digest::of(b"") });
            let get = codec::encode(&BlobRequest::Get(BlobGet {
                digest: Digest::of(b""),
                size_max: 1,
                held,
                doubted: false,
            }));
            let resumed = answer_to(&mut raw, Protocol::Blob, &framed(&get)).await;
            assert_eq!(refused_with(resumed), RefusalCode::Malformed);
        }

        let answer = answer_to(&mut raw, Protocol::Transaction, &framed(&good)).await;
        assert_eq!(answer, Answer::Granted(SubmitResponse::Outcome { index: 7, leaf: vec![7] }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_no_request() {
    let [transports, _] = EACH_TRANSPORT;
    let mut server = listener(1, &[2], transports);
    let mut raw = RawPeer::dial(2, &server.endpoint, transports);
    within(raw.connected()).await;
    let request = framed(&codec::encode(&SubmitRequest { envelope: vec![7; 100] }));
    for cut in [0, 3, 50] {
        let mut stream = within(raw.open(Protocol::Transaction)).await.unwrap();
        stream.write_all(&request[..cut]).await.unwrap();
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.ok();
        assert_eq!(answer.is_empty(), cut == 0, "a cut frame is refused, an empty stream is not answered");
    }
    // Nothing of this reached the shell: the first request there is the whole one.
    let mut stream = within(raw.open(Protocol::Transaction)).await.unwrap();
    stream.write_all(&request).await.unwrap();
    stream.flush().await.unwrap();
    let first = within(server.incoming.requests.recv()).await.unwrap();
    assert!(matches!(first.kind, RequestKind::Submit(submit, _) if submit.envelope == [7; 100]));
    assert!(server.incoming.requests.try_recv().is_err());
}

/// Requests that a peer sends at once, more than it may have open.
const AT_ONCE: usize = 40;

type Answers = FuturesUnordered<BoxFuture<'static, (Stream, Answer<SubmitResponse>)>>;

/// Sends requests without waiting for their answers.
async fn ask_at_once(raw: &mut RawPeer, answers: &Answers) {
    let request = framed(&codec::encode(&SubmitRequest { envelope: vec![7] }));
    for _ in 0..AT_ONCE {
        let mut stream = within(raw.open(Protocol::Transaction)).await.unwrap();
        // A busy node may have closed its side already.
        stream.write_all(&request).await.ok();
        stream.flush().await.ok();
        answers.push(Box::pin(async move {
            let answer = answer_on(&mut stream).await;
            (stream, answer)
        }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_too_much_at_once_is_told_so_while_others_are_served() {
    for transports in EACH_TRANSPORT {
        let server = listener(1, &[2, 3], transports);
        let polite = dialer(3, &server.endpoint, transports);
        connected(&server.endpoint, &polite.endpoint).await;
        let mut raw = RawPeer::dial(2, &server.endpoint, transports);
        within(raw.connected()).await;

        let (hold, mut held) = tokio::sync::mpsc::unbounded_channel();
        let mut requests = server.incoming.requests;
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let RequestKind::Submit(_, responder) = request.kind else { panic!("{request:?}") };
                if request.peer == key(3) {
                    responder.send(SubmitResponse::Redirect { leader: None }).await.unwrap();
                } else {
                    hold.send(responder).unwrap();
                }
            }
        });

        let mut answers = Answers::new();
        ask_at_once(&mut raw, &answers).await;
        let (mut unanswered, mut busy) = (Vec::new(), 0);
        while unanswered.len() + busy < AT_ONCE {
            tokio::select! {
                responder = within(held.recv()) => unanswered.push(responder.unwrap()),
                answer = answers.next() => {
                    assert_eq!(answer.unwrap().1, Answer::Busy);
                    busy += 1;
                }
            }
        }
        assert!(busy > 0 && !unanswered.is_empty(), "{busy} of {AT_ONCE} were refused");
        let outcome = polite.endpoint.call(key(1), &SubmitRequest { envelope: vec![1] }, TIMEOUT).await.unwrap();
        assert_eq!(outcome, SubmitResponse::Redirect { leader: None });

        // Once all are answered, there is room for others.
        let redirect = SubmitResponse::Redirect { leader: None };
        for responder in unanswered {
            responder.send(redirect.clone()).await.unwrap();
        }
        while let Some((_, answer)) = within(answers.next()).await {
            assert_eq!(answer, Answer::Granted(redirect.clone()));
        }
        ask_at_once(&mut raw, &answers).await;
        within(held.recv()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_shell_refuses_what_it_cannot_queue() {
    let [transports, _] = EACH_TRANSPORT;
    let seeds: Vec<u8> = (10..22).collect();
    let asked = seeds.len() * AT_ONCE;
    let server = listener(1, &seeds, transports);
    let requests = server.incoming.requests;
    let refused = asked - requests.max_capacity();
    let mut answers = Answers::new();
    let mut connections = Vec::new();
    let mut busy = 0;
    for seed in seeds {
        let mut raw = RawPeer::dial(seed, &server.endpoint, transports);
        within(raw.connected()).await;
        ask_at_once(&mut raw, &answers).await;
        connections.push(raw);
        // Every peer is over its own limit, and some over that of all.
        assert_eq!(within(answers.next()).await.unwrap().1, Answer::Busy);
        busy += 1;
    }
    while busy < refused {
        assert_eq!(within(answers.next()).await.unwrap().1, Answer::Busy);
        busy += 1;
    }
    assert_eq!(requests.capacity(), 0, "there was room left in the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_another_protocol_are_no_answers() {
    let [transports, _] = EACH_TRANSPORT;
    let server = listener(1, &[2], transports);
    serve(server.incoming.requests, Blobs::default());
    let mut raw = RawPeer::dial(2, &server.endpoint, transports);
    within(raw.connected()).await;
    let mut stream = within(raw.open(Protocol::Blob)).await.unwrap();
    let get = BlobRequest::Get(BlobGet { digest: Digest::of(b"nothing"), size_max: 1, held: None, doubted: false });
    write_message(&mut stream, &get, 1024).await.unwrap();
    let body = within(fedledger_proto::wire::frame::read_frame(&mut stream, 1024)).await.unwrap().unwrap();
    assert_eq!(codec::decode(&body, 1024), Ok(Answer::Granted(BlobHeader::NotFound)));
    assert!(codec::decode::<Answer<EventsAccepted>>(&body, 1024).is_err());
    assert!(codec::decode::<Answer<SubmitResponse>>(&body, 1024).is_err());
}
