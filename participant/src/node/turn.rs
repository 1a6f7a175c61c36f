//! Taking turns at the processor: one training or evaluation computes at a time, and a long one lets the others in between.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

/// How long one computes before whoever waits has its turn: long enough that the processor's caches are worth filling, short
/// enough that a training of days keeps no round of another plan waiting.
const SLICE: Duration = Duration::from_millis(250);

/// The right to compute, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    since: Instant,
    stop: CancellationToken,
    runtime: Handle,
}

impl Turn {
    /// Waits until it is this one's turn; none once cancelled. `turns` has one permit, and serves in order.
    pub async fn begin(turns: &Arc<Semaphore>, stop: &CancellationToken) -> Option<Self> {
        let acquired = stop.run_until_cancelled(Arc::clone(turns).acquire_owned()).await?;
        let permit = Some(acquired.ok()?);
        let (turns, runtime) = (Arc::clone(turns), Handle::current());
        Some(Self { turns, permit, since: Instant::now(), stop: stop.clone(), runtime })
    }

    /// Whether the work is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Lets those in who wait, if this one has computed for a while. Blocks: it is for threads that compute.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] once the work is cancelled.
    pub fn share(&mut self) -> io::Result<()> {
        if self.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.since.elapsed() < SLICE {
            return Ok(());
        }
        drop(self.permit.take());
        let next = self.stop.run_until_cancelled(Arc::clone(&self.turns).acquire_owned());
        // Nobody closes the semaphore.
        let acquired = self.runtime.block_on(next).and_then(Result::ok);
        self.permit = Some(acquired.ok_or(io::ErrorKind::Interrupted)?);
        self.since = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::spawn_blocking;

    use super::*;

    #[tokio::test]
    async fn a_long_computation_lets_a_short_one_in() {
        let (turns, stop) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
        let mut long = Turn::begin(&turns, &stop).await.unwrap();
        let endless = spawn_blocking(move || {
            while long.share().is_ok() {
                std::hint::spin_loop();
            }
        });
        for _ in 0..3 {
            drop(Turn::begin(&turns, &stop).await.unwrap());
        }
        stop.cancel();
        endless.await.unwrap();
        assert_eq!(turns.available_permits(), 1);
        assert!(Turn::begin(&turns, &stop).await.is_none());
    }
}
