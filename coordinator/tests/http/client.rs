//! A client that takes answers as they come.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An answer that has arrived whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }
}

/// Asks on a connection of its own; the body has not arrived yet.
pub async fn ask(address: SocketAddr, method: Method, path: &str) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
}

pub async fn fetch(address: SocketAddr, method: Method, path: &str) -> Answer {
    let (head, body) = ask(address, method, path).await.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    fetch(address, Method::GET, path).await
}

/// The body of what must be there.
pub async fn body(address: SocketAddr, path: &str) -> Bytes {
    let answer = get(address, path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
    answer.body
}
