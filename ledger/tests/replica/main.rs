//! Whole replicas in memory: submission, restart, catching up, seals, finality, faults and epochs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod catching_up;
mod cluster;
mod divergence;
mod epochs;
mod finality;
mod leading;
mod machine;
mod remembering;
mod sealed_log;
mod submission;
