//! The service `fedledger.v1.Ledger`.

use std::sync::Arc;

use bytes::Bytes;
use fedledger_ledger::limits::ENVELOPE_SIZE_BYTES_MAX;
use fedledger_proto::api::{
    ApiCode, Refused,
    v1::{self, ledger_server::Ledger},
};
use futures::{
    TryStreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    access::{Access, Admitted, stopping},
    backend::Backend,
    limits::ENTRIES_PER_CHECK,
};

/// Answers from a replica.
pub(super) struct LedgerService<B> {
    access: Arc<Access<B>>,
}

impl<B: Backend> LedgerService<B> {
    /// Answers those who have access.
    pub fn new(access: Arc<Access<B>>) -> Self {
        Self { access }
    }

    async fn submitted(&self, envelope: Bytes) -> Result<v1::SubmitResponse, Refused> {
        if envelope.len() > ENVELOPE_SIZE_BYTES_MAX {
            let message = format!("a transaction of {} bytes: at most {ENVELOPE_SIZE_BYTES_MAX}", envelope.len());
            return Err(Refused::new(ApiCode::TooLarge, message));
        }
        let outcome = self.access.backend.submit(envelope).await?;
        Ok(v1::SubmitResponse { index: outcome.index, leaf: outcome.leaf, reason: outcome.reason })
    }
}

#[tonic::async_trait]
impl<B: Backend> Ledger for LedgerService<B> {
    type EntriesStream = BoxStream<'static, Result<v1::Entry, Status>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let _call = self.access.call(&request)?;
        Ok(Response::new(self.submitted(request.into_inner().envelope).await?))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let _call = self.access.call(&request)?;
        let status = self.access.backend.status().await.map_err(Refused::from)?;
        Ok(Response::new(status.into()))
    }

    async fn entries(&self, request: Request<v1::EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        let admitted = self.access.stream(&request)?;
        let entries = Entries::new(self.access.clone(), admitted, request.get_ref());
        let stream = stream::try_unfold(entries, |mut entries| async {
            Ok(entries.next().await?.map(|entry| (entry, entries)))
        });
        Ok(Response::new(Box::pin(stream.map_err(|refused: Refused| refused.into()))))
    }

    async fn genesis(&self, request: Request<v1::GenesisRequest>) -> Result<Response<v1::GenesisResponse>, Status> {
        let _call = self.access.call(&request)?;
        Ok(Response::new(v1::GenesisResponse { genesis: self.access.backend.genesis() }))
    }

    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Result<Response<v1::CheckpointResponse>, Status> {
        let _call = self.access.call(&request)?;
        let note = self.access.backend.checkpoint().await.map_err(Refused::from)?;
        Ok(Response::new(v1::CheckpointResponse { note }))
    }

    async fn inclusion_proof(
        &self,
        request: Request<v1::InclusionProofRequest>,
    ) -> Result<Response<v1::InclusionProofResponse>, Status> {
        let _call = self.access.call(&request)?;
        let v1::InclusionProofRequest { index, size } = request.into_inner();
        let proof = self.access.backend.inclusion_proof(index, size).await.map_err(Refused::from)?;
        let hashes = proof.iter().map(|digest| Bytes::copy_from_slice(digest.as_bytes())).collect();
        Ok(Response::new(v1::InclusionProofResponse { hashes }))
    }
}

/// A stream of entries. It holds at most one, and reads the next when the client has room for it.
struct Entries<B> {
    access: Arc<Access<B>>,
    admitted: Admitted,
    sizes: watch::Receiver<u64>,
    /// Index of the next entry.
    next: u64,
    /// Index of the first entry that is no longer wanted.
    end: Option<u64>,
}

impl<B: Backend> Entries<B> {
    fn new(access: Arc<Access<B>>, admitted: Admitted, request: &v1::EntriesRequest) -> Self {
        let sizes = access.backend.size_changes();
        let size = *sizes.borrow();
        Self { access, admitted, sizes, next: request.from, end: (!request.follow).then_some(size) }
    }

    async fn next(&mut self) -> Result<Option<v1::Entry>, Refused> {
        if self.end.is_some_and(|end| self.next >= end) {
            return Ok(None);
        }
        if self.next.is_multiple_of(ENTRIES_PER_CHECK) {
            self.check_member()?;
        }
        while *self.sizes.borrow_and_update() <= self.next {
            self.wait().await?;
        }
        if self.access.stopping.is_cancelled() {
            return Err(stopping());
        }
        let (index, read) = (self.next, self.access.backend.leaf(self.next).await?);
        let leaf = read.ok_or_else(|| {
            tracing::error!(index, "an entry below the log's size is missing");
            Refused::new(ApiCode::Internal, format!("this replica lacks entry {index}: ask another one"))
        })?;
        self.next += 1;
        Ok(Some(v1::Entry { index, leaf }))
    }

    /// Waits until there may be a new entry.
    async fn wait(&mut self) -> Result<(), Refused> {
        tokio::select! {
            () = self.access.stopping.cancelled() => return Err(stopping()),
            changed = self.sizes.changed() => changed.map_err(|_| stopping())?,
        }
        // The new entry may have revoked the key.
        self.check_member()
    }

    fn check_member(&self) -> Result<(), Refused> {
        self.access.member(&self.admitted.key).map(drop)
    }
}
