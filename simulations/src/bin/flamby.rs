//! `flamby [--seeds N] [--threads N] [--json]`: reproduces FLamby's Fed-Heart-Disease benchmark, exit code 1 if a result is
//! outside its acceptance band, 2 for wrong usage.

use std::process::ExitCode;

use fedledger_simulations::{
    arguments::{self, Arguments, UsageError},
    flamby::{FlambyError, STRATEGIES, reproduce},
};

const USAGE: &str = "usage: flamby [--seeds N] [--threads N] [--json]";

struct Options {
    seeds: u64,
    threads: usize,
    json: bool,
}

fn main() -> ExitCode {
    arguments::main("flamby", USAGE, options, run)
}

fn run(options: &Options) -> Result<ExitCode, FlambyError> {
    let report = reproduce(&STRATEGIES, options.seeds, options.threads)?;
    if options.json {
        println!("{}", serde_json::json!(report));
    } else {
        println!("{report}");
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The options, none if only help is wanted.
fn options(mut arguments: Arguments<impl Iterator<Item = String>>) -> Result<Option<Options>, UsageError> {
    let mut options = Options { seeds: 30, threads: 2, json: false };
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "--seeds" => options.seeds = arguments.number(&option)?,
            "--threads" => options.threads = arguments.number(&option)?.clamp(1, 64) as usize,
            "--json" => options.json = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(UsageError::Unknown(option)),
        }
    }
    Ok(Some(options))
}
