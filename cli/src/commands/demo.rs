//! `fedledger demo`: a whole consortium on this machine.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use fedledger_proto::kit::{GENESIS_FILE, WriteError};
use fedledger_simulations::{
    demo::{self, Chaos, Demo, DemoError, DemoOptions, DemoRule, Progress, ROUND_DURATION, RoundSummary, Summary},
    heart::SITES,
};

use crate::{
    commands::participant::stop_signal,
    context::Context,
    error::{Exit, Failure, chain},
    output::Output,
};

/// Most rounds that a demo trains.
const ROUNDS_MAX: u64 = 1_000_000;

/// Longest time that a round of a demo may wait for hospitals that are missing, in seconds.
const ROUND_DURATION_S_MAX: u64 = 3600;

/// Arguments of `fedledger demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where the nodes lie
    #[arg(long, value_name = "DIR", default_value = "fedledger-demo")]
    dir: PathBuf,
    /// Replace what an earlier demo left in the directory
    #[arg(long)]
    force: bool,
    /// Rounds to train
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,
    /// Seed of initial weights and batches: the same seed gives the same final weights
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Aggregation rule: fedavg, fedadagrad, fedadam or fedyogi
    #[arg(long, default_value = "fedavg")]
    rule: DemoRule,
    /// How long a round waits for a hospital that is missing, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = ROUND_DURATION.as_secs())]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=ROUND_DURATION_S_MAX))]
    round_duration: u64,
    /// Keep the nodes running when training is done, until Ctrl-C
    #[arg(long)]
    serve: bool,
    /// Make something go wrong in a round: kill-leader@5, kill-replica:va@5, kill-participant:va@5, partition:va@5,
    /// slow:va@5; who is killed or cut off is back two rounds later
    #[arg(long, value_name = "EVENT@ROUND")]
    chaos: Vec<Chaos>,
}

/// Runs the demo.
pub(crate) fn run(context: &Context, args: DemoArgs) -> Result<(), Failure> {
    let serve = args.serve;
    let options = DemoOptions {
        directory: args.dir,
        force: args.force,
        rounds: args.rounds,
        seed: args.seed,
        rule: args.rule,
        round_duration: Duration::from_secs(args.round_duration),
        chaos: args.chaos,
        serve,
    };
    context.block_on(async {
        let mut stop = Box::pin(stop_signal()?);
        let output = &context.output;
        let mut show = |progress: Progress| show(output, &progress);
        let demo = tokio::select! {
            demo = demo::run(options, &mut show) => demo.map_err(|error| failure(&error))?,
            () = &mut stop => {
                let interrupted = Failure::new(Exit::Failed, "the demo was interrupted");
                return Err(interrupted.next("run it again with --force to begin anew"));
            }
        };
        report(output, &demo)?;
        if serve {
            output.remark("The nodes keep running. Press Ctrl-C to stop them.");
            stop.await;
        }
        let ok = demo.summary.verified.ok;
        demo.stop().await.map_err(|error| failure(&error))?;
        if ok {
            Ok(())
        } else {
            let failed = Failure::new(Exit::Mismatch, "the ledger of the demo does not verify");
            Err(failed.next("run `fedledger verify` in the directory to see what is wrong"))
        }
    })
}

fn show(output: &Output, progress: &Progress) {
    let line = match progress {
        Progress::Provisioned => "Keys, genesis and data are written.".to_owned(),
        Progress::NodesStarted { replicas, participants } => {
            format!("{replicas} replicas and {participants} participants run on loopback.")
        }
        Progress::PlanStarted => {
            let heads: String = SITES.iter().map(|site| format!("{site:>12}")).collect();
            format!("Every hospital has consented to the plan.\n\nAccuracy   {heads}{:>10}{:>9}", "mean", "ms")
        }
        Progress::Chaos(what) => format!("         ! {what}"),
        Progress::Round(round) => row(round),
        Progress::Verifying { entries } => format!("\nVerifying {entries} entries from the files of one replica ..."),
    };
    if !output.is_json() {
        // A reader who has gone away is noticed when the summary is printed.
        let _ = output.text(&line);
    }
}

fn row(round: &RoundSummary) -> String {
    let accuracy = |site: &&str| match round.accuracy.get(*site) {
        Some(accuracy) => format!("{accuracy:>12.3}"),
        None => format!("{:>12}", "-"),
    };
    let cells: String = SITES.iter().map(accuracy).collect();
    let missing = round.missing.iter().map(|missing| format!("  without {} ({})", missing.member, missing.reason));
    let missing: String = missing.collect();
    format!("round {:>4} {cells}{:>10.3}{:>9}{missing}", round.round, round.accuracy_mean, round.duration_ms)
}

fn report(output: &Output, demo: &Demo) -> Result<(), Failure> {
    let summary = &demo.summary;
    if output.is_json() { output.json_value(summary) } else { output.text(&text(summary)) }
}

fn text(summary: &Summary) -> String {
    let verified = &summary.verified;
    let verdict = if verified.ok { "as recorded" } else { "NOT as recorded" };
    let cd = summary.dir.display();
    let tries = [
        ("fedledger log", "the versions of the model, newest first"),
        ("fedledger show main", "the recipe of the newest one"),
        ("fedledger audit contributions", "who contributed what"),
        ("fedledger audit replay --all", "compute every version again"),
        ("fedledger export --with-blobs --out heart.bundle", "everything an outside auditor needs"),
        ("fedledger verify heart.bundle", "what such an auditor runs"),
    ];
    let tries: String = tries.iter().map(|(command, what)| format!("  {command:<50} # {what}\n")).collect();
    format!(
        "  {} entries, {} versions computed again bit for bit: {verdict}\n\n\
         Final version  {}\n\
         Weights        SHA-256 {}\n\
         Ledger         {} entries, {:.1} s in all\n\n\
         Try next:\n  cd {cd}\n{}{tries}",
        verified.entries,
        verified.versions_recomputed,
        summary.final_version,
        summary.final_weights,
        summary.ledger_size,
        summary.duration_ms as f64 / 1000.0,
        alias().unwrap_or_default(),
    )
}

/// How to make the commands work in a shell that does not find `fedledger`, as after `cargo run`.
fn alias() -> Option<String> {
    let executable = std::env::current_exe().ok()?;
    let paths = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&paths).any(|folder| folder.join("fedledger").is_file());
    (!found).then(|| format!("  alias fedledger='{}'\n", executable.display()))
}

fn failure(error: &DemoError) -> Failure {
    let exit = match error {
        DemoError::Chaos(_) => Exit::Usage,
        DemoError::Stalled { .. } => Exit::TimedOut,
        _ => Exit::Failed,
    };
    let failure = Failure::because(exit, "the demo could not be completed", chain(error));
    match error {
        DemoError::Write(error) if is_replaceable(error) => {
            failure.next("choose another directory with --dir DIR, or replace the earlier demo with --force")
        }
        DemoError::Write(_) => failure.next("choose another directory with --dir DIR"),
        _ => failure,
    }
}

/// Whether `--force` helps: only where an earlier demo lies, finished or not.
fn is_replaceable(error: &WriteError) -> bool {
    match error {
        WriteError::NotEmpty { directory } => directory.join(GENESIS_FILE).exists(),
        WriteError::Interrupted { .. } => true,
        WriteError::Foreign { .. }
        | WriteError::Incomplete { .. }
        | WriteError::NotNew { .. }
        | WriteError::Io { .. } => false,
    }
}
