//! What is served, and what is not yet.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Instant};

use bytes::Bytes;
use fedledger_coordinator::http::Condition;
use fedledger_ledger::{
    checkpoint::Checkpoint,
    note::SignedNote,
    tiles::{Content, check_entry_bundle, root_from_tiles, tiles},
};
use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use tokio::time::timeout;

use crate::{
    client::{ask, body, fetch, get},
    fixture::{MemoryLog, PATIENCE, entry, serve},
};

fn checkpoint(note: &Bytes) -> Checkpoint {
    let note = SignedNote::parse(std::str::from_utf8(note).unwrap()).unwrap();
    Checkpoint::parse(note.text()).unwrap()
}

#[tokio::test]
async fn a_client_gets_the_whole_log_and_can_check_it() {
    let log = MemoryLog::signed(600);
    let server = serve(&log).await;
    let address = server.local_address();
    let head = checkpoint(&body(address, "/checkpoint").await);
    assert_eq!((head.size(), *head.root()), (600, log.root()));
    let mut all = BTreeMap::new();
    for tile in tiles(600) {
        all.insert(tile, body(address, &format!("/{tile}")).await);
    }
    let root = root_from_tiles(600, |tile| all.get(tile).map(|bytes| bytes.to_vec()).ok_or("missing"));
    assert_eq!(root, Ok(*head.root()));
    for tile in Content::Entries.tiles(600) {
        let hashes = tile.hashes();
        assert!(!tile.is_full() || all[&tile].len() > 64 * 1024, "{tile} is read in one piece");
        let entries = check_entry_bundle((&tile, &all[&tile]), (&hashes, &all[&hashes])).unwrap();
        assert!(tile.rows().zip(entries).all(|(index, found)| found == entry(index)));
    }
    server.stop().await;
}

#[tokio::test]
async fn headers_say_what_it_is_and_how_long_it_may_be_kept() {
    let log = MemoryLog::signed(300);
    let server = serve(&log).await;
    let (text, bytes) = ("text/plain; charset=utf-8", "application/octet-stream");
    let immutable = "public, max-age=31536000, immutable";
    for (path, status, kind, caching) in [
        ("/checkpoint", 200, text, "no-cache"),
        ("/tile/0/000", 200, bytes, immutable),
        ("/tile/0/001.p/44", 200, bytes, immutable),
        ("/tile/1/000.p/1", 200, bytes, immutable),
        ("/tile/entries/000", 200, bytes, immutable),
        ("/tile/entries/001.p/44", 200, bytes, immutable),
        ("/tile/0/001", 404, text, "no-store"),
        ("/somewhere", 404, text, "no-store"),
        ("/healthz", 200, text, "no-store"),
        ("/readyz", 200, text, "no-store"),
    ] {
        let answer = get(server.local_address(), path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("cache-control"), Some(caching), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let head = fetch(server.local_address(), Method::HEAD, path).await;
        assert_eq!((head.status, head.body.len()), (answer.status, 0), "{path}");
        for name in ["content-type", "cache-control"] {
            assert_eq!(head.header(name), answer.header(name), "{path}: {name}");
        }
        // That of entries is known only when they are read.
        let length = head.header("content-length");
        assert!(length.is_none() || length == answer.header("content-length"), "{path}: {length:?}");
        assert!(length.is_some() || path.contains("entries"), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn partial_tiles_are_there_also_behind_the_full_one() {
    let log = MemoryLog::signed(520);
    let server = serve(&log).await;
    let address = server.local_address();
    let full = body(address, "/tile/0/001").await;
    for width in [1_usize, 44, 255] {
        assert_eq!(body(address, &format!("/tile/0/001.p/{width}")).await, full[..32 * width]);
    }
    let bundle = body(address, "/tile/entries/001").await;
    let partial = body(address, "/tile/entries/001.p/7").await;
    assert!(bundle.starts_with(&partial) && partial.len() < bundle.len());
    // Narrower than the tile of the head, too.
    assert_eq!(body(address, "/tile/0/002.p/3").await.len(), 96);
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_served_beyond_the_signed_head() {
    let log = MemoryLog::new(300);
    let server = serve(&log).await;
    let address = server.local_address();
    for path in ["/checkpoint", "/tile/0/000", "/tile/entries/000"] {
        assert_eq!(get(address, path).await.status, StatusCode::NOT_FOUND, "{path}, although nobody has signed");
    }
    log.sign();
    log.grow(600);
    let signed = async { while get(address, "/checkpoint").await.status != StatusCode::OK {} };
    timeout(PATIENCE, signed).await.unwrap();
    for path in ["/tile/0/001.p/44", "/tile/entries/001.p/44", "/tile/1/000.p/1"] {
        body(address, path).await;
    }
    let beyond = [
        "/tile/0/001.p/45",
        "/tile/0/001",
        "/tile/1/000.p/2",
        "/tile/entries/001.p/45",
        "/tile/2/000.p/1",
        "/tile/63/000",
    ];
    for path in beyond {
        assert_eq!(get(address, path).await.status, StatusCode::NOT_FOUND, "{path} is not signed for");
    }
    log.sign();
    let grown = async { while checkpoint(&body(address, "/checkpoint").await).size() < 600 {} };
    timeout(PATIENCE, grown).await.unwrap();
    assert_eq!(body(address, "/tile/0/001").await.len(), 8192);
    server.stop().await;
}

#[tokio::test]
async fn only_get_and_head_are_understood() {
    let log = MemoryLog::signed(3);
    let server = serve(&log).await;
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH, Method::TRACE] {
        let answer = fetch(server.local_address(), method.clone(), "/checkpoint").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
    }
    server.stop().await;
}

#[tokio::test]
async fn health_and_readiness_tell_apart_what_is_missing() {
    let log = MemoryLog::signed(3);
    let server = serve(&log).await;
    for (condition, health, readiness, text) in [
        (Condition::Ready, 200, 200, "ok\n"),
        (Condition::Leaderless, 200, 503, "no leader is known\n"),
        (Condition::Stopped, 503, 503, "the replica has stopped\n"),
    ] {
        log.set_condition(condition);
        assert_eq!(get(server.local_address(), "/healthz").await.status.as_u16(), health, "{condition:?}");
        let ready = get(server.local_address(), "/readyz").await;
        assert_eq!((ready.status.as_u16(), &ready.body[..]), (readiness, text.as_bytes()));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_replica_is_asked_for_its_head_a_few_times_a_second_only() {
    let log = MemoryLog::signed(300);
    let server = serve(&log).await;
    let since = Instant::now();
    for _ in 0..100 {
        body(server.local_address(), "/checkpoint").await;
        body(server.local_address(), "/tile/0/000").await;
    }
    let (asked, milliseconds) = (log.asked.load(Ordering::Relaxed), since.elapsed().as_millis());
    assert!(asked >= 1 && u128::from(asked) <= 1 + milliseconds / 200, "{asked} times in {milliseconds} ms");
    server.stop().await;
}

#[tokio::test]
async fn damage_is_an_error_and_never_half_an_answer() {
    let log = MemoryLog::signed(300);
    let server = serve(&log).await;
    let address = server.local_address();
    // In the first part, before anything was sent.
    log.lose(260);
    assert_eq!(get(address, "/tile/entries/001.p/44").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    // In a later part, when it is too late for a status.
    log.lose(250);
    let answer = ask(address, Method::GET, "/tile/entries/000").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.into_body().collect().await.is_err(), "a part passed for the whole");
    assert_eq!(body(address, "/tile/0/000").await.len(), 8192);
    server.stop().await;
}
