//! What replicas may ask of a participant: its own updates, and nothing else.

use std::sync::Arc;

use fedledger_proto::{
    endpoint::{BlobError, BlobGetResponder, InboundRequest, RequestKind},
    wire::{FrameError, Refusal, RefusalCode},
};

use super::context::Context;

/// Answers a request. The endpoint bounds how many there are at a time.
pub async fn answer(context: Arc<Context>, request: InboundRequest) {
    let InboundRequest { peer, kind } = request;
    let unsupported = || Refusal::new(RefusalCode::NotSupported, "this node is a participant");
    let answered = match kind {
        RequestKind::BlobGet(responder) if context.is_replica(&peer) => send_update(&context, responder).await,
        RequestKind::BlobGet(responder) => {
            let refusal = Refusal::new(RefusalCode::NotPermitted, "updates are given to replicas only");
            responder.refuse(refusal).await.map_err(BlobError::from)
        }
        RequestKind::Submit(_, responder) => responder.refuse(unsupported()).await.map_err(BlobError::from),
        RequestKind::Checkpoint(_, responder) => responder.refuse(unsupported()).await.map_err(BlobError::from),
        RequestKind::Events(_, responder) => responder.refuse(unsupported()).await.map_err(BlobError::from),
        RequestKind::BlobPut(responder) => responder.refuse(unsupported()).await.map_err(BlobError::from),
    };
    if let Err(error) = answered {
        tracing::debug!(%peer, %error, "a request could not be answered");
    }
}

async fn send_update(context: &Context, responder: BlobGetResponder) -> Result<(), BlobError> {
    let digest = responder.digest();
    let opened = match context.serves(&digest) {
        true => tokio::fs::File::open(context.files.blob_path(&digest)).await.ok(),
        false => None,
    };
    let Some(mut file) = opened else { return not_found(responder).await.map_err(BlobError::from) };
    let size = file.metadata().await.map_err(BlobError::Local)?.len();
    responder.send(size, &mut file).await
}

async fn not_found(responder: BlobGetResponder) -> Result<(), FrameError> {
    responder.not_found().await
}
