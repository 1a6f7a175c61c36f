//! Submitting, reading and following the log.

use fedledger_coordinator::api::SubmitError;
use fedledger_ledger::{
    Digest, SecretKey, codec::CodecError, keys::BadSignature, leaf::Outcome, limits::ENVELOPE_SIZE_BYTES_MAX,
    log::Refusal, note::sign_note, transaction::EnvelopeError,
};
use fedledger_proto::api::{ApiError, v1};
use futures::StreamExt as _;
use tonic::Code;

use crate::fixture::{Fixture, Running};

#[tokio::test]
async fn a_submitted_transaction_is_answered_with_its_leaf() {
    let fixture = Fixture::new().await;
    let submitted = fixture.client("budapest").await.submit(b"transaction").await.unwrap().accepted().unwrap();
    assert_eq!((submitted.index, submitted.leaf.index), (1, 1));
    assert_eq!(submitted.leaf.envelope, b"transaction");
}

#[tokio::test]
async fn a_rejection_is_told_with_its_place_and_reason() {
    let fixture = Fixture::new().await;
    fixture.ledger.reject_next("not_permitted", "OpenRound must be signed by the leader");
    let submitted = fixture.client("budapest").await.submit(b"transaction").await.unwrap();
    assert_eq!(submitted.leaf.outcome, Outcome::Rejected("not_permitted".into()));
    let error = submitted.accepted().unwrap_err();
    assert_eq!(error.code(), "rejected");
    let expected = "the ledger rejected the transaction (entry 1): OpenRound must be signed by the leader";
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, ApiError::Rejected { index: 1, code, .. } if code == "not_permitted"));
}

#[tokio::test]
async fn refusals_arrive_with_code_and_message() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let key = SecretKey::from_seed([1; 32]).public();
    let chain = |expected, found| EnvelopeError::Chain { expected, found };
    let malformed = EnvelopeError::Envelope(CodecError::NotCanonical);
    let large = EnvelopeError::Envelope(CodecError::TooLarge { size: 2, limit: 1 });
    let cases: [(Refusal, &str); 6] = [
        (malformed.into(), "malformed"),
        (large.into(), "too_large"),
        (EnvelopeError::from(BadSignature(key)).into(), "bad_signature"),
        (chain(Digest::of(b"a"), Digest::of(b"b")).into(), "wrong_chain"),
        (Refusal::Expired { not_after_index: 3, size: 4 }, "expired"),
        (Refusal::ExpiryTooFar { not_after_index: u64::MAX, size: 4 }, "expiry_too_far"),
    ];
    for (refusal, code) in cases {
        let message = refusal.to_string();
        fixture.ledger.refuse_next([refusal.into()]);
        let error = client.submit(b"transaction").await.unwrap_err();
        assert_eq!((error.code(), error.to_string()), (code, message));
    }
    assert_eq!(fixture.ledger.size(), 1);
}

#[tokio::test]
async fn a_transient_refusal_is_overcome_by_submitting_again() {
    let fixture = Fixture::new().await;
    fixture.ledger.refuse_next([SubmitError::NoLeader, SubmitError::Busy]);
    let submitted = fixture.client("budapest").await.submit(b"transaction").await.unwrap();
    assert_eq!(submitted.index, 1);
    // Below the client, the codes are there for other programs.
    let mut raw = fixture.raw_ledger("budapest").await;
    for (error, code, grpc) in [
        (SubmitError::NoLeader, "no_leader", Code::Unavailable),
        (SubmitError::Busy, "busy", Code::ResourceExhausted),
        (SubmitError::TimedOut, "timed_out", Code::DeadlineExceeded),
        (SubmitError::Stopping, "stopping", Code::Unavailable),
        (SubmitError::Seal, "malformed", Code::InvalidArgument),
    ] {
        let message = error.to_string();
        fixture.ledger.refuse_next([error]);
        let status = raw.submit(v1::SubmitRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (grpc, message.as_str()));
        assert_eq!(status.metadata().get("fedledger-code").unwrap(), code);
    }
}

#[tokio::test]
async fn an_oversized_transaction_is_refused_by_both_sides() {
    let fixture = Fixture::new().await;
    let client = fixture.client("budapest").await;
    let largest = vec![7; ENVELOPE_SIZE_BYTES_MAX];
    assert_eq!(client.submit(&largest).await.unwrap().index, 1);
    let larger = vec![7; ENVELOPE_SIZE_BYTES_MAX + 1];
    assert_eq!(client.submit(&larger).await.unwrap_err().code(), "too_large");
    let mut raw = fixture.raw_ledger("budapest").await;
    for size in [ENVELOPE_SIZE_BYTES_MAX + 1, 2 * ENVELOPE_SIZE_BYTES_MAX, 3 * 1024 * 1024] {
        let request = v1::SubmitRequest { envelope: vec![7; size].into(), wait: 0 };
        let status = raw.submit(request).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{size}: {status}");
    }
    assert_eq!(fixture.ledger.size(), 2);
    client.status().await.unwrap();
}

#[tokio::test]
async fn entries_are_read_to_the_end() {
    let fixture = Fixture::new().await;
    for number in 1..=300u64 {
        fixture.ledger.append(&number.to_be_bytes());
    }
    let client = fixture.client("regulator").await;
    let mut entries = client.entries(0, false);
    let genesis = entries.next().await.unwrap().unwrap();
    assert_eq!((genesis.index, genesis.leaf.is_none()), (0, true));
    assert_eq!(Digest::of(&genesis.bytes), *client.chain());
    for number in 1..=300u64 {
        let entry = entries.next().await.unwrap().unwrap();
        assert_eq!((entry.index, entry.leaf.unwrap().envelope), (number, number.to_be_bytes().to_vec()));
    }
    assert_eq!(entries.next().await.unwrap(), None);
    assert_eq!(client.entries(301, false).next().await.unwrap(), None);
    assert_eq!(client.entries(u64::MAX, false).next().await.unwrap(), None);
    let last: Vec<_> = client.entries(299, false).into_stream().map(|entry| entry.unwrap().index).collect().await;
    assert_eq!(last, [299, 300]);
}

#[tokio::test]
async fn followed_entries_have_no_gaps_however_they_come() {
    let fixture = Fixture::new().await;
    let mut entries = fixture.client("regulator").await.entries(5, true);
    let ledger = fixture.ledger.clone();
    // On another thread, in bursts that the reader does not see coming.
    let writer = tokio::task::spawn_blocking(move || {
        for number in 1..=600u64 {
            ledger.append(&number.to_be_bytes());
            if number.is_multiple_of(7) {
                std::thread::yield_now();
            }
        }
    });
    for index in 5..=600u64 {
        let entry = entries.next().await.unwrap().unwrap();
        assert_eq!((entry.index, entry.leaf.unwrap().envelope), (index, index.to_be_bytes().to_vec()));
    }
    writer.await.unwrap();
    fixture.ledger.append(b"one more");
    assert_eq!(entries.next().await.unwrap().unwrap().index, 601);
}

#[tokio::test]
async fn following_survives_a_restart_of_the_server() {
    let fixture = Fixture::new().await;
    let client = fixture.client("regulator").await;
    let mut entries = client.entries(0, true);
    fixture.ledger.append(b"1");
    for index in [0, 1] {
        assert_eq!(entries.next().await.unwrap().unwrap().index, index);
    }
    let config = fixture.server_config(fixture.running.address);
    fixture.running.stop().await;
    for number in [b"2", b"3"] {
        fixture.ledger.append(number);
    }
    let restarted = Running::start(config, fixture.ledger.clone()).await;
    for index in [2, 3] {
        assert_eq!(entries.next().await.unwrap().unwrap().index, index);
    }
    assert_eq!(client.submit(b"4").await.unwrap().index, 4, "the same client is connected again");
    restarted.stop().await;
}

#[tokio::test]
async fn genesis_checkpoint_and_proofs_are_served() {
    let fixture = Fixture::new().await;
    let client = fixture.client("regulator").await;
    assert_eq!(client.genesis().await.unwrap(), fixture.ledger.genesis_of().to_bytes());
    assert_eq!(client.checkpoint().await.unwrap(), None);
    let note = sign_note("heart\n1\nroot\n", "heart", &SecretKey::from_seed([1; 32])).unwrap();
    *fixture.ledger.checkpoint.lock().unwrap() = Some(note.to_string());
    assert_eq!(client.checkpoint().await.unwrap(), Some(note));
    *fixture.ledger.checkpoint.lock().unwrap() = Some("no note".to_owned());
    assert_eq!(client.checkpoint().await.unwrap_err().code(), "invalid_answer");
    let proof = client.inclusion_proof(0, 1).await.unwrap();
    assert_eq!(proof, [Digest::of(&0u64.to_be_bytes()), Digest::of(&1u64.to_be_bytes())]);
    let error = client.inclusion_proof(1, 2).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
    assert!(error.to_string().contains("this log has 1"), "{error}");
}
