//! Deleting files that nothing on the ledger names.
//!
//! What is pruned on the ledger is deleted at once, by name. This is for files that the ledger has never named, or does not
//! name any more without having pruned them: updates that came too late or were refused, those of a member that was
//! excluded, files of versions that were rejected or withdrawn, and whatever arrived after it was pruned. They would lie here
//! for ever otherwise, some of them being hospitals' raw updates.
//!
//! A file that the ledger does not name yet may be named by the next entry. So what participants have offered for an attempt
//! stays until it has collected its contributions, and what was computed for one until it is over; both are asked for
//! before the ledger is, since the ledger names a file before they let it go.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use fedledger_federation::command::RoundKey;
use fedledger_ledger::Digest;
use tokio::time::{Instant, sleep};

use crate::{
    blobs::BlobStore,
    replica::Handle,
    requests::Uploads,
    shared::{SharedView, View},
    tasks::Tasks,
};

#[cfg(test)]
mod tests;

/// Shortest time from one sweep to the next.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// How many times as long as a sweep took nothing is swept after it.
const COST_FACTOR: u32 = 20;

/// Files that the ledger is asked about at once.
const ASKED_AT_ONCE: usize = 1024;

/// Files that are deleted before the ledger is asked again.
const DELETED_AT_ONCE: usize = 16;

/// What is known of files by their digests.
pub trait Records: Send + Sync {
    /// Those of these files that nothing on the ledger names, once it is here as far as it is committed; none as long as
    /// that cannot be told.
    fn unnamed(&self, files: Vec<Digest>) -> impl Future<Output = Option<Vec<Digest>>> + Send;
}

impl Records for Handle {
    async fn unnamed(&self, mut files: Vec<Digest>) -> Option<Vec<Digest>> {
        if !self.read_barrier().await {
            return None;
        }
        let asked = self.query(move |replica| {
            let state = replica.log().machine();
            files.retain(|file| !state.retains(file));
            files
        });
        asked.await
    }
}

/// Sweeps a replica's files.
#[derive(Debug)]
pub struct Sweeper<R> {
    records: R,
    blobs: BlobStore,
    view: SharedView,
    uploads: Arc<Uploads>,
    tasks: Tasks,
    /// Files that may have been offered to an earlier process, with the attempts for which that may have been; none until
    /// the first sweep.
    left: Option<BTreeMap<Digest, Vec<RoundKey>>>,
}

impl<R: Records> Sweeper<R> {
    /// Sweeps these files, of which the records name some, the view some more, and some were offered.
    pub fn new(records: R, (blobs, view, uploads): (BlobStore, SharedView, Arc<Uploads>), tasks: Tasks) -> Self {
        Self { records, blobs, view, uploads, tasks, left: None }
    }

    /// Sweeps now, and again whenever an attempt at a round has ended or a file was added, with pauses.
    pub async fn run(mut self) {
        let (mut ended, mut added) = (self.view.ended(), self.blobs.added());
        loop {
            ended.mark_unchanged();
            added.mark_unchanged();
            let begun = Instant::now();
            let swept = self.sweep().await;
            sleep(PAUSE_MIN.max(begun.elapsed().saturating_mul(COST_FACTOR))).await;
            match swept {
                Ok(true) => tokio::select! {
                    _ = ended.changed() => {}
                    _ = added.changed() => {}
                },
                // Nobody leads.
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "files of no use cannot be deleted: it is tried again"),
            }
        }
    }

    /// Deletes what is of no use now; false if that cannot be told.
    async fn sweep(&mut self) -> io::Result<bool> {
        let (files, beginnings) = self.blocking(|blobs| Ok((blobs.files()?, blobs.beginnings()?))).await?;
        let Some(unnamed) = self.unnamed(files.iter().map(|(file, _)| *file).collect()).await else { return Ok(false) };
        let Some(begun) = self.unnamed(beginnings.into_iter().collect()).await else { return Ok(false) };
        if self.left.is_none() {
            let sizes: BTreeMap<Digest, u64> = files.into_iter().collect();
            self.left = Some(self.left_over(&unnamed, &begun, &sizes));
        }
        let mut deleted = 0usize;
        for some in unnamed.chunks(DELETED_AT_ONCE) {
            let Some(useless) = self.useless(some).await else { return Ok(false) };
            deleted = deleted.saturating_add(self.delete(useless).await?);
        }
        let Some(useless) = self.useless(&begun).await else { return Ok(false) };
        let useless: BTreeSet<Digest> = useless.into_iter().collect();
        let count = useless.len();
        self.blocking(move |blobs| blobs.keep_beginnings(|file| !useless.contains(file))).await?;
        if deleted > 0 || count > 0 {
            tracing::info!(files = deleted, beginnings = count, "deleted files that nothing on the ledger names");
        }
        Ok(true)
    }

    async fn unnamed(&self, files: Vec<Digest>) -> Option<Vec<Digest>> {
        let mut unnamed = Vec::new();
        for some in files.chunks(ASKED_AT_ONCE) {
            unnamed.extend(self.records.unnamed(some.to_vec()).await?);
        }
        Some(unnamed)
    }

    /// Files that may have been offered to an earlier process for an attempt that goes on: they have the size of its
    /// updates, or are not complete.
    fn left_over(
        &self,
        files: &[Digest],
        begun: &[Digest],
        sizes: &BTreeMap<Digest, u64>,
    ) -> BTreeMap<Digest, Vec<RoundKey>> {
        let collecting: Vec<(RoundKey, u64)> = self.view.read().collecting().collect();
        let attempts = |size: Option<u64>| {
            let waiting = collecting.iter().filter(|(_, wanted)| size.is_none_or(|size| size == *wanted));
            waiting.map(|(attempt, _)| *attempt).collect::<Vec<_>>()
        };
        let whole = files.iter().map(|file| (*file, attempts(sizes.get(file).copied())));
        begun.iter().map(|file| (*file, attempts(None))).chain(whole).collect()
    }

    /// Those of these files that nobody expects, and nothing names.
    async fn useless(&self, files: &[Digest]) -> Option<Vec<Digest>> {
        let unexpected = files.iter().copied().filter(|file| !self.is_expected(file)).collect();
        self.records.unnamed(unexpected).await
    }

    fn is_expected(&self, file: &Digest) -> bool {
        let left = self.left.as_ref().and_then(|left| left.get(file)).map_or(&[][..], Vec::as_slice);
        let view = self.view.read();
        left.iter().any(|attempt| view.is_collecting(attempt)) || is_in_use(&view, &self.uploads, file)
    }

    /// Deletes files one by one, and says how many.
    async fn delete(&self, files: Vec<Digest>) -> io::Result<usize> {
        let mut deleted = 0usize;
        for file in files {
            let (view, uploads) = (self.view.clone(), Arc::clone(&self.uploads));
            let discarded =
                self.blocking(move |blobs| blobs.discard_unless(&file, || is_in_use(&view.read(), &uploads, &file)));
            deleted = deleted.saturating_add(usize::from(discarded.await?));
        }
        Ok(deleted)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BlobStore) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let blobs = self.blobs.clone();
        self.tasks.spawn_blocking(move || work(&blobs)).await.map_err(io::Error::other)?
    }
}

/// Whether a file is needed whatever the ledger said of it a moment ago.
fn is_in_use(view: &View, uploads: &Uploads, file: &Digest) -> bool {
    view.needs(file) || view.is_public(file) || uploads.cover(file, |attempt| view.is_collecting(attempt))
}
