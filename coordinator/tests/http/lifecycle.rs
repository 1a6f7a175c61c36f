//! Starting and stopping.

use std::sync::{Arc, Weak};

use fedledger_coordinator::http::{HttpConfig, HttpServer, HttpServerError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::yield_now,
    time::timeout,
};

use crate::{
    client::body,
    fixture::{MemoryLog, PATIENCE, serve},
};

/// Waits until nothing of the server refers to the log any more.
async fn gone(log: &Weak<MemoryLog>) {
    while log.strong_count() > 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let log = MemoryLog::signed(3);
    let server = serve(&log).await;
    let address = server.local_address();
    let refused = HttpServer::bind(HttpConfig::new(address)).await.err();
    assert!(matches!(&refused, Some(HttpServerError::PortInUse(taken)) if *taken == address), "{refused:?}");
    assert!(refused.unwrap().to_string().contains("`http`"));
    server.stop().await;
    HttpServer::bind(HttpConfig::new(address)).await.unwrap();
}

#[tokio::test]
async fn stopping_closes_connections_and_frees_the_log() {
    let log = MemoryLog::signed(3);
    let server = serve(&log).await;
    let address = server.local_address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 1024]).await.unwrap(), 0);
    body(address, "/checkpoint").await;
    let log = {
        let weak = Arc::downgrade(&log);
        drop(log);
        weak
    };
    timeout(PATIENCE, server.stop()).await.unwrap();
    assert_eq!(log.strong_count(), 0);
    assert!(!matches!(idle.read(&mut [0; 1024]).await, Ok(1..)), "the connection was kept");
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn aborting_does_not_wait_for_clients_that_do_not_read() {
    let log = MemoryLog::signed(20_000);
    let server = serve(&log).await;
    let mut stalled = TcpStream::connect(server.local_address()).await.unwrap();
    // Far more than fits between the two.
    let requests = "GET /tile/entries/000 HTTP/1.1\r\n\r\n".repeat(400);
    stalled.write_all(requests.as_bytes()).await.unwrap();
    assert_ne!(stalled.read(&mut [0; 16]).await.unwrap(), 0);
    let weak = Arc::downgrade(&log);
    drop(log);
    timeout(PATIENCE, server.abort()).await.unwrap();
    assert_eq!(weak.strong_count(), 0);
}

#[tokio::test]
async fn dropping_the_server_ends_it() {
    let log = MemoryLog::signed(3);
    let server = serve(&log).await;
    let mut idle = TcpStream::connect(server.local_address()).await.unwrap();
    drop(server);
    let weak = Arc::downgrade(&log);
    drop(log);
    timeout(PATIENCE, gone(&weak)).await.unwrap();
    assert!(!matches!(timeout(PATIENCE, idle.read(&mut [0; 16])).await.unwrap(), Ok(1..)));
}
