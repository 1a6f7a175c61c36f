//! Memory of a training: how much it will take, and how much the process has had.

mod estimate;
mod peak;

use std::fmt;

pub use estimate::{MemoryEstimate, Records, estimate};
pub use peak::{PeakMeasurement, Process, machine_bytes, peak_bytes, processes_of_group};

/// A number of bytes for people, in whole megabytes, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Megabytes(pub u64);

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB", self.0.div_ceil(1_000_000))
    }
}
