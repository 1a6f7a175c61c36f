//! What replicas may ask of a participant: its own updates and the versions it works with, and nothing else.

use std::sync::Arc;

use fedledger_proto::{
    endpoint::{BlobError, BlobGetResponder, InboundRequest, RequestKind},
    wire::{Refusal, RefusalCode},
};

use super::context::Context;

/// Answers a request. The endpoint bounds how many there are at a time.
pub async fn answer(context: Arc<Context>, request: InboundRequest) {
    let InboundRequest { peer, kind } = request;
    let unsupported = || Refusal::new(RefusalCode::NotSupported, "this node is a participant");
    let answered = match kind {
        RequestKind::BlobGet(responder) if context.is_replica(&peer) => send_file(&context, responder).await,
        RequestKind::BlobGet(responder) => {
            let refusal = Refusal::new(RefusalCode::NotPermitted, "files are given to replicas only");
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

async fn send_file(context: &Context, responder: BlobGetResponder) -> Result<(), BlobError> {
    let digest = responder.digest();
    let blobs = context.files.blobs();
    let mut is_there = context.serves(&digest);
    if is_there && responder.is_doubted() {
        tracing::warn!(%digest, "a replica was given a damaged copy of a file: it is verified");
        is_there = blobs.verify(&digest).await.map_err(BlobError::Local)?;
    }
    let source = if is_there { blobs.source(&digest).await.map_err(BlobError::Local)? } else { None };
    match source {
        Some(source) => responder.send(source).await,
        None => Ok(responder.not_found().await?),
    }
}
