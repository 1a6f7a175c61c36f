//! How fast blobs may travel, and how much has: one token bucket for each direction, shared by all of a node's transfers.

use std::{
    num::NonZeroU64,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::lanes::Lanes;

/// How long a direction may be idle and then make up for it.
const BURST: Duration = Duration::from_millis(250);

/// Bytes that a transfer sends or takes at a time where a rate is set. Small enough that a slow rate shared by many never
/// looks like a peer that has stopped.
const PIECE_BYTES: usize = 16 * 1024;

/// Caps on the bodies of blobs, in bytes per second; without one there is no cap. Everything else that nodes say to each
/// other is small and is never held back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BandwidthLimits {
    /// What all transfers to peers together may send.
    pub upload_max: Option<NonZeroU64>,
    /// What all transfers from peers together may receive.
    pub download_max: Option<NonZeroU64>,
}

/// What has travelled since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of blobs that were sent.
    pub sent_bytes: u64,
    /// Bytes of blobs that were received.
    pub received_bytes: u64,
    /// Transfers that went on from where an earlier one ended.
    pub resumed_transfers: u64,
}

/// Both directions of a node.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    pub upload: Direction,
    pub download: Direction,
    /// Transfers that peers ask for.
    pub served: Lanes,
    resumed: AtomicU64,
}

impl Bandwidth {
    /// Sets the caps, also for transfers that are under way.
    pub fn limit(&self, limits: BandwidthLimits) {
        self.upload.bucket().rate = limits.upload_max;
        self.download.bucket().rate = limits.download_max;
    }

    /// Counts a transfer that does not begin at the beginning.
    pub fn count_resumed(&self) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// What has travelled.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent_bytes: self.upload.bytes.load(Ordering::Relaxed),
            received_bytes: self.download.bytes.load(Ordering::Relaxed),
            resumed_transfers: self.resumed.load(Ordering::Relaxed),
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    bucket: Mutex<Bucket>,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Bucket {
    rate: Option<NonZeroU64>,
    /// When everything that was taken so far has been paid for.
    paid_at: Option<Instant>,
}

impl Direction {
    fn bucket(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `bytes` may travel at once.
    pub fn piece(&self, bytes: usize) -> usize {
        if self.bucket().rate.is_some() { bytes.min(PIECE_BYTES) } else { bytes }
    }

    /// Counts bytes that travel, and waits until they are paid for. Whoever asks first is served first.
    pub async fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let paid_at = self.bucket().pay(bytes as u64, Instant::now());
        if let Some(paid_at) = paid_at {
            sleep_until(paid_at).await;
        }
    }
}

impl Bucket {
    fn pay(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.rate?;
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = self.paid_at.map_or(earliest, |paid_at| paid_at.max(earliest));
        let nanoseconds = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(rate.get());
        let price = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        // Beyond what a clock can say there is no later.
        let paid_at = begin.checked_add(price).unwrap_or(begin);
        self.paid_at = Some(paid_at);
        Some(paid_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000_000;

    fn limited() -> Bucket {
        Bucket { rate: NonZeroU64::new(RATE), paid_at: None }
    }

    #[test]
    fn transfers_share_a_cap_and_each_gets_its_part() {
        const TRANSFERS: usize = 10;
        const BYTES: usize = 5_000_000;
        let (mut bucket, begun) = (limited(), Instant::now());
        // Each transfer asks for its next piece when the last one is paid for; time is what the bucket says.
        let mut transfers = vec![(begun, BYTES); TRANSFERS];
        let mut ends = Vec::new();
        while let Some(next) = transfers.iter_mut().filter(|(_, left)| *left > 0).min_by_key(|(at, _)| *at) {
            let (now, piece) = (next.0, next.1.min(PIECE_BYTES));
            let paid_at = bucket.pay(piece as u64, now).unwrap();
            *next = (paid_at.max(now), next.1 - piece);
            if next.1 == 0 {
                ends.push(next.0.duration_since(begun));
            }
        }
        let whole = Duration::from_secs((TRANSFERS * BYTES) as u64 / RATE);
        assert_eq!((ends.len(), ends.last()), (TRANSFERS, Some(&(whole - BURST))));
        // They end together, because none waited for another to end; the first had what had been saved up.
        assert!(ends[0] > whole - TRANSFERS as u32 * BURST - Duration::from_millis(500), "{:?}", ends[0]);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let (mut bucket, begun) = (limited(), Instant::now());
        bucket.pay(1, begun).unwrap();
        let later = begun + Duration::from_secs(3600);
        assert_eq!(bucket.pay(RATE, later), Some(later + Duration::from_secs(1) - BURST));
        assert_eq!(bucket.pay(RATE, later), Some(later + Duration::from_secs(2) - BURST));
    }

    #[test]
    fn no_number_is_too_large_for_the_bucket() {
        let (mut bucket, begun) = (limited(), Instant::now());
        for _ in 0..10_000 {
            assert!(bucket.pay(u64::MAX, begun).is_some());
        }
    }

    #[tokio::test]
    async fn without_a_cap_nobody_waits_and_everything_is_counted() {
        let bandwidth = Bandwidth::default();
        bandwidth.limit(BandwidthLimits { upload_max: NonZeroU64::new(RATE), download_max: None });
        assert_eq!(bandwidth.upload.piece(123_456_789), PIECE_BYTES);
        assert_eq!(bandwidth.download.piece(123_456_789), 123_456_789);
        bandwidth.download.take(usize::MAX).await;
        bandwidth.limit(BandwidthLimits::default());
        bandwidth.upload.take(usize::MAX).await;
        bandwidth.count_resumed();
        let all = usize::MAX as u64;
        assert_eq!(bandwidth.traffic(), Traffic { sent_bytes: all, received_bytes: all, resumed_transfers: 1 });
    }
}
