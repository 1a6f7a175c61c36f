//! How many transfers go on at a time.
//!
//! A transfer that is under way holds in memory what has arrived and is not yet written, or what is on its way and not yet
//! acknowledged: up to a stream's window. So that this does not grow with the number of peers, only some transfers go on at
//! a time, and the others wait. Whoever is too slow to fill a window holds nothing back worth mentioning and goes on beside
//! them, so that no number of slow peers keeps the fast ones waiting.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// How long a peer may keep this side waiting for one chunk and still count as fast.
const FAST_CHUNK: Duration = Duration::from_secs(1);

/// The right to be one of the transfers that go on at a time, given back when dropped. Without a permit, as by default, it
/// is that of a transfer beside them.
#[derive(Debug, Default)]
pub struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    /// For the chunk that is on its way.
    waited: Duration,
}

impl Slot {
    /// Waits for the peer, without the slot once that takes too long.
    pub(super) async fn hold_while<T>(&mut self, waiting: impl Future<Output = T>) -> T {
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
    pub(super) const fn complete_chunk(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// Keeps it until this has happened, or not for long.
    pub(super) async fn until(self, done: impl Future<Output = ()>) {
        if self.permit.is_some() {
            drop(timeout(FAST_CHUNK, done).await);
        }
    }
}

/// Some transfers that go on at a time.
#[derive(Debug)]
pub struct Slots(Arc<Semaphore>);

impl Slots {
    /// So many of them.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// A slot, as soon as one is free. Whoever asks first is served first.
    pub async fn acquire(&self) -> Slot {
        // Nobody closes the semaphore.
        Slot { permit: Arc::clone(&self.0).acquire_owned().await.ok(), waited: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::{FutureExt as _, future::join_all};
    use tokio::sync::oneshot;

    use super::*;

    const SLOTS: usize = 4;

    fn is_full(slots: &Slots) -> bool {
        slots.acquire().now_or_never().is_none()
    }

    #[tokio::test]
    async fn slow_peers_keep_nobody_waiting() {
        let slots = Slots::new(SLOTS);
        let mut held = join_all((0..SLOTS).map(|_| slots.acquire())).await;
        held[0].waited = FAST_CHUNK;
        held[0].complete_chunk();
        held[0].hold_while(ready(())).await;
        assert!(is_full(&slots), "its peer is fast");
        // What was waited for one chunk adds up.
        held[0].waited = FAST_CHUNK;
        let (give, given) = oneshot::channel::<()>();
        let next = async {
            let next = slots.acquire().await;
            give.send(()).unwrap();
            next
        };
        let (given, next) = tokio::join!(held[0].hold_while(given), next);
        given.unwrap();
        assert!(is_full(&slots), "somebody else has it");
        drop(next);
        assert!(!is_full(&slots));
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_waited_for_but_not_for_ever() {
        let slots = Slots::new(SLOTS);
        let held = join_all((0..SLOTS).map(|_| slots.acquire())).await;
        assert!(is_full(&slots));
        join_all(held.into_iter().map(|slot| slot.until(pending()))).await;
        assert!(!is_full(&slots));
        assert!(Slot::default().until(pending()).now_or_never().is_some(), "it has none to keep");
    }
}
