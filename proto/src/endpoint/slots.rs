//! How many files a node serves at a time.
//!
//! A transfer that is under way holds in memory what has arrived and is not yet written, or what is on its way and not yet
//! acknowledged: up to a stream's window. So that this does not grow with the number of peers, only some transfers go on at
//! a time, and the others are told to wait. Whoever is too slow to fill a window holds nothing back worth mentioning and
//! goes on beside them, so that no number of slow peers keeps the fast ones waiting.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Transfers of fast peers that go on at a time: enough to keep a disk, a network and two processors busy.
pub(super) const SLOTS: usize = 4;

/// How long a peer may keep this side waiting for one chunk and still count as fast.
const FAST_CHUNK: Duration = Duration::from_secs(1);

/// The right to be one of them, given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Slot(Option<OwnedSemaphorePermit>);

impl Slot {
    /// Whoever kept this side waiting for so long goes on without one.
    pub fn release_if_slow(&mut self, waited: Duration) {
        if waited > FAST_CHUNK {
            self.0 = None;
        }
    }

    /// Keeps it until this has happened, or not for long.
    pub async fn until(self, done: impl Future<Output = ()>) {
        if self.0.is_some() {
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
        Slot(Arc::clone(&self.0).acquire_owned().await.ok())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn slow_peers_keep_nobody_waiting() {
        let slots = Slots::default();
        let mut held: Vec<_> = (0..SLOTS).map(|_| slots.acquire().now_or_never().unwrap()).collect();
        assert!(slots.acquire().now_or_never().is_none());
        held[0].release_if_slow(FAST_CHUNK);
        assert!(slots.acquire().now_or_never().is_none());
        held[0].release_if_slow(FAST_CHUNK * 2);
        held.push(slots.acquire().now_or_never().unwrap());
        assert!(slots.acquire().now_or_never().is_none());
        held.pop();
        assert!(slots.acquire().now_or_never().is_some());
    }
}
