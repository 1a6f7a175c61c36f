//! Submitting transactions, and turning to another replica where one does not answer.

use bytes::Bytes;
use fedledger_ledger::{
    intake::IntakeReceipt,
    leaf::{Leaf, Outcome},
    limits::ENVELOPE_SIZE_BYTES_MAX,
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::{
    ApiClient, ApiError,
    code::{ApiCode, Refused},
    convert::level,
    limits::{REASON_LENGTH_MAX, SUBMIT_STALL, SUBMIT_TIMEOUT},
    types::Level,
    v1,
};

/// First pause before a call is tried again; it doubles each time.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a call is tried again.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A transaction that is on the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its place in the log.
    pub index: u64,
    /// The transaction and its outcome, as hashed into the log.
    pub leaf: Leaf,
    /// Why it was rejected, for people, if the replica said so; not part of the ledger.
    pub reason: Option<String>,
    /// The level that it has reached, as the replica says: at least the one asked for.
    pub level: Level,
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

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// A replica has promised to bring it onto the ledger. Whose key has signed is for the caller to check.
    Accepted(IntakeReceipt),
    /// It is on the ledger.
    Recorded(Submitted),
}

impl ApiClient {
    /// Brings a signed transaction onto the ledger and waits until it is committed. Whether it took effect stands in
    /// the leaf; see [`Submitted::accepted`].
    ///
    /// # Errors
    ///
    /// As [`ApiClient::submit_until`].
    pub async fn submit(&self, envelope: &[u8]) -> Result<Submitted, ApiError> {
        match self.submit_until(envelope, Level::Committed).await? {
            Submission::Recorded(submitted) => Ok(submitted),
            Submission::Accepted(_) => Err(self.invalid("a promise, where a leaf was asked for")),
        }
    }

    /// Brings a signed transaction onto the ledger and waits until it has reached a level.
    ///
    /// While the replicas elect a leader or the connection is broken, the same bytes are submitted again, for at most
    /// [`SUBMIT_TIMEOUT`]; they have one outcome. A replica that does not answer within [`SUBMIT_STALL`] is not waited for
    /// alone: the same bytes go to the next one that the client knows of as well, and the first outcome counts. So a
    /// single replica can neither delay a transaction for long nor keep it from the ledger. A refusal by another replica
    /// than the first ends nothing, for it may be the dishonest one.
    ///
    /// # Errors
    ///
    /// [`ApiError`]. After [`ApiError::TimedOut`] the transaction may still be committed; a refusal with
    /// [`ApiCode::NotFinal`] says that it is, and where.
    pub async fn submit_until(&self, envelope: &[u8], level: Level) -> Result<Submission, ApiError> {
        if envelope.len() > ENVELOPE_SIZE_BYTES_MAX {
            let message = format!("a transaction of {} bytes: at most {ENVELOPE_SIZE_BYTES_MAX}", envelope.len());
            return Err(Refused::new(ApiCode::TooLarge, message).into());
        }
        let envelope = Bytes::copy_from_slice(envelope);
        let start = Instant::now();
        let mut here = Box::pin(self.submit_here(envelope.clone(), level, start + SUBMIT_TIMEOUT));
        let mut elsewhere: FuturesUnordered<_> = (1u32..)
            .zip(self.other_urls())
            .map(|(turn, url)| self.submit_elsewhere(url, &envelope, level, start + SUBMIT_STALL * turn))
            .collect();
        loop {
            tokio::select! {
                biased;
                outcome = &mut here => return match outcome {
                    Err(error) if error.is_transient() => first_outcome(&mut elsewhere).await.ok_or(error),
                    outcome => outcome,
                },
                Some(outcome) = elsewhere.next() => if let Some(submission) = outcome {
                    return Ok(submission);
                },
            }
        }
    }

    /// Submits to another replica from `at` on.
    async fn submit_elsewhere(&self, url: &str, envelope: &Bytes, level: Level, at: Instant) -> Option<Submission> {
        sleep_until(at).await;
        let submitted = async {
            let other = self.elsewhere(url).await?;
            other.submit_here(envelope.clone(), level, Instant::now() + SUBMIT_TIMEOUT).await
        };
        match submitted.await {
            Ok(submission) => Some(submission),
            Err(error @ (ApiError::Conflict(_) | ApiError::Head { .. })) => {
                tracing::error!(url, %error, "another replica shows another history");
                None
            }
            Err(error) => {
                tracing::debug!(url, %error, "another replica did not take a transaction");
                None
            }
        }
    }

    /// Submits to this replica, again and again while that may help.
    async fn submit_here(&self, envelope: Bytes, level: Level, deadline: Instant) -> Result<Submission, ApiError> {
        let mut pause = RETRY_PAUSE;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match self.submit_once(envelope.clone(), level, remaining).await {
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

    async fn submit_once(&self, envelope: Bytes, wait: Level, timeout: Duration) -> Result<Submission, ApiError> {
        let request = v1::SubmitRequest { envelope: envelope.clone(), wait: v1::Level::from(wait).into() };
        let mut ledger = self.ledger();
        let response = self.call(request, timeout, |request| async move { ledger.submit(request).await }).await?;
        if let Some(receipt) = &response.intake_receipt {
            let receipt = IntakeReceipt::from_bytes(receipt).map_err(|_| self.invalid("the receipt is malformed"))?;
            let genuine = wait == Level::Accepted && receipt.verify(self.chain(), &envelope).is_ok();
            let no_receipt = || self.invalid("the receipt is not one of the submitted transaction");
            return genuine.then_some(Submission::Accepted(receipt)).ok_or_else(no_receipt);
        }
        let leaf = Leaf::from_bytes(&response.leaf).map_err(|_| self.invalid("the leaf is malformed"))?;
        if leaf.index != response.index || leaf.envelope != envelope {
            return Err(self.invalid("the leaf is not that of the submitted transaction"));
        }
        // Software that knows no levels says nothing, and means committed.
        let level = self.valid(level(response.level))?;
        if level < wait {
            return Err(self.invalid("the transaction has not reached the level asked for"));
        }
        let reason = response.reason.filter(|reason| reason.len() <= REASON_LENGTH_MAX);
        Ok(Submission::Recorded(Submitted { index: response.index, leaf, reason, level }))
    }
}

async fn first_outcome<F: Future<Output = Option<Submission>>>(
    elsewhere: &mut FuturesUnordered<F>,
) -> Option<Submission> {
    while let Some(outcome) = elsewhere.next().await {
        if outcome.is_some() {
            return outcome;
        }
    }
    None
}
