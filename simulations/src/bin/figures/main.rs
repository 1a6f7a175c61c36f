//! `figures [--json] [ROW...]`: measures what the ledger is held to, and prints it beside its targets.
//!
//! Exit code 1 if a figure misses what it must reach, 2 for wrong usage. The rows, each measurable alone:
//!
//! ```text
//! commit     committed transactions per second
//! latency    one client's commit latency
//! finality   time from submitting to final
//! cosigning  what seals and co-signatures cost
//! disk       bytes on disk per transaction
//! receipt    receipts of a log of 10^9 entries
//! verify     offline verification of 100,000 entries
//! start      a replica with 100,000 entries: start to serving
//! aggregate  a version of a model of 1 GiB; needs 7 GiB of disk
//! round      rounds of a tiny model, every node a process, and their memory
//! round-big  rounds of a model of 100 MB, and the coordinator's memory
//! replicas   the same with three replicas
//! sites      the coordinator's memory with 10 and 100 participants
//! failover   a leader killed in the middle of a round
//! rollback   a branch moved back in the middle of a round
//! giant      a round of a model of 1 GiB; needs 14 GiB of disk and of memory, and is measured only when it is named
//! sites-big  100 MB with 10, 50 and 100 participants; needs 22 GiB of disk, and is measured only when it is named
//! ```
//!
//! The rows from `round` on start the program `fedledger` that lies beside this one; build it with the same profile first.
//! The benchmarks measure the same with more patience; what both need is written once, beside them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot be made must stop"
)]

mod aggregation;
#[path = "../../../../ledger/benches/synthetic/billion.rs"]
mod billion;
#[path = "../../../../coordinator/tests/shared/cluster.rs"]
#[expect(dead_code, reason = "tests use the rest of it")]
mod cluster;
#[path = "../../../../federation/tests/history/consortium.rs"]
#[expect(dead_code, reason = "the tests of histories use the rest of it")]
mod consortium;
mod figure;
mod history;
mod live;
#[path = "../../../../coordinator/tests/shared/load.rs"]
mod load;
mod memory;
mod receipt;
mod replica;
mod rounds;
mod verification;

use std::{env, path::Path, process::ExitCode};

use figure::{Figure, Machine};
use tokio::runtime::Runtime;

const USAGE: &str = "usage: figures [--json] [commit] [latency] [finality] [cosigning] [disk] [receipt] [verify] [start] \
    [aggregate] [round] [round-big] [replicas] [sites] [failover] [rollback] [giant] [sites-big]";

/// Rows that replicas on loopback are needed for.
const LIVE: [&str; 5] = ["commit", "latency", "finality", "cosigning", "disk"];

/// Rows about a long history.
const HISTORY: [&str; 2] = ["verify", "start"];

const RECEIPT: &str = "receipt";

const AGGREGATE: &str = "aggregate";

/// Rows that processes are started for.
const ROUNDS: [&str; 6] = ["round", "round-big", "replicas", "sites", "failover", "rollback"];

/// Rows that need more of a machine than many have.
const ON_DEMAND: [&str; 2] = ["giant", "sites-big"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        // How this program starts itself, so that verification has memory of its own.
        [option, bundle] if option == verification::CHILD_OPTION => {
            verification::run_child(Path::new(bundle));
            return ExitCode::SUCCESS;
        }
        [option, task] if option == aggregation::CHILD_OPTION => {
            aggregation::run_child(Path::new(task));
            return ExitCode::SUCCESS;
        }
        [option, folders @ ..] if option == rounds::PARTICIPANTS_OPTION => {
            rounds::run_participants(folders);
            return ExitCode::SUCCESS;
        }
        [option] if option == "--help" || option == "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let (options, mut rows): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|argument| argument.starts_with('-'));
    let usual = || LIVE.into_iter().chain([RECEIPT, AGGREGATE]).chain(HISTORY).chain(ROUNDS);
    let known = |row: &String| usual().chain(ON_DEMAND).any(|known| known == row);
    if options.iter().any(|option| option != "--json") || !rows.iter().all(known) {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    if rows.is_empty() {
        rows = usual().map(str::to_owned).collect();
    }
    let machine = Machine::now();
    let figures = measure(&rows);
    if options.is_empty() {
        println!("{machine}\n");
        figure::print(&figures);
    } else {
        println!("{}", figure::json(&machine, &figures));
    }
    if figures.iter().any(Figure::misses) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn measure(rows: &[String]) -> Vec<Figure> {
    let runtime = Runtime::new().unwrap();
    let mut figures = Vec::new();
    let history = rows.iter().any(|row| HISTORY.contains(&row.as_str())).then(history::long);
    for row in rows {
        eprintln!("figures: measuring {row}");
        figures.extend(match (row.as_str(), &history) {
            ("commit", _) => runtime.block_on(live::commit()),
            ("latency", _) => runtime.block_on(live::latency()),
            ("finality", _) => runtime.block_on(live::finality()),
            ("cosigning", _) => runtime.block_on(live::co_signing()),
            ("disk", _) => runtime.block_on(live::disk()),
            ("verify", Some(history)) => verification::measure(history),
            (AGGREGATE, _) => aggregation::measure(),
            ("round", _) => runtime.block_on(rounds::tiny()),
            ("round-big", _) => runtime.block_on(rounds::big()),
            ("replicas", _) => runtime.block_on(rounds::replicated()),
            ("sites", _) => runtime.block_on(rounds::participants()),
            ("failover", _) => runtime.block_on(rounds::failover()),
            ("rollback", _) => runtime.block_on(rounds::rollback()),
            ("giant", _) => runtime.block_on(rounds::giant()),
            ("sites-big", _) => runtime.block_on(rounds::big_participants()),
            ("start", Some(history)) => runtime.block_on(replica::start(history)),
            _ => receipt::measure(),
        });
    }
    figures
}
