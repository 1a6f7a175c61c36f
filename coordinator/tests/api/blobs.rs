//! Downloading blobs.

use bytes::Bytes;
use fedledger_ledger::Digest;
use fedledger_proto::api::{
    limits::{BLOB_CHUNK_SIZE_BYTES, HAS_DIGESTS_MAX},
    v1,
};
use tonic::Code;

use crate::{backend::StoredBlob, fixture::Fixture};

fn blob(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn blobs_of_every_size_arrive_whole() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    for size in [0, 1, BLOB_CHUNK_SIZE_BYTES - 1, BLOB_CHUNK_SIZE_BYTES, 3 * BLOB_CHUNK_SIZE_BYTES + 17] {
        let digest = fixture.ledger.store(blob(size));
        assert_eq!(client.fetch(&digest, size as u64).await.unwrap(), blob(size), "{size}");
    }
}

#[tokio::test]
async fn raw_updates_are_for_replicas_and_auditors() {
    let fixture = Fixture::new().await;
    let update = fixture.ledger.store(blob(100));
    fixture.ledger.raw_updates.write().unwrap().insert(update);
    for member in ["cleveland", "regulator"] {
        assert_eq!(fixture.client(member).await.fetch(&update, 100).await.unwrap(), blob(100), "{member}");
    }
    let participant = fixture.client("budapest").await;
    let error = participant.fetch(&update, 100).await.unwrap_err();
    assert_eq!(error.code(), "not_permitted");
    assert!(error.to_string().contains("budapest"), "{error}");
    // Whether it is held here or not.
    let elsewhere = Digest::of(b"on another replica");
    fixture.ledger.raw_updates.write().unwrap().insert(elsewhere);
    assert_eq!(participant.fetch(&elsewhere, 100).await.unwrap_err().code(), "not_permitted");
}

#[tokio::test]
async fn what_is_not_the_blob_asked_for_is_refused() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    assert_eq!(client.fetch(&Digest::of(b"none"), 100).await.unwrap_err().code(), "not_found");
    let digest = fixture.ledger.store(blob(1000));
    let replace = |size, bytes: Vec<u8>| {
        fixture.ledger.blobs.write().unwrap().insert(digest, StoredBlob { size, bytes: bytes.into() });
    };
    assert_eq!(client.fetch(&digest, 999).await.unwrap_err().code(), "invalid_answer", "larger than it can be");
    let mut flipped = blob(1000);
    flipped[500] ^= 1;
    replace(1000, flipped);
    assert_eq!(client.fetch(&digest, 1000).await.unwrap_err().code(), "invalid_answer", "other bytes");
    replace(999, blob(1000));
    assert_eq!(client.fetch(&digest, 1000).await.unwrap_err().code(), "invalid_answer", "a part");
    replace(1001, blob(1000));
    assert_eq!(client.fetch(&digest, 2000).await.unwrap_err().code(), "internal", "it ends too early");
    replace(1000, blob(1000));
    assert_eq!(client.fetch(&digest, 1000).await.unwrap(), blob(1000));
}

#[tokio::test]
async fn it_is_known_which_blobs_are_held() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let held = fixture.ledger.store(blob(10));
    let absent = Digest::of(b"none");
    assert_eq!(client.has_blobs(&[held, absent, held]).await.unwrap(), [true, false, true]);
    assert!(client.has_blobs(&[]).await.unwrap().is_empty());
    let mut many = vec![absent; HAS_DIGESTS_MAX];
    many.push(held);
    let answers = client.has_blobs(&many).await.unwrap();
    assert_eq!(answers.iter().position(|held| *held), Some(HAS_DIGESTS_MAX));
}

#[tokio::test]
async fn malformed_questions_are_refused() {
    let fixture = Fixture::new().await;
    let mut raw = fixture.raw_blobs("budapest").await;
    let digest = |length| Bytes::from(vec![0; length]);
    for length in [0, 31, 33] {
        let status = raw.get(v1::GetBlobRequest { digest: digest(length) }).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let digests = vec![digest(32); HAS_DIGESTS_MAX + 1];
    let status = raw.has(v1::HasBlobsRequest { digests }).await.unwrap_err();
    assert_eq!(status.metadata().get("fedledger-code").unwrap(), "malformed");
}
