//! Levels: what a submission and a stream of entries wait for, promises, and turning to another replica.

use std::time::Duration;

use fedledger_coordinator::api::SubmitError;
use fedledger_ledger::{map::StateProofError, merkle::verify_consistency};
use fedledger_proto::api::{ApiClient, Level, Submission, limits::STATE_KEY_SIZE_BYTES_MAX, v1};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::{
    backend::{intake_key, state_of},
    fixture::{Fixture, Running, loopback},
};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_submission_waits_for_its_level() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    for (wait, sizes) in [(Level::Final, (2, 0)), (Level::Unanimous, (3, 3))] {
        let mut submitted = Box::pin(client.submit_until(b"transaction", wait));
        let mut size = fixture.ledger.sizes();
        let index = *size.borrow();
        // It is on the ledger, and yet not answered.
        let committed = async { size.wait_for(|size| *size > index).await.map(|_| ()) };
        tokio::select! {
            outcome = &mut submitted => panic!("answered before the level was reached: {outcome:?}"),
            committed = committed => committed.unwrap(),
        }
        fixture.ledger.finalize(sizes.0, sizes.1);
        let Submission::Recorded(submitted) = submitted.await.unwrap() else { panic!("no leaf") };
        assert_eq!((submitted.index, submitted.level), (index, wait));
    }
}

#[tokio::test]
async fn what_is_committed_but_not_final_in_time_is_told_with_its_place() {
    let fixture = Fixture::new().await;
    let late = SubmitError::NotFinal { index: 7, level: Level::Final, after: Duration::from_secs(20) };
    fixture.ledger.refuse_next([late]);
    let error = fixture.client("budapest").await.submit_until(b"transaction", Level::Final).await.unwrap_err();
    assert_eq!(error.code(), "not_final");
    assert!(!error.is_transient(), "submitting it again would only wait again");
    let message = error.to_string();
    assert!(message.contains("committed as entry 7, but not final within 20 s"), "{message}");
}

#[tokio::test]
async fn a_submission_that_is_not_waited_for_is_answered_with_a_promise() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let Submission::Accepted(receipt) = client.submit_until(b"transaction", Level::Accepted).await.unwrap() else {
        panic!("no receipt");
    };
    assert_eq!((receipt.by_index, receipt.replica), (11, intake_key().public()));
    assert_eq!(receipt.verify(client.chain(), b"transaction"), Ok(()));
    let mut raw = fixture.raw_ledger("budapest").await;
    let request = v1::SubmitRequest { envelope: b"transaction".to_vec().into(), wait: 1 };
    let response = raw.submit(request).await.unwrap().into_inner();
    assert_eq!((response.level, response.index, response.leaf.len()), (1, 0, 0));
    let too_soon = SubmitError::ExpiresTooSoon { not_after_index: 5, by_index: 11 };
    fixture.ledger.refuse_next([too_soon]);
    let error = client.submit_until(b"transaction", Level::Accepted).await.unwrap_err();
    assert_eq!(error.code(), "expired");
    assert!(error.to_string().contains("later expiry"), "{error}");
}

#[tokio::test]
async fn a_level_that_is_none_is_refused() {
    let fixture = Fixture::new().await;
    let mut raw = fixture.raw_ledger("budapest").await;
    let request = v1::SubmitRequest { envelope: b"transaction".to_vec().into(), wait: 9 };
    assert_eq!(raw.submit(request).await.unwrap_err().code(), Code::InvalidArgument);
    let request = v1::EntriesRequest { from: 0, follow: false, level: 9 };
    assert_eq!(raw.entries(request).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(fixture.ledger.size(), 1, "nothing came onto the ledger");
}

#[tokio::test]
async fn entries_of_a_level_come_once_they_have_reached_it() {
    let fixture = Fixture::new().await;
    let client = fixture.client("regulator").await;
    for number in 1..=5u64 {
        fixture.ledger.append(&number.to_be_bytes());
    }
    fixture.ledger.finalize(4, 2);
    let read = |level| {
        let mut entries = client.entries_at(0, false, level);
        async move {
            let mut indices = Vec::new();
            while let Some(entry) = entries.next().await.unwrap() {
                indices.push(entry.index);
            }
            indices
        }
    };
    assert_eq!(read(Level::Accepted).await, [0, 1, 2, 3, 4, 5], "whatever is committed");
    assert_eq!(read(Level::Committed).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(read(Level::Final).await, [0, 1, 2, 3]);
    assert_eq!(read(Level::Unanimous).await, [0, 1]);

    let mut followed = client.entries_at(3, true, Level::Final);
    assert_eq!(followed.next().await.unwrap().unwrap().index, 3);
    let mut next = Box::pin(followed.next());
    let mut committed = client.entries(6, true);
    let mut new = Box::pin(committed.next());
    fixture.ledger.append(b"6");
    // The same log goes on at the other level meanwhile.
    let entry = tokio::select! {
        early = &mut next => panic!("an entry came before it was final: {early:?}"),
        entry = &mut new => entry.unwrap().unwrap(),
    };
    assert_eq!(entry.index, 6);
    // More may be co-signed than this replica has read.
    fixture.ledger.finalize(100, 0);
    assert_eq!(next.await.unwrap().unwrap().index, 4);
    for index in [5, 6] {
        assert_eq!(followed.next().await.unwrap().unwrap().index, index);
    }
}

#[tokio::test]
async fn a_stalled_submission_goes_to_the_next_replica() {
    let (stalling, fixture) = (Fixture::new().await, Fixture::new().await);
    *stalling.ledger.stalled.lock().unwrap() = u64::MAX;
    let urls = [stalling.url(), fixture.url()];
    // Both have the same keys, so the one's people are let in by the other.
    let client = ApiClient::connect_any(&urls, &fixture.identity("budapest")).await.unwrap();
    assert_eq!(client.url(), urls[0]);
    let begun = Instant::now();
    let submitted = timeout(PATIENCE, client.submit(b"transaction")).await.unwrap().unwrap();
    assert_eq!((submitted.index, fixture.ledger.size(), stalling.ledger.size()), (1, 2, 1));
    assert!(begun.elapsed() >= Duration::from_secs(3), "the first replica was given no time");
}

#[tokio::test]
async fn the_first_replica_that_answers_is_connected_with() {
    let fixture = Fixture::new().await;
    let gone = Running::start(fixture.server_config(loopback()), fixture.ledger.clone()).await;
    let dead = format!("https://{}", gone.address);
    gone.stop().await;
    let identity = fixture.identity("budapest");
    let client = ApiClient::connect_any(&[dead.clone(), fixture.url()], &identity).await.unwrap();
    assert_eq!(client.url(), fixture.url());
    let error = ApiClient::connect_any(std::slice::from_ref(&dead), &identity).await.unwrap_err();
    assert!(error.code() == "unreachable" && error.to_string().contains(&dead), "{error}");
    let silent = "https://127.0.0.1:1".to_owned();
    let error = ApiClient::connect_any(&[dead.clone(), silent.clone()], &identity).await.unwrap_err();
    let words = error.to_string();
    assert!(error.code() == "unreachable" && words.contains(&dead) && words.contains(&silent), "{words}");
    let error = ApiClient::connect_any(&[], &identity).await.unwrap_err();
    assert_eq!(error.code(), "invalid_url");
    let error = ApiClient::connect_any(&["ftp://a".to_owned(), fixture.url()], &identity).await.unwrap_err();
    assert_eq!(error.code(), "invalid_url", "a mistake is not passed over");
}

#[tokio::test]
async fn proofs_between_sizes_are_served() {
    let fixture = Fixture::new().await;
    fixture.ledger.append(b"1");
    let client = fixture.client("regulator").await;
    let proof = client.consistency_proof(1, 2).await.unwrap();
    assert_eq!(proof.len(), 2);
    let root = fedledger_ledger::Digest::of(b"root");
    assert!(verify_consistency(1, &root, 2, &root, &proof).is_err(), "the ledger in memory makes proofs up");
    for (old, new) in [(2, 1), (1, 3)] {
        let error = client.consistency_proof(old, new).await.unwrap_err();
        assert_eq!(error.code(), "not_found");
        assert!(error.to_string().contains("this log has 2"), "{error}");
    }
}

#[tokio::test]
async fn records_come_with_their_proofs() {
    let fixture = Fixture::new().await;
    let client = fixture.client("regulator").await;
    assert_eq!(client.state_proof(b"branch").await.unwrap_err().code(), "not_found", "nothing is final yet");
    fixture.ledger.records.write().unwrap().insert(b"branch".to_vec(), b"v3".to_vec());
    fixture.ledger.records.write().unwrap().insert(b"tag".to_vec(), b"v1".to_vec());
    fixture.ledger.append(b"seal");
    let root = state_of(&fixture.ledger.records.read().unwrap()).root();
    let proven = client.state_proof(b"branch").await.unwrap();
    assert_eq!((proven.seal_index, proven.value.as_deref()), (1, Some(b"v3".as_slice())));
    assert_eq!(proven.proof.verify(&root, b"branch", Some(b"v3")), Ok(()));
    assert!(matches!(proven.proof.verify(&root, b"branch", Some(b"v4")), Err(StateProofError::Value { .. })));
    let absent = client.state_proof(b"production").await.unwrap();
    assert_eq!(absent.value, None);
    assert_eq!(absent.proof.verify(&root, b"production", None), Ok(()));
    let error = client.state_proof(&vec![7; STATE_KEY_SIZE_BYTES_MAX + 1]).await.unwrap_err();
    assert_eq!(error.code(), "too_large");
}
