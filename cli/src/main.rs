//! `fedledger`: the command line.
//!
//! It parses arguments, calls the libraries and shows what they say, to people or as JSON. Every command has a file of
//! its own in `commands`.

mod args;
mod commands;
mod context;
mod error;
mod evaluations;
mod finality;
mod follow;
mod graph;
mod logging;
mod names;
mod output;
mod passphrase;
mod places;
mod random;
mod reasons;
mod remote;
mod retention;
mod rounds;
mod source;
mod trust;
mod utc;
mod writing;

use std::process::ExitCode;

use clap::Parser as _;

use self::{args::Cli, context::Context, error::Failure};

fn main() -> ExitCode {
    // Tests end or slow down nodes at chosen points (variable `FAILPOINTS`); a release cannot be told to.
    #[cfg(debug_assertions)]
    let _failpoints = fail::FailScenario::setup();
    let cli = Cli::parse();
    logging::start(&cli.global, cli.command.is_daemon());
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(cli.global)?;
    commands::run(&context, cli.command)
}
