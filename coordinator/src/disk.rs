//! The disk thread: group commit.
//!
//! It takes whatever writes are waiting, merges them into one batch and syncs once. Writes keep their order; a write that only
//! advances what is already safe elsewhere does not cause a sync of its own.

use std::sync::Arc;

use fedledger_ledger::{
    replica::DiskWrite,
    storage::{Batch, LogStorage, StorageError},
};
use tokio::sync::mpsc;

/// Writes that may wait for the disk; beyond it the replica's task waits.
pub const WRITES_WAITING_MAX: usize = 1024;

/// Reports that may wait for the replica's task. One report covers all writes before it and at most
/// [`WRITES_WAITING_MAX`] can be waiting, so the thread never waits here for long.
const REPORTS_WAITING_MAX: usize = 2 * WRITES_WAITING_MAX;

/// A write and the size of the log that readers may see once it is done.
#[derive(Debug)]
pub struct QueuedWrite {
    /// What to write.
    pub write: DiskWrite,
    /// Entries in the log after it.
    pub log_size: u64,
}

/// What the thread has done.
#[derive(Debug)]
pub enum DiskReport {
    /// Everything up to here is written, and durable up to the number.
    Done {
        /// Number of the last durable write among them.
        number: Option<u64>,
        /// Size of the last head among them that may be signed now.
        cosign: Option<u64>,
        /// Entries in the log that readers may see.
        log_size: u64,
    },
    /// The disk failed; nothing is written any more.
    Failed(StorageError),
}

/// Starts the thread. It ends when the sender is dropped, after writing what is waiting, or when the disk fails.
///
/// # Errors
///
/// The system has no thread left.
pub fn start(
    storage: Arc<dyn LogStorage>,
) -> std::io::Result<(mpsc::Sender<QueuedWrite>, mpsc::Receiver<DiskReport>, std::thread::JoinHandle<()>)> {
    let (writes, queue) = mpsc::channel(WRITES_WAITING_MAX);
    let (reports, receiver) = mpsc::channel(REPORTS_WAITING_MAX);
    let thread =
        std::thread::Builder::new().name("ledger-disk".into()).spawn(move || run(&*storage, queue, &reports))?;
    Ok((writes, receiver, thread))
}

fn run(storage: &dyn LogStorage, mut queue: mpsc::Receiver<QueuedWrite>, reports: &mpsc::Sender<DiskReport>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = Batch::default();
        let (mut number, mut cosign, mut log_size) = (None, None, 0);
        let mut next = Some(first);
        while let Some(QueuedWrite { write, log_size: size }) = next {
            batch.extend(write.batch);
            number = write.number.or(number);
            cosign = write.cosign.or(cosign);
            log_size = size;
            next = queue.try_recv().ok();
        }
        let report = match storage.write(&batch, number.is_some() || cosign.is_some()) {
            Ok(()) => DiskReport::Done { number, cosign, log_size },
            Err(error) => DiskReport::Failed(error),
        };
        let failed = matches!(report, DiskReport::Failed(_));
        if reports.blocking_send(report).is_err() || failed {
            return;
        }
    }
}
