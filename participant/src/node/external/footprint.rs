//! How much memory a program has while it runs.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::memory::peak_bytes_of;

/// Shortest and longest time from one look to the next. Some programs end soon, so the first looks follow each other fast.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// The most memory that a program was seen to have. The system forgets it when the program ends, so it is looked at every so
/// often, and whenever the program tells of its progress; what it takes after the last look is missed.
#[derive(Debug)]
pub struct Footprint {
    process: Option<u32>,
    peak_bytes: Option<u64>,
    next: Instant,
    interval: Duration,
}

impl Footprint {
    /// That of a process; of none, nothing is ever seen.
    pub fn of(process: Option<u32>) -> Self {
        let interval = INTERVAL.0;
        Self { process, peak_bytes: None, next: Instant::now() + interval, interval }
    }

    /// Looks.
    pub fn look(&mut self) {
        self.peak_bytes = self.peak_bytes.max(self.process.and_then(peak_bytes_of));
    }

    /// Looks when it is time for it. It may be dropped while it waits.
    pub async fn look_when_due(&mut self) {
        sleep_until(self.next).await;
        self.look();
        self.interval = self.interval.saturating_mul(2).min(INTERVAL.1);
        self.next = Instant::now() + self.interval;
    }

    /// The process is not there any more.
    pub fn end(&mut self) {
        self.process = None;
    }

    /// The most memory that was seen, in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.peak_bytes
    }
}
