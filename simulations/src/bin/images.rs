//! `images --plan FILE --data PATH ...`: a plan for images, carried out by hospitals that share one data set. Exit code 1 for
//! an error, 2 for wrong usage.

use std::{path::PathBuf, process::ExitCode};

use fedledger_simulations::{
    arguments::{self, Arguments, UsageError},
    images::{ImagesError, RoundReport, Simulation, read_plan},
};
use indicatif::{ProgressBar, ProgressStyle};

const USAGE: &str = "\
usage: images --plan FILE --data PATH [--schema FILE] [--hospitals N] [--rounds N] [--seed N] [--threads N] [--json]

  --plan FILE     the plan, as `fedledger plan init` writes it
  --data PATH     an npz file, or a folder of IDX files
  --schema FILE   what its arrays are called, if not as MedMNIST's and MNIST's, and which images are kept for testing
  --hospitals N   hospitals that the training images are dealt out to [default: 5]
  --rounds N      rounds [default: the plan's]
  --seed N        by which the images are dealt out [default: 1]
  --threads N     hospitals that train at the same time [default: 1]
  --json          the result as JSON";

/// Most threads.
const THREADS_MAX: u64 = 64;

struct Options {
    plan: PathBuf,
    data: PathBuf,
    schema: Option<PathBuf>,
    hospitals: u64,
    rounds: Option<u64>,
    seed: u64,
    threads: u64,
    json: bool,
}

fn main() -> ExitCode {
    arguments::main("images", USAGE, options, run)
}

fn run(options: &Options) -> Result<ExitCode, ImagesError> {
    let simulation = Simulation {
        plan: read_plan(options.plan.clone())?,
        data: options.data.clone(),
        schema: options.schema.clone(),
        // What is beyond a machine's numbers is beyond the bound as well.
        hospitals: usize::try_from(options.hospitals).unwrap_or(usize::MAX),
        rounds: options.rounds,
        seed: options.seed,
        threads: options.threads.clamp(1, THREADS_MAX) as usize,
    };
    // Nothing is drawn where standard error is no terminal.
    let bar = ProgressBar::new(simulation.steps());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} steps ({elapsed}, {eta} left)") {
        bar.set_style(style);
    }
    let mut show = |round: &RoundReport| {
        if options.json {
            return;
        }
        let headings = if round.round == 0 { Some(RoundReport::HEADINGS) } else { None };
        bar.suspend(|| {
            headings.iter().for_each(|headings| println!("{headings}"));
            println!("{round}");
        });
    };
    let report = simulation.run(&|steps| bar.inc(steps), &mut show);
    bar.finish_and_clear();
    let report = report?;
    if options.json {
        println!("{}", serde_json::json!(report));
    } else {
        println!("\n{report}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The options, none if only help is wanted.
fn options(mut arguments: Arguments<impl Iterator<Item = String>>) -> Result<Option<Options>, UsageError> {
    let (mut plan, mut data, mut schema, mut rounds) = (None, None, None, None);
    let (mut hospitals, mut seed, mut threads, mut json) = (5, 1, 1, false);
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "--plan" => plan = Some(arguments.text(&option)?.into()),
            "--data" => data = Some(arguments.text(&option)?.into()),
            "--schema" => schema = Some(arguments.text(&option)?.into()),
            "--hospitals" => hospitals = arguments.number(&option)?,
            "--rounds" => rounds = Some(arguments.number(&option)?),
            "--seed" => seed = arguments.number(&option)?,
            "--threads" => threads = arguments.number(&option)?,
            "--json" => json = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(UsageError::Unknown(option)),
        }
    }
    let (Some(plan), Some(data)) = (plan, data) else {
        return Err(UsageError::Missing("--plan FILE with --data PATH"));
    };
    Ok(Some(Options { plan, data, schema, hospitals, rounds, seed, threads, json }))
}
