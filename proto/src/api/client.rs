//! The client of a replica's API.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fedledger_ledger::{Digest, PublicKey, map::StateProof, note::SignedNote};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{
    convert::InvalidField,
    entries::EntriesStream,
    error::{ApiError, reason},
    heads::HeadWatch,
    limits::{
        BLOB_CHUNK_SIZE_BYTES, CONNECT_TIMEOUT, HAS_DIGESTS_MAX, READ_TIMEOUT, REPLICAS_MAX, REQUEST_SIZE_BYTES_MAX,
        RESPONSE_SIZE_BYTES_MAX, STATE_VALUE_SIZE_BYTES_MAX,
    },
    types::{Level, NodeStatus},
    v1::{self, blobs_client::BlobsClient, ledger_client::LedgerClient},
};
use crate::kit::{GenesisFile, Identity, SeenHeads, TlsIdentity};

/// How often an idle connection is probed, and how long the probe may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection to the API of one replica, which is made anew when it breaks. Cheap to clone.
///
/// Every call shows the replica the newest final head that was seen, and the answer must go on from there; otherwise the call
/// fails with [`ApiError::Conflict`], whatever else was answered. A stream is checked when it begins, and when it is opened
/// again. See [`ApiClient::check_head`].
#[derive(Debug, Clone)]
pub struct ApiClient {
    url: String,
    chain: Digest,
    ledger: LedgerClient<Channel>,
    blobs: BlobsClient<Channel>,
    others: Arc<Others>,
    pub(super) heads: Arc<HeadWatch>,
}

/// Replicas to turn to if this one does not answer.
#[derive(Debug)]
struct Others {
    urls: Vec<String>,
    tls: TlsIdentity,
}

/// What the last final seal says of a record. Nothing of it is believed before [`ProvenRecord::proof`] has been verified
/// with the state root in the seal's leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenRecord {
    /// Index of the seal.
    pub seal_index: u64,
    /// The proof.
    pub proof: StateProof,
    /// The record's value, if there is one.
    pub value: Option<Bytes>,
}

impl ApiClient {
    /// Connects to a replica of the identity's consortium, as the people of its member. What they have seen of the log is
    /// kept in the identity's directory.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: the URL is none, nobody answers, the identity is refused, or the replica is of another consortium.
    pub async fn connect(url: &str, identity: &Identity) -> Result<Self, ApiError> {
        Self::connect_beside(url, &identity.tls, heads_of(identity)?, Vec::new()).await
    }

    /// Connects to a replica of the consortium with this genesis file. What is seen of the log is kept in memory.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::connect`].
    pub async fn connect_with(url: &str, tls: &TlsIdentity, genesis: &GenesisFile) -> Result<Self, ApiError> {
        Self::connect_beside(url, tls, Arc::new(HeadWatch::new(genesis, None)?), Vec::new()).await
    }

    /// Connects to the first of several replicas that answers; the others are turned to where it stalls a transaction.
    /// Only the first [`REPLICAS_MAX`] count.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::connect`]: what is wrong with a URL or the identity, or, if none of several replicas can be used,
    /// [`ApiError::NoReplica`] with what each said.
    pub async fn connect_any(urls: &[String], identity: &Identity) -> Result<Self, ApiError> {
        let urls = urls.get(..REPLICAS_MAX).unwrap_or(urls);
        let heads = heads_of(identity)?;
        let mut tried = Vec::new();
        for url in urls {
            let others = urls.iter().filter(|other| *other != url).cloned().collect();
            match Self::connect_beside(url, &identity.tls, Arc::clone(&heads), others).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(url, %error, "a replica does not answer");
                    tried.push(error);
                }
                connected => return connected,
            }
        }
        match (tried.pop(), tried.is_empty()) {
            (None, _) => Err(ApiError::Url { url: String::new() }),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                tried.push(last);
                Err(ApiError::NoReplica { tried })
            }
        }
    }

    async fn connect_beside(
        url: &str,
        tls: &TlsIdentity,
        heads: Arc<HeadWatch>,
        others: Vec<String>,
    ) -> Result<Self, ApiError> {
        let endpoint = Endpoint::from_shared(url.to_owned()).ok();
        let valid = endpoint.filter(|endpoint| endpoint.uri().scheme_str() == Some("https"));
        let endpoint = valid.ok_or_else(|| ApiError::Url { url: url.to_owned() })?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .tls_config(tls.client_config())
            .map_err(|source| ApiError::Identity { source })?;
        let unreachable =
            |error: tonic::transport::Error| ApiError::Unreachable { url: url.to_owned(), reason: reason(&error) };
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let client = Self {
            url: url.to_owned(),
            chain: heads.chain(),
            ledger: LedgerClient::new(channel.clone())
                .max_encoding_message_size(REQUEST_SIZE_BYTES_MAX)
                .max_decoding_message_size(RESPONSE_SIZE_BYTES_MAX),
            blobs: BlobsClient::new(channel)
                .max_encoding_message_size(REQUEST_SIZE_BYTES_MAX)
                .max_decoding_message_size(BLOB_CHUNK_SIZE_BYTES + REQUEST_SIZE_BYTES_MAX),
            others: Arc::new(Others { urls: others, tls: tls.clone() }),
            heads,
        };
        // With TLS 1.3 a refused certificate shows at the first call. It shows no head: that of another consortium would only
        // seem to be a contradiction.
        let request = client.request(v1::StatusRequest {}, READ_TIMEOUT);
        let response = client.answer(client.ledger().status(request).await, READ_TIMEOUT)?;
        client.known_status(response)?;
        Ok(client)
    }

    /// URL of the replica.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// SHA-256 of the consortium's genesis file.
    pub const fn chain(&self) -> &Digest {
        &self.chain
    }

    /// Name of the replica that signs transactions and promises with a key, in the last epoch that this client knows.
    pub fn replica_of_author(&self, author: &PublicKey) -> Option<String> {
        self.heads.replica_of_author(author)
    }

    /// Where the replica stands.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn status(&self) -> Result<NodeStatus, ApiError> {
        let mut ledger = self.ledger();
        let status =
            self.call(v1::StatusRequest {}, READ_TIMEOUT, |request| async move { ledger.status(request).await });
        self.known_status(status.await?)
    }

    /// What the replica's clock shows, to the second (RFC 9110, section 6.6.1); none if it does not say.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn clock(&self) -> Result<Option<SystemTime>, ApiError> {
        let request = self.request(v1::StatusRequest {}, READ_TIMEOUT);
        let response = self.ledger().status(request).await.map_err(|status| self.failed(&status, READ_TIMEOUT))?;
        let date = response.metadata().get("date").and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| httpdate::parse_http_date(date).ok()))
    }

    /// A status of this consortium.
    fn known_status(&self, response: v1::StatusResponse) -> Result<NodeStatus, ApiError> {
        let status: NodeStatus = self.valid(response.try_into())?;
        self.check_chain(status.chain)?;
        Ok(status)
    }

    /// The entries of the log from index `from` on, each once, in order and without gaps. With `follow`, the stream
    /// goes on with new entries and survives broken connections; otherwise it ends with the entry that is last now.
    pub fn entries(&self, from: u64, follow: bool) -> EntriesStream {
        self.entries_at(from, follow, Level::Committed)
    }

    /// [`ApiClient::entries`], but only those that have reached a level: with `follow`, each comes once it has.
    pub fn entries_at(&self, from: u64, follow: bool, level: Level) -> EntriesStream {
        EntriesStream::new(self.clone(), from, follow, level)
    }

    pub(super) async fn open_entries(
        &self,
        from: u64,
        follow: bool,
        level: Level,
    ) -> Result<tonic::Streaming<v1::Entry>, ApiError> {
        let level = v1::Level::from(level).into();
        let (mut ledger, request) = (self.ledger(), v1::EntriesRequest { from, follow, level });
        self.call(request, READ_TIMEOUT, |request| async move { ledger.entries(request).await }).await
    }

    /// The genesis file, which is that of the expected chain.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn genesis(&self) -> Result<Vec<u8>, ApiError> {
        let mut ledger = self.ledger();
        let response =
            self.call(v1::GenesisRequest {}, READ_TIMEOUT, |request| async move { ledger.genesis(request).await });
        let response = response.await?;
        self.check_chain(Digest::of(&response.genesis))?;
        Ok(response.genesis.into())
    }

    /// The latest final head of the log, or the latest signed one where none is final yet. Its signatures have not been
    /// verified.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn checkpoint(&self) -> Result<Option<SignedNote>, ApiError> {
        Ok(self.checkpoint_since(None).await?.0)
    }

    /// The same, with the proof that it extends `known`, for
    /// [`verify_consistency`](fedledger_ledger::merkle::verify_consistency); no proof where `known` is of more entries. See
    /// [`ApiClient::check_head`], which verifies both.
    ///
    /// # Errors
    ///
    /// [`ApiError`]; a refusal with [`ApiCode::Contradicts`](super::ApiCode::Contradicts) if the log does not begin with
    /// `known`.
    pub async fn checkpoint_since(
        &self,
        known: Option<&SignedNote>,
    ) -> Result<(Option<SignedNote>, Option<Vec<Digest>>), ApiError> {
        let (mut ledger, request) = (self.ledger(), v1::CheckpointRequest { known: known.map(ToString::to_string) });
        let response = self.call(request, READ_TIMEOUT, |request| async move { ledger.checkpoint(request).await });
        self.note_and_proof(response.await?)
    }

    /// What a replica says of the latest head.
    pub(super) fn note_and_proof(
        &self,
        response: v1::CheckpointResponse,
    ) -> Result<(Option<SignedNote>, Option<Vec<Digest>>), ApiError> {
        let note = response.note.map(|note| SignedNote::parse(&note)).transpose();
        let note = note.map_err(|_| self.invalid("the checkpoint is no signed note"))?;
        let proof = response.consistency.map(|proof| proof.digests()).transpose();
        Ok((note, self.valid(proof)?))
    }

    /// The proof that the log of `new_size` entries begins with that of `old_size`.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn consistency_proof(&self, old_size: u64, new_size: u64) -> Result<Vec<Digest>, ApiError> {
        let (mut ledger, request) = (self.ledger(), v1::ConsistencyProofRequest { old_size, new_size });
        let response =
            self.call(request, READ_TIMEOUT, |request| async move { ledger.consistency_proof(request).await });
        self.valid(response.await?.digests())
    }

    /// What the last final seal says of the record under `key`.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn state_proof(&self, key: &[u8]) -> Result<ProvenRecord, ApiError> {
        let (mut ledger, request) = (self.ledger(), v1::StateProofRequest { key: Bytes::copy_from_slice(key) });
        let response = self.call(request, READ_TIMEOUT, |request| async move { ledger.state_proof(request).await });
        let response = response.await?;
        if response.value.as_ref().is_some_and(|value| value.len() > STATE_VALUE_SIZE_BYTES_MAX) {
            return Err(self.invalid("a record is larger than it may be here"));
        }
        let proof =
            StateProof::from_bytes(&response.proof).map_err(|_| self.invalid("the state proof is malformed"))?;
        Ok(ProvenRecord { seal_index: response.seal_index, proof, value: response.value })
    }

    /// The audit path of entry `index` in the log of `size` entries, for
    /// [`verify_inclusion`](fedledger_ledger::merkle::verify_inclusion).
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, ApiError> {
        let (mut ledger, request) = (self.ledger(), v1::InclusionProofRequest { index, size });
        let response = self.call(request, READ_TIMEOUT, |request| async move { ledger.inclusion_proof(request).await });
        self.valid(response.await?.digests())
    }

    /// For each digest whether the replica holds the blob.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn has_blobs(&self, digests: &[Digest]) -> Result<Vec<bool>, ApiError> {
        let mut held = Vec::with_capacity(digests.len());
        for part in digests.chunks(HAS_DIGESTS_MAX) {
            let digests = part.iter().map(|digest| Bytes::copy_from_slice(digest.as_bytes())).collect();
            let (mut blobs, request) = (self.blobs.clone(), v1::HasBlobsRequest { digests });
            let response = self.call(request, READ_TIMEOUT, |request| async move { blobs.has(request).await }).await?;
            if response.held.len() != part.len() {
                return Err(self.invalid("it was asked about another number of blobs"));
            }
            held.extend(response.held);
        }
        Ok(held)
    }

    pub(super) async fn open_blob(&self, digest: &Digest) -> Result<tonic::Streaming<v1::BlobChunk>, ApiError> {
        let digest = Bytes::copy_from_slice(digest.as_bytes());
        let (mut blobs, request) = (self.blobs.clone(), v1::GetBlobRequest { digest });
        self.call(request, READ_TIMEOUT, |request| async move { blobs.get(request).await }).await
    }

    /// URLs of the other replicas that this client knows of.
    pub(super) fn other_urls(&self) -> impl Iterator<Item = &str> {
        self.others.urls.iter().map(String::as_str)
    }

    /// A connection to another replica, as the same member, which must show the same history.
    pub(super) async fn elsewhere(&self, url: &str) -> Result<Self, ApiError> {
        Self::connect_beside(url, &self.others.tls, Arc::clone(&self.heads), Vec::new()).await
    }

    pub(super) fn ledger(&self) -> LedgerClient<Channel> {
        self.ledger.clone()
    }

    pub(super) fn request<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        request
    }

    pub(super) fn answer<T>(&self, result: Result<Response<T>, Status>, timeout: Duration) -> Result<T, ApiError> {
        result.map(Response::into_inner).map_err(|status| self.failed(&status, timeout))
    }

    pub(super) fn valid<T>(&self, result: Result<T, InvalidField>) -> Result<T, ApiError> {
        result.map_err(|InvalidField(what)| self.invalid(what))
    }

    fn check_chain(&self, found: Digest) -> Result<(), ApiError> {
        if found == self.chain {
            Ok(())
        } else {
            Err(ApiError::WrongChain { url: self.url.clone(), expected: self.chain, found })
        }
    }

    pub(super) fn failed(&self, status: &Status, timeout: Duration) -> ApiError {
        ApiError::from_status(status, &self.url, timeout)
    }

    pub(super) fn invalid(&self, what: &'static str) -> ApiError {
        ApiError::InvalidAnswer { url: self.url.clone(), what }
    }
}

/// What the people of an identity have seen of the log.
fn heads_of(identity: &Identity) -> Result<Arc<HeadWatch>, ApiError> {
    let seen = SeenHeads::of(&identity.directory);
    Ok(Arc::new(HeadWatch::new(&identity.genesis, Some(seen))?))
}
