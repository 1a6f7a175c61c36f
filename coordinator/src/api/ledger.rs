//! The service `fedledger.v1.Ledger`.

use std::sync::Arc;

use bytes::Bytes;
use fedledger_ledger::limits::ENVELOPE_SIZE_BYTES_MAX;
use fedledger_proto::api::{
    ApiCode, Level, Refused, level,
    limits::STATE_KEY_SIZE_BYTES_MAX,
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
    backend::{Backend, Caller, Recorded, StateAnswer, SubmitOutcome},
    limits::ENTRIES_PER_CHECK,
};
use crate::replica::Finalized;

/// Answers from a replica.
pub(super) struct LedgerService<B> {
    access: Arc<Access<B>>,
}

impl<B: Backend> LedgerService<B> {
    /// Answers those who have access.
    pub fn new(access: Arc<Access<B>>) -> Self {
        Self { access }
    }

    async fn submitted(&self, request: v1::SubmitRequest, caller: &Caller) -> Result<v1::SubmitResponse, Refused> {
        let (envelope, wait) = (request.envelope, level(request.wait).map_err(malformed)?);
        if envelope.len() > ENVELOPE_SIZE_BYTES_MAX {
            let message = format!("a transaction of {} bytes: at most {ENVELOPE_SIZE_BYTES_MAX}", envelope.len());
            return Err(Refused::new(ApiCode::TooLarge, message));
        }
        Ok(match self.access.backend.submit(envelope, wait, &caller.member).await? {
            SubmitOutcome::Recorded(Recorded { index, leaf, reason, level }) => {
                v1::SubmitResponse { index, leaf, reason, level: v1::Level::from(level).into(), intake_receipt: None }
            }
            SubmitOutcome::Accepted(receipt) => v1::SubmitResponse {
                level: v1::Level::Accepted.into(),
                intake_receipt: Some(receipt.to_bytes().into()),
                ..v1::SubmitResponse::default()
            },
        })
    }
}

#[tonic::async_trait]
impl<B: Backend> Ledger for LedgerService<B> {
    type EntriesStream = BoxStream<'static, Result<v1::Entry, Status>>;
    type EpochsStream = BoxStream<'static, Result<v1::EpochLink, Status>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let call = self.access.call(&request).await?;
        let submitted = self.submitted(request.into_inner(), &call.caller).await?;
        Ok(self.access.answer(call.known, submitted).await?)
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let call = self.access.call(&request).await?;
        let status = self.access.backend.status().await.map_err(Refused::from)?;
        Ok(self.access.answer(call.known, status.into()).await?)
    }

    async fn entries(&self, request: Request<v1::EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        let admitted = self.access.stream(&request).await?;
        let known = admitted.known;
        let entries = Entries::new(self.access.clone(), admitted, request.get_ref())?;
        let stream = stream::try_unfold(entries, |mut entries| async {
            Ok(entries.next().await?.map(|entry| (entry, entries)))
        });
        let stream: Self::EntriesStream = Box::pin(stream.map_err(|refused: Refused| refused.into()));
        Ok(self.access.answer(known, stream).await?)
    }

    async fn genesis(&self, request: Request<v1::GenesisRequest>) -> Result<Response<v1::GenesisResponse>, Status> {
        let call = self.access.call(&request).await?;
        let genesis = self.access.backend.genesis();
        Ok(self.access.answer(call.known, v1::GenesisResponse { genesis }).await?)
    }

    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Result<Response<v1::CheckpointResponse>, Status> {
        let call = self.access.call(&request).await?;
        let latest = self.access.backend.checkpoint(request.into_inner().known).await.map_err(Refused::from)?;
        let (note, consistency) = latest.map_or((None, None), |latest| (Some(latest.note), latest.consistency));
        let consistency = consistency.map(|proof| proof.as_slice().into());
        Ok(self.access.answer(call.known, v1::CheckpointResponse { note, consistency }).await?)
    }

    async fn epochs(&self, request: Request<v1::EpochsRequest>) -> Result<Response<Self::EpochsStream>, Status> {
        let admitted = self.access.stream(&request).await?;
        let (known, after) = (admitted.known, request.get_ref().after);
        let links = (Arc::clone(&self.access), admitted, after);
        let stream = stream::try_unfold(links, |(access, admitted, after)| async move {
            if access.stopping.is_cancelled() {
                return Err(stopping());
            }
            let Some((number, link)) = access.backend.epoch_link(after).await? else { return Ok(None) };
            let (epoch, leaf, receipt) = (link.epoch.into(), link.leaf.into(), link.receipt.to_string());
            Ok(Some((v1::EpochLink { epoch, leaf, receipt }, (access, admitted, number))))
        });
        let stream: Self::EpochsStream = Box::pin(stream.map_err(|refused: Refused| refused.into()));
        Ok(self.access.answer(known, stream).await?)
    }

    async fn inclusion_proof(
        &self,
        request: Request<v1::InclusionProofRequest>,
    ) -> Result<Response<v1::InclusionProofResponse>, Status> {
        let call = self.access.call(&request).await?;
        let v1::InclusionProofRequest { index, size } = request.into_inner();
        let proof = self.access.backend.inclusion_proof(index, size).await.map_err(Refused::from)?;
        let hashes = proof.iter().map(|digest| Bytes::copy_from_slice(digest.as_bytes())).collect();
        Ok(self.access.answer(call.known, v1::InclusionProofResponse { hashes }).await?)
    }

    async fn consistency_proof(
        &self,
        request: Request<v1::ConsistencyProofRequest>,
    ) -> Result<Response<v1::ConsistencyProofResponse>, Status> {
        let call = self.access.call(&request).await?;
        let v1::ConsistencyProofRequest { old_size, new_size } = request.into_inner();
        let proof = self.access.backend.consistency_proof(old_size, new_size).await.map_err(Refused::from)?;
        Ok(self.access.answer(call.known, proof.as_slice().into()).await?)
    }

    async fn state_proof(
        &self,
        request: Request<v1::StateProofRequest>,
    ) -> Result<Response<v1::StateProofResponse>, Status> {
        let call = self.access.call(&request).await?;
        let key = request.into_inner().key;
        if key.len() > STATE_KEY_SIZE_BYTES_MAX {
            let message = format!("a key of {} bytes: at most {STATE_KEY_SIZE_BYTES_MAX}", key.len());
            return Err(Refused::new(ApiCode::TooLarge, message).into());
        }
        let StateAnswer { seal_index, proof, value } =
            self.access.backend.state_proof(key).await.map_err(Refused::from)?;
        Ok(self.access.answer(call.known, v1::StateProofResponse { seal_index, proof, value }).await?)
    }
}

fn malformed(error: impl std::fmt::Display) -> Refused {
    Refused::new(ApiCode::Malformed, error)
}

/// A stream of entries. It holds at most one, and reads the next when the client has room for it.
struct Entries<B> {
    access: Arc<Access<B>>,
    admitted: Admitted,
    sizes: watch::Receiver<u64>,
    finality: watch::Receiver<Finalized>,
    /// What every entry must have reached.
    level: Level,
    /// Index of the next entry.
    next: u64,
    /// Index of the first entry that is no longer wanted.
    end: Option<u64>,
}

impl<B: Backend> Entries<B> {
    fn new(access: Arc<Access<B>>, admitted: Admitted, request: &v1::EntriesRequest) -> Result<Self, Refused> {
        let (sizes, finality) = (access.backend.size_changes(), access.backend.finality_changes());
        let level = level(request.level).map_err(malformed)?;
        let mut entries = Self { access, admitted, sizes, finality, level, next: request.from, end: None };
        entries.end = (!request.follow).then(|| entries.size());
        Ok(entries)
    }

    /// Entries that have reached the level.
    fn size(&mut self) -> u64 {
        let size = *self.sizes.borrow_and_update();
        self.finality.borrow_and_update().size_at(self.level, size)
    }

    async fn next(&mut self) -> Result<Option<v1::Entry>, Refused> {
        if self.end.is_some_and(|end| self.next >= end) {
            return Ok(None);
        }
        if self.next.is_multiple_of(ENTRIES_PER_CHECK) {
            self.check_member()?;
        }
        while self.size() <= self.next {
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
            changed = self.finality.changed(), if self.level > Level::Committed => changed.map_err(|_| stopping())?,
        }
        // The new entry may have revoked the key.
        self.check_member()
    }

    fn check_member(&self) -> Result<(), Refused> {
        self.access.member(&self.admitted.key).map(drop)
    }
}
