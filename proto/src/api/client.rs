//! The client of a replica's API.

use std::time::Duration;

use bytes::Bytes;
use fedledger_ledger::{
    Digest,
    leaf::{Leaf, Outcome},
    limits::ENVELOPE_SIZE_BYTES_MAX,
    note::SignedNote,
};
use tokio::time::{Instant, sleep};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{
    code::{ApiCode, Refused},
    convert::InvalidField,
    entries::EntriesStream,
    error::{ApiError, reason},
    limits::{
        BLOB_CHUNK_SIZE_BYTES, CONNECT_TIMEOUT, HAS_DIGESTS_MAX, READ_TIMEOUT, REASON_LENGTH_MAX,
        REQUEST_SIZE_BYTES_MAX, RESPONSE_SIZE_BYTES_MAX, SUBMIT_TIMEOUT,
    },
    types::NodeStatus,
    v1::{self, blobs_client::BlobsClient, ledger_client::LedgerClient},
};
use crate::kit::{Identity, TlsIdentity};

/// How often an idle connection is probed, and how long the probe may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// First pause before a call is tried again; it doubles each time.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a call is tried again.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A connection to the API of one replica, which is made anew when it breaks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiClient {
    url: String,
    chain: Digest,
    ledger: LedgerClient<Channel>,
    blobs: BlobsClient<Channel>,
}

/// A transaction that is on the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its place in the log.
    pub index: u64,
    /// The transaction and its outcome, as hashed into the log.
    pub leaf: Leaf,
    /// Why it was rejected, for people, if the replica said so; not part of the ledger.
    pub reason: Option<String>,
}

impl Submitted {
    /// The transaction, if it took effect.
    ///
    /// # Errors
    ///
    /// [`ApiError::Rejected`] if the ledger recorded a rejection.
    pub fn accepted(self) -> Result<Self, ApiError> {
        match &self.leaf.outcome {
            Outcome::Accepted => Ok(self),
            Outcome::Rejected(code) => {
                Err(ApiError::Rejected { index: self.index, code: code.clone(), reason: self.reason })
            }
        }
    }
}

impl ApiClient {
    /// Connects to a replica of the identity's consortium, as the people of its member.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: the URL is none, nobody answers, the identity is refused, or the replica is of another consortium.
    pub async fn connect(url: &str, identity: &Identity) -> Result<Self, ApiError> {
        Self::connect_with(url, &identity.tls, identity.genesis.chain).await
    }

    /// Connects to a replica of the consortium whose genesis file has the SHA-256 `chain`.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::connect`].
    pub async fn connect_with(url: &str, tls: &TlsIdentity, chain: Digest) -> Result<Self, ApiError> {
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
            chain,
            ledger: LedgerClient::new(channel.clone())
                .max_encoding_message_size(REQUEST_SIZE_BYTES_MAX)
                .max_decoding_message_size(RESPONSE_SIZE_BYTES_MAX),
            blobs: BlobsClient::new(channel)
                .max_encoding_message_size(REQUEST_SIZE_BYTES_MAX)
                .max_decoding_message_size(BLOB_CHUNK_SIZE_BYTES + REQUEST_SIZE_BYTES_MAX),
        };
        // With TLS 1.3 a refused certificate shows at the first call.
        client.status().await?;
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

    /// Brings a signed transaction onto the ledger and waits until it is committed. Whether it took effect stands in
    /// the leaf; see [`Submitted::accepted`].
    ///
    /// While the replicas elect a leader or the connection is broken, the same bytes are submitted again, for at most
    /// [`SUBMIT_TIMEOUT`]; they have one outcome. After [`ApiError::TimedOut`] the transaction may still be committed.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn submit(&self, envelope: &[u8]) -> Result<Submitted, ApiError> {
        if envelope.len() > ENVELOPE_SIZE_BYTES_MAX {
            let message = format!("a transaction of {} bytes: at most {ENVELOPE_SIZE_BYTES_MAX}", envelope.len());
            return Err(Refused::new(ApiCode::TooLarge, message).into());
        }
        let envelope = Bytes::copy_from_slice(envelope);
        let deadline = Instant::now() + SUBMIT_TIMEOUT;
        let mut pause = RETRY_PAUSE;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match self.submit_once(envelope.clone(), remaining).await {
                Err(error) if error.is_transient() && Instant::now() + pause < deadline => {
                    tracing::debug!(%error, "submitting again");
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                // The last attempt had only what the others had left of the time.
                Err(ApiError::TimedOut { url, .. }) => return Err(ApiError::TimedOut { url, after: SUBMIT_TIMEOUT }),
                result => return result,
            }
        }
    }

    async fn submit_once(&self, envelope: Bytes, timeout: Duration) -> Result<Submitted, ApiError> {
        let request = self.request(v1::SubmitRequest { envelope: envelope.clone() }, timeout);
        let response = self.answer(self.ledger.clone().submit(request).await, timeout)?;
        let leaf = Leaf::from_bytes(&response.leaf).map_err(|_| self.invalid("the leaf is malformed"))?;
        if leaf.index != response.index || leaf.envelope != envelope {
            return Err(self.invalid("the leaf is not that of the submitted transaction"));
        }
        let reason = response.reason.filter(|reason| reason.len() <= REASON_LENGTH_MAX);
        Ok(Submitted { index: response.index, leaf, reason })
    }

    /// Where the replica stands.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn status(&self) -> Result<NodeStatus, ApiError> {
        let request = self.request(v1::StatusRequest {}, READ_TIMEOUT);
        let response = self.answer(self.ledger.clone().status(request).await, READ_TIMEOUT)?;
        let status: NodeStatus = self.valid(response.try_into())?;
        self.check_chain(status.chain)?;
        Ok(status)
    }

    /// The entries of the log from index `from` on, each once, in order and without gaps. With `follow`, the stream
    /// goes on with new entries and survives broken connections; otherwise it ends with the entry that is last now.
    pub fn entries(&self, from: u64, follow: bool) -> EntriesStream {
        EntriesStream::new(self.clone(), from, follow)
    }

    pub(super) async fn open_entries(&self, from: u64, follow: bool) -> Result<tonic::Streaming<v1::Entry>, ApiError> {
        let request = self.request(v1::EntriesRequest { from, follow }, READ_TIMEOUT);
        self.answer(self.ledger.clone().entries(request).await, READ_TIMEOUT)
    }

    /// The genesis file, which is that of the expected chain.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn genesis(&self) -> Result<Vec<u8>, ApiError> {
        let request = self.request(v1::GenesisRequest {}, READ_TIMEOUT);
        let response = self.answer(self.ledger.clone().genesis(request).await, READ_TIMEOUT)?;
        self.check_chain(Digest::of(&response.genesis))?;
        Ok(response.genesis.into())
    }

    /// The latest signed head of the log, if there is one. Its signatures have not been verified.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn checkpoint(&self) -> Result<Option<SignedNote>, ApiError> {
        let request = self.request(v1::CheckpointRequest {}, READ_TIMEOUT);
        let response = self.answer(self.ledger.clone().checkpoint(request).await, READ_TIMEOUT)?;
        let note = response.note.map(|note| SignedNote::parse(&note)).transpose();
        note.map_err(|_| self.invalid("the checkpoint is no signed note"))
    }

    /// The audit path of entry `index` in the log of `size` entries, for
    /// [`verify_inclusion`](fedledger_ledger::merkle::verify_inclusion).
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, ApiError> {
        let request = self.request(v1::InclusionProofRequest { index, size }, READ_TIMEOUT);
        let response = self.answer(self.ledger.clone().inclusion_proof(request).await, READ_TIMEOUT)?;
        self.valid(response.digests())
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
            let request = self.request(v1::HasBlobsRequest { digests }, READ_TIMEOUT);
            let response = self.answer(self.blobs.clone().has(request).await, READ_TIMEOUT)?;
            if response.held.len() != part.len() {
                return Err(self.invalid("it was asked about another number of blobs"));
            }
            held.extend(response.held);
        }
        Ok(held)
    }

    pub(super) async fn open_blob(&self, digest: &Digest) -> Result<tonic::Streaming<v1::BlobChunk>, ApiError> {
        let digest = Bytes::copy_from_slice(digest.as_bytes());
        let request = self.request(v1::GetBlobRequest { digest }, READ_TIMEOUT);
        self.answer(self.blobs.clone().get(request).await, READ_TIMEOUT)
    }

    fn request<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        request
    }

    fn answer<T>(&self, result: Result<Response<T>, Status>, timeout: Duration) -> Result<T, ApiError> {
        result.map(Response::into_inner).map_err(|status| self.failed(&status, timeout))
    }

    fn valid<T>(&self, result: Result<T, InvalidField>) -> Result<T, ApiError> {
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
