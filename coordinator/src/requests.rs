//! Answering peers: transactions, checkpoints, events and files asked for over libp2p.

use std::{io, sync::Arc};

use fedledger_federation::member::NodeKind;
use fedledger_ledger::{
    Digest, PublicKey,
    log::{Refusal as LogRefusal, read_leaf},
    replica::SubmitError,
};
use fedledger_proto::{
    blobs::StoredBlob,
    endpoint::{
        BlobError, BlobGetResponder, BlobPutResponder, EventsResponder, InboundRequest, RequestKind, Responder,
    },
    fault_point::fault_point,
    wire::{
        CheckpointRequest, CheckpointResponse, EventFrame, EventsRequest, Refusal, RefusalCode, SubmitRequest,
        SubmitResponse,
    },
};
use tokio::sync::{mpsc, watch};

use crate::{
    blobs::BlobStore,
    checkpoints::Checkpoints,
    replica::{Handle, SubmitFailure},
    shared::SharedView,
    tasks::Tasks,
};

mod uploads;

pub use uploads::Uploads;

/// Answers requests; cheap to clone.
#[derive(Clone)]
pub struct Requests {
    inner: Arc<Inner>,
    tasks: Tasks,
}

struct Inner {
    handle: Handle,
    checkpoints: Checkpoints,
    blobs: BlobStore,
    view: SharedView,
    uploads: Arc<Uploads>,
    tasks: Tasks,
}

impl Requests {
    /// Answers from these parts.
    pub fn new(handle: Handle, checkpoints: Checkpoints, blobs: BlobStore, view: SharedView, tasks: Tasks) -> Self {
        let uploads = Arc::new(Uploads::default());
        let inner = Inner { handle, checkpoints, blobs, view, uploads, tasks: tasks.clone() };
        Self { inner: Arc::new(inner), tasks }
    }

    /// What participants have offered.
    pub fn uploads(&self) -> Arc<Uploads> {
        Arc::clone(&self.inner.uploads)
    }

    /// Serves until the endpoint has shut down. The endpoint bounds how many requests are served at the same time.
    pub async fn serve(self, mut requests: mpsc::Receiver<InboundRequest>) {
        while let Some(request) = requests.recv().await {
            let inner = Arc::clone(&self.inner);
            self.tasks.spawn(async move { inner.answer(request).await });
        }
    }
}

impl Inner {
    async fn answer(&self, request: InboundRequest) {
        let peer = request.peer;
        let is_replica = {
            let view = self.view.read();
            let node = view.members.by_transport_key(&peer).map(|(_, node)| node.kind.clone());
            match node {
                Some(NodeKind::Replica { .. }) => true,
                Some(NodeKind::Participant { .. }) => false,
                // The endpoint admits nodes only; the membership may have changed just now.
                None => return,
            }
        };
        let answered = match request.kind {
            // Every participant has a stream of events open all the time. It does not take the room of the others: they have
            // one of their own.
            RequestKind::Events(request, responder) => self.events(request, responder).await,
            RequestKind::Submit(request, responder) => Box::pin(self.submit(is_replica, request, responder)).await,
            RequestKind::Checkpoint(request, responder) => Box::pin(self.checkpoint(request, responder)).await,
            RequestKind::BlobGet(responder) => Box::pin(self.blob_get(is_replica, responder)).await,
            RequestKind::BlobPut(responder) => Box::pin(self.blob_put(peer, is_replica, responder)).await,
        };
        if let Err(reason) = answered {
            tracing::debug!(%peer, reason, "a peer's request was not answered");
        }
    }

    async fn submit(
        &self,
        from_replica: bool,
        request: SubmitRequest,
        responder: Responder<SubmitResponse>,
    ) -> Result<(), String> {
        let leader = self.handle.status().borrow().leader;
        let leads = self.handle.status().borrow().id;
        // A replica forwards to the leader only; passing on what it forwarded could go round in circles.
        if from_replica && leader != Some(leads) {
            return text(responder.send(SubmitResponse::Redirect { leader: None }).await);
        }
        let response = match self.handle.submit(request.envelope).await {
            Ok(submitted) => SubmitResponse::Outcome { index: submitted.index, leaf: submitted.leaf },
            Err(failure) => {
                let code = match &failure {
                    SubmitFailure::Refused(SubmitError::Refused(LogRefusal::Expired { .. })) => "expired",
                    SubmitFailure::Refused(SubmitError::Busy) => "busy",
                    SubmitFailure::Refused(_) => "refused",
                    SubmitFailure::NoLeader | SubmitFailure::NotLeader => "no_leader",
                    SubmitFailure::TimedOut => "timed_out",
                    SubmitFailure::ExpiresTooSoon { .. } => "expired",
                    SubmitFailure::Storage(_) | SubmitFailure::Randomness(_) => "storage",
                    SubmitFailure::Stopping => "stopping",
                };
                SubmitResponse::Refused { code: code.to_owned(), message: failure.to_string() }
            }
        };
        text(responder.send(response).await)
    }

    async fn checkpoint(
        &self,
        request: CheckpointRequest,
        responder: Responder<CheckpointResponse>,
    ) -> Result<(), String> {
        match request {
            CheckpointRequest::Latest { known } => match self.checkpoints.latest(known.as_deref()).await {
                Ok(latest) => {
                    let (note, consistency) = latest.map_or((None, None), |l| (Some(l.note), l.consistency));
                    text(responder.send(CheckpointResponse::Latest { note, consistency }).await)
                }
                Err(error) => text(responder.refuse(Refusal::new(RefusalCode::WrongContent, error)).await),
            },
            CheckpointRequest::Vouched { epoch } => match self.checkpoints.vouched(epoch) {
                Ok(note) => text(responder.send(CheckpointResponse::Latest { note, consistency: None }).await),
                Err(error) => text(responder.refuse(Refusal::new(RefusalCode::Unavailable, error)).await),
            },
            CheckpointRequest::Offer { note } => match self.checkpoints.take(note).await {
                Ok((note, consistency)) => text(responder.send(CheckpointResponse::Taken { note, consistency }).await),
                Err(error) => text(responder.refuse(Refusal::new(RefusalCode::WrongContent, error)).await),
            },
        }
    }

    async fn events(&self, request: EventsRequest, responder: EventsResponder) -> Result<(), String> {
        let mut size = self.handle.log_size();
        let mut next = request.from;
        let available = *size.borrow();
        let mut sender = responder.accept(available).await.map_err(|error| error.to_string())?;
        loop {
            let available = *size.borrow_and_update();
            while next < available {
                let leaf = read_leaf(&**self.handle.storage(), next).map_err(|error| error.to_string())?;
                sender.send(&EventFrame { index: next, leaf }).await.map_err(|error| error.to_string())?;
                next += 1;
            }
            tokio::select! {
                () = sender.closed() => return Ok(()),
                changed = wait(&mut size) => if !changed {
                    return text(sender.finish().await);
                },
            }
        }
    }

    /// Raw updates are served to replicas only; files of attested versions to every node.
    async fn blob_get(&self, to_replica: bool, responder: BlobGetResponder) -> Result<(), String> {
        let digest = responder.digest();
        if !to_replica && !self.view.read().is_public(&digest) {
            let refusal = Refusal::new(RefusalCode::NotPermitted, "only files of attested versions are for everybody");
            return text(responder.refuse(refusal).await);
        }
        let source = match responder.is_doubted() {
            true => self.doubted_source(&digest).await,
            false => self.blobs.source(&digest).await,
        };
        match source {
            Ok(Some(source)) => {
                let sent = responder.send(source).await;
                if sent.as_ref().is_err_and(BlobError::doubts_own_copy) {
                    self.blobs.verify(&digest).await.map_err(|error| error.to_string())?;
                }
                text(sent)
            }
            Ok(None) => text(responder.not_found().await),
            Err(error) => text(responder.refuse(Refusal::new(RefusalCode::Storage, error)).await),
        }
    }

    /// A file of which a copy from here was damaged; none if it is so here as well. The duties fetch it anew then.
    async fn doubted_source(&self, digest: &Digest) -> io::Result<Option<StoredBlob>> {
        tracing::warn!(%digest, "a peer was given a damaged copy of a file: it is verified");
        if self.blobs.verify(digest).await? { self.blobs.source(digest).await } else { Ok(None) }
    }

    fn may_store(&self, peer: PublicKey, is_replica: bool, digest: &Digest, size: u64) -> Result<(), Refusal> {
        let view = self.view.read();
        let waiting = if is_replica { Vec::new() } else { view.waiting_for(&peer, size) };
        if waiting.is_empty() {
            let reason = format!("no round in progress waits for an update of {size} bytes from this node");
            return Err(Refusal::new(RefusalCode::NotPermitted, reason));
        }
        // Whoever sends a file keeps it from being fetched meanwhile.
        if view.is_of_another(&peer, digest) {
            let reason = "this update is another member's contribution: it is fetched from there";
            return Err(Refusal::new(RefusalCode::NotPermitted, reason));
        }
        if !self.uploads.admit(peer, *digest, &waiting, |attempt| view.is_collecting(attempt)) {
            let reason = "too many updates for one round: wait for the next one";
            return Err(Refusal::new(RefusalCode::Unavailable, reason));
        }
        Ok(())
    }

    async fn blob_put(&self, peer: PublicKey, is_replica: bool, responder: BlobPutResponder) -> Result<(), String> {
        let (digest, size) = (responder.digest(), responder.size());
        if self.blobs.has(&digest) {
            // It may lie here of no use to anybody; now it is not to be deleted, whatever the answer would be without it.
            self.may_store(peer, is_replica, &digest, size).ok();
            return text(responder.have().await);
        }
        if let Err(refusal) = self.may_store(peer, is_replica, &digest, size) {
            return text(responder.refuse(refusal).await);
        }
        fault_point("uploading");
        let partial = match self.blobs.take_over(peer, &digest, size).await {
            Ok(Some(partial)) => partial,
            Ok(None) if self.blobs.has(&digest) => return text(responder.have().await),
            Ok(None) => {
                let reason = "this update is just being received from another node: offer it again";
                return text(responder.refuse(Refusal::new(RefusalCode::Unavailable, reason)).await);
            }
            Err(error) => return text(responder.refuse(Refusal::new(RefusalCode::Storage, error)).await),
        };
        let interrupted = partial.interrupted();
        let received = tokio::select! {
            received = responder.receive(partial) => received,
            () = interrupted.cancelled() => return Err("another transfer of the same update went on".to_owned()),
        };
        let (receipt, partial) = received.map_err(|error| error.to_string())?;
        let blobs = self.blobs.clone();
        let kept = self.tasks.spawn_blocking(move || blobs.finish(partial)).await;
        match kept {
            Ok(Ok(())) => text(receipt.stored().await),
            Ok(Err(error)) => text(receipt.refuse(Refusal::new(RefusalCode::Storage, error)).await),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn wait(size: &mut watch::Receiver<u64>) -> bool {
    size.changed().await.is_ok()
}

fn text<E: std::fmt::Display>(result: Result<(), E>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}
