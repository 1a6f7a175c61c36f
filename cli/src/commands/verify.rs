//! `fedledger verify`: everything that can be checked of a ledger, or of a proof about one.

mod files;

use std::path::{Path, PathBuf};

use clap::Args;
use fedledger_federation::{
    history::SourceError,
    verify::{Options, Problem, Report, verify},
};
use fedledger_ledger::limits::GENESIS_SIZE_BYTES_MAX;

use crate::{
    context::{Context, read_file},
    error::{Exit, Failure},
    source::Source,
    trust::{self, TrustArgs},
    utc::utc,
};

/// Arguments of `fedledger verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A bundle, a replica's directory or a folder of tiles, a receipt, a chain of epochs or evidence; by default the ledger that other
    /// commands read
    path: Option<PathBuf>,
    /// Whom you trust; without a genesis file the ledger vouches for its own beginning
    #[command(flatten)]
    trust: TrustArgs,
    /// Do not compute versions again
    #[arg(long)]
    no_recompute: bool,
}

/// Verifies.
pub(crate) fn run(context: &Context, args: &VerifyArgs) -> Result<(), Failure> {
    if let Some(path) = &args.path
        && let Some(kind) = files::Kind::of(path)
    {
        return files::run(context, path, kind, &args.trust);
    }
    let trust = args.trust.trust.as_deref().map(|path| read_file(path, GENESIS_SIZE_BYTES_MAX as u64)).transpose()?;
    let policy = args.trust.policy.as_deref().map(trust::policy).transpose()?;
    let epochs = args.trust.epochs.as_deref().map(trust::chain).transpose()?;
    let options = Options { trust, policy, epochs, recompute: !args.no_recompute, threads: context.threads() };
    let progress = context.output.progress("verifying");
    let report = check(context, args.path.as_deref(), &options)?;
    drop(progress);
    if context.output.is_json() {
        context.output.json_value(&report)?;
    } else {
        context.output.text(&text(context, &report, args.trust.trust.is_some()))?;
    }
    if report.ok {
        return Ok(());
    }
    let what = match report.problems.len() {
        1 => "verification found a problem".to_owned(),
        count => format!("verification found {count} problems"),
    };
    let first = report.problems.first().map(place).unwrap_or_default();
    Err(Failure::because(Exit::Mismatch, what, first)
        .next("keep the file as evidence, and compare with the ledger of another member"))
}

fn check(context: &Context, path: Option<&Path>, options: &Options) -> Result<Report, Failure> {
    let source = match path {
        Some(path) => match Source::open(path) {
            Err(error) if error.is_damage() => return Ok(Report::unreadable(error.to_string())),
            opened => opened?,
        },
        None => context.source()?,
    };
    let source = match &options.epochs {
        Some(chain) => source.with_chain(chain),
        None => source,
    };
    verify(&source, options)
        .map_err(|error: SourceError| Failure::from(error).while_doing("the ledger was not verified"))
}

fn text(context: &Context, report: &Report, trust_given: bool) -> String {
    let output = &context.output;
    let mut lines = vec![format!("entries             {}", report.entries)];
    if let Some(root) = report.root {
        lines.push(format!("root                {root}"));
    }
    if let Some(chain) = report.chain {
        let trusted = match (trust_given, report.genesis_trusted) {
            (true, true) => "is the one that you trust",
            (true, false) => "is NOT the one that you trust",
            (false, _) => "was taken from the ledger itself; compare it, or give --trust",
        };
        lines.push(format!("chain               {chain}: the genesis file {trusted}"));
    }
    lines.push(format!("signatures          {}", report.signatures));
    lines.push(format!("checkpoints         {}", report.checkpoints));
    if report.checkpoints == 0 {
        lines.push("  no replica vouches for this history: no signed checkpoint of it was found".to_owned());
    }
    lines.push(format!("seals and epochs    {} and {}", report.seals, report.epochs));
    lines.push(format!("final entries       {}", report.final_entries));
    lines.extend(report.final_time_s.map(|time_s| format!("  by {}", utc(time_s))));
    if report.final_entries > 0 && report.pending_entries > 0 {
        lines.push(format!("  {} entries after the last final head are not final yet", report.pending_entries));
    }
    lines.push(format!("unanimous entries   {}", report.unanimous_entries));
    if report.policy_satisfied == Some(true) {
        lines.push("policy              is satisfied by the last final head".to_owned());
    }
    lines.push(format!("files               {}", report.blobs));
    lines.push(format!("versions recomputed {}", report.versions_recomputed));
    lines.extend(
        report.versions_skipped.iter().map(|skipped| format!("  skipped {}: {}", skipped.version, skipped.reason)),
    );
    lines.extend(report.problems.iter().map(|problem| output.bad(&place(problem))));
    lines.push(if report.ok { output.good("everything is in order") } else { output.bad("NOT in order") });
    lines.join("\n")
}

/// A problem and its place.
fn place(problem: &Problem) -> String {
    let kind = serde_json::to_value(problem.kind).ok();
    let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    let index = problem.index.map_or_else(String::new, |index| format!(" at entry {index}"));
    let offset = problem.offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
    let file = problem.file.as_ref().map_or_else(String::new, |file| format!(" in {file}"));
    format!("{kind}{index}{file}{offset}: {}", problem.detail)
}
