//! Which of the transfers that peers ask for go on at a time.
//!
//! Each class of sizes has slots of its own, so that a small file never waits for large ones: behind fifty updates of a large
//! model, one of a small model would miss its deadline. Within a class, whoever asks first is served first; there, the
//! transfers differ little enough that sharing the line between all of them would not end any much sooner.

use super::slots::{Slot, Slots};

/// Transfers of fast peers that go on at a time in each class: enough to keep a disk, a network and two processors busy.
const SLOTS_PER_LANE: usize = 4;

/// Largest rest of a file that counts as small, in bytes.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// Largest rest of a file that counts as middling, in bytes.
const MIDDLING_BYTES_MAX: u64 = 256 << 20;

/// The slots of a node that serves files.
#[derive(Debug)]
pub(super) struct Lanes {
    small: Slots,
    middling: Slots,
    large: Slots,
}

impl Default for Lanes {
    fn default() -> Self {
        let [small, middling, large] = std::array::from_fn(|_| Slots::new(SLOTS_PER_LANE));
        Self { small, middling, large }
    }
}

impl Lanes {
    /// A slot for what is left of a file, in bytes, as soon as one of its class is free.
    pub async fn acquire(&self, rest: u64) -> Slot {
        let lane = if rest <= SMALL_BYTES_MAX {
            &self.small
        } else if rest <= MIDDLING_BYTES_MAX {
            &self.middling
        } else {
            &self.large
        };
        lane.acquire().await
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::join_all};

    use super::*;

    #[tokio::test]
    async fn a_file_waits_only_for_files_of_its_class() {
        let lanes = Lanes::default();
        let sizes = [1, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, MIDDLING_BYTES_MAX, MIDDLING_BYTES_MAX + 1, u64::MAX];
        for class in sizes.chunks(2).rev() {
            let held = join_all((0..SLOTS_PER_LANE).map(|number| lanes.acquire(class[number % 2]))).await;
            for size in sizes {
                let is_full = lanes.acquire(size).now_or_never().is_none();
                assert_eq!(is_full, class.contains(&size), "{size} beside {class:?}");
            }
            drop(held);
        }
    }
}
