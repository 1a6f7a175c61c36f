//! How much memory a process has, as the system tells it under `/proc`.

use std::fs;

/// The most memory that this process had at any time, in KiB; nothing where the system does not say.
pub fn own_peak_kib() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// The most memory that a process had at any time, in MiB.
pub fn peak_mib(process: u32) -> f64 {
    mib(process, "status", "VmHWM:")
}

/// The memory of a process now, in MiB; of what it shares with others, its part (PSS).
pub fn share_mib(process: u32) -> f64 {
    mib(process, "smaps_rollup", "Pss:")
}

fn mib(process: u32, file: &str, name: &str) -> f64 {
    let kib = field(&format!("/proc/{process}/{file}"), name);
    kib.expect("the system says how much memory a process has") as f64 / 1024.0
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}
