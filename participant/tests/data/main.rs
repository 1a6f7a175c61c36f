//! A site's files of every format, read as plans describe them.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

mod bad_rows;
mod described;
mod files;
mod images;
mod parquet;
mod rewritten;
