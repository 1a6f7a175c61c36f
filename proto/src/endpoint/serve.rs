//! Serving one stream that a peer opened: reading its request and handing it to the shell.

use std::{sync::Arc, time::Duration};

use fedledger_ledger::PublicKey;
use libp2p::Stream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::timeout,
};
use tracing::debug;

use super::{
    bandwidth::Bandwidth,
    blob,
    inbound::{self, EventsResponder, InboundRequest, PeerFrame, RequestKind, Responder, Served, refusal_of},
    limits::Permit,
    pushed,
};
use crate::wire::{Answer, FrameError, Protocol, Refusal, RefusalCode, frame};

/// How long a peer may take to send its request after it has opened a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The shell's side of everything that comes in.
#[derive(Clone)]
pub(super) struct Inbox {
    pub requests: mpsc::Sender<InboundRequest>,
    pub raft: mpsc::Sender<PeerFrame>,
    pub heads: mpsc::Sender<PeerFrame>,
    /// Shared by all transfers of blobs.
    pub bandwidth: Arc<Bandwidth>,
}

/// Serves a stream to its end, or until its request is in the shell's hands.
pub(super) async fn serve(inbox: Inbox, peer: PublicKey, protocol: Protocol, stream: Stream, permit: Permit) {
    let served = Served { stream, protocol, permit };
    let result = match protocol {
        Protocol::Raft => pushed::receive(inbox.raft, peer, served).await,
        Protocol::Heads => pushed::receive(inbox.heads, peer, served).await,
        Protocol::Transaction => {
            let kind = |request, served| RequestKind::Submit(request, Responder::new(served));
            take(&inbox, peer, served, |_| None, kind).await
        }
        Protocol::Checkpoint => {
            let kind = |request, served| RequestKind::Checkpoint(request, Responder::new(served));
            take(&inbox, peer, served, |_| None, kind).await
        }
        Protocol::Events => {
            let kind = |request, served| RequestKind::Events(request, EventsResponder(served));
            take(&inbox, peer, served, |_| None, kind).await
        }
        Protocol::Blob => {
            let kind = |request, served| blob::request_kind(request, served, Arc::clone(&inbox.bandwidth));
            take(&inbox, peer, served, blob::refusal_of, kind).await
        }
    };
    if let Err(error) = result {
        debug!(%peer, %protocol, %error, "a stream failed");
    }
}

/// Reads the request and hands it over, or tells the peer why not.
async fn take<Req: Serialize + DeserializeOwned>(
    inbox: &Inbox,
    peer: PublicKey,
    mut served: Served,
    refusal: impl FnOnce(&Req) -> Option<Refusal>,
    kind: impl FnOnce(Req, Served) -> RequestKind,
) -> Result<(), FrameError> {
    let limit = served.protocol.request_size_bytes_max();
    let request = match timeout(REQUEST_TIMEOUT, frame::read_message(&mut served.stream, limit)).await {
        Ok(Ok(Some(request))) => request,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => {
            debug!(%peer, protocol = %served.protocol, %error, "request refused");
            return served.refuse(refusal_of(&error)).await;
        }
        Err(_) => return Err(FrameError::Stalled),
    };
    if let Some(refusal) = refusal(&request) {
        return served.refuse(refusal).await;
    }
    match inbox.requests.try_reserve() {
        Ok(place) => {
            place.send(InboundRequest { peer, kind: kind(request, served) });
            Ok(())
        }
        Err(TrySendError::Full(())) => served.finish(&Answer::<()>::Busy).await,
        Err(TrySendError::Closed(())) => {
            served.refuse(Refusal::new(RefusalCode::Unavailable, "this node does not serve requests now")).await
        }
    }
}

/// Tells a peer that it has too many streams open.
pub(super) async fn answer_busy(mut stream: Stream, protocol: Protocol) {
    let answer = async {
        frame::write_message(&mut stream, &Answer::<()>::Busy, protocol.answer_size_bytes_max()).await?;
        inbound::close(&mut stream).await
    };
    if let Err(error) = answer.await {
        debug!(%protocol, %error, "could not say that the node is busy");
    }
}
