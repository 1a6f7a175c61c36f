//! `fedledger round show`: a round's certificate.

use std::collections::BTreeMap;

use clap::Args;
use fedledger_federation::{
    Federation,
    command::RoundKey,
    data_description::SkippedRows,
    event::{Certificate, Steps},
    history::{Keep, REFUSED_PER_ROUND_MAX, RefusedContribution},
    member::MemberId,
    records::Participation,
};
use serde::Serialize;

use super::of_plan;
use crate::{
    context::Context,
    error::{Exit, Failure},
    evaluations::{self, Evaluations},
    finality::Sizes,
    names::Short,
    output::{Table, list, skipped_rows},
    reasons::explained,
    rounds::{self, RoundRow, Times, exit_of},
    utc::utc,
};

/// The form of a round as JSON.
const ROUND_SCHEMA: &str = "fedledger.round/1";

/// Arguments of `fedledger round show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Number of the round
    round: u64,
    /// Its plan; the latest with such a round by default
    #[arg(long)]
    plan: Option<String>,
    /// The attempt; the latest by default
    #[arg(long)]
    attempt: Option<u64>,
}

/// One round.
#[derive(Debug, Serialize)]
struct View<'a> {
    #[serde(flatten)]
    row: &'a RoundRow,
    /// Records that those who contributed skipped because they cannot be read, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    skipped_rows: BTreeMap<&'a MemberId, &'a SkippedRows>,
    /// Contributions that were refused on record.
    refused: &'a [RefusedContribution],
    /// Whether the entry that attests its version is final.
    #[serde(rename = "final")]
    is_final: bool,
    /// What members say of its version.
    #[serde(skip_serializing_if = "Evaluations::is_empty")]
    evaluations: Evaluations<'a>,
}

/// Shows a round, and tells by the exit code if it was given up.
pub(super) fn run(context: &Context, args: &ShowArgs) -> Result<(), Failure> {
    let (source, history) = context.history(Keep::State)?;
    let mut rows = of_plan(history.state(), rounds::timed_rows(&history), args.plan.as_deref())?;
    rows.retain(|row| row.round == args.round);
    let row = rows.iter().rfind(|row| args.attempt.is_none_or(|attempt| row.attempt == attempt));
    let row = row.ok_or_else(|| unknown(args, &rows))?;
    let attested = row.version.as_ref().and_then(|version| history.attested.get(version));
    let final_size = Sizes::of(&source, &history)?.final_size;
    let refused = history.refused.get(&row.key()).map_or(&[][..], Vec::as_slice);
    let evaluations = row.version.iter().flat_map(|version| history.state().evaluations(version)).collect();
    let skipped_rows = skipped(history.state(), &row.key());
    let is_final = attested.is_some_and(|index| *index < final_size);
    let view = View { row, skipped_rows, refused, is_final, evaluations };
    context.output.object(ROUND_SCHEMA, &view, || text(context, &view, &Short::of(history.state())))?;
    match &row.reason {
        None => Ok(()),
        Some(reason) => Err(given_up(row, reason)),
    }
}

/// What each member skipped that contributed; nothing of those that skipped nothing.
fn skipped<'a>(state: &'a Federation, key: &RoundKey) -> BTreeMap<&'a MemberId, &'a SkippedRows> {
    let contributed = state.participations(key).filter_map(|(member, participation)| match participation {
        Participation::Contributed { contribution, .. } => Some((member, &contribution.skipped_rows)),
        Participation::Joined { .. } | Participation::Declined { .. } | Participation::Revoked { .. } => None,
    });
    contributed.filter(|(_, skipped)| !skipped.is_empty()).collect()
}

/// What to tell of a round, or of an attempt at it, that is not among these.
fn unknown(args: &ShowArgs, rows: &[RoundRow]) -> Failure {
    let round = args.round;
    let what = match args.attempt {
        Some(attempt) if !rows.is_empty() => {
            let attempts: Vec<String> =
                rows.iter().map(|row| format!("{} of {}", row.attempt, row.plan_name)).collect();
            format!("there is no attempt {attempt} at round {round}; there are {}", attempts.join(", "))
        }
        _ => format!("there is no such round {round}"),
    };
    Failure::new(Exit::Failed, what).next("`fedledger round list` shows the rounds that there are")
}

/// What to tell of an attempt that was given up.
fn given_up(row: &RoundRow, reason: &str) -> Failure {
    let what = format!("attempt {} at round {} of {} was given up", row.attempt, row.round, row.plan_name);
    let why = match row.certificate.quorum.check() {
        Err(rejection) if reason == "below_quorum" => format!("{reason}: {rejection}"),
        _ => explained(reason),
    };
    let next = "`fedledger round list` shows the other attempts, `fedledger status` what the plan waits for";
    Failure::because(exit_of(reason), what, why).next(next)
}

fn text(context: &Context, view: &View<'_>, short: &Short) -> String {
    let View { row, skipped_rows: skipped, refused, is_final, evaluations } = view;
    let times = row.times.as_ref();
    let time = |time_ms: Option<u64>| time_ms.map_or_else(String::new, |time_ms| format!(", {}", utc(time_ms / 1000)));
    let mut lines = vec![
        format!("plan         {} {}", row.plan_name, short.plan(&row.plan)),
        format!("round        {}, attempt {}", row.round, row.attempt),
        format!("phase        {}{}", row.phase, if *is_final { ", final" } else { "" }),
        format!("base         {} {}", short.number(&row.base), short.version(&row.base)),
    ];
    if let Some(version) = &row.version {
        lines.push(format!("version      {} {}", short.number(version), short.version(version)));
    }
    let certificate = &row.certificate;
    let opened = time(times.and_then(|times| times.opened_ms));
    lines.push(format!("opened       entry {}{opened}, for {} ms", certificate.opened_index, row.duration_ms));
    if let Some(index) = certificate.ended_index {
        let ended = time(times.and_then(|times| times.ended_ms));
        let (what, why) = match &row.reason {
            Some(reason) => ("abandoned", format!(": {}", explained(reason))),
            None => ("closed   ", String::new()),
        };
        lines.push(format!("{what}    entry {index}{ended}{why}"));
    }
    if let Some(index) = row.completed_index {
        lines.push(format!("completed    entry {index}{}", time(times.and_then(|times| times.completed_ms))));
    }
    lines.push(format!("quorum       {}", quorum(certificate)));
    lines.push(format!("enrolled     {}", list(&certificate.enrolled)));
    lines.push(String::new());
    lines.push(context.output.table(&members(certificate, times)).trim_end().to_owned());
    for (member, rows) in skipped {
        lines.push(format!("skipped      rows of {member}: {}", skipped_rows(rows)));
    }
    for RefusedContribution { member, index, code, reason } in *refused {
        lines.push(format!("refused      {member} (entry {index}): {code}: {reason}"));
    }
    if refused.len() == REFUSED_PER_ROUND_MAX {
        lines.push("refused      perhaps more: `fedledger events` shows all".to_owned());
    }
    lines.extend(evaluations::lines(evaluations));
    if let Some(groups) = evaluations::groups(evaluations) {
        lines.extend([String::new(), context.output.table(&groups).trim_end().to_owned()]);
    }
    lines.join("\n")
}

fn quorum(certificate: &Certificate) -> String {
    let quorum = &certificate.quorum;
    let mut text = format!("{} contributions, {} needed", quorum.contributed, quorum.needed);
    if let Some(share) = &quorum.example_share {
        let (found, all, needed) = (share.contributed, share.selected, &share.needed);
        text += &format!("; {found} of {all} examples, a share of {needed} needed");
    }
    if !quorum.required_missing.is_empty() {
        text += &format!("; required and missing: {}", list(&quorum.required_missing));
    }
    text
}

/// What became of everyone selected, and when.
fn members(certificate: &Certificate, times: Option<&Times>) -> Table {
    let mut table = Table::new(&["member", "outcome", "reason", "joined", "settled"]);
    for member in &certificate.selected {
        let (outcome, reason) = if let Some(reason) = certificate.declined.get(member) {
            ("declined", reason.clone())
        } else if let Some(reason) = certificate.excluded.get(member) {
            ("excluded", explained(reason))
        } else if let Some(reason) = certificate.missing.get(member) {
            ("missing", explained(reason))
        } else {
            ("contributed", "-".to_owned())
        };
        let steps = certificate.steps.get(member).copied().unwrap_or_default();
        let at = times.and_then(|times| times.steps.get(member)).copied().unwrap_or_default();
        table.row(vec![
            member.clone(),
            outcome.to_owned(),
            reason,
            moment(steps.joined, at.joined),
            moment(settled(&steps), settled(&at)),
        ]);
    }
    table
}

/// The step after which nothing more came of a member.
fn settled(steps: &Steps) -> Option<u64> {
    steps.revoked.or(steps.declined).or(steps.contributed)
}

fn moment(index: Option<u64>, time_ms: Option<u64>) -> String {
    match (index, time_ms) {
        (Some(index), Some(time_ms)) => format!("entry {index}, {}", utc(time_ms / 1000)),
        (Some(index), None) => format!("entry {index}"),
        (None, _) => "-".to_owned(),
    }
}
