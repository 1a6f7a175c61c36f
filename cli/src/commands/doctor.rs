//! `fedledger doctor`: what keeps a node from working, and what to do about it.
//!
//! Nothing is changed, and a node that runs in the directory is not disturbed. Everything is bounded in time.

mod data;
mod disk;
mod ledger;
mod network;
mod node;
mod ports;
mod trainers;

use std::{path::PathBuf, sync::mpsc, thread, time::Duration};

use clap::{Args, value_parser};
use fedledger_proto::kit::NodeConfig;
use serde::Serialize;

use self::node::Examined;
use crate::{
    context::Context,
    error::{Exit, Failure},
    output::Output,
};

/// The form of the report as JSON.
const DOCTOR_SCHEMA: &str = "fedledger.doctor/1";

/// Arguments of `fedledger doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The directory of a participant or a replica
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How long replicas may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u64).range(1..=60))]
    patience: u64,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// In order.
    Ok,
    /// The node works all the same.
    Warn,
    /// The node cannot work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Check {
    topic: &'static str,
    /// Which of several things of this kind.
    subject: String,
    state: State,
    found: String,
    /// What to do.
    advice: Option<String>,
    /// What to send to whoever runs the firewall.
    ask: Option<String>,
}

impl Check {
    fn new(state: State, topic: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { topic, subject: subject.into(), state, found: found.into(), advice: None, ask: None }
    }

    fn ok(topic: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(State::Ok, topic, subject, found)
    }

    fn warn(topic: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(State::Warn, topic, subject, found)
    }

    fn fail(topic: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(State::Fail, topic, subject, found)
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// Name of the node, if its directory tells.
    node: Option<String>,
    /// `participant` or `replica`.
    role: Option<&'static str>,
    /// Whether a process runs in the directory now.
    running: bool,
    /// Whether the node can work.
    works: bool,
    checks: Vec<Check>,
}

/// Examines a node's directory, its machine and its network.
pub(crate) fn run(context: &Context, args: &DoctorArgs) -> Result<(), Failure> {
    let report = examine(context, args)?;
    context.output.object(DOCTOR_SCHEMA, &report, || text(&context.output, &report))?;
    if report.works {
        return Ok(());
    }
    let node = report.node.unwrap_or_else(|| args.dir.display().to_string());
    Err(Failure::new(Exit::Failed, format!("{node} cannot work as things are"))
        .next("do what stands below the lines that fail, then run this again"))
}

fn examine(context: &Context, args: &DoctorArgs) -> Result<Report, Failure> {
    let mut checks = Vec::new();
    let progress = context.output.progress("looking at the directory");
    let examined = node::examine(context, &args.dir, &mut checks);
    checks.extend(disk::examine(&args.dir));
    let Some(node) = examined else {
        return Ok(Report { node: None, role: None, running: false, works: false, checks });
    };
    let mut records = None;
    match &node.config {
        NodeConfig::Participant(config) => {
            let has_other_data = config.trainers.values().any(|trainer| trainer.data.is_some());
            records = data::examine(&node.directory, &config.data, has_other_data, &mut checks);
        }
        NodeConfig::Replica(config) => checks.extend(ports::examine(config, node.running)),
    }
    if let Some(node::Kit::Participant(kit)) = &node.kit {
        checks.extend(trainers::examine(kit));
    }
    drop(progress);
    let progress = context.output.progress("asking the ledger");
    let patience = Duration::from_secs(args.patience);
    let members = ledger::examine(context, &node, records.as_mut(), patience, &mut checks)?;
    drop(progress);
    let progress = context.output.progress("trying every way to every replica");
    network::examine(context, &node, members.as_ref(), patience, &mut checks)?;
    drop(progress);
    let works = checks.iter().all(|check| check.state != State::Fail);
    let Examined { config, running, .. } = node;
    let role = match config {
        NodeConfig::Participant(_) => "participant",
        NodeConfig::Replica(_) => "replica",
    };
    Ok(Report { node: Some(config.name().to_owned()), role: Some(role), running, works, checks })
}

fn text(output: &Output, report: &Report) -> String {
    let mut lines = Vec::new();
    if let (Some(node), Some(role)) = (&report.node, report.role) {
        let runs = if report.running { "running now" } else { "not running" };
        lines.push(output.heading(&format!("{node}, a {role}, {runs}")));
    }
    for check in &report.checks {
        let state = match check.state {
            State::Ok => output.good("ok  "),
            State::Warn => "warn".to_owned(),
            State::Fail => output.bad("FAIL"),
        };
        let subject = if check.subject.is_empty() { String::new() } else { format!(" {}", check.subject) };
        lines.push(format!("{state}  {}{subject}: {}", check.topic, check.found));
        lines.extend(check.advice.iter().map(|advice| format!("      do: {advice}")));
    }
    let asks: Vec<&String> = report.checks.iter().filter_map(|check| check.ask.as_ref()).collect();
    if !asks.is_empty() {
        lines.push(output.heading("To send to whoever runs the firewall:"));
        lines.extend(asks.into_iter().map(|ask| format!("  {ask}")));
    }
    let warnings = report.checks.iter().filter(|check| check.state == State::Warn).count();
    match (report.works, warnings) {
        (true, 0) => lines.push("all is in order".to_owned()),
        (true, count) => lines.push(format!("it can work; {count} things could be better")),
        (false, _) => {}
    }
    lines.join("\n")
}

/// What `work` yields, if it does so in time; else it goes on until the command ends.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    result.recv_timeout(limit).ok()
}
