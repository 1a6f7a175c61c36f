//! Where the system does not bind processes to processors, a trainer is only told how many to use.

use std::sync::Arc;

/// None are known.
#[derive(Debug, Default)]
pub struct Processors;

impl Processors {
    /// No order.
    pub fn order(&self) -> Arc<Vec<usize>> {
        Arc::default()
    }
}

/// Does nothing.
#[cfg(unix)]
pub fn bind(_process: Option<u32>, _order: &[usize], count: u32) {
    tracing::debug!(count, "processes are not bound to processors here");
}
