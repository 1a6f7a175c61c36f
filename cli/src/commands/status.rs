//! `fedledger status`: where replicas, log and rounds stand.

mod waiting;

use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use clap::Args;
use fedledger_federation::{
    Federation, VersionId,
    history::{History, Keep},
    progress::{Observed, PlanProgress, progress},
    records::PlanStatus,
};
use fedledger_ledger::Digest;
use fedledger_proto::api::{ApiClient, NodeStatus, RaftRole, SealStatus};
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    context::Context,
    error::Failure,
    finality::Sizes,
    follow::Follower,
    names::Short,
    output::{Table, list},
    reasons::explained,
    retention::RetentionView,
    rounds::RoundRow,
    source::Source,
    utc::utc,
};

/// The form of the status as JSON.
const STATUS_SCHEMA: &str = "fedledger.status/1";

/// How often a watched replica is asked when no entry comes.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Clears a terminal and moves to its first line (ECMA-48).
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Arguments of `fedledger status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Go on until interrupted; as JSON, one object per line
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Serialize)]
struct View {
    schema: &'static str,
    /// Whether a running replica says so; else it is read from files.
    live: bool,
    consortium: String,
    chain: Digest,
    /// The replica that was asked.
    node: Option<String>,
    software: Option<String>,
    leader: Option<String>,
    term: Option<u64>,
    log: LogView,
    replicas: Vec<ReplicaView>,
    branches: Vec<BranchView>,
    retention: RetentionView,
    plans: Vec<PlanView>,
}

#[derive(Debug, Serialize)]
struct LogView {
    size: u64,
    root: Digest,
    #[serde(rename = "final")]
    final_size: u64,
    /// Entries that every replica has co-signed.
    unanimous: u64,
    finality_threshold: u64,
    /// Number of the epoch in force.
    epoch: u64,
    /// The last seal, final or not.
    seal: Option<SealStatus>,
    /// Trusted time of the final head, in seconds since the Unix epoch.
    trusted_time_s: Option<u64>,
    committed_index: Option<u64>,
    applied_index: Option<u64>,
    last_index: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ReplicaView {
    node: String,
    /// `leader`, `follower` or `candidate`; of other replicas only known whether they lead.
    role: Option<&'static str>,
    connected: bool,
    matched_index: Option<u64>,
    /// Raft entries that it lacks, as far as the replica that was asked knows.
    lag: Option<u64>,
    /// Size of the last head that it has co-signed.
    cosigned_size: Option<u64>,
    /// Entries of the log that it has not co-signed.
    cosigned_lag: Option<u64>,
}

#[derive(Debug, Serialize)]
struct BranchView {
    branch: String,
    version: VersionId,
    number: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PlanView {
    plan: Digest,
    name: String,
    branch: String,
    status: PlanStatus,
    /// Why, if somebody has said so.
    status_reason: Option<String>,
    rounds: u64,
    next_round: u64,
    consents: u64,
    /// The round in progress.
    round: Option<RoundRow>,
    /// What a plan that is carried out waits for, of whom, for how long, and whether it is stuck.
    progress: Option<PlanProgress>,
}

/// Shows where everything stands.
pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<(), Failure> {
    if args.watch {
        return watch(context);
    }
    let (source, history) = context.history(Keep::State)?;
    let view = match &source {
        Source::Replica(replica) => View::live(history.state(), &replica.status()?),
        Source::Node(_) | Source::Bundle(_) | Source::Tiles(_) => {
            View::offline(&history, Sizes::of(&source, &history)?)
        }
    };
    if context.output.is_json() {
        return context.output.json_value(&view);
    }
    context.output.text(&view.text(context, history.state()))
}

fn watch(context: &Context) -> Result<(), Failure> {
    let (client, _) = context.client()?;
    let mut follower = context.block_on(Follower::current(&client))?;
    let clear = if stdout().is_terminal() { CLEAR } else { "" };
    loop {
        let status = context.block_on(client.status())?;
        let view = View::live(follower.state(), &status);
        context.output.line(&view, || format!("{clear}{}", view.text(context, follower.state())))?;
        context.block_on(change(&mut follower, &client))?;
    }
}

/// Waits for the next entry, and takes those that are there already with it; but at most for a while.
async fn change(follower: &mut Follower, client: &ApiClient) -> Result<(), Failure> {
    if let Ok(entry) = timeout(WATCH_PERIOD, follower.next()).await {
        let mut index = entry?.index;
        let size = client.status().await?.log_size;
        while index + 1 < size {
            index = follower.next().await?.index;
        }
    }
    Ok(())
}

impl View {
    fn live(state: &Federation, status: &NodeStatus) -> Self {
        let own = ReplicaView {
            node: status.node.clone(),
            role: Some(match status.role {
                RaftRole::Leader => "leader",
                RaftRole::Follower => "follower",
                RaftRole::PreCandidate | RaftRole::Candidate => "candidate",
            }),
            connected: true,
            matched_index: Some(status.last_index),
            lag: None,
            cosigned_size: Some(status.cosigned_size),
            cosigned_lag: Some(status.log_size.saturating_sub(status.cosigned_size)),
        };
        let others = status.peers.iter().map(|peer| ReplicaView {
            node: peer.node.clone(),
            role: status.leader.as_ref().map(|leader| if *leader == peer.node { "leader" } else { "follower" }),
            connected: peer.connected,
            matched_index: peer.matched_index,
            lag: peer.matched_index.map(|matched| status.last_index.saturating_sub(matched)),
            cosigned_size: peer.cosigned_size,
            cosigned_lag: peer.cosigned_size.map(|size| status.log_size.saturating_sub(size)),
        });
        let mut replicas: Vec<ReplicaView> = std::iter::once(own).chain(others).collect();
        replicas.sort_by(|a, b| a.node.cmp(&b.node));
        Self {
            schema: STATUS_SCHEMA,
            live: true,
            consortium: status.consortium.clone(),
            chain: status.chain,
            node: Some(status.node.clone()),
            software: Some(status.software.clone()),
            leader: status.leader.clone(),
            term: Some(status.term),
            log: LogView {
                size: status.log_size,
                root: status.root,
                final_size: status.final_size,
                unanimous: status.unanimous_size,
                finality_threshold: status.finality_threshold,
                epoch: status.epoch,
                seal: status.seal,
                trusted_time_s: status.trusted_time_s,
                committed_index: Some(status.committed_index),
                applied_index: Some(status.applied_index),
                last_index: Some(status.last_index),
            },
            replicas,
            branches: branches(state),
            retention: RetentionView::of(state),
            plans: plans(state, &status.progress),
        }
    }

    fn offline(history: &History, sizes: Sizes) -> Self {
        let state = history.state();
        let sealed = history.log.sealed();
        let seal = SealStatus { number: sealed.number, index: sealed.index, time_ms: sealed.time_ms };
        Self {
            schema: STATUS_SCHEMA,
            live: false,
            consortium: state.consortium().consortium.clone(),
            chain: *history.log.chain(),
            node: None,
            software: None,
            leader: None,
            term: None,
            log: LogView {
                size: history.log.size(),
                root: history.log.root(),
                final_size: sizes.final_size,
                unanimous: sizes.unanimous_size,
                finality_threshold: sealed.epoch.threshold,
                epoch: sealed.epoch.number,
                seal: (sealed.number > 0).then_some(seal),
                trusted_time_s: sizes.time_s,
                committed_index: None,
                applied_index: None,
                last_index: None,
            },
            replicas: Vec::new(),
            branches: branches(state),
            retention: RetentionView::of(state),
            plans: plans(state, &progress(state, &Observed::default())),
        }
    }

    fn text(&self, context: &Context, state: &Federation) -> String {
        let short = Short::of(state);
        let mut lines = vec![format!("consortium {} (chain {})", self.consortium, self.chain)];
        match (&self.node, &self.leader, self.term) {
            (Some(node), leader, Some(term)) => {
                let leader = leader.as_deref().unwrap_or("nobody: no majority of the replicas can be reached");
                lines.push(format!("asked {node}; term {term} is led by {leader}"));
            }
            _ => lines.push("read from files; no replica was asked".to_owned()),
        }
        lines.extend(self.log.lines());
        if !self.replicas.is_empty() {
            lines.push(String::new());
            lines.push(context.output.table(&self.replica_table()));
        }
        for branch in &self.branches {
            lines.push(format!("branch {} is at {}", branch.branch, short.number(&branch.version)));
        }
        lines.extend(self.retention.line());
        for plan in &self.plans {
            lines.push(plan.text(context, &short));
        }
        lines.join("\n")
    }

    fn replica_table(&self) -> Table {
        let known = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let headings = ["replica", "role", "connected", "matched", "lag", "co-signed", "not co-signed"];
        let mut table = Table::new(&headings);
        for replica in &self.replicas {
            table.row(vec![
                replica.node.clone(),
                replica.role.unwrap_or("-").to_owned(),
                if replica.connected { "yes" } else { "NO" }.to_owned(),
                known(replica.matched_index),
                known(replica.lag),
                known(replica.cosigned_size),
                known(replica.cosigned_lag),
            ]);
        }
        table
    }
}

impl LogView {
    fn lines(&self) -> Vec<String> {
        let finality = format!("{} final, {} unanimous", self.final_size, self.unanimous);
        let mut lines = vec![format!("log of {} entries, {finality}, root {}", self.size, self.root)];
        if let Some(seal) = &self.seal {
            let epoch =
                format!("epoch {}, in which {} co-signatures make it final", self.epoch, self.finality_threshold);
            lines.push(format!("last seal {} (entry {}), {epoch}", seal.number, seal.index));
        }
        lines.extend(self.trusted_time_s.map(|time_s| format!("trusted time of the final head {}", utc(time_s))));
        lines
    }
}

impl PlanView {
    fn text(&self, context: &Context, short: &Short) -> String {
        let done = self.next_round.saturating_sub(1);
        // What a paused plan waits for says why.
        let reason = self.status_reason.as_ref().filter(|_| self.status != PlanStatus::Paused);
        let why = reason.map_or_else(String::new, |reason| format!(" ({})", explained(reason)));
        let (name, plan, status, rounds) = (&self.name, short.plan(&self.plan), self.status.name(), self.rounds);
        let mut text = format!("plan {name} {plan} is {status}{why}: {done} of {rounds} rounds done");
        if let Some(round) = &self.round {
            text += &format!(
                "\n  round {}, attempt {}, from {}: {}; contributed {}, declined {}, missing {}",
                round.round,
                round.attempt,
                short.number(&round.base),
                round.phase,
                list(&round.certificate.contributed),
                list(round.certificate.declined.keys()),
                list(round.certificate.missing.keys()),
            );
        }
        if let Some(progress) = &self.progress {
            text += &waiting::text(context, progress);
        }
        text
    }
}

fn branches(state: &Federation) -> Vec<BranchView> {
    let branches = state.branches().iter();
    branches
        .map(|(branch, version)| BranchView {
            branch: branch.clone(),
            version: *version,
            number: state.versions().get(version).and_then(|record| record.number()),
        })
        .collect()
}

fn plans(state: &Federation, progress: &[PlanProgress]) -> Vec<PlanView> {
    let mut plans: Vec<(u64, PlanView)> = state
        .plans()
        .iter()
        .map(|(id, record)| {
            let open = record.open.as_ref();
            let round = open.and_then(|key| RoundRow::of(state, key, state.rounds().get(key)?));
            let view = PlanView {
                plan: *id,
                name: record.plan.name.clone(),
                branch: record.plan.branch.clone(),
                status: record.status,
                status_reason: record.status_reason.clone(),
                rounds: record.plan.rounds,
                next_round: record.next_round,
                consents: record.consents.len() as u64,
                round,
                progress: progress.iter().find(|progress| progress.plan == *id).cloned(),
            };
            (record.proposed_index, view)
        })
        .collect();
    plans.sort_by_key(|(index, _)| *index);
    plans.into_iter().map(|(_, view)| view).collect()
}
