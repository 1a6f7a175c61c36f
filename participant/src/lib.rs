//! The hospital's side: local records, training and evaluation, and the node that takes part in rounds.
//!
//! Records never leave this crate; only updates, counts and metrics do.

pub mod evaluation;
pub mod local_round;
pub mod memory;
pub mod node;
pub mod table;
pub mod training;
