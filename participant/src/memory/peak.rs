//! The memory that processes have and have had, as the system tells it.

use std::{
    fs,
    sync::{Mutex, PoisonError},
};

/// What stands before the largest resident set so far, in KiB.
const PEAK_FIELD: &str = "VmHWM:";

/// What stands before the resident set, in KiB.
const RESIDENT_FIELD: &str = "VmRSS:";

/// What stands before the resident set in which what is shared counts in parts, in KiB.
const PROPORTIONAL_FIELD: &str = "Pss:";

/// Position of the process group behind the name of a process, from 0.
const GROUP_POSITION: usize = 2;

/// How many measurements are under way in this process.
static MEASURING: Mutex<usize> = Mutex::new(0);

/// The most memory that this process has had at any time, or since [`PeakMeasurement::begin`], in bytes; none where the system
/// does not tell.
pub fn peak_bytes() -> Option<u64> {
    field_in(&fs::read_to_string("/proc/self/status").ok()?, PEAK_FIELD)
}

/// The most memory of this process from some moment on.
#[derive(Debug)]
pub struct PeakMeasurement(());

impl PeakMeasurement {
    /// Begins. The system forgets the peak so far, unless another measurement still wants it: then that one's time counts as
    /// well.
    pub fn begin() -> Self {
        let mut measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
        if *measuring == 0
            && let Err(error) = fs::write("/proc/self/clear_refs", "5")
        {
            tracing::debug!(%error, "the peak of memory is that since the start of the process");
        }
        *measuring = measuring.saturating_add(1);
        Self(())
    }

    /// The most memory of the process since it began, in bytes; none where the system does not tell.
    pub fn peak_bytes(&self) -> Option<u64> {
        peak_bytes()
    }
}

impl Drop for PeakMeasurement {
    fn drop(&mut self) {
        let mut measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
        *measuring = measuring.saturating_sub(1);
    }
}

/// The memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// What it has, in bytes; what it shares with others counts in parts.
    pub bytes: u64,
    /// The most that it has had.
    pub peak_bytes: u64,
}

/// The processes of a group, which has the number of its leader. Empty where the system does not tell.
pub fn processes_of_group(group: u32) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
        (group_in(&read("stat")?)? == group).then_some(())?;
        let status = read("status")?;
        // One that has ended and was not waited for has no memory.
        let resident = field_in(&status, RESIDENT_FIELD).unwrap_or_default();
        let shared = read("smaps_rollup").and_then(|rollup| field_in(&rollup, PROPORTIONAL_FIELD));
        let peak_bytes = field_in(&status, PEAK_FIELD).unwrap_or_default();
        Some(Process { bytes: shared.unwrap_or(resident), peak_bytes })
    });
    processes.collect()
}

/// The name of a process stands in parentheses and may hold anything, also some of these.
fn group_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(GROUP_POSITION)?.parse().ok()
}

fn field_in(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory that processes here can have in all, in bytes: the machine's, or what the group of processes that this one belongs
/// to may have; none where the system does not tell.
pub fn machine_bytes() -> Option<u64> {
    let machine = field_in(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    // As containers see the limit that is set for them.
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(limit.map_or(machine, |limit: u64| limit.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_among_the_other_lines() {
        let peak_in = |status| field_in(status, PEAK_FIELD);
        assert_eq!(peak_in("VmPeak:\t  900 kB\nVmHWM:\t   12 kB\nVmRSS:\t 8 kB\n"), Some(12 * 1024));
        for none in ["", "VmRSS:\t 8 kB\n", "VmHWM:\t x kB\n", "VmHWM:\t 18446744073709551615 kB\n"] {
            assert_eq!(peak_in(none), None, "{none}");
        }
        if cfg!(target_os = "linux") {
            assert!(peak_bytes().unwrap() > 1024 * 1024, "a process of this size has a megabyte at least");
            assert!(machine_bytes() > peak_bytes());
        }
    }

    #[test]
    fn the_group_is_found_behind_any_name() {
        assert_eq!(group_in("12 (sh) S 1 34 5 0"), Some(34));
        assert_eq!(group_in("12 (a) S 7 8 9) S 1 34 5 0"), Some(34));
        assert_eq!(group_in("12 (sh"), None);
        if cfg!(target_os = "linux") {
            let group = group_in(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
            let processes = processes_of_group(group);
            assert!(processes.iter().any(|process| process.bytes > 1024 * 1024), "{processes:?}");
        }
    }
}
