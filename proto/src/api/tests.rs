//! Tests of codes and conversions; the calls themselves are tested against a server, in the coordinator.

use fedledger_federation::progress::{PlanProgress, Step};
use fedledger_ledger::Digest;
use tonic::{Code, Status};

use super::{
    limits::{CONSISTENCY_PROOF_LENGTH_MAX, HAS_DIGESTS_MAX, MESSAGE_LENGTH_MAX, PEERS_MAX, PROOF_LENGTH_MAX},
    *,
};

fn status() -> NodeStatus {
    NodeStatus {
        node: "cleveland/replica".into(),
        software: "0.1.0".into(),
        consortium: "heart".into(),
        chain: Digest::of(b"genesis"),
        role: RaftRole::Candidate,
        leader: None,
        term: 3,
        committed_index: 10,
        applied_index: 9,
        last_index: 12,
        log_size: 8,
        root: Digest::of(b"root"),
        final_size: 7,
        finality_threshold: 3,
        checkpoint: Some("note".into()),
        peers: vec![PeerStatus {
            node: "budapest/replica".into(),
            connected: true,
            matched_index: Some(11),
            cosigned_size: None,
        }],
        unanimous_size: 5,
        cosigned_size: 8,
        epoch: 2,
        seal: Some(SealStatus { number: 4, index: 7, time_ms: 1_700_000_000_123 }),
        trusted_time_s: Some(1_700_000_000),
        progress: vec![PlanProgress {
            plan: Digest::of(b"plan"),
            name: "heart".into(),
            round: 3,
            attempt: 2,
            step: Step::Collecting,
            waiting_for: "contributions".into(),
            names: vec!["va".into()],
            name_count: 40,
            lasting_ms: Some(0),
            left_ms: None,
            stuck: true,
            cause: Some("no leader".into()),
        }],
    }
}

#[test]
fn every_refusal_survives_the_wire() {
    for code in code::CODES {
        let refused = Refused::new(code, format!("refused as {code}"));
        let error = ApiError::from_status(&refused.clone().into(), "https://a", Default::default());
        assert_eq!(error.code(), code.as_str());
        assert_eq!(error.to_string(), refused.message);
        assert_eq!(error.is_transient(), code.is_transient());
    }
}

#[test]
fn the_message_of_a_refusal_is_bounded() {
    let refused = Refused::new(ApiCode::Internal, "é".repeat(MESSAGE_LENGTH_MAX));
    assert_eq!(refused.message.len(), MESSAGE_LENGTH_MAX);
    let refused = Refused::new(ApiCode::Internal, format!("a{}", "é".repeat(MESSAGE_LENGTH_MAX)));
    assert_eq!(refused.message.len(), MESSAGE_LENGTH_MAX - 1, "not within a character");
}

#[test]
fn a_code_of_newer_software_keeps_the_kind_of_its_status() {
    let mut status = Status::permission_denied("the planets are misaligned");
    status.metadata_mut().insert("fedledger-code", "misaligned".parse().unwrap());
    let error = ApiError::from_status(&status, "https://a", Default::default());
    assert_eq!((error.code(), error.to_string().as_str()), ("not_permitted", "the planets are misaligned"));
}

#[test]
fn statuses_of_the_grpc_library_are_understood() {
    let cases = [
        (Code::Cancelled, "timed_out"),
        (Code::DeadlineExceeded, "timed_out"),
        (Code::Unavailable, "unreachable"),
        (Code::Unknown, "unreachable"),
        (Code::OutOfRange, "too_large"),
        (Code::Unimplemented, "invalid_answer"),
        (Code::DataLoss, "internal"),
    ];
    for (code, expected) in cases {
        let error = ApiError::from_status(&Status::new(code, "why"), "https://a", Default::default());
        assert_eq!(error.code(), expected, "{code:?}");
    }
}

#[test]
fn a_status_survives_the_wire() {
    assert_eq!(NodeStatus::try_from(v1::StatusResponse::from(status())), Ok(status()));
}

#[test]
fn malformed_messages_are_refused() {
    let wire = || v1::StatusResponse::from(status());
    let cases = [
        v1::StatusResponse { role: 0, ..wire() },
        v1::StatusResponse { role: 99, ..wire() },
        v1::StatusResponse { chain: vec![0; 31].into(), ..wire() },
        v1::StatusResponse { root: vec![0; 33].into(), ..wire() },
        v1::StatusResponse { peers: vec![v1::Peer::default(); PEERS_MAX + 1], ..wire() },
    ];
    for case in cases {
        assert!(NodeStatus::try_from(case).is_err());
    }
    let digest = bytes::Bytes::from_static(&[7; 32]);
    let short = bytes::Bytes::from_static(&[7; 31]);
    assert_eq!(v1::GetBlobRequest { digest: digest.clone() }.digest(), Ok(Digest::from_bytes([7; 32])));
    assert!(v1::GetBlobRequest { digest: short.clone() }.digest().is_err());
    assert!(v1::HasBlobsRequest { digests: vec![digest.clone(); HAS_DIGESTS_MAX] }.digests().is_ok());
    assert!(v1::HasBlobsRequest { digests: vec![digest.clone(); HAS_DIGESTS_MAX + 1] }.digests().is_err());
    assert!(v1::HasBlobsRequest { digests: vec![digest.clone(), short] }.digests().is_err());
    assert!(v1::InclusionProofResponse { hashes: vec![digest.clone(); PROOF_LENGTH_MAX + 1] }.digests().is_err());
    let consistency = |length| v1::ConsistencyProofResponse { hashes: vec![digest.clone(); length] }.digests();
    assert!(consistency(CONSISTENCY_PROOF_LENGTH_MAX).is_ok());
    assert!(consistency(CONSISTENCY_PROOF_LENGTH_MAX + 1).is_err());
}

#[test]
fn levels_survive_the_wire_and_older_software_means_committed() {
    for each in [Level::Accepted, Level::Committed, Level::Final, Level::Unanimous] {
        assert_eq!(level(v1::Level::from(each).into()), Ok(each));
    }
    assert_eq!(level(0), Ok(Level::Committed));
    assert!(level(5).is_err() && level(-1).is_err());
}
