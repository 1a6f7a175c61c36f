//! The federation: the replicated state machine of learning, and the arithmetic of aggregation.
//!
//! Members and their decisions, plans, rounds, contributions, versions and branches, and what may happen to them. [`Federation`] is driven by the
//! committed transactions of a ledger and is deterministic and total; it does not know how order is reached. Aggregation is
//! exact and independent of order and threads, so that every replica and auditor computes the same bytes.

pub mod aggregation;
mod apply;
pub mod architecture;
pub mod audit;
pub mod cohort;
pub mod command;
pub mod conductor;
pub mod content_id;
pub mod decimal;
pub mod early_stopping;
pub mod event;
pub mod governance;
pub mod history;
pub mod limits;
pub mod manifest;
pub mod member;
pub mod plan;
pub mod progress;
pub mod quorum;
pub mod recipe;
pub mod records;
pub mod rejection;
pub mod retention;
pub mod seeds;
pub mod state;
pub mod subject;
pub mod table;
pub mod tensors;
pub mod verify;

pub use apply::check_metrics;
pub use command::Command;
pub use content_id::{BlobId, VersionId};
pub use event::Event;
pub use rejection::Rejection;
pub use state::Federation;
