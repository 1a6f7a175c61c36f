//! Every message of the gRPC API, and what it means: one meaning each, and the same after the way there and back.

use std::fmt::Debug;

use fedledger_ledger::{Digest, intake::IntakeReceipt};
use fedledger_proto::api::{InvalidField, Level, NodeStatus, PeerStatus, RaftRole, SealStatus, level, limits, v1};
use prost::Message;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// Decodes the bytes as each message, and converts it.
pub fn run(data: &[u8]) {
    requests(data);
    responses(data);
}

fn requests(data: &[u8]) {
    if let Some(request) = read::<v1::SubmitRequest>(data) {
        check_level(request.wait);
    }
    if let Some(request) = read::<v1::EntriesRequest>(data) {
        check_level(request.level);
    }
    if let Some(request) = read::<v1::GetBlobRequest>(data) {
        check_digests(std::slice::from_ref(&request.digest), 1, request.digest().map(|digest| vec![digest]));
    }
    if let Some(request) = read::<v1::HasBlobsRequest>(data) {
        check_digests(&request.digests, limits::HAS_DIGESTS_MAX, request.digests());
    }
    read::<v1::StatusRequest>(data);
    read::<v1::GenesisRequest>(data);
    read::<v1::CheckpointRequest>(data);
    read::<v1::ConsistencyProofRequest>(data);
    read::<v1::StateProofRequest>(data);
    read::<v1::InclusionProofRequest>(data);
}

fn responses(data: &[u8]) {
    if let Some(response) = read::<v1::SubmitResponse>(data) {
        check_level(response.level);
        if let Some(bytes) = &response.intake_receipt
            && let Ok(receipt) = IntakeReceipt::from_bytes(bytes)
        {
            assert_eq!(receipt.to_bytes(), *bytes, "a promise has one encoding");
            assert!(receipt.verify(&Digest::of(b"another chain"), &response.leaf).is_err());
        }
    }
    if let Some(response) = read::<v1::StatusResponse>(data) {
        check_status(response);
    }
    if let Some(response) = read::<v1::CheckpointResponse>(data)
        && let Some(proof) = response.consistency
    {
        check_consistency(&proof);
    }
    if let Some(response) = read::<v1::ConsistencyProofResponse>(data) {
        check_consistency(&response);
    }
    if let Some(response) = read::<v1::InclusionProofResponse>(data) {
        check_digests(&response.hashes, limits::PROOF_LENGTH_MAX, response.digests());
    }
    if let Some(peer) = read::<v1::Peer>(data) {
        assert_eq!(v1::Peer::from(PeerStatus::from(peer.clone())), peer);
    }
    if let Some(seal) = read::<v1::Seal>(data) {
        assert_eq!(v1::Seal::from(SealStatus::from(seal)), seal);
    }
    read::<v1::Entry>(data);
    read::<v1::GenesisResponse>(data);
    read::<v1::StateProofResponse>(data);
    read::<v1::BlobChunk>(data);
    read::<v1::HasBlobsResponse>(data);
}

/// The message in some bytes. It is the same once it was written and read; Protocol Buffers allow other encodings of it.
fn read<M: Debug + Default + Message + PartialEq>(data: &[u8]) -> Option<M> {
    let message = M::decode(data).ok()?;
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
    Some(message)
}

/// Digests are converted exactly if all of them are digests, and not too many.
fn check_digests(bytes: &[impl AsRef<[u8]>], limit: usize, digests: Result<Vec<Digest>, InvalidField>) {
    let are_digests = bytes.iter().all(|bytes| bytes.as_ref().len() == DIGEST_BYTES);
    assert_eq!(digests.is_ok(), are_digests && bytes.len() <= limit);
    if let Ok(digests) = digests {
        assert!(digests.iter().map(|digest| digest.as_bytes().as_slice()).eq(bytes.iter().map(AsRef::as_ref)));
    }
}

fn check_consistency(proof: &v1::ConsistencyProofResponse) {
    check_digests(&proof.hashes, limits::CONSISTENCY_PROOF_LENGTH_MAX, proof.digests());
    if let Ok(digests) = proof.digests() {
        assert_eq!(v1::ConsistencyProofResponse::from(digests.as_slice()), *proof);
    }
}

fn check_level(number: i32) {
    match level(number) {
        Ok(Level::Committed) => {
            assert!([v1::Level::Unspecified, v1::Level::Committed].map(i32::from).contains(&number));
        }
        Ok(level) => assert_eq!(i32::from(v1::Level::from(level)), number),
        Err(_) => assert!(v1::Level::try_from(number).is_err(), "a level of the API is unknown"),
    }
}

fn check_status(response: v1::StatusResponse) {
    let is_role = RaftRole::try_from(response.role()).is_ok_and(|role| v1::RaftRole::from(role) == response.role());
    let is_valid = is_role
        && response.peers.len() <= limits::PEERS_MAX
        && [&response.chain, &response.root].iter().all(|digest| digest.len() == DIGEST_BYTES);
    let status = NodeStatus::try_from(response.clone());
    assert_eq!(status.is_ok(), is_valid);
    if let Ok(status) = status {
        assert_eq!(v1::StatusResponse::from(status), response);
    }
}
