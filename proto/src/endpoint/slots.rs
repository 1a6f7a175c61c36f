//! How many files a node serves at a time.
//!
//! A transfer that is under way holds in memory what has arrived and is not yet written, or what is on its way and not yet
//! acknowledged: up to a stream's window. So that this does not grow with the number of peers, only some transfers go on at
//! a time, and the others are told to wait. Whoever is too slow to fill a window holds nothing back worth mentioning and
//! goes on beside them, so that no number of slow peers keeps the fast ones waiting.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// Transfers of fast peers that go on at a time: enough to keep a disk, a network and two processors busy.
pub(super) const SLOTS: usize = 4;

/// How long a peer may keep this side waiting for one chunk and still count as fast.
const FAST_CHUNK: Duration = Duration::from_secs(1);

/// The right to be one of them, given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    /// For the chunk that is on its way.
    waited: Duration,
}

impl Slot {
    /// Waits for the peer, without the slot once that takes too long.
    pub async fn hold_while<T>(&mut self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        if self.permit.is_some() {
            let begun = Instant::now();
            if let Ok(done) = timeout(FAST_CHUNK.saturating_sub(self.waited), &mut waiting).await {
                self.waited = self.waited.saturating_add(begun.elapsed());
                return done;
            }
            self.permit = None;
        }
        waiting.await
    }

    /// The next chunk may take as long again.
    pub const fn complete_chunk(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// Keeps it until this has happened, or not for long.
    pub async fn until(self, done: impl Future<Output = ()>) {
        if self.permit.is_some() {
            drop(timeout(FAST_CHUNK, done).await);
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Slots(Arc<Semaphore>);

impl Default for Slots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SLOTS)))
    }
}

impl Slots {
    /// A slot, as soon as one is free. Whoever asks first is served first.
    pub async fn acquire(&self) -> Slot {
        // Nobody closes the semaphore.
        Slot { permit: Arc::clone(&self.0).acquire_owned().await.ok(), waited: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::join_all};
    use tokio::time::sleep;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn wait(slot: &mut Slot, time: Duration) {
        slot.hold_while(sleep(time)).await;
    }

    fn is_full(slots: &Slots) -> bool {
        slots.acquire().now_or_never().is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_peers_keep_nobody_waiting() {
        let slots = Slots::default();
        let mut held = join_all((0..SLOTS).map(|_| slots.acquire())).await;
        for _ in 0..100 {
            wait(&mut held[0], FAST_CHUNK * 3 / 4).await;
            held[0].complete_chunk();
        }
        assert!(is_full(&slots), "its chunks are fast");
        wait(&mut held[0], FAST_CHUNK * 3 / 4).await;
        assert!(is_full(&slots));
        let begun = Instant::now();
        let ((), next) = tokio::join!(wait(&mut held[0], LONG), async {
            let next = slots.acquire().await;
            (next, begun.elapsed())
        });
        assert!((FAST_CHUNK / 4..FAST_CHUNK).contains(&next.1), "{:?}", next.1);
        assert!(is_full(&slots), "somebody else has it");
        drop(next);
        assert!(!is_full(&slots));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_is_waited_for_but_not_for_long() {
        let slots = Slots::default();
        let begun = Instant::now();
        slots.acquire().await.until(sleep(LONG)).await;
        assert_eq!(begun.elapsed(), FAST_CHUNK);
        Slot::default().until(sleep(LONG)).await;
        assert_eq!(begun.elapsed(), FAST_CHUNK);
    }
}
