//! What the processes of a trainer use while they run, held against its limits.
//!
//! The system's own limits are for single processes and single files. Memory, number and files of the whole process group are
//! therefore looked at every so often, and a group that uses too much is ended. A process that has left the group is not seen.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant as Moment},
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::program::{Excess, Limits};
use crate::memory::{self, Process};

/// Shortest and longest time from one look to the next. Some programs end soon, so the first looks follow each other fast.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The time to the next look is at least so many times as long as the last one took.
const COST_FACTOR: u32 = 20;

/// Most files and folders in a trainer's folder.
pub const FILES_MAX: u64 = 100_000;

/// Size of the blocks in which a file system counts.
const BLOCK_SIZE_BYTES: u64 = 512;

/// The shell that watches over the group is one of its processes.
const SUPERVISORS: u64 = 1;

/// What one look has shown.
#[derive(Debug, Default)]
struct Seen {
    peak_bytes: Option<u64>,
    excess: Option<Excess>,
    took: Duration,
}

/// Looks at a process group and at the folder that it works in.
#[derive(Debug)]
pub struct Watch {
    /// The group's leader; none once it has ended, since the system may then give its number to another process.
    leader: Option<u32>,
    folder: PathBuf,
    limits: Limits,
    peak_bytes: Option<u64>,
    excess: Option<Excess>,
    next: Instant,
    interval: Duration,
    /// A look that is under way.
    looking: Option<JoinHandle<Seen>>,
}

impl Watch {
    /// Of the group of `leader`, which works in `folder`.
    pub fn new(leader: Option<u32>, folder: &Path, limits: Limits) -> Self {
        let (interval, next) = (INTERVAL.0, Instant::now() + INTERVAL.0);
        let folder = folder.to_owned();
        Self { leader, folder, limits, peak_bytes: None, excess: None, next, interval, looking: None }
    }

    /// Looks when it is time for it. It may be dropped while it waits: the next call goes on where it was.
    pub async fn look_when_due(&mut self) {
        if self.looking.is_none() {
            sleep_until(self.next).await;
        }
        self.look().await;
    }

    /// Looks now. It may be dropped while it waits.
    pub async fn look(&mut self) {
        let (leader, folder, limits) = (self.leader, &self.folder, self.limits);
        let looking = self.looking.get_or_insert_with(|| {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || look(leader, &folder, limits))
        });
        let seen = looking.await.unwrap_or_default();
        self.looking = None;
        self.peak_bytes = self.peak_bytes.max(seen.peak_bytes);
        self.excess = self.excess.or(seen.excess);
        let least = seen.took.saturating_mul(COST_FACTOR);
        self.interval = self.interval.saturating_mul(2).min(INTERVAL.1).max(least);
        self.next = Instant::now() + self.interval;
    }

    /// The leader has ended. What it has left in its folder is looked at once more.
    pub async fn end(&mut self) {
        self.leader = None;
        // One that began before the end may have missed what was written last.
        self.looking = None;
        self.look().await;
    }

    /// What was too much, if anything was.
    pub const fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// The most memory that was seen, in bytes: of all processes together, or of a single one at any time if that is more.
    pub const fn peak_bytes(&self) -> Option<u64> {
        self.peak_bytes
    }
}

/// Blocks for as long as it takes.
fn look(leader: Option<u32>, folder: &Path, limits: Limits) -> Seen {
    let began = Moment::now();
    let processes = leader.map(memory::processes_of_group).unwrap_or_default();
    let together = processes.iter().fold(0u64, |sum, process| sum.saturating_add(process.bytes));
    let single = processes.iter().map(|process: &Process| process.peak_bytes).max();
    let count = (processes.len() as u64).saturating_sub(SUPERVISORS);
    let excess = if together > limits.memory {
        Some(Excess::Memory { found: together, allowed: limits.memory })
    } else if count > limits.processes.into() {
        Some(Excess::Processes { found: count, allowed: limits.processes.into() })
    } else {
        excess_of_folder(folder, limits.disk)
    };
    Seen { peak_bytes: single.map(|single| single.max(together)), excess, took: began.elapsed() }
}

/// What is too much in a folder. Links are not followed, and what vanishes meanwhile does not count.
fn excess_of_folder(folder: &Path, allowed: u64) -> Option<Excess> {
    let (mut folders, mut files, mut size) = (VecDeque::from([folder.to_owned()]), 0u64, 0u64);
    while let Some(folder) = folders.pop_front() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            files += 1;
            if files > FILES_MAX {
                return Some(Excess::Files { allowed: FILES_MAX });
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push_back(entry.path());
            }
            size = size.saturating_add(metadata.blocks().saturating_mul(BLOCK_SIZE_BYTES));
        }
    }
    (size > allowed).then_some(Excess::Disk { found: size, allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_a_folder_counts_and_nothing_outside() {
        let directory = tempfile::tempdir().unwrap();
        let (folder, outside) = (directory.path().join("trainer"), directory.path().join("outside"));
        fs::create_dir_all(folder.join("state/deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("state/link")).unwrap();
        for name in ["a", "state/b", "state/deep/c"] {
            fs::write(folder.join(name), vec![1; 64 << 10]).unwrap();
        }
        assert_eq!(excess_of_folder(&folder, 1 << 20), None);
        let excess = excess_of_folder(&folder, 128 << 10);
        assert!(matches!(excess, Some(Excess::Disk { found, allowed: 131_072 }) if found >= 192 << 10), "{excess:?}");
        // What is sparse takes no room.
        fs::File::create(folder.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(excess_of_folder(&folder, 1 << 20), None);
        assert_eq!(excess_of_folder(&directory.path().join("gone"), 1), None);
    }
}
