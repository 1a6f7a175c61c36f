//! `fedledger events`: entries of the ledger.

use clap::Args;
use fedledger_federation::{
    Command,
    history::{EntryView, Keep},
};
use fedledger_proto::api::Level;

use crate::{
    context::Context,
    error::Failure,
    evaluations::recorded,
    finality::{LevelArg, Sizes},
    follow::Follower,
    names::short_digest,
    output::list,
};

/// Characters of an event that are shown to people; the rest is there as JSON.
const DETAIL_LENGTH_MAX: usize = 240;

/// Arguments of `fedledger events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Index of the first entry to show
    #[arg(long, value_name = "INDEX", default_value_t = 1)]
    from: u64,
    /// Go on with new entries, until interrupted; as JSON, one object per line
    #[arg(long)]
    follow: bool,
    /// Only entries that have reached this level; with --follow, each comes once it has
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    level: LevelArg,
}

/// Shows entries.
pub(crate) fn run(context: &Context, args: &EventsArgs) -> Result<(), Failure> {
    if args.follow {
        return follow(context, args);
    }
    let (source, mut history) = context.history(Keep::Entries)?;
    let (level, size) = (Level::from(args.level), history.log.size());
    let size = if level > Level::Committed { Sizes::of(&source, &history)?.at(level, size) } else { size };
    history.entries.retain(|entry| (args.from..size).contains(&entry.index));
    let entries = history.entries;
    context.output.array(&entries, || {
        let lines: Vec<String> = entries.iter().map(|entry| line(context, entry)).collect();
        lines.join("\n")
    })
}

fn follow(context: &Context, args: &EventsArgs) -> Result<(), Failure> {
    let (client, _) = context.client()?;
    let mut follower = context.block_on(Follower::at(&client, args.level.into()))?;
    loop {
        let entry = context.block_on(follower.next())?;
        if entry.index >= args.from {
            context.output.line(&entry, || line(context, &entry))?;
        }
    }
}

fn line(context: &Context, entry: &EntryView) -> String {
    let author = &entry.author;
    let node = author.node.clone().or_else(|| author.member.clone());
    let author = node.unwrap_or_else(|| format!("stranger {}", author.key));
    let output = &context.output;
    let outcome = match &entry.rejection {
        None => output.good("accepted"),
        Some(reason) => format!("{}: {reason}", output.bad(&entry.outcome)),
    };
    format!("{:>6}  {author:<24} {:<14} {outcome}{}", entry.index, entry.kind, detail(entry))
}

/// The event's fields in a few words.
fn detail(entry: &EntryView) -> String {
    let Some(Ok(serde_json::Value::Object(event))) = entry.event.as_ref().map(serde_json::to_value) else {
        return String::new();
    };
    let fields = event.iter().filter(|(name, _)| *name != "event");
    let mut words: Vec<String> = fields.map(|(name, value)| format!("{name}={}", brief(value))).collect();
    if let Some(Command::Evaluate(report)) = &entry.payload {
        words.extend([format!("examples={}", report.examples), recorded(&report.metrics)]);
        words.extend((!report.groups.is_empty()).then(|| format!("groups={}", list(report.groups.keys()))));
    }
    let text: String = words.join(" ").chars().take(DETAIL_LENGTH_MAX).collect();
    format!("  {text}")
}

/// A value without its quotes, and digests shortened.
fn brief(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => {
            let digest = text.parse::<fedledger_ledger::Digest>();
            digest.map_or_else(|_| text.chars().take(64).collect(), |digest| short_digest(&digest))
        }
        serde_json::Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{}", brief(value))).collect();
            fields.join(",")
        }
        serde_json::Value::Array(values) => values.iter().map(brief).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
