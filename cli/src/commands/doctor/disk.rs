//! The disk: room, and how long it takes until something written is safe.

use std::{
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use super::{Check, within};

/// Bytes below which a node cannot go on for long.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Bytes below which somebody should make room.
const FREE_BYTES_COMFORTABLE: u64 = 2 * 1024 * 1024 * 1024;

/// What is written for a trial, in bytes: an entry of the log and a little more.
const TRIAL_BYTES: usize = 4096;

/// Every entry of the ledger waits for this once.
const SYNC_COMFORTABLE: Duration = Duration::from_millis(50);

/// A disk that takes longer than this is of no use.
const SYNC_MAX: Duration = Duration::from_secs(20);

const MEBIBYTE: u64 = 1024 * 1024;

/// Looks at the disk below the directory.
pub(super) fn examine(directory: &Path) -> Vec<Check> {
    let free = free_bytes(directory).map(|free| room(directory, free));
    let folder = directory.to_owned();
    let trial = within(SYNC_MAX, move || write_durably(&folder));
    free.into_iter().chain([durability(directory, trial)]).collect()
}

fn room(directory: &Path, free: io::Result<u64>) -> Check {
    let subject = directory.display().to_string();
    let free = match free {
        Ok(free) => free,
        Err(error) => return Check::warn("disk", subject, format!("free space is not known: {error}")),
    };
    let found = format!("{} MiB are free", free / MEBIBYTE);
    let advice = "make room, or move the directory to a larger disk while the node is stopped";
    if free < FREE_BYTES_MIN {
        Check::fail("disk", subject, found).advise(advice)
    } else if free < FREE_BYTES_COMFORTABLE {
        Check::warn("disk", subject, found).advise(advice)
    } else {
        Check::ok("disk", subject, found)
    }
}

fn durability(directory: &Path, trial: Option<io::Result<Duration>>) -> Check {
    let subject = directory.display().to_string();
    match trial {
        Some(Ok(took)) => {
            let found = format!("a write is safe after {:.1} ms", took.as_secs_f64() * 1000.0);
            if took <= SYNC_COMFORTABLE {
                Check::ok("fsync", subject, found)
            } else {
                Check::warn("fsync", subject, found).advise("use a local disk; network and USB disks slow a node down")
            }
        }
        Some(Err(error)) => Check::fail("fsync", subject, format!("nothing can be written safely: {error}"))
            .advise("see who owns the directory, and whether the disk is full, read-only or damaged"),
        None => {
            Check::fail("fsync", subject, format!("a write is not safe after {SYNC_MAX:?}")).advise("use another disk")
        }
    }
}

/// Writes a little to a file without a name, so that nothing is left whatever happens.
fn write_durably(directory: &Path) -> io::Result<Duration> {
    let mut file = tempfile::tempfile_in(directory)?;
    let begun = Instant::now();
    file.write_all(&[0; TRIAL_BYTES])?;
    file.sync_all()?;
    Ok(begun.elapsed())
}

#[cfg(unix)]
fn free_bytes(directory: &Path) -> Option<io::Result<u64>> {
    let stat = rustix::fs::statvfs(directory).map_err(io::Error::from);
    Some(stat.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// Elsewhere the system is not asked.
#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<io::Result<u64>> {
    None
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn little_room_is_said_and_no_room_is_a_failure() {
        let state = |free| room(Path::new("d"), Ok(free)).state;
        assert_eq!(state(FREE_BYTES_COMFORTABLE), State::Ok);
        assert_eq!(state(FREE_BYTES_MIN), State::Warn);
        assert_eq!(state(FREE_BYTES_MIN - 1), State::Fail);
        assert_eq!(room(Path::new("d"), Err(io::Error::other("x"))).state, State::Warn);
    }

    #[test]
    fn a_disk_that_does_not_write_is_a_failure() {
        let state = |trial| durability(Path::new("d"), trial).state;
        assert_eq!(state(Some(Ok(Duration::from_millis(1)))), State::Ok);
        assert_eq!(state(Some(Ok(SYNC_COMFORTABLE * 2))), State::Warn);
        assert_eq!(state(Some(Err(io::Error::other("x")))), State::Fail);
        assert_eq!(state(None), State::Fail);
        assert!(examine(Path::new("/nowhere/at/all")).iter().any(|check| check.state == State::Fail));
    }
}
