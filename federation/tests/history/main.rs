//! Whole histories: what the state machine does, how histories are exported and verified, and what auditors see of them.

mod apply;
mod audit;
mod bundle;
mod consortium;
mod properties;
mod rejections;
mod tampering;
mod verify;
