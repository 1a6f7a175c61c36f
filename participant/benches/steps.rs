//! Optimiser steps per second on the clock and of processor time, as lines of JSON like those of
//! `simulations/benches/peers/pytorch.py`; `training.sh` beside it runs both by turns.
//!
//! `cargo bench --workspace --profile dev --bench steps [-- PART_OF_A_NAME]`. Linux only: processor time is read from `/proc`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

#[path = "shared/cases.rs"]
mod cases;

use std::{env, fs, time::Instant};

use fedledger_participant::training::train;
use serde::Serialize;

/// Processor time that a measurement takes at least, in seconds: a hundred times what it can be off.
const SECONDS_MIN: f64 = 2.0;

/// Ticks in which Linux counts processor time, per second.
const TICKS: f64 = 100.0;

#[derive(Serialize)]
struct Line {
    case: &'static str,
    library: &'static str,
    steps_per_second: f64,
    steps_per_processor_second: f64,
}

fn main() {
    // Cargo itself gives `--bench`.
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for case in cases::cases().iter().filter(|case| case.name.contains(&filter)) {
        let (data, base) = (case.dataset(), case.base());
        let mut steps = case.steps;
        loop {
            let (clock, processor) = (Instant::now(), processor_seconds());
            train(&case.settings(steps), &data, &base).unwrap();
            let (seconds, processor) = (clock.elapsed().as_secs_f64(), processor_seconds() - processor);
            if processor >= SECONDS_MIN {
                let rate = |seconds: f64| (steps as f64 / seconds * 10.0).round() / 10.0;
                let (steps_per_second, steps_per_processor_second) = (rate(seconds), rate(processor));
                let library = "fedledger";
                let line = Line { case: case.name, library, steps_per_second, steps_per_processor_second };
                println!("{}", serde_json::to_string(&line).unwrap());
                break;
            }
            steps *= if processor < SECONDS_MIN / 8.0 { 8 } else { 2 };
        }
    }
}

/// What this process has used so far, with the threads that have ended.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // Fields 14 and 15, counted from behind the name of the program, which may hold spaces.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
}
