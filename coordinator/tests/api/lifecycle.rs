//! Starting, stopping, and bounds on what one member may take.

use std::{sync::Arc, time::Duration};

use fedledger_coordinator::api::{ApiServer, ApiServerError};
use fedledger_proto::api::{ApiClient, v1};
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::yield_now, time::timeout};

use crate::fixture::Fixture;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections that one host may have; see the server's limits.
const CONNECTIONS_PER_HOST: usize = 64;

/// Streams that one member may have; see the server's limits.
const STREAMS_PER_MEMBER: usize = 32;

#[tokio::test]
async fn a_port_in_use_is_named() {
    let fixture = Fixture::new().await;
    let address = fixture.running.address;
    let refused = ApiServer::bind(fixture.server_config(address)).await.err();
    assert!(matches!(refused, Some(ApiServerError::PortInUse(taken)) if taken == address), "{refused:?}");
}

#[tokio::test]
async fn stopping_ends_streams_and_closes_connections() {
    let fixture = Fixture::new().await;
    let mut raw = fixture.raw_ledger("budapest").await;
    let mut entries = raw.entries(v1::EntriesRequest { from: 0, follow: true, level: 0 }).await.unwrap().into_inner();
    assert_eq!(entries.message().await.unwrap().unwrap().index, 0);
    let ledger = Arc::downgrade(&fixture.ledger);
    drop(fixture.ledger);
    timeout(PATIENCE, fixture.running.stop()).await.unwrap();
    let status = entries.message().await.unwrap_err();
    assert_eq!(status.metadata().get("fedledger-code").unwrap(), "stopping");
    timeout(PATIENCE, gone(&ledger)).await.unwrap();
}

#[tokio::test]
async fn dropping_the_server_closes_connections_even_if_their_clients_do_not_read() {
    let fixture = Fixture::new().await;
    let digest = fixture.ledger.store(vec![7; 64 * 1024 * 1024]);
    let mut raw = fixture.raw_blobs("budapest").await;
    let request = v1::GetBlobRequest { digest: digest.as_bytes().to_vec().into() };
    let mut stalled = raw.get(request).await.unwrap().into_inner();
    let ledger = Arc::downgrade(&fixture.ledger);
    drop(fixture.ledger);
    fixture.running.task.abort();
    timeout(PATIENCE, gone(&ledger)).await.unwrap();
    // What was under way arrives; then the stream breaks.
    while let Ok(chunk) = stalled.message().await {
        assert!(chunk.is_some(), "the blob did not arrive whole");
    }
}

/// Waits until nothing of the server refers to the ledger any more.
async fn gone<T>(ledger: &std::sync::Weak<T>) {
    while ledger.strong_count() > 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn one_member_cannot_take_the_streams_of_another() {
    let fixture = Fixture::new().await;
    let mut raw = fixture.raw_ledger("budapest").await;
    let request = v1::EntriesRequest { from: 0, follow: true, level: 0 };
    let mut streams = Vec::new();
    for _ in 0..STREAMS_PER_MEMBER {
        streams.push(raw.entries(request).await.unwrap());
    }
    let status = raw.entries(request).await.unwrap_err();
    assert_eq!(status.metadata().get("fedledger-code").unwrap(), "busy");
    let mut other = fixture.client("cleveland").await.entries(0, true);
    assert_eq!(other.next().await.unwrap().unwrap().index, 0);
    // Calls with one answer have their own bound.
    fixture.client("budapest").await.status().await.unwrap();
    drop(streams);
    let again = async {
        while raw.entries(request).await.is_err() {
            yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_are_bounded_per_host() {
    let fixture = Fixture::new().await;
    let identity = fixture.identity("cleveland");
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_PER_HOST {
        silent.push(TcpStream::connect(fixture.running.address).await.unwrap());
    }
    let mut refused = TcpStream::connect(fixture.running.address).await.unwrap();
    let closed = timeout(PATIENCE, refused.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    drop(silent);
    let admitted = async {
        while ApiClient::connect(&fixture.url(), &identity).await.is_err() {
            yield_now().await;
        }
    };
    timeout(PATIENCE, admitted).await.unwrap();
}
