//! Replaying leaves: signatures on all threads, everything else in order.

use fedledger_ledger::{
    Digest,
    log::{Entry, Log, OpenedLeaf, ReplayError},
};
use rayon::prelude::*;

use super::{HistoryError, Leaves, Source, SourceError};
use crate::Federation;

/// Leaves that are opened at a time: enough to keep all threads busy.
const BATCH_LEAVES: usize = 1024;

/// Bytes of leaves above which a batch ends early.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Leaves that were read together, and why reading ended with them, if it failed.
struct Batch {
    leaves: Vec<Vec<u8>>,
    failure: Option<SourceError>,
}

/// Applies the source's leaves to `log`, which holds the genesis file, and shows each entry to `visit` afterwards.
///
/// While one batch is applied, the next one's signatures are checked. `log` keeps what was applied before an error.
pub(crate) fn replay<S: Source + ?Sized>(
    log: &mut Log<Federation>,
    source: &S,
    threads: usize,
    mut visit: impl FnMut(&Log<Federation>, &Entry<Federation>) + Send,
) -> Result<(), HistoryError> {
    let mut leaves = source.leaves()?;
    let chain = *log.chain();
    let mut opened = Vec::new();
    loop {
        let batch = read_batch(&mut leaves);
        let current = std::mem::take(&mut opened);
        let (applied, next) = if threads > 1 {
            rayon::join(|| apply(log, current, &mut visit), || open(&batch.leaves, &chain, threads))
        } else {
            (apply(log, current, &mut visit), open(&batch.leaves, &chain, threads))
        };
        applied?;
        opened = next;
        if let Some(failure) = batch.failure {
            apply(log, opened, &mut visit)?;
            return Err(failure.into());
        }
        if opened.is_empty() {
            return Ok(());
        }
    }
}

fn read_batch(leaves: &mut Leaves<'_>) -> Batch {
    let mut batch = Batch { leaves: Vec::new(), failure: None };
    let mut size_bytes = 0;
    while batch.leaves.len() < BATCH_LEAVES && size_bytes < BATCH_BYTES {
        match leaves.next() {
            Some(Ok(leaf)) => {
                size_bytes += leaf.len();
                batch.leaves.push(leaf);
            }
            Some(Err(failure)) => {
                batch.failure = Some(failure);
                break;
            }
            None => break,
        }
    }
    batch
}

fn open(leaves: &[Vec<u8>], chain: &Digest, threads: usize) -> Vec<Result<OpenedLeaf, ReplayError>> {
    let open = |leaf: &Vec<u8>| OpenedLeaf::open(leaf, chain);
    if threads <= 1 {
        return leaves.iter().map(open).collect();
    }
    let part = leaves.len().div_ceil(threads).max(1);
    leaves.par_iter().with_min_len(part).map(open).collect()
}

fn apply(
    log: &mut Log<Federation>,
    opened: Vec<Result<OpenedLeaf, ReplayError>>,
    visit: &mut impl FnMut(&Log<Federation>, &Entry<Federation>),
) -> Result<(), HistoryError> {
    for leaf in opened {
        let index = log.size();
        let entry = leaf.and_then(|leaf| log.replay_opened(leaf));
        visit(log, &entry.map_err(|error| HistoryError::Replay { index, error })?);
    }
    Ok(())
}
