//! Whether a peer keeps up with a transfer.
//!
//! Only the time counts in which this side waits for the peer. What a cap on this side's own bandwidth, its disk or its
//! hashing takes is nobody's fault, however many transfers share them.

use std::time::Duration;

/// Bytes per second below which a peer is left: another one may be faster, and what was verified stays.
pub(super) const FLOOR_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Waiting over which the rate is averaged.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// How long a peer is waited for until the first chunk is complete, however slow it is: a transfer that adds a chunk before
/// it is left gets to the end at last, also where every peer is slow, or holds itself back for many.
pub(super) const FIRST_CHUNK_PATIENCE: Duration = Duration::from_secs(120);

/// What one transfer has waited for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since the window began.
    waited: Duration,
    /// Since the window began.
    bytes: u64,
    has_chunk: bool,
}

impl Pace {
    /// Counts bytes for which the peer was waited for, and says whether to stay with it.
    pub fn keeps_up(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < WINDOW {
            return true;
        }
        let least = u128::from(FLOOR_BYTES_PER_SECOND).saturating_mul(self.waited.as_millis()) / 1000;
        if u128::from(self.bytes) >= least {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
            return true;
        }
        !self.has_chunk && self.waited < FIRST_CHUNK_PATIENCE
    }

    /// A chunk is complete, so that leaving the peer does not lose everything that it has sent.
    pub const fn complete_chunk(&mut self) {
        self.has_chunk = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// For how many seconds a peer is kept that moves so many bytes in each of them, up to an hour.
    fn kept(pace: &mut Pace, bytes: usize) -> u32 {
        (1..=3600).find(|_| !pace.keeps_up(SECOND, bytes)).unwrap_or(u32::MAX)
    }

    fn past_the_first_chunk() -> Pace {
        Pace { has_chunk: true, ..Pace::default() }
    }

    #[test]
    fn a_peer_below_the_floor_is_left_after_a_window() {
        let floor = FLOOR_BYTES_PER_SECOND as usize;
        assert_eq!(kept(&mut past_the_first_chunk(), floor), u32::MAX);
        assert_eq!(kept(&mut past_the_first_chunk(), floor - 1), WINDOW.as_secs() as u32);
        // A good beginning does not excuse what follows for long.
        let mut pace = past_the_first_chunk();
        assert!((0..100).all(|_| pace.keeps_up(SECOND, 100 * floor)));
        assert!(kept(&mut pace, 1) <= 2 * WINDOW.as_secs() as u32);
    }

    #[test]
    fn every_transfer_may_add_a_chunk_unless_it_takes_too_long() {
        let mut pace = Pace::default();
        assert!((0..100).all(|_| pace.keeps_up(SECOND, 3000)));
        pace.complete_chunk();
        assert!(!pace.keeps_up(SECOND, 3000), "it has its chunk");
        assert_eq!(kept(&mut Pace::default(), 1), FIRST_CHUNK_PATIENCE.as_secs() as u32);
    }

    #[test]
    fn what_arrives_without_waiting_is_never_too_slow() {
        let mut pace = past_the_first_chunk();
        assert!((0..1_000_000).all(|_| pace.keeps_up(Duration::ZERO, 0)));
    }
}
