//! When progress of a training is saved.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// Shortest time from one local checkpoint to the next.
const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// Training between two local checkpoints takes at least this many times as long as saving one took.
const CHECKPOINT_COST_FACTOR: u32 = 20;

/// When local checkpoints are saved: at the end of a pass through the rows, and in the middle of one that takes long; so
/// often that little work is lost, and so seldom that little time is spent on the disk, unless the site wants one after a
/// number of steps.
#[derive(Debug, Clone, Copy)]
pub struct Saving {
    last: Instant,
    last_step: u64,
    interval: Duration,
    steps_max: Option<NonZeroU64>,
}

impl Saving {
    /// Nothing was saved yet; `steps_max` is the site's wish, if it has one.
    pub const fn begin(now: Instant, steps_max: Option<NonZeroU64>) -> Self {
        Self { last: now, last_step: 0, interval: CHECKPOINT_INTERVAL_MIN, steps_max }
    }

    /// A training goes on after so many steps that are saved already.
    pub const fn go_on_from(&mut self, step: u64) {
        self.last_step = step;
    }

    /// Whether one is to be saved now: at the end of a pass earlier than in the middle of one.
    pub fn is_due(self, now: Instant, step: u64, ends_pass: bool) -> bool {
        if self.steps_max.is_some_and(|most| step.saturating_sub(self.last_step) >= most.get()) {
            return true;
        }
        let interval = if ends_pass { self.interval / 2 } else { self.interval };
        now.saturating_duration_since(self.last) >= interval
    }

    /// One was saved from `began` to `ended`, after so many steps.
    pub fn saved(self, began: Instant, ended: Instant, step: u64) -> Self {
        let cost = ended.saturating_duration_since(began);
        let interval = CHECKPOINT_INTERVAL_MIN.max(cost.saturating_mul(CHECKPOINT_COST_FACTOR));
        Self { last: ended, last_step: step, interval, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_as_seldom_as_they_are_slow() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let quick = Saving::begin(start, None);
        assert!(!quick.is_due(after(499), 99, false) && quick.is_due(after(500), 99, false));
        assert!(
            !quick.is_due(after(249), 99, true) && quick.is_due(after(250), 99, true),
            "sooner at the end of a pass"
        );
        let slow = quick.saved(after(500), after(2500), 99);
        assert!(!slow.is_due(after(2500 + 39_999), 999, false) && slow.is_due(after(2500 + 40_000), 999, false));
        let quick_again = slow.saved(after(50_000), after(50_010), 1000);
        assert!(quick_again.is_due(after(50_510), 1001, false));
    }

    #[test]
    fn a_site_can_have_checkpoints_after_a_number_of_steps() {
        let start = Instant::now();
        let saving = Saving::begin(start, NonZeroU64::new(100));
        assert!(!saving.is_due(start, 99, false) && saving.is_due(start, 100, false));
        let saved = saving.saved(start, start + Duration::from_secs(10), 100);
        assert!(
            !saved.is_due(start, 199, false) && saved.is_due(start, 200, false),
            "however long it takes to save one"
        );
    }
}
