//! Every message that a frame may hold.

use fedledger_ledger::codec;
use fedledger_proto::wire::{
    Answer, BlobHeader, BlobRequest, BlobStart, BlobStored, CheckpointRequest, CheckpointResponse, EventFrame,
    EventsAccepted, EventsRequest, Protocol, PutDecision, SubmitRequest, SubmitResponse,
};
use serde::{Serialize, de::DeserializeOwned};

/// Decodes the bytes as each kind of message.
pub fn run(data: &[u8]) {
    request::<SubmitRequest>(data, Protocol::Transaction);
    request::<CheckpointRequest>(data, Protocol::Checkpoint);
    request::<EventsRequest>(data, Protocol::Events);
    request::<BlobRequest>(data, Protocol::Blob);
    request::<BlobStart>(data, Protocol::Blob);
    answer::<Answer<SubmitResponse>>(data, Protocol::Transaction);
    answer::<Answer<CheckpointResponse>>(data, Protocol::Checkpoint);
    answer::<Answer<EventsAccepted>>(data, Protocol::Events);
    answer::<EventFrame>(data, Protocol::Events);
    answer::<Answer<BlobHeader>>(data, Protocol::Blob);
    answer::<Answer<PutDecision>>(data, Protocol::Blob);
    answer::<Answer<BlobStored>>(data, Protocol::Blob);
}

fn request<T: Serialize + DeserializeOwned>(data: &[u8], protocol: Protocol) {
    check::<T>(data, protocol.request_size_bytes_max());
}

fn answer<T: Serialize + DeserializeOwned>(data: &[u8], protocol: Protocol) {
    check::<T>(data, protocol.answer_size_bytes_max());
}

fn check<T: Serialize + DeserializeOwned>(data: &[u8], limit: usize) {
    if let Ok(message) = codec::decode::<T>(data, limit) {
        assert!(data.len() <= limit);
        assert_eq!(codec::encode(&message), data, "a message has one encoding");
    }
}
