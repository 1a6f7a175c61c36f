//! Raft's log records, from `slog` to `tracing`.
//!
//! They go one level lower than Raft gives them: role changes reach the caller through `Ready`, and peers can provoke
//! most of Raft's own messages.

use std::fmt;

use slog::{Drain, KV, Level, Logger, Never, OwnedKVList, Record};

/// The `tracing` target of Raft's own records.
const TARGET: &str = "raft";

/// A logger whose records become `tracing` events.
pub(super) fn logger() -> Logger {
    Logger::root(TracingDrain, slog::o!())
}

struct TracingDrain;

impl Drain for TracingDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, context: &OwnedKVList) -> Result<(), Never> {
        // `tracing` formats the text only where the level is enabled.
        let text = Text { record, context };
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: TARGET, "{text}"),
            Level::Warning => tracing::warn!(target: TARGET, "{text}"),
            Level::Info => tracing::debug!(target: TARGET, "{text}"),
            Level::Debug | Level::Trace => tracing::trace!(target: TARGET, "{text}"),
        }
        Ok(())
    }
}

/// A record and its key-value pairs as one line.
struct Text<'a> {
    record: &'a Record<'a>,
    context: &'a OwnedKVList,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.record.msg(), f)?;
        let mut pairs = Pairs(f);
        self.record.kv().serialize(self.record, &mut pairs).map_err(|_| fmt::Error)?;
        self.context.serialize(self.record, &mut pairs).map_err(|_| fmt::Error)
    }
}

struct Pairs<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl slog::Serializer for Pairs<'_, '_> {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        Ok(write!(self.0, " {key}={value}")?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Lines(Mutex<Vec<String>>);

    impl Drain for &'static Lines {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, context: &OwnedKVList) -> Result<(), Never> {
            self.0.lock().unwrap().push(Text { record, context }.to_string());
            Ok(())
        }
    }

    #[test]
    fn a_record_becomes_one_line_with_its_pairs() {
        static LINES: Lines = Lines(Mutex::new(Vec::new()));
        let logger = Logger::root(&LINES, slog::o!("raft_id" => 7));
        slog::info!(logger, "became {role}", role = "leader"; "term" => 3);
        assert_eq!(*LINES.0.lock().unwrap(), ["became leader term=3 role=leader raft_id=7"]);
    }
}
