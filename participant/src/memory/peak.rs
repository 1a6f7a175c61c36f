//! The most memory that a process has had, as the system tells it.

use std::fs;

/// What stands before the largest resident set so far, in KiB.
const PEAK_FIELD: &str = "VmHWM:";

/// The most memory that this process has had at any time, in bytes; none where the system does not tell.
pub fn peak_bytes() -> Option<u64> {
    peak_of("self")
}

/// The same of another process, as long as it runs.
pub fn peak_bytes_of(process: u32) -> Option<u64> {
    peak_of(&process.to_string())
}

/// Where Linux tells about a process.
fn peak_of(process: &str) -> Option<u64> {
    peak_in(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(PEAK_FIELD))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_among_the_other_lines() {
        assert_eq!(peak_in("VmPeak:\t  900 kB\nVmHWM:\t   12 kB\nVmRSS:\t 8 kB\n"), Some(12 * 1024));
        for none in ["", "VmRSS:\t 8 kB\n", "VmHWM:\t x kB\n", "VmHWM:\t 18446744073709551615 kB\n"] {
            assert_eq!(peak_in(none), None, "{none}");
        }
        if cfg!(target_os = "linux") {
            assert!(peak_bytes().unwrap() > 1024 * 1024, "a process of this size has a megabyte at least");
            assert!(peak_bytes_of(std::process::id()).is_some_and(|peak| Some(peak) <= peak_bytes()));
        }
    }
}
