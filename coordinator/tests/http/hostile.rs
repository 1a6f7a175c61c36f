//! Clients that do not keep to the protocol, or to good manners.

use std::net::SocketAddr;

use fedledger_coordinator::http::{HttpConfig, HttpServer};
use hyper::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::yield_now,
    time::timeout,
};

use crate::{
    client::{body, get},
    fixture::{MemoryLog, PATIENCE, loopback, serve},
};

/// Connections that one host may have; see the server's limits.
const CONNECTIONS_PER_HOST: usize = 128;

/// What the server says to these bytes before it closes the connection.
async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may hang up on the way, which shows below.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn hostile_paths_lead_nowhere() {
    let log = MemoryLog::signed(300);
    let server = serve(&log).await;
    let long = format!("/tile/0/{}000", "x001/".repeat(1500));
    for path in [
        "/",
        "//",
        "/checkpoint/",
        "/../checkpoint",
        "/tile/../checkpoint",
        "/tile/0/../../../../etc/passwd",
        "/tile/0/%2e%2e/000",
        "/tile/0/%30%30%30",
        "/tile/0/000%00",
        "/tile/-1/000",
        "/tile/64/000",
        "/tile/255/000",
        "/tile/0/x999/x999/x999/x999/x999/x999/999",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/000.p/65536",
        "/tile/0/000.p/01",
        "/tile/entries",
        "/tile/entries/",
        "/tile/data/000",
        "/tile/7/000",
        "/tile/63/000",
        "/tile/0/x072/x057/x594/x037/x927/935",
        "/tile/entries/x072/x057/x594/x037/x927/935.p/255",
        &long,
    ] {
        assert_eq!(get(server.local_address(), path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    // A question behind the path changes nothing.
    assert_eq!(body(server.local_address(), "/tile/0/000?a=b").await.len(), 8192);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_server_goes_on() {
    let log = MemoryLog::signed(300);
    let server = serve(&log).await;
    let address = server.local_address();
    let many = format!("GET /checkpoint HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
    let large = format!("GET /checkpoint HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(64 * 1024));
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64 * 1024));
    for bytes in [
        b"\0\0\0\0\r\n\r\n".as_slice(),
        b"GET\r\n\r\n",
        b"GET /checkpoint HTTP/9.9\r\n\r\n",
        b"GET /check point HTTP/1.1\r\n\r\n",
        b"GET /checkpoint HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /checkpoint HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"GET /checkpoint HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        many.as_bytes(),
        large.as_bytes(),
        path.as_bytes(),
    ] {
        let answer = say(address, bytes).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{:?}: {answer}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
    }
    // Old clients, several requests at once and a body that nobody reads.
    assert!(say(address, b"GET /checkpoint HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 OK"));
    let two = say(address, b"GET /healthz HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(two.matches("HTTP/1.1 200 OK").count(), 2, "{two}");
    let posted = say(address, b"POST /checkpoint HTTP/1.1\r\ncontent-length: 1000000\r\n\r\nabc").await;
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    body(address, "/tile/0/000").await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_headers_is_cut_off() {
    let log = MemoryLog::signed(3);
    let config = HttpConfig { headers_timeout: std::time::Duration::from_millis(200), ..HttpConfig::new(loopback()) };
    let server = HttpServer::bind(config).await.unwrap().start(log);
    for beginning in ["", "GET /checkpoint HTTP/1.1\r\nhost: a", "GET /healthz HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // The connection ends although the client has not closed it.
        timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap().unwrap();
        let answered = beginning.ends_with("\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&said).contains("200 OK"), answered, "{beginning:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_that_say_nothing_are_bounded_per_host() {
    let log = MemoryLog::signed(3);
    let server = serve(&log).await;
    let address = server.local_address();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_PER_HOST {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut refused = TcpStream::connect(address).await.unwrap();
    let closed = timeout(PATIENCE, refused.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    drop(silent);
    let admitted = async {
        while !say(address, b"GET /healthz HTTP/1.0\r\n\r\n").await.contains("200 OK") {
            yield_now().await;
        }
    };
    timeout(PATIENCE, admitted).await.unwrap();
    server.stop().await;
}
