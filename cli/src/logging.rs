//! Logs, on stderr.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::args::GlobalArgs;

/// Environment variable with the filter, in the form that `tracing` knows.
const FILTER_VARIABLE: &str = "FEDLEDGER_LOG";

/// Starts logging: warnings, or what a daemon does, unless more or less is asked for.
pub(crate) fn start(global: &GlobalArgs, daemon: bool) {
    let level = match (global.quiet, global.verbose + u8::from(daemon)) {
        (true, _) => "error",
        (false, 0) => "warn,yamux=error",
        (false, 1) => "warn,yamux=error,fedledger=info",
        (false, 2) => "info,fedledger=debug",
        (false, _) => "debug,fedledger=trace",
    };
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // Fails only if logging has been started already.
    let _ = subscriber.with_ansi(global.color.allows(stderr().is_terminal())).try_init();
}
