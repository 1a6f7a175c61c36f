//! Taking transactions whose authors do not wait: a signed promise at once, and the way onto the ledger in the background.
//!
//! A promise is given once the transaction is on this replica's disk, where it stays until it is on the ledger or has expired:
//! a replica that crashes goes on with what it had promised.

use std::{sync::Arc, time::Duration};

use fedledger_federation::member::MemberId;
use fedledger_ledger::{
    Digest, SecretKey,
    intake::{INTAKE_ENTRIES, IntakeReceipt},
    log::Refusal,
    replica::SubmitError as CoreError,
    seal::SEAL_KIND,
    storage::{
        Batch, LogStorage, StorageError,
        promises::{Promised, delete_promise, put_promise, read_promises},
    },
};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    api::quota::{Permit, Quota},
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
    /// Signs promises with `key`, with which the replica signs its transactions, and goes on with what is promised already.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn open(key: SecretKey, handle: Handle, tasks: Tasks) -> Result<Self, StorageError> {
        let intake = Self { key, handle, tasks, quota: Quota::new(UNDER_WAY_MAX, UNDER_WAY_PER_MEMBER_MAX) };
        let promises = read_promises(&**intake.handle.storage())?;
        if !promises.is_empty() {
            tracing::info!(count = promises.len(), "going on with transactions that were promised before");
        }
        for promised in promises {
            // There are never more than there was room for when they were promised.
            let permit = intake.quota.take(promised.member.clone());
            let bringing = Bringing { promised, handle: intake.handle.clone(), tasks: intake.tasks.clone(), permit };
            intake.tasks.spawn(bringing.run());
        }
        Ok(intake)
    }

    /// Checks a transaction, makes it durable, promises to bring it onto the ledger, and begins with that. It is tried, also
    /// after a restart, until it has an outcome or can have none any more.
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
        let promised = Promised { member: member.clone(), envelope };
        let (handle, tasks) = (self.handle.clone(), self.tasks.clone());
        let bringing = Bringing { promised, handle, tasks, permit: Some(permit) };
        let (kept, told) = oneshot::channel();
        // Whoever asked may go away at any time: what is on the disk is brought onto the ledger all the same.
        self.tasks.spawn(async move {
            let outcome = bringing.keep().await;
            let is_kept = outcome.is_ok();
            let _ = kept.send(outcome);
            if is_kept {
                bringing.run().await;
            }
        });
        told.await.map_err(|_| SubmitFailure::Stopping)??;
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

/// A transaction on its way onto the ledger.
struct Bringing {
    promised: Promised,
    handle: Handle,
    tasks: Tasks,
    /// Held until it is there.
    permit: Option<Permit<MemberId>>,
}

impl Bringing {
    /// Makes the transaction durable.
    async fn keep(&self) -> Result<(), SubmitFailure> {
        let mut batch = Batch::default();
        put_promise(&mut batch, &self.promised);
        self.write(batch, true).await
    }

    /// Submits the transaction until it has an outcome or can have none any more; then it is forgotten here.
    async fn run(self) {
        loop {
            match self.handle.submit(self.promised.envelope.clone()).await {
                Ok(_) => break,
                Err(SubmitFailure::Stopping) => return,
                Err(failure) if failure.is_transient() || is_ahead(&failure) => {
                    tracing::debug!(%failure, "a transaction that was promised is submitted again");
                    sleep(RETRY_PAUSE).await;
                }
                Err(failure @ SubmitFailure::Refused(_)) => {
                    tracing::error!(%failure, "a transaction that was promised does not come onto the ledger");
                    break;
                }
                Err(failure) => {
                    tracing::error!(%failure, "a transaction that was promised is submitted again after a restart");
                    return;
                }
            }
        }
        let mut batch = Batch::default();
        delete_promise(&mut batch, &self.promised.digest());
        // Coming back after a crash, it would be found on the ledger, or expired.
        if let Err(error) = self.write(batch, false).await {
            tracing::warn!(%error, "a promise that is kept cannot be forgotten");
        }
        drop(self.permit);
    }

    async fn write(&self, batch: Batch, durable: bool) -> Result<(), SubmitFailure> {
        let storage: Arc<dyn LogStorage> = Arc::clone(self.handle.storage());
        let written = self.tasks.spawn_blocking(move || storage.write(&batch, durable));
        Ok(written.await.map_err(|_| SubmitFailure::Stopping)??)
    }
}

/// Whether a transaction that was once in time seems to expire too late: after a power cut the log may be shorter than it was,
/// until this replica has caught up.
const fn is_ahead(failure: &SubmitFailure) -> bool {
    matches!(failure, SubmitFailure::Refused(CoreError::Refused(Refusal::ExpiryTooFar { .. })))
}
