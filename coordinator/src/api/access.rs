//! Who may call what.

use std::sync::Arc;

use fedledger_federation::member::{MemberId, Role};
use fedledger_ledger::PublicKey;
use fedledger_proto::{
    api::{ApiCode, HeadId, Refused, known_head},
    kit::certified_key,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response};

use super::{
    backend::{Backend, Caller},
    limits::{CALLS_MAX, CALLS_PER_MEMBER_MAX, STREAMS_MAX, STREAMS_PER_MEMBER_MAX},
    quota::{Permit, Quota},
};

/// What the services share: the replica, and the bounds on its use.
pub(super) struct Access<B> {
    /// The replica.
    pub backend: Arc<B>,
    /// Cancelled when the server is told to stop.
    pub stopping: CancellationToken,
    calls: Arc<Quota<MemberId>>,
    streams: Arc<Quota<MemberId>>,
}

/// A call that was admitted. It counts as in progress until this is dropped.
pub(super) struct Admitted {
    /// The key that the client showed.
    pub key: PublicKey,
    /// Whose key it is.
    pub caller: Caller,
    /// The newest final head that the caller knows, if it shows one.
    pub known: Option<HeadId>,
    _permit: Permit<MemberId>,
}

impl<B: Backend> Access<B> {
    /// Access to `backend`, with nothing in progress.
    pub fn new(backend: Arc<B>, stopping: CancellationToken) -> Self {
        let calls = Quota::new(CALLS_MAX, CALLS_PER_MEMBER_MAX);
        let streams = Quota::new(STREAMS_MAX, STREAMS_PER_MEMBER_MAX);
        Self { backend, stopping, calls, streams }
    }

    /// Admits a call with one answer, unless the caller knows another history than this one.
    pub async fn call<T: Sync>(&self, request: &Request<T>) -> Result<Admitted, Refused> {
        self.consistent(self.admit(request, &self.calls)?).await
    }

    /// Admits a call that is answered with a stream, likewise.
    pub async fn stream<T: Sync>(&self, request: &Request<T>) -> Result<Admitted, Refused> {
        self.consistent(self.admit(request, &self.streams)?).await
    }

    /// The answer to a call, with the newest final head if the caller has shown one.
    pub async fn answer<T>(&self, known: Option<HeadId>, message: T) -> Result<Response<T>, Refused> {
        let mut response = Response::new(message);
        if let Some(known) = known {
            self.backend.head_since(&known).await?.write(response.metadata_mut());
        }
        Ok(response)
    }

    async fn consistent(&self, admitted: Admitted) -> Result<Admitted, Refused> {
        if let Some(known) = &admitted.known {
            self.backend.holds(known).await?;
        }
        Ok(admitted)
    }

    /// Who calls: the member with the key in the client's certificate, as the ledger stands now.
    pub fn caller<T>(&self, request: &Request<T>) -> Result<(PublicKey, Caller), Refused> {
        let certificates = request.peer_certs();
        let certificate = certificates.as_ref().and_then(|chain| chain.first());
        let key = certificate.and_then(|certificate| certified_key(certificate).ok()).ok_or_else(|| {
            Refused::new(
                ApiCode::Unauthenticated,
                "the client has no certificate of an Ed25519 key: use a member's identity (--identity)",
            )
        })?;
        Ok((key, self.member(&key)?))
    }

    /// The member whose key this is now.
    pub fn member(&self, key: &PublicKey) -> Result<Caller, Refused> {
        self.backend.member_of_api_key(key).ok_or_else(|| {
            let message = format!(
                "key {key} is no member's API key: it was revoked or replaced, or is of another consortium; \
                 use a current identity"
            );
            Refused::new(ApiCode::UnknownMember, message)
        })
    }

    fn admit<T>(&self, request: &Request<T>, quota: &Arc<Quota<MemberId>>) -> Result<Admitted, Refused> {
        if self.stopping.is_cancelled() {
            return Err(stopping());
        }
        let (key, caller) = self.caller(request)?;
        let known = known_head(request.metadata()).map_err(|error| Refused::new(ApiCode::Malformed, error))?;
        let permit = quota.take(caller.member.clone()).ok_or_else(|| {
            let message = format!("too many calls of {} are in progress: try again later", caller.member);
            Refused::new(ApiCode::Busy, message)
        })?;
        Ok(Admitted { key, caller, known, _permit: permit })
    }
}

impl Admitted {
    /// Refuses raw updates to all but those who aggregate and those who audit.
    pub fn may_read_raw_updates(&self) -> Result<(), Refused> {
        if self.caller.roles.contains(&Role::Replica) || self.caller.roles.contains(&Role::Auditor) {
            return Ok(());
        }
        let message = format!(
            "this blob is or may be a participant's raw update, which {} may not read: only replicas and auditors may",
            self.caller.member
        );
        Err(Refused::new(ApiCode::NotPermitted, message))
    }
}

/// The refusal of a server that shuts down.
pub(super) fn stopping() -> Refused {
    Refused::new(ApiCode::Stopping, "this replica is shutting down: try another one")
}
