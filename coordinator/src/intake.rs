//! Taking transactions whose authors do not wait: a signed promise at once, and the way onto the ledger in the background.

use std::{sync::Arc, time::Duration};

use fedledger_federation::member::MemberId;
use fedledger_ledger::{
    Digest, SecretKey,
    intake::{INTAKE_ENTRIES, IntakeReceipt},
    log::Refusal,
    replica::SubmitError as CoreError,
    seal::SEAL_KIND,
};
use tokio::time::sleep;

use crate::{
    api::quota::Quota,
    replica::{Handle, SubmitFailure},
    tasks::Tasks,
};

/// Transactions that are brought onto the ledger in the background at the same time.
const UNDER_WAY_MAX: usize = 1024;

/// The same, of one member.
const UNDER_WAY_PER_MEMBER_MAX: usize = 128;

/// Pause before a transaction that nobody took is submitted again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Takes transactions.
pub struct Intake {
    key: SecretKey,
    handle: Handle,
    tasks: Tasks,
    quota: Arc<Quota<MemberId>>,
}

/// What became of a transaction.
#[derive(Debug)]
pub enum Taken {
    /// It will be on the ledger.
    Promised(IntakeReceipt),
    /// It is on the ledger already, or never will be: submitting it tells at once.
    Known,
}

/// What the replica says of a transaction before it is submitted.
struct Checked {
    chain: Digest,
    size: u64,
    not_after_index: u64,
    known: bool,
}

impl Intake {
    /// Signs promises with `key`, with which the replica signs its transactions.
    pub fn new(key: SecretKey, handle: Handle, tasks: Tasks) -> Self {
        Self { key, handle, tasks, quota: Quota::new(UNDER_WAY_MAX, UNDER_WAY_PER_MEMBER_MAX) }
    }

    /// Checks a transaction, promises to bring it onto the ledger, and begins with that. It is tried until it has an
    /// outcome, can have none any more, or the node stops.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`]: nothing is promised.
    pub async fn take(&self, member: &MemberId, envelope: Vec<u8>) -> Result<Taken, SubmitFailure> {
        let permit = self.quota.take(member.clone()).ok_or(CoreError::Busy)?;
        let (checked, envelope) = match self.check(envelope).await {
            // It may have been on the ledger for long.
            Err(SubmitFailure::Refused(CoreError::Refused(Refusal::Expired { .. }))) => return Ok(Taken::Known),
            checked => checked?,
        };
        if checked.known {
            return Ok(Taken::Known);
        }
        let by_index = checked.size.saturating_add(INTAKE_ENTRIES);
        if checked.not_after_index < by_index {
            // It could expire before the promise is due.
            return Err(SubmitFailure::ExpiresTooSoon { not_after_index: checked.not_after_index, by_index });
        }
        let receipt = IntakeReceipt::sign(checked.chain, Digest::of(&envelope), by_index, &self.key);
        let handle = self.handle.clone();
        self.tasks.spawn(async move {
            bring(&handle, envelope).await;
            drop(permit);
        });
        Ok(Taken::Promised(receipt))
    }

    async fn check(&self, envelope: Vec<u8>) -> Result<(Checked, Vec<u8>), SubmitFailure> {
        let checked = self.handle.query(move |replica| {
            let log = replica.log();
            let transaction = log.check(&envelope)?;
            if transaction.kind == SEAL_KIND {
                return Err(CoreError::Seal);
            }
            let known = log.find(&transaction, &envelope).is_some();
            let not_after_index = transaction.not_after_index;
            Ok::<_, CoreError>((Checked { chain: *log.chain(), size: log.size(), not_after_index, known }, envelope))
        });
        let checked = checked.await.ok_or(SubmitFailure::Stopping)?;
        Ok(checked?)
    }
}

async fn bring(handle: &Handle, envelope: Vec<u8>) {
    loop {
        match handle.submit(envelope.clone()).await {
            Ok(_) | Err(SubmitFailure::Stopping) => return,
            Err(failure) if failure.is_transient() => {
                tracing::debug!(%failure, "a transaction that was promised is submitted again");
                sleep(RETRY_PAUSE).await;
            }
            Err(failure) => {
                tracing::error!(%failure, "a transaction that was promised does not come onto the ledger");
                return;
            }
        }
    }
}
