//! `flamby [--seeds N] [--threads N] [--json]`: reproduces FLamby's Fed-Heart-Disease benchmark, exit code 1 if a result is
//! outside its acceptance band, 2 for wrong usage.

use std::{env, num::ParseIntError, process::ExitCode};

use fedledger_simulations::flamby::{FlambyError, STRATEGIES, reproduce};

const USAGE: &str = "usage: flamby [--seeds N] [--threads N] [--json]";

struct Options {
    seeds: u64,
    threads: usize,
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("{option} needs a number")]
    NoNumber { option: String },
    #[error("{option} needs a number")]
    Number { option: String, source: ParseIntError },
    #[error("unknown option {0}")]
    Unknown(String),
}

fn main() -> ExitCode {
    match options(env::args().skip(1)) {
        Ok(Some(options)) => run(&options).unwrap_or_else(|error| {
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            let messages: Vec<String> = causes.map(ToString::to_string).collect();
            eprintln!("flamby: {}", messages.join(": "));
            ExitCode::FAILURE
        }),
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flamby: {error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
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
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, UsageError> {
    let mut options = Options { seeds: 30, threads: 2, json: false };
    while let Some(option) = arguments.next() {
        let mut number = || {
            let text = arguments.next().ok_or_else(|| UsageError::NoNumber { option: option.clone() })?;
            text.parse::<u64>().map_err(|source| UsageError::Number { option: option.clone(), source })
        };
        match option.as_str() {
            "--seeds" => options.seeds = number()?,
            "--threads" => options.threads = number()?.clamp(1, 64) as usize,
            "--json" => options.json = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(UsageError::Unknown(option)),
        }
    }
    Ok(Some(options))
}
