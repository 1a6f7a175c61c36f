//! A shell that serves every kind of request from memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use fedledger_ledger::Digest;
use fedledger_proto::{
    blobs::{MemoryBlob, MemorySink},
    endpoint::{InboundRequest, RequestKind},
    wire::{CheckpointRequest, CheckpointResponse, EventFrame, EventsRequest, Refusal, RefusalCode, SubmitResponse},
};
use tokio::sync::mpsc;

/// Leaves that every subscription gets before it ends.
pub const LEAVES: u64 = 20;

#[derive(Clone, Default)]
pub struct Blobs(Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>);

impl Blobs {
    pub fn insert(&self, digest: Digest, bytes: Vec<u8>) {
        self.0.lock().unwrap().insert(digest, bytes);
    }

    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(digest).cloned()
    }
}

/// Serves requests, each in a task of its own, until there are no more.
pub fn serve(mut requests: mpsc::Receiver<InboundRequest>, blobs: Blobs) {
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            tokio::spawn(answer(request, blobs.clone()));
        }
    });
}

/// Errors are the peer's to notice: tests look at what arrives there.
async fn answer(request: InboundRequest, blobs: Blobs) {
    match request.kind {
        RequestKind::Submit(submit, responder) => {
            responder.send(SubmitResponse::Outcome { index: 7, leaf: submit.envelope }).await.ok();
        }
        RequestKind::Checkpoint(CheckpointRequest::Latest { .. }, responder) => {
            responder.send(CheckpointResponse::Latest { note: Some("note".into()), consistency: None }).await.ok();
        }
        RequestKind::Checkpoint(CheckpointRequest::Offer { .. } | CheckpointRequest::Vouched { .. }, responder) => {
            responder.send(CheckpointResponse::Taken { note: None, consistency: None }).await.ok();
        }
        RequestKind::Events(EventsRequest { from }, responder) => {
            let Ok(mut sender) = responder.accept(from + LEAVES).await else { return };
            for index in from..from + LEAVES {
                if sender.send(&EventFrame { index, leaf: index.to_be_bytes().to_vec() }).await.is_err() {
                    return;
                }
            }
            sender.finish().await.ok();
        }
        RequestKind::BlobGet(get) => match blobs.get(&get.digest()) {
            Some(bytes) => drop(get.send(MemoryBlob::new(bytes)).await),
            None => drop(get.not_found().await),
        },
        RequestKind::BlobPut(put) => {
            let digest = put.digest();
            if blobs.get(&digest).is_some() {
                put.have().await.ok();
            } else if put.size() > 64 * 1024 * 1024 {
                put.refuse(Refusal::new(RefusalCode::TooLarge, "at most 64 MiB")).await.ok();
            } else {
                if let Ok((receipt, sink)) = put.receive(MemorySink::default()).await {
                    blobs.insert(digest, sink.into_bytes());
                    receipt.stored().await.ok();
                }
            }
        }
    }
}
